"""Duty spans, clocks, escalations, dispatches, terms; every open ticket is looked at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")

_NOW = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')",
    "postgresql": "now()",
}
_STATES = {  # of a page, before and after
    "queued": "stopped",
    "sending": "doubtful",
    "sent": "sent",
    "taken": "taken",
    "passed": "passed",
    "failed": "failed",
}


def upgrade() -> None:
    _columns()
    _tables()
    _notifications()
    _timers()
    _rota()
    _look_at_open_tickets()


def _columns() -> None:
    for table, columns in {
        "sites": {"contract": 48, "calendar": 48},
        "tickets": {"category": 16, "system": 40, "team": 32},
    }.items():
        for name, length in columns.items():
            column = sa.Column(name, sa.String(length=length), server_default="", nullable=False)
            op.add_column(table, column)


def _tables() -> None:
    op.create_table(
        "spans",
        sa.Column("id", ID, nullable=False),
        sa.Column("site", sa.String(length=32), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("team", sa.String(length=32), server_default="", nullable=False),
        sa.Column("engineer", sa.String(length=32), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("why", sa.JSON(), nullable=False),
        sa.Column("instead_of", sa.String(length=32), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_spans"),
    )
    op.create_index("ix_spans_until", "spans", ["until"], unique=False)
    op.create_table(
        "feeds",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("url", sa.String(length=500), nullable=False),
        sa.Column("body", sa.Text(), server_default="", nullable=False),
        sa.Column("etag", sa.String(length=200), server_default="", nullable=False),
        sa.Column("absences", sa.JSON(), nullable=False),
        sa.Column("read_until", INSTANT, nullable=True),
        sa.Column("tried_at", INSTANT, nullable=False),
        sa.Column("good_at", INSTANT, nullable=True),
        sa.Column("error", sa.String(length=400), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_feeds"),
    )
    op.create_table(
        "terms",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", "version", name="pk_terms"),
    )
    op.create_table(
        "holidays",
        sa.Column("key", sa.String(length=8), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("confirmed_through", sa.String(length=10), nullable=False),
        sa.Column("imported_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_holidays"),
    )
    op.create_table(
        "clocks",
        sa.Column("ticket_id", ID, nullable=False),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("goal_s", sa.Integer(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("due_at", INSTANT, nullable=True),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.Column("stopped_at", INSTANT, nullable=True),
        sa.Column("breached_at", INSTANT, nullable=True),
        sa.Column("segments", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_clocks_ticket_id"),
        sa.PrimaryKeyConstraint("ticket_id", "metric", "entry", name="pk_clocks"),
    )
    op.create_index("ix_clocks_state_due_at", "clocks", ["state", "due_at"], unique=False)
    op.create_table(
        "escalations",
        sa.Column("ticket_id", ID, nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("site", sa.String(length=32), nullable=False),
        sa.Column("symptom", sa.String(length=120), server_default="", nullable=False),
        sa.Column("leader", sa.String(length=24), server_default="", nullable=False),
        sa.Column("seen_seq", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_escalations_ticket_id"),
        sa.PrimaryKeyConstraint("ticket_id", name="pk_escalations"),
    )
    op.create_index("ix_escalations_leader", "escalations", ["leader"], unique=False)
    op.create_index(
        "ix_escalations_phase_site", "escalations", ["phase", "site", "symptom"], unique=False
    )
    op.create_table(
        "dispatches",
        sa.Column("id", ID, nullable=False),
        sa.Column("ticket_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("engineer", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=8), nullable=False),
        sa.Column("wrong_codes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("is_proved", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_dispatches_ticket_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dispatches"),
        sa.UniqueConstraint("ticket_id", "number", name="uq_dispatches_ticket_id_number"),
    )
    op.create_index("ix_dispatches_ticket_id", "dispatches", ["ticket_id"], unique=False)


def _notifications() -> None:
    """Replace the table; pages of before stay as history."""
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT * FROM notifications")).mappings()
    old = [dict(row) for row in rows]
    op.drop_table("notifications")
    table = op.create_table(
        "notifications",
        sa.Column("id", ID, nullable=False),
        sa.Column("dedup_key", sa.String(length=120), nullable=False),
        sa.Column("ticket_id", ID, nullable=False),
        sa.Column("recipient", sa.String(length=32), nullable=False),
        sa.Column("medium", sa.String(length=8), nullable=False),
        sa.Column("address", sa.String(length=254), nullable=False),
        sa.Column("client_ref", sa.String(length=120), nullable=False),
        sa.Column("reason", sa.String(length=24), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("step", sa.Integer(), server_default="0", nullable=False),
        sa.Column("generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.String(length=200), server_default="", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_notifications_ticket_id"),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint("client_ref", name="uq_notifications_client_ref"),
        sa.UniqueConstraint("dedup_key", name="uq_notifications_dedup_key"),
    )
    op.create_index("ix_notifications_ticket_id", "notifications", ["ticket_id"], unique=False)
    if old:
        connection.execute(sa.insert(table), [_page(row) for row in old])


def _page(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("dedup_key", "ticket_id", "medium", "address", "client_ref", "step", "detail")
    return {
        **{name: row[name] for name in (*kept, "created_at", "updated_at")},
        "recipient": row["engineer"],
        "reason": "missed",
        "facts": {},
        "generation": 0,
        "state": _STATES[row["state"]],
    }


def _timers() -> None:
    """Index the outbox for a million timers: no statement of the relay reads them all."""
    op.drop_index("ix_outbox_due_at", table_name="outbox")
    for name, columns, rows in (
        ("ix_outbox_due_at", ["due_at", "id"], "parked_at IS NULL"),
        ("ix_outbox_attempts", ["attempts"], "attempts > 0"),
        ("ix_outbox_parked_at", ["parked_at"], "parked_at IS NOT NULL"),
    ):
        where = sa.text(rows)
        op.create_index(name, "outbox", columns, sqlite_where=where, postgresql_where=where)


def _rota() -> None:
    """Keep who is on duty: the rota of before in the words of today.

    Shifts belonged to a tier at a site; now they belong to a team, here one for each tier. Without
    stored spans duty is worked out for whoever asks, until contactd stores them at its start.
    """
    connection = op.get_bind()
    table = sa.table("rotas", sa.column("id", sa.Integer()), sa.column("body", sa.JSON()))
    for row in connection.execute(sa.select(table)).all():
        body = _plan(row.body)
        connection.execute(sa.update(table).where(table.c.id == row.id).values(body=body))


def _plan(old: Mapping[str, Any]) -> dict[str, Any]:
    shifts, overrides = old["shifts"], old["overrides"]
    tiers: dict[int, list[list[str]]] = {}
    for shift in shifts:
        tiers.setdefault(shift["tier"], []).append(_sites(shift))
    return {
        "sites": old["sites"],
        "engineers": [
            {**each, "text": each["number"] if each["number"].startswith("+861") else ""}
            for each in old["engineers"]
        ],
        "teams": [
            {"key": f"tier-{tier}", "tier": tier, "sites": _union(places)}
            for tier, places in sorted(tiers.items())
        ],
        "shifts": [
            {
                "key": key,
                "team": f"tier-{shift['tier']}",
                "sites": _sites(shift),
                "member": {"engineer": shift["engineer"]},
                **{name: shift[name] for name in ("weekdays", "start", "end")},
            }
            for key, shift in _keyed(shifts)
        ],
        "overrides": [
            {
                "key": key,
                "sites": _sites(override),
                **{
                    name: override[name]
                    for name in ("tier", "engineer", "start", "end", "replaces")
                },
            }
            for key, override in _keyed(overrides)
        ],
    }


def _sites(entry: Mapping[str, Any]) -> list[str]:
    return [] if entry["site"] == "*" else [entry["site"]]


def _union(places: list[list[str]]) -> list[str]:
    """Return the sites of all; one without any has all sites, and so they all have."""
    return list(dict.fromkeys(site for sites in places for site in sites)) if all(places) else []


def _keyed(entries: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    taken: dict[str, None] = {}  # in order
    for entry in entries:
        second = entry.get("replaces") or ("" if entry["site"] == "*" else entry["site"])
        wanted = f"{entry['engineer']}-{second}" if second else entry["engineer"]
        key, number = wanted, 1
        while key in taken:
            number += 1
            key = f"{wanted}-{number}"
        taken[key] = None
    return list(zip(taken, entries, strict=True))


def _look_at_open_tickets() -> None:
    """Timers of pages are of the past; each open ticket finds out by itself whom it needs."""
    connection = op.get_bind()
    now = _NOW[connection.dialect.name]
    connection.execute(sa.text("DELETE FROM outbox WHERE kind = 'PageDue'"))
    body = {
        "sqlite": "json_object('ticket_id', id)",
        "postgresql": "json_build_object('ticket_id', id)",
    }[connection.dialect.name]
    connection.execute(
        sa.text(
            "INSERT INTO outbox (kind, body, created_at, due_at, attempts, error)"  # noqa: S608
            f" SELECT 'TicketDue', {body}, {now}, {now}, 0, '' FROM tickets"
            " WHERE state IN ('new', 'in_progress', 'pending', 'resolved')"
        )
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup that was made before the upgrade")
