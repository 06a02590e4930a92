"""Rings the people on duty about a ticket that nobody has taken, one after the other.

A page is a call to one person through the PBX; the digit 1 takes the ticket. What makes it safe to
repeat is the channel's id, chosen by us: it is looked up in the PBX's live channels and in its
records before anything is dialled a second time.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import PAGES
from contactd.routing.oncall import ANYWHERE, Duty, Engineer, Rota, on_duty
from contactd.tickets.contact import Outcome
from contactd.tickets.events import CallEnded, PageDue
from contactd.tickets.paging import UNSETTLED, Page, PageBook, PageState, Subject
from contactd.tickets.service import TicketService
from contactd.tickets.states import State

log = get_logger()

# Nobody spoke with a caller who waited to the end: outcome -> the prompt that says so.
PAGED: Final = {
    Outcome.VOICEMAIL: "page-voicemail",
    Outcome.ABANDONED_VOICEMAIL: "page-missed",
    Outcome.UNREACHED: "page-missed",
}


class Line(Protocol):
    """What the pager asks of a PBX; `pbx.Pbx` is one."""

    @property
    def connected(self) -> bool: ...

    async def page(self, page: Page, *, engineer: Engineer, subject: Subject, what: str) -> None:
        """Ring the person, once for a `page.ref` whatever happens.

        Raises:
            TemporaryFailure: not dialled, or not known whether it was: ask again with the same ref.
            PermanentFailure: the PBX refuses to dial that; the text is its words.
        """
        ...


class Pager:
    """The handler of `PageDue`, and of the keys that people press."""

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        *,
        book: PageBook,
        rota: Callable[[], Awaitable[Rota]],
        tickets: TicketService,
        lines: Mapping[str, Line],
        clock: Clock,
        next_after: timedelta,
        rounds: int,
    ) -> None:
        self._book = book
        self._rota = rota
        self._tickets = tickets
        self._lines = lines
        self._clock = clock
        self._next_after = next_after
        self._rounds = rounds

    async def call_ended(self, event: CallEnded) -> None:
        """Have somebody paged if the caller waited to the end and nobody came."""
        contact = await self._book.call(event.contact_id)
        what = PAGED.get(contact.outcome) if contact is not None else None
        if what is not None:
            await self._book.arm(
                PageDue(ticket_id=event.ticket_id, contact_id=event.contact_id, step=0, reason=what)
            )

    async def page(self, due: PageDue) -> None:
        """Ring the person whose turn it is and arm the next step.

        Raises:
            TemporaryFailure: no PBX to ring through, or the outcome is unknown; repeat.
        """
        subject = await self._book.subject(due)
        if subject is None or subject.state is not State.NEW:
            return  # taken, or over: nothing is left to do
        duties = await self._on_duty(subject.site)
        if due.step >= self._rounds * len(duties):
            await self._give_up(due, subject)
            return
        line = self._line(subject.pbx)
        engineer = duties[due.step % len(duties)].engineer
        page = await self._book.begin(
            due,
            Page(
                ref=f"page-{due.contact_id}-{due.step}",
                ticket_id=due.ticket_id,
                ticket=subject.ticket,
                engineer=engineer.key,
                address=engineer.number,
                state=PageState.QUEUED,
            ),
            next_due=self._clock.now() + self._next_after,
        )
        if page.state not in UNSETTLED:
            return
        await self._book.note(page.ref, PageState.SENDING)
        try:
            await line.page(page, engineer=engineer, subject=subject, what=due.reason)
        except PermanentFailure as failure:
            # The next step's timer is armed: somebody else is rung. The text is Asterisk's own.
            log.error("page.refused", ticket=subject.ticket, reason=str(failure))  # noqa: TRY400
            state = PageState.FAILED
        else:
            state = PageState.SENT
            log.info("page.sent", ticket=subject.ticket, engineer=engineer.key, step=due.step)
        await self._book.note(page.ref, state)
        await self._journal(due.ticket_id, f"page.{state}", engineer.key, due.step)
        PAGES.labels(outcome=state.value).inc()

    async def answer(self, ref: str, digit: str) -> str:
        """Return what the person hears after pressing `digit`: taken, passed or late."""
        page = await self._book.find(ref)
        if page is None:
            return "late"
        if digit == "1":
            won = await self._tickets.take(page.ticket_id, page.engineer, how="page")
            if won:
                await self._book.note(ref, PageState.TAKEN)
            PAGES.labels(outcome="taken" if won else "late").inc()
            return "taken" if won else "late"
        due = _due_of(page)
        if digit == "2":
            await self._book.note(ref, PageState.PASSED)
            await self._journal(page.ticket_id, "page.passed", page.engineer, due.step)
        await self._book.hurry(due, self._clock.now())
        PAGES.labels(outcome="passed" if digit == "2" else "no_key").inc()
        return "passed"

    async def _on_duty(self, site: str) -> tuple[Duty, ...]:
        """Return whom to ring; a site that the rota has no more counts as not known."""
        rota = await self._rota()
        known = any(site == one.key for one in rota.sites)
        return on_duty(rota, site if known else ANYWHERE, self._clock.now())

    async def _give_up(self, due: PageDue, subject: Subject) -> None:
        PAGES.labels(outcome="exhausted").inc()
        await self._journal(due.ticket_id, "page.exhausted", "", due.step)
        log.error("page.exhausted", ticket=subject.ticket, steps=due.step)

    async def _journal(self, ticket: int, action: str, engineer: str, step: int) -> None:
        body = {"engineer": engineer, "step": step}
        await self._tickets.note(ticket, action, actor="system", body=body)

    def _line(self, pbx: str) -> Line:
        """Return the PBX to ring through: the call's own, else any that is connected."""
        names = sorted(self._lines, key=lambda name: name != pbx)
        for name in names:
            if self._lines[name].connected:
                return self._lines[name]
        raise TemporaryFailure("no PBX is connected to ring through")


def _due_of(page: Page) -> PageDue:
    """Return the step that `page` was; its ref is `page-<contact>-<step>`."""
    _, contact, step = page.ref.split("-")
    return PageDue(ticket_id=page.ticket_id, contact_id=int(contact), step=int(step), reason="")
