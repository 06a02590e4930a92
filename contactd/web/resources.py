"""What the API takes and gives, as types; the OpenAPI document is made of them."""

from collections.abc import Mapping
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from contactd.httpd import Phase
from contactd.routing.notify import Reason, SendState
from contactd.routing.oncall import Why
from contactd.service import HealthState
from contactd.store.lists import Due, Sort
from contactd.tickets.contact import Direction, Medium, Outcome, Source, Writer
from contactd.tickets.dispatching import State as DispatchState
from contactd.tickets.dispatching import Step
from contactd.tickets.model import Category
from contactd.tickets.priority import Impact, Priority, Urgency
from contactd.tickets.states import State
from contactd.web.board import CallStage
from contactd.web.writing import KEY, LONGEST

T = TypeVar("T")

# Control characters are no part of what people write, and PostgreSQL refuses NUL.
Line = Annotated[str, Field(max_length=400, pattern=r"^[^\x00-\x1f\x7f]*$")]


_INSTANT: Final = TypeAdapter(datetime)
_DAY: Final = TypeAdapter(date)


def _read(kind: TypeAdapter[Any], value: object) -> object:
    """Return what a text says; numbers, which pydantic takes for seconds since 1970, are none."""
    if isinstance(value, str):
        if value[4:5] != "-":
            raise ValueError("as ISO 8601 has it, e.g. 2026-11-23T08:00:00+08:00")
        try:
            return kind.validate_python(value)
        except ValidationError:
            raise ValueError("there is no such time") from None
    return value


At = Annotated[AwareDatetime, BeforeValidator(partial(_read, _INSTANT))]
Day = Annotated[date, BeforeValidator(partial(_read, _DAY))]
Word = Annotated[str, Field(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Resource(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True
    )


class Page(Resource, Generic[T]):
    """A page of a list; `next` is the cursor of the one after it."""

    items: tuple[T, ...]
    next: str | None = None


class Attachment(Resource):
    id: int
    kind: str = Field(description="recording, voicemail; of a mail: raw, attachment, inline")
    url: str
    media_type: str
    size_bytes: int
    name: str


class Leg(Resource):
    """One engineer's part in a call."""

    engineer: str
    answered_at: datetime
    ended_at: datetime | None = None


class Call(Resource):
    """What is known of a call; `final` when the PBX's own records of it are complete."""

    pbx: str
    did: str
    final: bool
    stage: str
    queue: str
    queued_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    waited_s: float | None
    talked_s: float | None
    legs: tuple[Leg, ...]
    passed_by: tuple[str, ...]
    end_reason: str
    hangup_cause: int | None
    keys: str


class Mail(Resource):
    """What is known of a mail beside its text."""

    writer: Writer = Field(description="person, or what kind of machine")
    subject: str
    message_id: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    checks: dict[str, str] = Field(description="spf, dkim, dmarc (RFC 8601), aligned; virus, spam")
    folds: tuple[tuple[int, int], ...] = Field(
        description="ranges of the text, in characters, that quote earlier mails"
    )
    notes: tuple[str, ...] = Field(description="what was odd about reading it")


class ContactItem(Resource):
    """One interaction: a call, a mail, a text, a form, a remote session."""

    id: int
    ticket: str
    medium: Medium
    external_id: str
    direction: Direction
    source: Source = Field(description="replay: only the PBX's records brought it (repaired)")
    received_at: datetime
    from_: str = Field(alias="from")
    from_name: str
    to: str
    outcome: Outcome
    text: str
    call: Call | None = None
    mail: Mail | None = None
    attachments: tuple[Attachment, ...] = ()


class Person(Resource):
    id: int
    key: str | None
    name: str
    department: str
    site: str | None
    role: str
    vip: bool
    language: str = Field(description="empty: the site's")
    numbers: tuple[str, ...] = Field(description="E.164 or extensions, the preferred first")
    mails: tuple[str, ...]


class Assignee(Resource):
    key: str
    name: str


class JournalEntry(Resource):
    seq: int
    at: datetime
    actor: str
    action: str
    state: State
    body: Mapping[str, JsonValue]
    prev_hash: str
    hash: str


class Segment(Resource):
    """A stretch of a clock's life, running or paused."""

    started_at: datetime
    ended_at: datetime | None
    running: bool
    reason: str
    entry: int = Field(description="the journal entry that caused it")
    goal_s: int
    calendar: str = Field(description="the name of the working calendar that counts")
    worked_s: int = Field(description="working time counted, up to now if it goes on")


class ServiceClock(Resource):
    """A promise of the contract being timed."""

    metric: str = Field(description="answer, remote, offer, arrival, …")
    state: str
    started_at: datetime
    entry: int = Field(description="the journal entry that started it")
    goal_s: int = Field(description="working time promised")
    spent_s: int = Field(description="working time spent by now")
    due_at: datetime | None = Field(description="null while it is paused")
    provisional: bool = Field(description="due_at rests on public holidays not yet announced")
    stopped_at: datetime | None
    breached_at: datetime | None
    breach_stands: bool = Field(description="recorded; by what is known now it would be none")
    segments: tuple[Segment, ...]


class DispatchItem(Resource):
    """Somebody who was sent to the site."""

    number: int = Field(description="1, 2, … of this ticket")
    engineer: Assignee
    state: str = Field(description=", ".join(DispatchState))
    proved: bool = Field(description="the requester's code was told at the arrival")
    updated_at: datetime


class TextDelivery(Resource):
    """How far a text has come."""

    gateway: str
    segments: int = Field(description="as which it is billed")
    delivery: Literal["", "sent", "delivered", "failed"] = Field(
        description="what the provider reported last; empty: nothing yet"
    )
    error: str = Field(description="the provider's code, empty if there is none")
    trouble: str = Field(description="what that means and what to do, empty if nobody knows")
    at: datetime = Field(description="when it was handed over")


class Message(Resource):
    """Something that was sent because of the ticket: to an engineer, the floor, the requester."""

    medium: Medium
    recipient: str = Field(description="an engineer's key, floor or requester")
    name: str = Field(description="of the engineer or the requester, empty when unknown")
    address: str | None = Field(description="where to; null for roles that may not see it")
    reason: Reason
    state: SendState
    created_at: datetime
    updated_at: datetime
    text: TextDelivery | None = Field(description="of a text that a gateway has been handed")


class Requester(Resource):
    id: int
    name: str
    vip: bool


class _Ticket(Resource):
    number: str
    title: str
    state: State
    priority: Priority
    category: str = Field(description=f"empty while nobody has said: {', '.join(Category)}")
    system: str = Field(description="what it is about (ERP, OA, …), empty while nobody has said")
    team: str = Field(description="key of the team that is responsible, empty when none")
    site: str | None
    assignee: Assignee | None
    opened_at: datetime
    acknowledged_at: datetime | None
    closed_at: datetime | None
    last_contact_at: datetime
    updated_at: datetime


class TicketSummary(_Ticket):
    requester: Requester
    caller: str = Field(description="number or mailbox of the newest contact")


class Standard(Resource):
    """What was said of the fault; null and empty: nobody has said."""

    what: str
    happened_at: datetime | None
    device: str
    version: str
    error: str
    impact: int | None
    wished: str
    missing: tuple[str, ...] = Field(description="what to ask for, the order in which to ask")


class TicketDetail(_Ticket):
    requester: Person
    impact: int = Field(description="1 company, 2 department, 3 person")
    urgency: int = Field(description="1 high, 2 medium, 3 low")
    priority_reason: str
    contacts: tuple[ContactItem, ...]
    clocks: tuple[ServiceClock, ...]
    journal: tuple[JournalEntry, ...]
    dispatches: tuple[DispatchItem, ...]
    messages: tuple[Message, ...]
    standard: Standard
    merged_into: str = Field(description="the ticket that has its contacts now, empty: none")


class Site(Resource):
    key: str
    name_zh: str
    name_en: str
    zone: str
    language: str
    queue: str
    area_code: str


class DutyItem(Resource):
    site: str
    tier: int
    engineer: Assignee
    why: Why
    since: datetime
    until: datetime
    team: str = Field("", description="key; empty for the floor number and who took over a tier")
    instead_of: str = Field("", description="key of the engineer who was put aside last")
    causes: tuple[str, ...] = Field(
        (), description="entries of the rota that had a part in it, e.g. `leave wang-20261224`"
    )


class OnCall(Resource):
    """Who is on duty at `at`, and who comes next."""

    at: datetime
    now: tuple[DutyItem, ...]
    next: tuple[DutyItem, ...]


class LedgerItem(Resource):
    """What the outside says came in on a day, against the contacts. Lists hold external ids."""

    day: date
    medium: Medium
    source: str
    outside: int
    contacts: int
    balanced: bool
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    repaired: tuple[str, ...]
    computed_at: datetime


class Component(Resource):
    component: str
    state: HealthState
    detail: str
    figures: Mapping[str, float]


class CallNow(Resource):
    """A call that is going on; what is not known is empty."""

    call_id: str
    stage: CallStage
    since: datetime
    arrived_at: datetime
    caller: str = Field(description="masked: the last four digits")
    site: str
    ticket: str
    engineer: str


class StatusReport(Resource):
    at: datetime
    phase: Phase
    state: HealthState = Field(description="the worst of the components")
    components: tuple[Component, ...]
    calls: tuple[CallNow, ...]
    tickets_today: Mapping[State, int]


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(description="urn:problem-type:contactd:…, see the document's description")
    title: str
    status: int
    detail: str = ""
    errors: tuple[Mapping[str, str], ...] = ()


# What comes in

Limit = Annotated[int, Field(ge=1, le=200)]


class TicketQuery(Resource):
    state: tuple[State, ...] = Field((), description="may be repeated")
    site: str | None = Field(None, max_length=32)
    requester: str | None = Field(None, max_length=254, description="a number or mailbox of theirs")
    q: str = Field(
        "", max_length=100, description="words that were said, names, numbers", examples=["打印机"]
    )
    priority: tuple[Priority, ...] = Field((), description="may be repeated")
    assignee: Word | None = Field(None, description="an engineer's key; empty: nobody's")
    team: Word = Field("", description="key")
    medium: Medium | None = Field(None, description="of the newest contact")
    due: Due | None = Field(None, description="a promise is broken, or will be within the hour")
    vip: bool = False
    category: Category | None = None
    sort: Sort | None = Field(None, description="of open tickets; else the newest come first")
    opened_from: At | None = None
    opened_to: At | None = Field(None, description="not included")
    cursor: str = Field("", max_length=200)
    limit: Limit = 50


class ContactQuery(Resource):
    ticket: str | None = Field(None, max_length=24)
    medium: Medium | None = None
    received_from: At | None = None
    received_to: At | None = Field(None, description="not included")
    cursor: str = Field("", max_length=200)
    limit: Limit = 50


class OnCallQuery(Resource):
    at: At | None = Field(None, description="default: now")
    site: str | None = Field(None, max_length=32)


class LedgerQuery(Resource):
    from_: Day | None = Field(None, alias="from", description="default: six days before `to`")
    to: Day | None = Field(None, description="included; default: today")


class OpenTicket(Resource):
    """A fault or a wish, from the portal or another system."""

    from_: str = Field(
        alias="from",
        min_length=1,
        max_length=254,
        description="the requester's number or mailbox",
        examples=["0755 8888 1234"],
    )
    name: str = Field("", max_length=120)
    text: str = Field(min_length=1, max_length=20_000, examples=["打印机卡纸"])
    external_id: str | None = Field(
        None, min_length=1, max_length=100, description="yours: sent twice, it opens one ticket"
    )


class Opened(Resource):
    ticket: str
    contact_id: int
    opened: bool = Field(description="false: it joined an older open ticket, or was known already")
    joined: bool
    url: str


Key = Annotated[str, Field(min_length=1, max_length=32, examples=["wang"])]
Note = Annotated[str, Field(max_length=2_000)]


class ActionNote(Resource):
    note: Note = ""


class SeenBefore(Resource):
    """With `seen` it is refused (409, `outdated`) if somebody has changed the same since then."""

    seen: int | None = Field(
        None, ge=0, le=2**31 - 1, description="seq of the last journal entry that you know of"
    )


class DescribeTicket(SeenBefore):
    """What is left out stays as it is; empty takes it back."""

    title: Annotated[str, Field(max_length=200)] | None = None
    system: Annotated[str, Field(max_length=40)] | None = None
    what: Annotated[str, Field(max_length=4_000)] | None = None
    happened_at: At | None = None
    device: Annotated[str, Field(max_length=120)] | None = None
    version: Annotated[str, Field(max_length=120)] | None = None
    error: Annotated[str, Field(max_length=4_000)] | None = None
    impact: Impact | None = None
    wished: Annotated[str, Field(max_length=120)] | None = None


class CommentTicket(Resource):
    """A note that the requester does not see."""

    words: str = Field(min_length=1, max_length=20_000, examples=["Toner is ordered"])


class MergeTicket(Resource):
    into: str = Field(min_length=1, max_length=24, description="number of the ticket that stays")


class SetRequester(Resource):
    person: int = Field(ge=1, le=10**18 - 1)


class AskCallBack(Resource):
    phone: str = Field(min_length=1, max_length=40)
    wished: Annotated[str, Field(max_length=120)] = Field("", description="when, in their words")


class AskRemote(Resource):
    """Nothing need be said."""


class WriteMail(Resource):
    """What the requester gets by mail."""

    words: str = Field(min_length=1, max_length=20_000)
    subject: str = Field("", max_length=200, description="default: of what it answers")


class MailPreview(Resource):
    to: str
    subject: str
    text: str


class SplitContact(Resource):
    """Nothing need be said."""


class Split(Resource):
    ticket: str
    url: str


class UploadQuery(Resource):
    name: str = Field(min_length=1, max_length=200, description="of the file, as people see it")


class Uploaded(Resource):
    attachment: Attachment
    contact_id: int


class TakeTicket(Resource):
    engineer: Key


class ClassifyTicket(SeenBefore):
    """What is left out stays as it is."""

    impact: Impact | None = Field(None, description="1 company, 2 department, 3 person")
    urgency: Urgency | None = Field(
        None, description="1 work has stopped, 2 is hindered, 3 can wait; a VIP's counts one higher"
    )
    category: Category | None = None
    system: str | None = Field(None, max_length=40)
    title: str | None = Field(None, max_length=200)


class NoteAnswer(Resource):
    how: Literal["call_back", "reply", "in_person"]
    at: At | None = Field(None, description="default: now; not before the ticket")
    engineer: str = Field("", max_length=32, description="who it was; they get a ticket of nobody")


class NoteUpdate(Resource):
    note: Note = Field(min_length=1)


Words = Annotated[str, Field(min_length=1, max_length=LONGEST)]


class WriteText(Resource):
    """What the requester gets by text, after the ticket's number."""

    words: Words
    key: str | None = Field(
        None, pattern=f"^{KEY}$", description="yours: the same words sent twice are one text"
    )


class PreviewText(Resource):
    words: Words


class TextPreview(Resource):
    """A text as it would be sent now, and what it costs."""

    text: str = Field(description="with the ticket's number and the signature")
    gateway: str
    encoding: str = Field(description="GSM-7 or UCS-2")
    segments: int
    left: int = Field(description="room in the last segment: septets, or UTF-16 units")
    price: float = Field(description="of a segment; 0: it is not configured")
    cost: float
    currency: str = Field(description="ISO 4217")


class HandOverTicket(SeenBefore):
    engineer: Key
    note: Note = ""


class AssignTeam(SeenBefore):
    team: str = Field(max_length=32, description="key; empty: none")


class SetContract(SeenBefore):
    contract: str = Field(
        min_length=1, max_length=48, description="key; the newest version, or key.version"
    )


class ConfirmTicket(Resource):
    """The requester's word on a ticket that is resolved."""

    solved: bool = Field(examples=[True])
    note: Note = ""


class SendEngineer(Resource):
    engineer: Key


class MoveDispatch(Resource):
    step: Step
    dispatch: int | None = Field(
        None, ge=1, le=1_000_000, description="number; default: the only one under way"
    )
    code: str = Field(
        "", pattern=r"^([0-9]{4})?$", description="what the requester told who arrived"
    )
