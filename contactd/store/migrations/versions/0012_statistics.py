"""An index of people by role; on SQLite, what its planner should believe of a large desk."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# As `ANALYZE` (analysis_limit 400) found them with 1,000,000 tickets: rows of the table, then rows
# for one value of the first column of the index, of the first two, … SQLite keeps no statistics
# unless told to; without any it takes each index for as good as the next, and goes through all
# closed tickets to see which of fifty are closed. Written down once, plans are the same on each
# desk and on each day (www.sqlite.org/lang_analyze.html, "fixed results").
BELIEVED: Final = (
    ("addresses", "ix_addresses_person_id", "90820 2"),
    ("clocks", "ix_clocks_breached_at", "91800 1"),
    ("clocks", "ix_clocks_state_due_at", "1701336 401 1"),
    ("clocks", "ix_clocks_stopped_at", "1501808 2"),
    ("clocks", "sqlite_autoindex_clocks_1", "2353176 2 1 1"),
    ("contacts", "ix_contacts_received_at", "1487640 1"),
    ("contacts", "ix_contacts_ticket_id", "2767644 2"),
    ("journal", "sqlite_autoindex_journal_1", "8602440 6 1"),
    ("people", "ix_people_role", "109896 401"),
    ("tickets", "ix_tickets_merged_into", "1043072 401"),
    ("tickets", "ix_tickets_opened_at", "507104 1"),
    ("tickets", "ix_tickets_requester_id", "1221220 11"),
    ("tickets", "ix_tickets_state_priority", "927360 401 267"),
    ("tickets", "ix_tickets_updated_at", "507104 1"),
    ("tickets", "sqlite_autoindex_tickets_1", "1095120 1"),
)


def upgrade() -> None:
    op.create_index("ix_people_role", "people", ["role"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ANALYZE")  # makes the table of statistics
        op.execute("DELETE FROM sqlite_stat1")
        statistics = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
        op.bulk_insert(
            statistics, [{"tbl": tbl, "idx": idx, "stat": stat} for tbl, idx, stat in BELIEVED]
        )
