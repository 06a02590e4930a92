"""Swaps and leave that engineers ask for, until they are entries of the desk file or are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import RowMapping, bindparam, insert, or_, select, update

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound
from contactd.store.acts import note_act
from contactd.store.engine import Database
from contactd.store.schema import duty_requests


class RequestKind(StrEnum):
    SWAP = "swap"
    LEAVE = "leave"


class RequestState(StrEnum):
    ASKED = "asked"  # the colleague has to say yes
    WAITING = "waiting"  # it makes a hole: somebody who plans has to say yes
    AGREED = "agreed"  # it is in the rota
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


OPEN: Final = frozenset({RequestState.ASKED, RequestState.WAITING})
# What may become of a request, and from which states.
STEPS: Final[Mapping[RequestState, frozenset[RequestState]]] = {
    RequestState.WAITING: frozenset({RequestState.ASKED}),
    RequestState.AGREED: OPEN,
    RequestState.REFUSED: OPEN,
    RequestState.WITHDRAWN: OPEN | {RequestState.AGREED},
}

_ADD: Final = insert(duty_requests).returning(duty_requests.c.id)
_ONE: Final = select(duty_requests).where(duty_requests.c.id == bindparam("request"))
_OF: Final = (
    select(duty_requests)
    .where(
        or_(
            duty_requests.c.engineer == bindparam("key"),
            duty_requests.c.other == bindparam("key"),
        ),
        duty_requests.c.until > bindparam("after", type_=duty_requests.c.until.type),
    )
    .order_by(duty_requests.c.since, duty_requests.c.id)
    .limit(100)
)
_WAITING: Final = (
    select(duty_requests)
    .where(
        duty_requests.c.state == RequestState.WAITING.value,
        duty_requests.c.until > bindparam("after", type_=duty_requests.c.until.type),
    )
    .order_by(duty_requests.c.since, duty_requests.c.id)
    .limit(100)
)
_STEP: Final = (
    update(duty_requests)
    .where(
        duty_requests.c.id == bindparam("request"),
        duty_requests.c.state.in_(bindparam("before", expanding=True)),
    )
    .values(
        state=bindparam("new_state"),
        answer=bindparam("new_answer"),
        changed_at=bindparam("now", type_=duty_requests.c.changed_at.type),
        changed_by=bindparam("actor"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyRequest:
    """`entry` is what the desk file will have, with times as ISO 8601 has them."""

    id: int
    kind: RequestKind
    engineer: str
    other: str
    state: RequestState
    entry: Mapping[str, Any]
    since: datetime
    until: datetime
    note: str
    answer: str
    asked_at: datetime
    changed_at: datetime
    changed_by: str

    @property
    def key(self) -> str:
        """Return the key of its entry in the desk file."""
        return f"{self.kind}-{self.id}"


class DutyRequests:
    """Reads and adds requests, and takes them on; each step is an act."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def ask(  # noqa: PLR0913 - what a request says
        self,
        kind: RequestKind,
        *,
        engineer: str,
        actor: str,
        entry: Mapping[str, Any],
        since: datetime,
        until: datetime,
        other: str = "",
        note: str = "",
        state: RequestState = RequestState.ASKED,
    ) -> DutyRequest:
        """Keep what an engineer asks for.

        Raises:
            TemporaryFailure: nothing was stored.
        """
        now = self._clock.now()
        row = {
            "kind": kind, "engineer": engineer, "other": other, "state": state,
            "entry": dict(entry), "since": since, "until": until, "note": note,
            "asked_at": now, "changed_at": now, "changed_by": actor,
        }  # fmt: skip
        async with self._database.writing() as connection:
            number = int((await connection.execute(_ADD, row)).scalar_one())
            await note_act(
                connection, self._clock, actor=actor, action=f"duty.{kind}_asked",
                subject=f"{kind}-{number}", body={"engineer": engineer, "other": other},
            )  # fmt: skip
        return await self.one(number)

    async def one(self, number: int) -> DutyRequest:
        """Return a request.

        Raises:
            NotFound: there is none of this number.
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            row = (await connection.execute(_ONE, {"request": number})).mappings().first()
        if row is None:
            raise NotFound("there is no such request")
        return _request(row)

    async def of(self, engineer: str, after: datetime) -> list[DutyRequest]:
        """Return what somebody asked for or is asked for and has not ended by `after`.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            rows = await connection.execute(_OF, {"key": engineer, "after": after})
            return [_request(row) for row in rows.mappings()]

    async def waiting(self, after: datetime) -> list[DutyRequest]:
        """Return what somebody who plans has to decide.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            rows = await connection.execute(_WAITING, {"after": after})
            return [_request(row) for row in rows.mappings()]

    async def step(
        self, request: DutyRequest, state: RequestState, *, actor: str, answer: str = ""
    ) -> None:
        """Take a request on.

        Raises:
            ActionNotAllowed: somebody else was faster.
            TemporaryFailure: nothing was stored.
        """
        values = {
            "request": request.id, "before": sorted(STEPS[state]), "new_state": state,
            "new_answer": answer, "now": self._clock.now(), "actor": actor,
        }  # fmt: skip
        async with self._database.writing() as connection:
            if (await connection.execute(_STEP, values)).rowcount != 1:
                raise ActionNotAllowed("this request has been decided already")
            await note_act(
                connection, self._clock, actor=actor, action=f"duty.{request.kind}_{state}",
                subject=request.key, body={"engineer": request.engineer, "other": request.other},
            )  # fmt: skip


def _request(row: RowMapping) -> DutyRequest:
    return DutyRequest(
        **{name: row[name] for name in row if name not in ("kind", "state")},
        kind=RequestKind(row["kind"]),
        state=RequestState(row["state"]),
    )
