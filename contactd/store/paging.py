"""What pages and recordings leave behind: notifications, timers, attachments."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, and_, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from contactd.clock import Clock
from contactd.store.engine import Database
from contactd.store.repositories import call_facts
from contactd.store.schema import attachments, contacts, notifications, outbox, people, tickets
from contactd.tickets.contact import Blob, Contact, Medium, Outcome
from contactd.tickets.events import Due, PageDue
from contactd.tickets.paging import UNSETTLED, Page, PageState, Subject, next_step
from contactd.tickets.states import State

_PAGE: Final = (
    select(notifications, tickets.c.number)
    .join(tickets, tickets.c.id == notifications.c.ticket_id)
    .where(notifications.c.client_ref == bindparam("ref"))
)
_SUBJECT: Final = (
    select(
        tickets.c.number,
        tickets.c.state,
        tickets.c.site,
        people.c.vip,
        contacts.c.call,
    )
    .select_from(tickets.join(people, people.c.id == tickets.c.requester_id))
    .outerjoin(contacts, contacts.c.id == bindparam("contact"))
    .where(tickets.c.id == bindparam("ticket"))
)
_ATTACH: Final = {
    name: dialect.insert(attachments).on_conflict_do_nothing(
        index_elements=["contact_id", "kind", "sha256"]
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}


class Paging:
    """`tickets.paging.PageBook` and `telephony.recordings.Attachments`, in SQL."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def subject(self, due: PageDue) -> Subject | None:
        parameters = {"ticket": due.ticket_id, "contact": due.contact_id}
        async with self._database.reading() as connection:
            row = (await connection.execute(_SUBJECT, parameters)).mappings().first()
        if row is None:
            return None
        call = row["call"]
        return Subject(
            ticket=row["number"],
            state=State(row["state"]),
            site=row["site"] or "",
            vip=row["vip"],
            pbx=call["pbx"] if call else "",
        )

    async def arm(self, due: PageDue) -> None:
        """Make `due` due now; nothing happens if that step was armed before."""
        async with self._database.new_work() as work:
            work.emit(_timer(due, self._clock.now()))
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

    async def hurry(self, due: PageDue, now: datetime) -> None:
        """Make the step after `due` due now, if its timer is still armed."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(outbox)
                .where(
                    and_(
                        outbox.c.dedup_key == _timer(next_step(due), now).dedup_key,
                        outbox.c.due_at > now,
                    )
                )
                .values(due_at=now)
            )

    async def call(self, contact_id: int) -> Contact | None:
        """Return a call with what recordings need of it; None if it is not a call."""
        async with self._database.reading() as connection:
            row = (
                (await connection.execute(select(contacts).where(contacts.c.id == contact_id)))
                .mappings()
                .first()
            )
        if row is None or row["call"] is None:
            return None
        return Contact(
            medium=Medium(row["medium"]),
            external_id=row["external_id"],
            received_at=row["received_at"],
            outcome=Outcome(row["outcome"]),
            call=call_facts(row["call"]),
        )

    async def attach(self, contact_id: int, kind: str, blob: Blob) -> None:
        row: dict[str, Any] = {
            "contact_id": contact_id,
            "kind": kind,
            "sha256": blob.sha256,
            "size_bytes": blob.size_bytes,
            "media_type": blob.media_type,
            "name": blob.name,
            "stored_at": self._clock.now(),
        }
        async with self._database.writing() as connection:
            await connection.execute(_ATTACH[self._database.dialect], row)


def _timer(due: PageDue, at: datetime) -> Due:
    return Due(event=due, due_at=at, dedup_key=f"page-{due.contact_id}-{due.step}")


def _page(row: RowMapping) -> Page:
    return Page(
        ref=row["client_ref"],
        ticket_id=row["ticket_id"],
        ticket=row["number"],
        engineer=row["engineer"],
        address=row["address"],
        state=PageState(row["state"]),
    )
