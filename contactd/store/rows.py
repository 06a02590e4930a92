"""Writing many rows at once without asking SQLAlchemy anew about each value of each of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Dialect, Insert, Update
from sqlalchemy.ext.asyncio import AsyncConnection


class _Column(NamedTuple):
    name: str
    bound: Callable[[Any], Any] | None  # what its type makes of a value for the driver


class _Plan(NamedTuple):
    sql: str
    columns: Sequence[_Column]


class Rows:
    """An INSERT or UPDATE that returns nothing, for rows with the same keys.

    SQLAlchemy goes three times through the values of each row, and a text of a storm is a dozen
    rows. Here a plan is made once for each database and set of keys; a row is one pass over it.
    """

    def __init__(self, statement: Insert | Update) -> None:
        self._statement: Final = statement
        self._options: Final = dict(statement.get_execution_options())
        self._plans: dict[tuple[str, ...], _Plan] = {}

    async def execute(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `rows`, at least one."""
        plan = self._plan(connection.dialect, tuple(rows[0]))
        values = [
            tuple(
                [row[name] if bound is None else bound(row[name]) for name, bound in plan.columns]
            )
            for row in rows
        ]
        await connection.exec_driver_sql(plan.sql, values, execution_options=self._options)

    def _plan(self, dialect: Dialect, names: tuple[str, ...]) -> _Plan:
        key = (dialect.name, *names)
        plan = self._plans.get(key)
        if plan is None:
            compiled: Any = self._statement.compile(
                dialect=dialect, column_keys=names, for_executemany=True
            )
            columns = []
            for name in compiled.positiontup:
                kind = compiled.binds[name].type.dialect_impl(dialect)
                columns.append(_Column(name, kind.bind_processor(dialect)))
            plan = self._plans[key] = _Plan(compiled.string, columns)
        return plan
