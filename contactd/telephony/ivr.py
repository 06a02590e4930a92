"""What the dialplan asks of contactd: one question, one answer, within a second.

The dialogues (playing, reading keys, queueing) are in the dialplan, so that a call never depends on
this process; see `etc/asterisk/contactd.conf` for the other side of each answer.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from contactd.clock import Clock
from contactd.log import get_logger
from contactd.telephony.agi import AgiRequest
from contactd.telephony.helplink import HelpLink, Said
from contactd.telephony.intake import Intake
from contactd.telephony.speech import progress_sounds
from contactd.tickets.contact import CallFacts, Contact, Medium
from contactd.tickets.numbers import is_valid
from contactd.tickets.service import TicketService

log = get_logger()

VIP_QUEUE_PRIORITY: Final = 10  # QUEUE_PRIO; everybody else has 0

# notification, digit ("" for none), PIN -> taken, passed, on_way, late; pin: a wrong one
PageAnswer = Callable[[str, str, str], Awaitable[str]]
ConfirmAnswer = Callable[
    [str, str], Awaitable[str]
]  # notification, digit -> closed, reopened, late


class Ivr:
    """The handlers of the FastAGI scripts, by name."""

    def __init__(  # noqa: PLR0913 - what the questions are about
        self,
        *,
        tickets: TicketService,
        intake: Intake,
        page_answer: PageAnswer,
        confirm_answer: ConfirmAnswer,
        clock: Clock,
        default_queue: str,
        help_link: HelpLink | None = None,  # None: there is no remote help
    ) -> None:
        self._tickets = tickets
        self._intake = intake
        self._page_answer = page_answer
        self._confirm_answer = confirm_answer
        self._clock = clock
        self._default_queue = default_queue
        self._help_link = help_link

    def handlers(self) -> Mapping[str, Callable[[AgiRequest], Awaitable[Sequence[str]]]]:
        return {
            "arrive": self.arrive,
            "fault": self.fault,
            "progress": self.progress,
            "remote": self.remote,
            "page": self.page,
            "confirm": self.confirm,
        }

    async def arrive(self, request: AgiRequest) -> Sequence[str]:
        """A call has reached the hotline: file it; say where it goes and what it is told."""
        filed = await self._intake.file(self._contact(request))
        return (
            "ok",
            filed.ticket,
            filed.language,
            filed.queue or self._default_queue,
            str(VIP_QUEUE_PRIORITY if filed.vip else 0),
            "1" if filed.vip else "0",
            filed.site,
            filed.open_ticket,
            "1" if filed.joined else "0",
            "1" if self._help_link is not None and self._help_link.offered else "0",
        )

    async def fault(self, request: AgiRequest) -> Sequence[str]:
        """Key 1, a new fault: a call that had joined an older ticket gets one of its own."""
        call_id = request.headers["uniqueid"]
        await self._intake.file(self._contact(request))
        filed = await self._tickets.separate(Medium.CALL, call_id)
        self._intake.remember(call_id, filed)
        return "ok", filed.ticket

    async def progress(self, request: AgiRequest) -> Sequence[str]:
        """Key 2: the sounds that tell how the caller's ticket, or the keyed one, is doing.

        The ticket that this very call has opened is not what the caller asks for.
        """
        number = request.args[0] if request.args else ""
        if not number:
            number = (await self._intake.file(self._contact(request))).open_ticket
        progress = await self._tickets.progress(number) if is_valid(number) else None
        if progress is None:
            return "ok", "unknown", ""
        language = request.headers.get("language", "zh")
        sounds = progress_sounds(progress, now=self._clock.now(), language=language)
        return "ok", "found", "&".join(sounds)

    async def remote(self, request: AgiRequest) -> Sequence[str]:
        """Key 3: the caller asks for remote help, and is texted the link that begins it."""
        if self._help_link is None:
            return "ok", Said.FAILED.value
        contact = self._contact(request)
        filed = await self._intake.file(contact)
        call_id, caller = contact.external_id, contact.from_value
        return "ok", (await self._help_link.send(call_id, filed.ticket, caller)).value

    async def page(self, request: AgiRequest) -> Sequence[str]:
        """An engineer who was rung about a ticket pressed a key, or none (no digit)."""
        ref, digit, pin = (*request.args, "", "", "")[:3]
        return "ok", await self._page_answer(ref, digit, pin)

    async def confirm(self, request: AgiRequest) -> Sequence[str]:
        """Who reported a fault and was called back says whether it is solved."""
        ref, digit = (*request.args, "", "")[:2]
        return "ok", await self._confirm_answer(ref, digit)

    def _contact(self, request: AgiRequest) -> Contact:
        headers = request.headers
        call_id = headers["uniqueid"]
        did = (request.args[0] if request.args else "") or _known(headers.get("dnid", ""))
        return Contact(
            medium=Medium.CALL,
            external_id=call_id,
            received_at=self._clock.now(),
            from_value=_known(headers.get("callerid", "")),
            from_name=_known(headers.get("calleridname", "")),
            to_value=did,
            call=CallFacts(pbx=pbx_of(call_id), did=did, stage="greeting"),
        )


def pbx_of(uniqueid: str) -> str:
    """Return the PBX that a channel's uniqueid (`systemname-epoch.counter`) belongs to."""
    return uniqueid.rpartition("-")[0]


def _known(value: str) -> str:
    """FastAGI writes `unknown` for a number or name that is not there."""
    return "" if value == "unknown" else value
