"""`INSERT … ON CONFLICT DO UPDATE` for both databases, which write it alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Insert, Table
from sqlalchemy.dialects import postgresql, sqlite

from contactd.store.sqlite import SOON


def upsert(table: Table, key: Sequence[str], *, kept: Sequence[str] = ()) -> Mapping[str, Insert]:
    """Return, by dialect, a statement that inserts a row or replaces all of it.

    What stays of a row that is there is its `key` and the columns `kept`.
    """
    names = [column.name for column in table.c if column.name not in (*key, *kept)]
    on_sqlite, on_postgresql = sqlite.insert(table), postgresql.insert(table)

    def excluded(columns: Any) -> dict[str, Any]:
        return {name: columns[name] for name in names}

    return {
        "sqlite": on_sqlite.on_conflict_do_update(
            index_elements=key, set_=excluded(on_sqlite.excluded)
        ).execution_options(**SOON),
        "postgresql": on_postgresql.on_conflict_do_update(
            index_elements=key, set_=excluded(on_postgresql.excluded)
        ),
    }
