"""Access: sites and second factors of users, expiry of tokens, lock-outs, a journal of acts."""

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TRIGGERS: Final[Mapping[str, Sequence[str]]] = {
    "sqlite": [
        """CREATE TRIGGER acts_refuses_update BEFORE UPDATE ON acts
        BEGIN SELECT RAISE(ABORT, 'acts are only added'); END""",
        """CREATE TRIGGER acts_refuses_delete BEFORE DELETE ON acts
        BEGIN SELECT RAISE(ABORT, 'acts are only added'); END""",
    ],
    "postgresql": [
        """CREATE FUNCTION acts_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'acts are only added'; END $$""",
        """CREATE TRIGGER acts_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON acts
        FOR EACH STATEMENT EXECUTE FUNCTION acts_only_grow()""",
    ],
}


def upgrade() -> None:
    op.add_column("users", sa.Column("sites", sa.JSON(), server_default="[]", nullable=False))
    op.add_column(
        "users", sa.Column("engineer", sa.String(length=32), server_default="", nullable=False)
    )
    op.add_column("users", sa.Column("subject", sa.String(length=255)))
    op.create_index("uq_users_subject", "users", ["subject"], unique=True)
    op.add_column("users", sa.Column("totp_key", sa.LargeBinary(length=32)))
    op.add_column(
        "users", sa.Column("totp_step", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column("users", sa.Column("disabled_at", INSTANT))
    op.add_column("sessions", sa.Column("created_at", INSTANT))
    op.add_column(
        "sessions", sa.Column("agent", sa.String(length=200), server_default="", nullable=False)
    )
    op.add_column("tokens", sa.Column("expires_at", INSTANT))
    op.add_column("tokens", sa.Column("sites", sa.JSON(), server_default="[]", nullable=False))
    op.create_table(
        "attempts",
        sa.Column("key", sa.String(length=48), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("until", INSTANT),
        sa.PrimaryKeyConstraint("key", name="pk_attempts"),
    )
    op.create_index("ix_attempts_at", "attempts", ["at"])
    op.create_table(
        "acts",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=120), server_default="", nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acts"),
    )
    op.create_index("ix_acts_at", "acts", ["at"])
    for statement in TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)
