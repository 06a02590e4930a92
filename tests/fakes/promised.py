"""What was promised of a ticket, as `routing` stores it: where no ticket is followed up."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select

from contactd.routing.clocks import Metric, State
from contactd.store.engine import Database
from contactd.store.schema import clocks, tickets

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)  # that of the fake clock


async def promise(
    database: Database,
    ticket: str,
    metric: Metric,
    due_at: datetime | None,
    *,
    state: State = State.RUNNING,
    breached_at: datetime | None = None,
) -> None:
    """Store a clock of half an hour in place of the one of this metric that the ticket has."""
    row: dict[str, Any] = {
        "metric": metric.value, "entry": 1, "state": state.value, "goal_s": 1800,
        "started_at": START,
        "due_at": due_at, "provisional": False, "stopped_at": None, "breached_at": breached_at,
        "segments": [],
    }  # fmt: skip
    async with database.writing() as connection:
        found = await connection.execute(select(tickets.c.id).where(tickets.c.number == ticket))
        row["ticket_id"] = found.scalar_one()
        known = clocks.c.ticket_id == row["ticket_id"]
        await connection.execute(delete(clocks).where(known, clocks.c.metric == row["metric"]))
        await connection.execute(insert(clocks), row)
