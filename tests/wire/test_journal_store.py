"""The database itself refuses to change the journal, whoever asks."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from contactd.store.engine import Database
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.service import TicketService


@pytest.fixture
async def _one_entry(tickets: TicketService) -> None:
    received_at = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
    await tickets.receive(
        Contact(medium=Medium.CALL, external_id="pbx1-1.1", received_at=received_at)
    )


EVERYWHERE = [
    "UPDATE journal SET actor = 'mallory'",
    "UPDATE journal SET hash = hash",
    "DELETE FROM journal",
    "DELETE FROM journal WHERE seq = 1",
    "INSERT INTO journal SELECT * FROM journal WHERE seq = 1"
    " ON CONFLICT (ticket_id, seq) DO UPDATE SET actor = 'mallory'",
]
ONLY = {
    "sqlite": [
        "INSERT OR REPLACE INTO journal SELECT * FROM journal",
        "REPLACE INTO journal SELECT * FROM journal",
        "UPDATE OR REPLACE journal SET actor = 'mallory'",
        "DELETE FROM tickets",
    ],
    "postgresql": ["TRUNCATE journal", "TRUNCATE tickets CASCADE", "DELETE FROM tickets"],
}


@pytest.mark.usefixtures("_one_entry")
async def test_the_journal_only_grows(database: Database) -> None:
    for statement in EVERYWHERE + ONLY[database.dialect]:
        with pytest.raises(IntegrityError):  # a bug of ours, not a Conflict to be tried again
            async with database.writing() as connection:
                await connection.execute(text(statement))
        async with database.reading() as connection:
            kept = (await connection.execute(text("SELECT seq, actor FROM journal"))).all()
            assert [tuple(row) for row in kept] == [(1, "requester")], statement
