"""What pages and recordings leave behind: notifications, timers, attachments."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, and_, bindparam, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.repositories import call_facts
from contactd.store.schema import attachments, contacts, notifications, outbox, people, tickets
from contactd.tickets.contact import Blob, Contact, Medium, Outcome
from contactd.tickets.events import Due, PageDue
from contactd.tickets.paging import UNSETTLED, Page, PageState, Settled, Subject, next_step
from contactd.tickets.states import OPEN, State
from contactd.tickets.together import Together

_PAGE: Final = (
    select(notifications, tickets.c.number)
    .join(tickets, tickets.c.id == notifications.c.ticket_id)
    .where(notifications.c.client_ref == bindparam("ref"))
)
_assignee = people.alias("assignee")
_later = contacts.alias("later")
_SUBJECT: Final = (
    select(
        tickets.c.number,
        tickets.c.state,
        tickets.c.site,
        tickets.c.acknowledged_at,
        people.c.vip,
        _assignee.c.key.label("assignee"),
        contacts.c.external_id,
        contacts.c.received_at,
        contacts.c.call,
        exists()
        .where(
            notifications.c.contact_id == contacts.c.id,
            notifications.c.state == PageState.TAKEN.value,
        )
        .label("page_taken"),
        exists()
        .where(
            _later.c.ticket_id == tickets.c.id,
            _later.c.received_at > contacts.c.received_at,
            _later.c.outcome == Outcome.ANSWERED.value,
        )
        .label("answered_later"),
    )
    .select_from(
        contacts.join(tickets, tickets.c.id == contacts.c.ticket_id)
        .join(people, people.c.id == tickets.c.requester_id)
        .outerjoin(_assignee, _assignee.c.id == tickets.c.assignee_id)
    )
    .where(contacts.c.id == bindparam("contact"))
)
_CALLS: Final = select(contacts).where(contacts.c.id.in_(bindparam("ids", expanding=True)))
_ATTACH: Final = {
    name: dialect.insert(attachments).on_conflict_do_nothing(
        index_elements=["contact_id", "kind", "sha256"]
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}

MOST_TOGETHER: Final = 50  # rows in one transaction


class Paging:
    """`tickets.paging.PageBook` and `telephony.recordings.Attachments`, in SQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        # Calls end in bursts, as far as the records tell.
        self._calls = Together(self._read_calls, key=lambda each: each, most=MOST_TOGETHER)
        self._attaching = Together(self._attach, key=lambda each: each, most=MOST_TOGETHER)

    async def subject(self, due: PageDue) -> Subject | None:
        async with self._database.reading() as connection:
            return await _subject(connection, due.contact_id)

    async def arm(self, due: PageDue, at: datetime) -> None:
        """Make `due` due at `at`; nothing happens if that step was armed before."""
        async with self._database.new_work() as work:
            work.emit(_timer(due, at))
            await work.commit()

    async def begin(self, due: PageDue, page: Page, *, next_due: datetime) -> Page:
        """Store the page and the timer of the next step, together; return it as it is stored."""
        async with self._database.new_work() as work:
            found = (await work.connection.execute(_PAGE, {"ref": page.ref})).mappings().first()
            if found is not None:
                return _page(found)
            now = self._clock.now()
            await work.connection.execute(
                insert(notifications),
                {
                    "dedup_key": page.ref,
                    "ticket_id": page.ticket_id,
                    "contact_id": page.contact_id,
                    "step": page.step,
                    "engineer": page.engineer,
                    "address": page.address,
                    "medium": Medium.CALL.value,
                    "client_ref": page.ref,
                    "state": page.state.value,
                    "created_at": now,
                    "updated_at": now,
                },
            )
            work.emit(_timer(next_step(due), next_due))
            await work.commit()
        return page

    async def find(self, ref: str) -> Page | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(_PAGE, {"ref": ref})).mappings().first()
        return None if row is None else _page(row)

    async def note(self, ref: str, state: PageState, detail: str = "") -> None:
        noted = update(notifications).where(notifications.c.client_ref == ref)
        if state not in (PageState.TAKEN, PageState.PASSED):  # what a person said stays
            noted = noted.where(notifications.c.state.in_(sorted(UNSETTLED)))
        values = {"state": state.value, "detail": detail[:200], "updated_at": self._clock.now()}
        async with self._database.writing() as connection:
            await connection.execute(noted.values(values))

    async def settle(self, ref: str) -> bool:
        """Note that this page was taken, unless the matter is settled already."""
        async with self._database.new_work() as work:
            found = (await work.connection.execute(_PAGE, {"ref": ref})).mappings().first()
            if found is None:
                return False
            if found["state"] == PageState.TAKEN.value:
                return True
            subject = await _subject(work.connection, found["contact_id"])
            if subject is None or not _may_settle(subject, found["engineer"]):
                return False
            await work.connection.execute(
                update(notifications)
                .where(notifications.c.client_ref == ref)
                .values(state=PageState.TAKEN.value, updated_at=self._clock.now())
            )
            await work.commit()
        return True

    async def hurry(self, page: Page, now: datetime) -> None:
        """Make the step after `page` due now, if its timer is still armed."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(outbox)
                .where(
                    and_(
                        outbox.c.dedup_key == _key(page.contact_id, page.step + 1),
                        outbox.c.due_at > now,
                    )
                )
                .values(due_at=now)
            )

    async def call(self, contact_id: int) -> Contact | None:
        """Return a call with what recordings need of it; None if it is not a call."""
        return await self._calls.ask(contact_id)

    async def _read_calls(self, contact_ids: Sequence[int]) -> list[Contact | None]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_CALLS, {"ids": contact_ids})).mappings().all()
        found = {row["id"]: _call(row) for row in rows}
        return [found.get(contact_id) for contact_id in contact_ids]

    async def attach(self, contact_id: int, kind: str, blob: Blob) -> None:
        await self._attaching.ask((contact_id, kind, blob))

    async def _attach(self, wanted: Sequence[tuple[int, str, Blob]]) -> list[None]:
        now = self._clock.now()
        rows: list[dict[str, Any]] = [
            {
                "contact_id": contact_id,
                "kind": kind,
                "sha256": blob.sha256,
                "size_bytes": blob.size_bytes,
                "media_type": blob.media_type,
                "name": blob.name,
                "stored_at": now,
            }
            for contact_id, kind, blob in wanted
        ]
        async with self._database.writing() as connection:
            await connection.execute(_ATTACH[self._database.dialect], rows)
        return [None] * len(rows)


def _call(row: RowMapping) -> Contact | None:
    if row["call"] is None:
        return None
    return Contact(
        medium=Medium(row["medium"]),
        external_id=row["external_id"],
        received_at=row["received_at"],
        outcome=Outcome(row["outcome"]),
        call=call_facts(row["call"]),
    )


def _key(contact_id: int, step: int) -> str:
    return f"page-{contact_id}-{step}"


def _timer(due: PageDue, at: datetime) -> Due:
    return Due(event=due, due_at=at, dedup_key=_key(due.contact_id, due.step))


async def _subject(connection: AsyncConnection, contact_id: int) -> Subject | None:
    row = (await connection.execute(_SUBJECT, {"contact": contact_id})).mappings().first()
    if row is None:
        return None
    facts = call_facts(row["call"]) if row["call"] else None
    ended_at = (facts.ended_at if facts else None) or row["received_at"]
    # Somebody who had the ticket before this contact need not know of it.
    taken_since = row["acknowledged_at"] is not None and row["acknowledged_at"] >= ended_at
    reasons = {
        Settled.OVER: State(row["state"]) not in OPEN,
        Settled.PAGE: row["page_taken"],
        Settled.CALL: row["answered_later"],
        Settled.TICKET: taken_since,
    }
    return Subject(
        ticket=row["number"],
        settled=next((reason for reason, holds in reasons.items() if holds), None),
        assignee=row["assignee"] or "",
        call_id=row["external_id"],
        site=row["site"] or "",
        vip=row["vip"],
        pbx=facts.pbx if facts else "",
    )


def _may_settle(subject: Subject, engineer: str) -> bool:
    """Whether the page of `engineer` can still be what settles the matter."""
    own = subject.settled is Settled.TICKET and subject.assignee == engineer
    return subject.settled is None or own


def _page(row: RowMapping) -> Page:
    return Page(
        ref=row["client_ref"],
        ticket_id=row["ticket_id"],
        contact_id=row["contact_id"],
        step=row["step"],
        ticket=row["number"],
        engineer=row["engineer"],
        address=row["address"],
        state=PageState(row["state"]),
    )
