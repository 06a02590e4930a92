"""Remote help: sessions, what users agreed to, who saw their screen, chat, files."""

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPEN = sa.text("state <> 'ended'")
ONLY_ADDED: Final = ("remote_consents", "remote_chat")
TRIGGERS: Final[Mapping[str, Sequence[str]]] = {
    "sqlite": [
        f"""CREATE TRIGGER {table}_refuses_{act} BEFORE {act.upper()} ON {table}
        BEGIN SELECT RAISE(ABORT, '{table} are only added'); END"""
        for table in ONLY_ADDED
        for act in ("update", "delete")
    ],
    "postgresql": [
        """CREATE FUNCTION remote_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'what users said is only added'; END $$""",
        *(
            f"""CREATE TRIGGER {table}_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE
            ON {table} FOR EACH STATEMENT EXECUTE FUNCTION remote_only_grows()"""
            for table in ONLY_ADDED
        ),
    ],
}


def _session() -> "sa.Column[int]":
    return sa.Column("session_id", ID, nullable=False)


def _of_session(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["session_id"], ["remote_sessions.id"], name=f"fk_{table}_session_id"
    )


def upgrade() -> None:
    op.create_table(
        "remote_sessions",
        sa.Column("id", ID, nullable=False),
        sa.Column("ref", sa.String(length=16), nullable=False),
        sa.Column("ticket_id", ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("mode", sa.String(length=12), server_default="", nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("medium", sa.String(length=8), server_default="", nullable=False),
        sa.Column("invited_by", sa.String(length=80), nullable=False),
        sa.Column("invited_at", INSTANT, nullable=False),
        sa.Column("code_hash", sa.LargeBinary(length=32)),
        sa.Column("code_until", INSTANT, nullable=False),
        sa.Column("claim_hash", sa.LargeBinary(length=32)),
        sa.Column("share_hash", sa.LargeBinary(length=32)),
        sa.Column("agreed_at", INSTANT),
        sa.Column("user_name", sa.String(length=80), server_default="", nullable=False),
        sa.Column("engineer", sa.String(length=120), server_default="", nullable=False),
        sa.Column("claimed_at", INSTANT),
        sa.Column("started_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.Column("ending", sa.String(length=12), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_remote_sessions_ticket_id"),
        sa.PrimaryKeyConstraint("id", name="pk_remote_sessions"),
        sa.UniqueConstraint("ref", name="uq_remote_sessions_ref"),
    )
    for column in ("ticket_id", "code_hash", "claim_hash", "share_hash"):
        op.create_index(f"ix_remote_sessions_{column}", "remote_sessions", [column])
    op.create_index(
        "ix_remote_sessions_open",
        "remote_sessions",
        ["id"],
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_table(
        "remote_keys",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        _session(),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        _of_session("remote_keys"),
        sa.PrimaryKeyConstraint("hash", name="pk_remote_keys"),
    )
    op.create_index("ix_remote_keys_session_id", "remote_keys", ["session_id"])
    op.create_index("ix_remote_keys_expires_at", "remote_keys", ["expires_at"])
    op.create_table(
        "remote_consents",
        sa.Column("id", ID, nullable=False),
        _session(),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("yes", sa.Boolean(), nullable=False),
        sa.Column("user_name", sa.String(length=80), server_default="", nullable=False),
        sa.Column("engineer", sa.String(length=120), server_default="", nullable=False),
        sa.Column("purpose", sa.String(length=8), server_default="", nullable=False),
        sa.Column("mode", sa.String(length=12), server_default="", nullable=False),
        sa.Column("rights", sa.JSON(), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("version", sa.String(length=20), nullable=False),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        _of_session("remote_consents"),
        sa.PrimaryKeyConstraint("id", name="pk_remote_consents"),
    )
    op.create_index("ix_remote_consents_session_id", "remote_consents", ["session_id"])
    op.create_table(
        "remote_legs",
        _session(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("user_name", sa.String(length=80), nullable=False),
        sa.Column("engineer", sa.String(length=120), nullable=False),
        sa.Column("purpose", sa.String(length=8), nullable=False),
        sa.Column("rights", sa.JSON(), nullable=False),
        sa.Column("consent_id", ID, nullable=False),
        sa.Column("opened_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT),
        sa.Column("ending", sa.String(length=12), server_default="", nullable=False),
        sa.Column("settled", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("keys", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("clicks", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("recording", sa.JSON()),
        sa.Column("note", sa.String(length=200), server_default="", nullable=False),
        _of_session("remote_legs"),
        sa.ForeignKeyConstraint(
            ["consent_id"], ["remote_consents.id"], name="fk_remote_legs_consent_id"
        ),
        sa.PrimaryKeyConstraint("session_id", "number", name="pk_remote_legs"),
    )
    op.create_table(
        "remote_chat",
        sa.Column("id", ID, nullable=False),
        _session(),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("who", sa.String(length=80), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        _of_session("remote_chat"),
        sa.PrimaryKeyConstraint("id", name="pk_remote_chat"),
    )
    op.create_index("ix_remote_chat_session_id", "remote_chat", ["session_id"])
    op.create_table(
        "remote_files",
        _session(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sender", sa.String(length=80), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("offered_at", INSTANT, nullable=False),
        sa.Column("answered_at", INSTANT),
        _of_session("remote_files"),
        sa.PrimaryKeyConstraint("session_id", "number", name="pk_remote_files"),
    )
    op.create_table(
        "remote_tries",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_remote_tries"),
    )
    op.create_index("ix_remote_tries_expires_at", "remote_tries", ["expires_at"])
    for statement in TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)
