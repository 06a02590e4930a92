"""One transaction on remote sessions: rows in, journal entries and timers out."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound
from contactd.store.remotecodes import CODE_DIGITS, Try, code_of, digits, hash_of
from contactd.store.remoterows import ADD_CONSENT, HAS_CODE, first, one
from contactd.store.schema import remote_keys, remote_legs, remote_sessions
from contactd.store.unit_of_work import SqlUnitOfWork
from contactd.tickets import model
from contactd.tickets.events import Due, RemoteDue, TicketDue
from contactd.tickets.model import Ticket
from contactd.tickets.remote import Action, Ending, Purpose, next_state
from contactd.tickets.sharing import Consent, Session
from contactd.tickets.states import OPEN


class RemoteWork:
    """What the use cases of `store.remote` are made of; nothing is stored before `commit`."""

    def __init__(self, work: SqlUnitOfWork, clock: Clock) -> None:
        self.connection = work.connection
        self._work = work
        self._clock = clock

    async def commit(self) -> None:
        await self._work.commit()

    async def held(self, session_id: int) -> Session:
        """Return a session that nobody else changes before the commit.

        Raises:
            NotFound: there is none.
        """
        found = await one(self.connection, session_id)
        if found is None:
            raise NotFound("there is no such remote session")
        return found

    async def ticket(self, ticket: int | str) -> Ticket:
        found = await self._work.tickets.find(ticket)
        if found is None:
            raise NotFound("there is no such ticket")
        return found

    async def open_ticket(self, ticket: int | str) -> Ticket:
        """Return a ticket that is not over.

        Raises:
            NotFound: there is none.
            ActionNotAllowed: it is over.
        """
        found = await self.ticket(ticket)
        if found.state not in OPEN:
            raise ActionNotAllowed(f"cannot help remotely with a ticket that is {found.state}")
        return found

    async def ask(self, ticket_id: int, actor: str) -> None:
        """Begin the promise of remote help, unless it runs (C2)."""
        ticket = await self.ticket(ticket_id)
        entries = await self._work.tickets.journal(ticket)
        now = self._clock.now()
        await self._apply(model.ask_remote(ticket, entries, actor=actor, now=now))

    async def note(self, ticket_id: int, action: str, actor: str, body: dict[str, Any]) -> None:
        # Several entries of one transaction follow each other: read where the chain ends now.
        ticket, now = await self.ticket(ticket_id), self._clock.now()
        await self._apply(model.note(ticket, action, actor=actor, body=body, now=now))

    async def _apply(self, decision: model.Decision) -> None:
        ticket, entries = model.sealed(decision.ticket, decision.entries)
        if entries:
            await self._work.tickets.save([ticket])
            await self._work.tickets.append([(ticket.id, entry) for entry in entries])
            self._work.emit(TicketDue(ticket_id=ticket.id))

    async def move(self, session: Session, action: Action, **values: Any) -> None:
        """Take a session on, and set columns of it.

        Raises:
            ActionNotAllowed: the table has no such transition.
        """
        state = next_state(session.state, action)
        if state is not session.state:
            values |= {"state": state.value, "since": self._clock.now()}
        if values:
            await self.set(session.id, **values)

    async def end_legs(
        self, session: Session, ending: Ending, purpose: Purpose | None = None
    ) -> None:
        """End what is open; `close_leg` settles each of them later."""
        for leg in session.open_legs:
            if purpose in (None, leg.purpose):
                values = {"ended_at": self._clock.now(), "ending": ending.value}
                await self.set_leg(session.id, leg.number, **values)

    async def keep_consent(self, session: Session, said: Consent) -> int:
        """Keep what the user said; return its id."""
        row = {
            "session_id": session.id, "at": self._clock.now(), "kind": said.kind.value,
            "yes": said.yes, "user_name": said.user[:80], "engineer": said.engineer[:120],
            "purpose": said.purpose.value, "mode": session.mode.value if session.mode else "",
            "rights": sorted(said.rights), "language": said.language[:8],
            "version": said.version[:20], "text_hash": said.text_hash[:64],
        }  # fmt: skip
        return int((await self.connection.execute(ADD_CONSENT, row)).scalar_one())

    async def set(self, session_id: int, **values: Any) -> None:
        changed = update(remote_sessions).where(remote_sessions.c.id == session_id)
        await self.connection.execute(changed.values(**values))

    async def set_leg(self, session_id: int, number: int, **values: Any) -> None:
        changed = update(remote_legs).where(
            remote_legs.c.session_id == session_id, remote_legs.c.number == number
        )
        await self.connection.execute(changed.values(**values))

    async def drop_keys(self, which: ColumnElement[bool]) -> None:
        await self.connection.execute(delete(remote_keys).where(which))

    def arm(self, session_id: int, at: datetime) -> None:
        """Have a session looked at when a limit of time is reached."""
        self._work.emit(Due(event=RemoteDue(session_id=session_id), due_at=at))

    async def new_code(self, key: bytes) -> tuple[str, bytes]:
        """Return a code that opens nothing else, and its hash."""
        while True:
            code = digits(CODE_DIGITS)
            hashed = hash_of(key, "code", code)
            if (await self.connection.execute(HAS_CODE, {"hash": hashed})).first() is None:
                return code, hashed


async def opened(  # noqa: PLR0913 - who shows what for which door
    connection: AsyncConnection, now: datetime, query: Any, key: bytes, code: str, by: str
) -> Session | None:
    """Return what a code opens; what opens nothing is counted, as is what comes when locked."""
    attempt = Try(connection, key, now)
    may = await attempt.may(by)
    asked = {"hash": hash_of(key, "code", code_of(code)), "now": now}
    session = await first(connection, query, asked)
    await attempt.tidy()
    if session is None or not may:
        return None
    await attempt.was_right()
    return session
