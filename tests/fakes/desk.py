"""The whole program but its sockets, on a real database and a clock that is pushed.

The vocabulary of stories: somebody calls or writes, time passes, phones ring, keys are pressed.
Nothing runs by itself: `fast_forward` goes from one due row of the outbox to the next, so that
every timer fires at its own instant, in order.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import func, select

from contactd.core import Core, core
from contactd.core import policy as ticket_policy
from contactd.errors import TemporaryFailure
from contactd.mail.acting import Acting as MailActing
from contactd.routing import needs, promises
from contactd.routing.deskfile import DeskFile, parse
from contactd.routing.escalation import Escalation, Phase
from contactd.routing.following import Case
from contactd.routing.notify import COURTESIES, REQUESTER, Notification, Reason, SendState
from contactd.routing.replying import Answer
from contactd.settings import Settings
from contactd.signals import Signals
from contactd.sms.acting import Acting
from contactd.store.desk import load_desk
from contactd.store.duty import DutyKeeper, LastDuties
from contactd.store.engine import Database
from contactd.store.keys import Keys
from contactd.store.mails import Mails
from contactd.store.outbox import Handlers, Relay
from contactd.store.portal import Portal
from contactd.store.remote import RemoteSessions
from contactd.store.schema import clocks, contacts, notifications, outbox, tickets
from contactd.store.texts import Texts
from contactd.tickets.contact import CallFacts, Contact, Filed, Leg, MailFacts, Medium, Outcome
from contactd.tickets.events import CodeDue, Event, MailDue, RemoteDue, TextDue, TicketDue
from contactd.tickets.journal import Entry, verify
from contactd.tickets.model import Ticket
from contactd.tickets.people import MAIL, PHONE, Address
from contactd.tickets.phone import address
from contactd.tickets.service import TicketService
from contactd.tickets.states import OPEN, State
from contactd.web.portalaccess import Codes
from tests.fakes.clock import FakeClock
from tests.fakes.notifiers import FakeNotifier, Sent

DID: Final = "4008001234"
FLOOR: Final = "+8613800000090"
AT_GZ: Final = "13922223333"  # a mobile whose owner is at gz: can be sent a text
BY_MAIL: Final = "02038880002"  # at gz, a landline with a mail address
BY_PHONE: Final = "02038880003"  # at gz, a landline and nothing else
AT_SZ: Final = "075528880001"
AT_ZH: Final = "07562888001"  # where nobody is ever on duty
VIP: Final = "13900000001"
STRANGER: Final = "13912345678"  # of no site

T = TypeVar("T")

Told = tuple[str, Medium, Reason]

_MOST_PUSHED: Final = timedelta(hours=12)  # then who keeps the rota looks, as it does hourly


def document(**changes: Any) -> dict[str, Any]:
    """Return a desk as its file has it; `changes` replace whole tables.

    At gz 王伟 (call, text after 2 min) before 李娜 (call), 孙明 is supervisor; at sz 陈静 before
    James in tier 3 (call, mail after 1 min); nobody at zh; 赵强 is never on duty.
    """
    return {
        "sites": sites(),
        "engineers": engineers(),
        "people": [
            {"key": "zhang", "name": "张三", "site": "gz", "numbers": [AT_GZ]},
            _person("qian", BY_MAIL, mails=["qian@x.cn"]),
            _person("sun-li", BY_PHONE),
            _person("ceo", VIP, vip=True),
        ],
        "shifts": [
            shift("gz", 1, "wang"),
            shift("gz", 2, "li"),
            shift("sz", 1, "chen"),
            shift("sz", 3, "james"),
        ],
        **changes,
    }


def sites(**gz: Any) -> list[dict[str, Any]]:
    """Return the three sites; `gz` says more of Guangzhou."""
    return [
        _site("gz", "20", **{"supervisor": "sun", **gz}),
        _site("sz", "755"),
        _site("zh", "756"),
    ]


def engineers(**wang: Any) -> list[dict[str, Any]]:
    """Return the six engineers; `wang` says more of 王伟."""
    return [
        engineer("wang", 1, **{"page": ["call", "text after 2m"], **wang}),
        engineer("li", 2),
        engineer("chen", 3),
        engineer("james", 4, page=["call", "mail after 1m"], mails=["james@x.cn"], language="en"),
        engineer("sun", 5),
        engineer("zhao", 6),
    ]


def policy(*steps: dict[str, Any], key: str = "standard", **more: Any) -> dict[str, Any]:
    return {"key": key, "steps": list(steps), **more}


def calm(**changes: Any) -> dict[str, Any]:
    """Return a desk that promises nothing at gz: only ladders make anybody's phone ring."""
    contract = {"key": "calm", "promises": {}}
    return {"sites": sites(contract="calm"), "contracts": [contract], **changes}


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def shift(site: str, tier: int, engineer: str, **more: Any) -> dict[str, Any]:
    whole = {"start": "00:00", "end": "24:00"}
    return {"site": site, "tier": tier, "engineer": engineer, **whole, **more}


def _site(key: str, area_code: str, **more: Any) -> dict[str, Any]:
    names = {"name_zh": key, "name_en": key}
    return {"key": key, **names, "floor": FLOOR, "area_code": area_code, **more}


def engineer(key: str, number: int, **more: Any) -> dict[str, Any]:
    return {"key": key, "name": key, "number": f"138{number:08}", **more}


def _person(key: str, number: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "name": key, "site": "gz", "numbers": [number], **more}


class Desk:
    """`network` is what went out by any medium, in order; `phones`, `texts`, `mails` have switches.

    What a requester hears unasked (`COURTESIES`) is not in it but in `courtesies`: most stories
    are about whom somebody waits for.

    `media` is what the program can tell people by: a medium may be taken out before `restart`.
    """

    def __init__(
        self, database: Database, clock: FakeClock, *, settings: Settings | None = None
    ) -> None:
        self.database = database
        self.clock = clock
        self.settings = settings or Settings()
        self.everything: list[Sent] = []
        self.phones, self.texts, self.mails = (
            FakeNotifier(clock=clock, medium=medium, network=self.everything)
            for medium in (Medium.CALL, Medium.TEXT, Medium.MAIL)
        )
        self.media = {each.medium: each for each in (self.phones, self.texts, self.mails)}
        self.failures: list[BaseException] = []  # of handlers: each is a bug
        self._earlier: list[Sent] = []  # what `forget` took out of the network's list
        self._calls = 0
        self.restart()

    def restart(self) -> None:
        """Begin anew with nothing but the database, as after a crash."""
        self.signals = Signals()
        self.core: Core = core(
            self.settings,
            database=self.database,
            clock=self.clock,
            signals=self.signals,
            duties=LastDuties(self.database, self.clock),
            notifiers=dict(self.media),
        )
        acting = Acting(
            texts=Texts(self.database, self.clock),
            replies=self.core.replying,
            messages=self.core.follow_up,
            country=ticket_policy(self.settings).home_country,
        )
        of_mails = MailActing(
            mails=Mails(self.database, self.clock),
            replies=self.core.replying,
            messages=self.core.follow_up,
        )
        codes = Codes(
            portal=Portal(self.database, self.clock),
            say=self.core.follow_up.say,
            key=Keys(self.database, self.clock).signing,
        )
        self.remote = RemoteSessions(
            self.database,
            self.clock,
            Keys(self.database, self.clock).signing,
            self.signals.raise_,
            self.settings.remote,
        )
        acts: Handlers = {
            TextDue: acting.text_due, MailDue: of_mails.mail_due, CodeDue: codes.due,
            RemoteDue: self.remote.due,
            TicketDue: self.remote.and_then(self.core.follow_up.ticket_due),
        }  # fmt: skip
        every: Handlers = {**self.core.handlers, **acts}
        handlers = {kind: self._watched(handler) for kind, handler in every.items()}
        self.relay = Relay(self.database, handlers, self.clock, self.signals)
        self._keeper = DutyKeeper(self.database, self.clock, self.settings.service.zone)

    def _watched(
        self, handler: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        async def handle(event: Event) -> None:
            try:
                await handler(event)
            except TemporaryFailure:
                raise
            except Exception as failure:
                self.failures.append(failure)
                raise

        return handle

    @property
    def tickets(self) -> TicketService:
        return self.core.tickets

    # The desk file

    async def load(self, **changes: Any) -> None:
        """Load the desk of `document` with some tables replaced, as `contactd load` does."""
        await self.load_file(parse(document(**changes)))

    async def load_file(self, desk: DeskFile) -> None:
        await load_desk(self.database, desk, self.clock)
        await self.drain()

    # Requesters

    async def call(
        self,
        caller: str,
        outcome: Outcome = Outcome.UNREACHED,
        *,
        answered_by: str = "",
        lasts: timedelta = timedelta(),
        **facts: Any,
    ) -> str:
        """Let somebody call and hang up; return the ticket's number."""
        contact = await self.ring(caller)
        self.clock.advance(lasts)
        if answered_by:
            outcome = Outcome.ANSWERED
        return await self.hang_up(contact, outcome, answered_by=answered_by, **facts)

    async def ring(self, caller: str) -> Contact:
        """Let somebody call; they are in the line until `hang_up`."""
        self._calls += 1
        contact = Contact(
            medium=Medium.CALL,
            external_id=f"pbx1-{self.clock.now().timestamp():.0f}.{self._calls}",
            received_at=self.clock.now(),
            from_value=caller,
            to_value=DID,
            call=CallFacts(pbx="pbx1", did=DID, stage="queue"),
        )
        await self._receive(contact)
        return contact

    async def hang_up(
        self, contact: Contact, outcome: Outcome, *, answered_by: str = "", **facts: Any
    ) -> str:
        assert contact.call is not None
        now = self.clock.now()
        legs = (Leg(engineer=answered_by, answered_at=now, ended_at=now),) if answered_by else ()
        ended = replace(
            contact.call,
            final=True,
            ended_at=now,
            legs=legs,
            answered_at=now if legs else None,
            voicemail="/voicemail/1.wav" if outcome is Outcome.VOICEMAIL else "",
            **facts,
        )
        return (await self._receive(replace(contact, outcome=outcome, call=ended))).ticket

    async def write(
        self,
        sender: str,
        medium: Medium = Medium.TEXT,
        text: str = "打印机坏了",
        mail: MailFacts | None = None,
        *,
        name: str = "",
    ) -> str:
        """Let somebody write, a mail if there are `mail` facts; return the ticket's number.

        `name` is what the provider calls it: the same name twice is the same message.
        """
        medium = Medium.MAIL if mail is not None else medium
        self._calls += 1
        contact = Contact(
            medium=medium,
            external_id=name or f"{medium}-{self._calls}",
            received_at=self.clock.now(),
            from_value=sender,
            text=text,
            mail=mail,
        )
        return (await self._receive(contact)).ticket

    async def _receive(self, contact: Contact) -> Filed:
        filed = await self.tickets.receive(contact)
        await self.drain()
        return filed

    # Time

    async def fast_forward(self, length: timedelta) -> None:
        """Let time pass, from one due row to the next."""
        until = self.clock.now() + length
        await self.drain()
        while self.clock.now() < until:
            now = self.clock.now()
            coming = await self._next_due() or until
            self.clock.advance(min(coming, until, now + _MOST_PUSHED) - now)
            await self.drain()
            if self.clock.now() == now + _MOST_PUSHED:
                await self.keep_duty()

    async def keep_duty(self) -> None:
        """Store duty 60 days ahead, as the daemon does at its start and every hour."""
        await self._keeper.look()
        await self.drain()

    async def drain(self) -> None:
        """Do what is due now, one row after the other: so who is told has an order."""
        await self.relay.drain(at_once=1)

    async def when(self, happens: Awaitable[T]) -> T:
        """Let something happen, and all that is due then."""
        result = await happens
        await self.drain()
        return result

    async def _next_due(self) -> datetime | None:
        """Return when the next row comes due."""
        coming = select(func.min(outbox.c.due_at)).where(
            outbox.c.parked_at.is_(None), outbox.c.due_at > self.clock.now()
        )
        async with self.database.reading() as connection:
            found: datetime | None = (await connection.execute(coming)).scalar_one()
        return found

    # What people heard

    @property
    def network(self) -> list[Sent]:
        return [each for each in self.everything if each.notification.reason not in COURTESIES]

    @property
    def courtesies(self) -> list[Sent]:
        return [each for each in self.everything if each.notification.reason in COURTESIES]

    def told(self, ticket: str = "") -> list[Told]:
        """Return who was told by what and why, in order."""
        notes = [each.notification for each in self.network]
        return [
            (note.recipient, note.medium, note.reason)
            for note in notes
            if ticket in ("", note.ticket)
        ]

    def phones_that_rang(self, ticket: str = "") -> list[str]:
        return [who for who, medium, _ in self.told(ticket) if medium is Medium.CALL]

    def forget(self) -> None:
        """Begin the list of who was told anew; what was sent can still be answered."""
        self._earlier += self.everything
        self.everything.clear()

    @property
    def _notes(self) -> list[Notification]:
        return [each.notification for each in (*self._earlier, *self.everything)]

    def ref(self, recipient: str, medium: Medium | None = None) -> str:
        """Return what was sent last to somebody, by a call if there was one."""
        notes = [
            note
            for note in self._notes
            if note.recipient == recipient
            and medium in (None, note.medium)
            and note.reason not in COURTESIES
        ]
        calls = [note for note in notes if note.medium is Medium.CALL]
        return (calls or notes)[-1].ref

    # What people say

    async def press(self, who: str, digit: str, pin: str = "") -> str:
        """Let somebody answer what they were sent last (or the ref `who`): what do they hear?"""
        ref = who if who in [note.ref for note in self._notes] else self.ref(who)
        heard = await self.core.follow_up.answer(ref, digit, pin)
        await self.drain()
        return heard

    async def confirm(self, digit: str) -> str:
        """Let the requester who was called back last press a key; return what they hear."""
        heard = await self.core.follow_up.confirm(self.ref(REQUESTER, Medium.CALL), digit)
        await self.drain()
        return heard

    async def reply(self, sender: str, text: str, medium: Medium = Medium.TEXT) -> Answer | None:
        """Let somebody write back; None: that is no reply, a person has to read it."""
        kind, value = (MAIL, sender) if "@" in sender else (PHONE, address(sender))
        author = Address(kind=kind, value=value)
        return await self.when(self.core.replying.reply(author, text, medium))

    async def report(self, who: str, state: SendState) -> None:
        """Let the medium say what became of what somebody was sent last: a receipt."""
        await self.core.follow_up.outcome(self.ref(who), state)
        await self.drain()

    # What is stored

    async def case(self, ticket: str) -> Case:
        async with self.database.new_work(reads_only=True) as work:
            found = await work.tickets.find(ticket)
            assert found is not None
            case = await work.routing.case(found.id)
        assert case is not None
        return case

    async def ticket(self, ticket: str) -> Ticket:
        return (await self.case(ticket)).ticket

    async def state(self, ticket: str) -> State:
        return (await self.ticket(ticket)).state

    async def assignee(self, ticket: str) -> str:
        return (await self.ticket(ticket)).assignee

    async def journal(self, ticket: str, action: str = "") -> list[Entry]:
        """Return the journal, or its entries of one action."""
        entries = (await self.case(ticket)).journal
        return [entry for entry in entries if action in ("", entry.action)]

    async def escalation(self, ticket: str) -> Escalation | None:
        return (await self.case(ticket)).escalation

    async def clocks(self, ticket: str) -> dict[str, dict[str, Any]]:
        """Return the last clock of each metric, as it is stored."""
        rows = await self._clock_rows((await self.ticket(ticket)).id)
        return {row["metric"]: row for row in rows}

    async def _clock_rows(self, ticket_id: int) -> list[dict[str, Any]]:
        stored = select(clocks).where(clocks.c.ticket_id == ticket_id).order_by(clocks.c.entry)
        async with self.database.reading() as connection:
            found = (await connection.execute(stored)).mappings()
            rows = [dict(row) for row in found]
        return [{key: row[key] for key in row if key != "ticket_id"} for row in rows]

    async def contacts(self) -> list[tuple[str, str]]:
        """Return the words of each contact and its ticket, in order."""
        wanted = (
            select(contacts.c.text, tickets.c.number)
            .join(tickets, tickets.c.id == contacts.c.ticket_id)
            .order_by(contacts.c.id)
        )
        async with self.database.reading() as connection:
            return [(row.text, row.number) for row in await connection.execute(wanted)]

    async def sent_states(self, ticket: str) -> dict[str, SendState]:
        """Return what became of each notification, by ref, without courtesies."""
        wanted = (
            select(notifications.c.client_ref, notifications.c.state)
            .join(tickets, tickets.c.id == notifications.c.ticket_id)
            .where(tickets.c.number == ticket, notifications.c.reason.not_in(COURTESIES))
        )
        async with self.database.reading() as connection:
            rows = (await connection.execute(wanted)).all()
        return {row.client_ref: SendState(row.state) for row in rows}

    # What must hold after every story

    async def check(self) -> None:
        """Fail if what is stored contradicts itself, or if somebody would wait for ever."""
        await self.drain()
        assert self.failures == []
        async with self.database.reading() as connection:
            numbers = (await connection.execute(select(tickets.c.number))).scalars().all()
            armed = (await connection.execute(select(outbox))).mappings().all()
            keys = (await connection.execute(select(notifications.c.dedup_key))).scalars().all()
        assert [row["error"] for row in armed if row["parked_at"]] == []
        assert len(keys) == len(set(keys))
        for number in numbers:
            case = await self.case(number)
            assert verify(case.journal, last_hash=case.ticket.journal_hash) == ""
            await self._check_clocks(case)
            self._check_timers(case, armed)

    async def _check_clocks(self, case: Case) -> None:
        terms = await self.core.terms()
        found = promises.clocks(case.journal, terms)
        recomputed = [promises.clock_row(clock) for clock in found]
        stored = await self._clock_rows(case.ticket.id)
        assert sorted(stored, key=_place) == sorted(recomputed, key=_place)

    def _check_timers(self, case: Case, armed: Any) -> None:
        """Whoever has to be told is told, or a timer is armed that will tell them."""
        escalation, ticket = case.escalation, case.ticket
        redial = timedelta(seconds=self.settings.hotline.redial_within_s)
        _, is_open = needs.latest(case.journal, redial_within=redial)
        if ticket.state not in OPEN and not is_open:
            assert escalation is None or escalation.timer is None, ticket.number
            return
        keys = {row["dedup_key"] for row in armed}
        if escalation is not None and escalation.timer is not None:
            assert f"escalation-{escalation.timer.key}" in keys
        if not is_open:
            return
        if escalation is not None and escalation.phase in (Phase.PAGING, Phase.ATTACHED):
            assert escalation.timer is not None, f"nobody is told of {ticket.number}"
        elif escalation is None or escalation.phase is not Phase.TAKEN:
            looks = [row for row in armed if _looks_at(row, ticket.id)]
            assert looks, f"nobody looks at {ticket.number} any more"


def _place(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["metric"], row["entry"]


def _looks_at(row: Mapping[str, Any], ticket_id: int) -> bool:
    return bool(row["kind"] == "TicketDue" and row["body"] == {"ticket_id": ticket_id})
