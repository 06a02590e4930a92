"""Rings the people on duty about a ticket that nobody has taken, one after the other.

A page is a call to one person through the PBX; the digit 1 takes the ticket. What makes it safe to
repeat is the channel's id, chosen by us: it is looked up in the PBX's live channels and in its
records before anything is dialled a second time.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.log import get_logger
from contactd.metrics import PAGES
from contactd.routing.oncall import ANYWHERE, FLOOR_KEY, Engineer, Rota, on_duty
from contactd.tickets.contact import Contact, Outcome
from contactd.tickets.events import CallEnded, PageDue
from contactd.tickets.paging import UNSETTLED, Page, PageBook, PageState, Subject
from contactd.tickets.service import TicketService

log = get_logger()

MISSED: Final = frozenset({Outcome.VOICEMAIL, Outcome.ABANDONED_VOICEMAIL, Outcome.UNREACHED})


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
        again_after: timedelta,
    ) -> None:
        self._book = book
        self._rota = rota
        self._tickets = tickets
        self._lines = lines
        self._clock = clock
        self._next_after = next_after
        self._rounds = rounds
        self._again_after = again_after

    async def call_ended(self, event: CallEnded, contact: Contact) -> None:
        """Have somebody paged if the caller is left with nobody, whoever had the ticket before."""
        if reason := _reason(contact):
            due = PageDue(
                ticket_id=event.ticket_id, contact_id=event.contact_id, step=0, reason=reason
            )
            await self._book.arm(due, self._clock.now())

    async def page(self, due: PageDue) -> None:
        """Ring the person whose turn it is and arm the next step.

        Raises:
            TemporaryFailure: no PBX to ring through, or the outcome is unknown; repeat.
        """
        subject = await self._book.subject(due)
        if subject is None or subject.settled:
            return  # nothing is left to do
        engineers = await self._on_duty(subject)
        turn = due.step - due.since
        if turn >= self._rounds * len(engineers):
            await self._pause(due, subject)
            return
        line = self._line(subject.pbx)
        engineer = engineers[turn % len(engineers)]
        page = await self._book.begin(
            due,
            Page(
                ref=f"page-{subject.call_id}-{due.step}",
                ticket_id=due.ticket_id,
                contact_id=due.contact_id,
                step=due.step,
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
            return await self._take(page)
        if digit == "2":
            await self._book.note(ref, PageState.PASSED)
            await self._journal(page.ticket_id, "page.passed", page.engineer, page.step)
        await self._book.hurry(page, self._clock.now())
        PAGES.labels(outcome="passed" if digit == "2" else "no_key").inc()
        return "passed"

    async def _take(self, page: Page) -> str:
        """Let the person have the matter; the ticket stays with whoever has it already."""
        # The ticket first: whatever ends us in between, somebody has it.
        has_ticket = await self._tickets.take(page.ticket_id, page.engineer, how="page")
        won = await self._book.settle(page.ref) or (has_ticket and page.engineer == FLOOR_KEY)
        if won:
            await self._journal(page.ticket_id, "page.taken", page.engineer, page.step)
        PAGES.labels(outcome="taken" if won else "late").inc()
        return "taken" if won else "late"

    async def _on_duty(self, subject: Subject) -> list[Engineer]:
        """Return whom to ring, whoever has the ticket first.

        A site that the rota has no more counts as not known.
        """
        rota = await self._rota()
        known = any(subject.site == site.key for site in rota.sites)
        duties = on_duty(rota, subject.site if known else ANYWHERE, self._clock.now())
        return sorted(
            (duty.engineer for duty in duties),
            key=lambda engineer: engineer.key != subject.assignee,
        )

    async def _pause(self, due: PageDue, subject: Subject) -> None:
        """Raise the alarm, and begin anew after a while: others may be on duty by then."""
        PAGES.labels(outcome="exhausted").inc()
        await self._journal(due.ticket_id, "page.exhausted", "", due.step)
        log.error("page.exhausted", ticket=subject.ticket, steps=due.step - due.since)
        again = replace(due, step=due.step + 1, since=due.step + 1)
        await self._book.arm(again, self._clock.now() + self._again_after)

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


def _reason(contact: Contact) -> str:
    """Return the prompt that says why somebody has to call back, "" if nobody has to."""
    facts = contact.call
    if facts is not None and facts.voicemail:  # also after a talk and a transfer
        return "page-voicemail"
    lost = contact.outcome is Outcome.PBX_LOST and facts is not None and not facts.legs
    return "page-missed" if lost or contact.outcome in MISSED else ""
