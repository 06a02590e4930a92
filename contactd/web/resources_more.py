"""What the API takes and gives beside tickets: people, duty, the desk file, accounts, webhooks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

from contactd.routing.notify import SendState
from contactd.store.dutyrequests import RequestKind, RequestState
from contactd.store.webhooks import DeliveryState, EventKind
from contactd.tickets.people import Role
from contactd.web.board import CallStage
from contactd.web.resources import At, Limit, Line, Resource, Word

SIGNING: Final = r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}$"  # 24 to 64 bytes in base64

# People


class PeopleQuery(Resource):
    q: Word = Field("", description="part of a name, a department, a number or a mail address")
    site: Word | None = Field(None, description="key")
    role: Literal["", "requester", "engineer"] = ""
    cursor: str = Field("", max_length=200)
    limit: Limit = 50


class PersonCard(Resource):
    """What is said of somebody; what is left out stays. Numbers and mails are added to theirs."""

    name: Line | None = None
    department: Line | None = None
    site: Word | None = Field(None, description="key; empty: none")
    vip: bool | None = None
    language: Literal["", "zh", "en"] | None = None
    numbers: tuple[Annotated[str, Field(min_length=1, max_length=40)], ...] = Field(
        (), max_length=10
    )
    mails: tuple[Annotated[str, Field(min_length=3, max_length=254)], ...] = Field(
        (), max_length=10
    )
    without: tuple[Annotated[str, Field(min_length=1, max_length=254)], ...] = Field(
        (), max_length=10, description="numbers (E.164) and mail addresses that are not theirs"
    )


class PersonAdded(Resource):
    id: int
    url: str


class MergePeople(Resource):
    into: int = Field(ge=1, le=10**18 - 1, description="who gets everything")


# Duty


class DutyQuery(Resource):
    start: At | None = Field(None, alias="from", description="default: now")
    end: At | None = Field(
        None, alias="to", description="not included; default: a week later; at most 14 days"
    )
    site: Word | None = Field(None, description="key")


class DutyRequestQuery(Resource):
    engineer: Word = Field("", description="key; default: what somebody who plans has to decide")


class DutyRequest(Resource):
    """A swap or leave that somebody asked for; on the page of their duty it is answered."""

    id: int
    kind: RequestKind
    engineer: str = Field(description="key of who asks")
    other: str = Field(description="key of whom a swap is with")
    state: RequestState
    since: datetime
    until: datetime
    note: str
    answer: str
    asked_at: datetime
    changed_at: datetime


class DeskVersion(Resource):
    """A version of the desk file; the newest one holds."""

    number: int
    at: datetime
    actor: str
    source: str = Field(description="file, web")
    note: str
    text: str | None = Field(None, description="TOML; null in a list")


class DeskWish(Resource):
    """The whole desk file as it should be."""

    text: str = Field(max_length=900_000, description="TOML, see etc/desk.toml")
    base: int = Field(ge=0, le=2**31 - 1, description="number of the version it was made from")
    note: Line = ""
    dry_run: bool = Field(False, description="check only")


class DeskFault(Resource):
    where: str
    what: str


class DeskHole(Resource):
    """Somebody should be on duty, and nobody would be."""

    site: str
    tier: int
    since: datetime
    until: datetime


class DeskCheck(Resource):
    """What a desk file would change. `saved` is the new version's number, null if it is not."""

    right: bool
    saved: int | None
    changes: tuple[str, ...]
    faults: tuple[DeskFault, ...]
    holes: tuple[DeskHole, ...] = Field(description="a file that makes new ones is not saved")


# Accounts and journals


class User(Resource):
    name: str
    role: Role
    sites: tuple[str, ...] = Field(description="empty: all")
    engineer: str
    created_at: datetime
    disabled_at: datetime | None
    has_factor: bool = Field(description="a second one")
    is_external: bool = Field(description="logs in at the OIDC provider")


Sites = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=32)], ...], Field(max_length=200)
]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^\S(.*\S)?$", examples=["crm"])]


class AddUser(Resource):
    name: Name
    password: str = Field(min_length=8, max_length=200)
    role: Role
    sites: Sites = ()
    engineer: Word = ""


class ChangeUser(Resource):
    role: Role
    sites: Sites = ()
    engineer: Word = ""
    enabled: bool = True


class Token(Resource):
    name: str
    role: Role
    sites: tuple[str, ...] = Field(description="empty: all")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class AddToken(Resource):
    name: Name
    role: Role
    sites: Sites = ()
    expires_at: At | None = Field(None, description="null: never")


class TokenSecret(Resource):
    name: str
    secret: str = Field(description="shown this once")


class Act(Resource):
    """Something that was done beside tickets."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    body: Mapping[str, JsonValue]


class ActQuery(Resource):
    actor: str = Field("", max_length=88)
    action: str = Field("", max_length=40, description="user.added, or its first word: user")
    subject: str = Field("", max_length=120)
    since: At | None = None
    until: At | None = Field(None, description="not included")
    cursor: str = Field("", max_length=200)
    limit: Limit = 50


class TextSent(Resource):
    """A text that a gateway was handed."""

    ref: str
    ticket: str
    gateway: str
    number: str | None = Field(description="null for roles that may not see it")
    segments: int
    state: SendState
    delivery: str = Field(description="what the provider reported last: sent, delivered, failed")
    error: str
    handed_at: datetime
    updated_at: datetime


class ListQuery(Resource):
    cursor: str = Field("", max_length=200)
    limit: Limit = 50


# Webhooks


class Webhook(Resource):
    id: int
    name: str
    url: str
    events: tuple[EventKind, ...] = Field(description="empty: all")
    sites: tuple[str, ...] = Field(description="of which tickets; empty: all")
    include: tuple[Literal["text"], ...] = Field(description="text: what was said, too")
    created_at: datetime
    created_by: str
    failures: int = Field(description="tries since one went well")
    failing_since: datetime | None
    waiting: int = Field(description="deliveries that have not arrived yet")
    disabled_at: datetime | None
    disabled_why: str


class WebhookAdded(Webhook):
    secret: str = Field(description="signs what is sent; shown this once")


class AddWebhook(Resource):
    name: Name
    url: str = Field(
        min_length=8, max_length=1000, pattern=r"^https?://[\x21-\x7e]+$",
        examples=["https://crm.example.com/contactd"],
        description="https; addresses of one's own network must be allowed by webhooks.networks",
    )  # fmt: skip
    events: tuple[EventKind, ...] = Field((), max_length=20, description="empty: all")
    sites: Sites = ()
    include: tuple[Literal["text"], ...] = Field(
        (), max_length=1, description="text: what was said, too; else only what changed"
    )
    secret: str | None = Field(
        None, pattern=SIGNING, description="yours; default: a new one is made"
    )


class ChangeWebhook(Resource):
    """What is left out stays."""

    name: Name | None = None
    events: Annotated[tuple[EventKind, ...], Field(max_length=20)] | None = None
    sites: Sites | None = None
    include: Annotated[tuple[Literal["text"], ...], Field(max_length=1)] | None = None
    enabled: bool | None = None


class WebhookSecret(Resource):
    id: int
    secret: str = Field(description="the old one signs beside it for 24 hours")


class Delivery(Resource):
    """Something that a webhook is told. `id` is its webhook-id, the same at each try."""

    id: str
    event: str
    state: DeliveryState
    attempts: int
    status: int | None = Field(description="of the last answer; null: there was none")
    error: str
    created_at: datetime
    due_at: datetime | None = Field(description="of the next try; null: it is over")
    settled_at: datetime | None


class Nothing(Resource):
    """Nothing need be said."""


# Calls


class LiveCall(Resource):
    """A call that is going on; what is not known is empty."""

    call_id: str
    stage: CallStage
    since: datetime
    arrived_at: datetime
    caller: str = Field(description="of a call that the desk makes: whom it reaches")
    name: str = Field(description="as the network gave it")
    did: str
    site: str
    ticket: str
    offered: tuple[str, ...] = Field(description="keys of engineers")
    engineer: str = Field(description="key")
    outgoing: bool = Field(description="the desk makes it")


class MakeCall(Resource):
    number: str = Field(min_length=1, max_length=40, description="one of the requester's")
    engineer: Word = Field("", description="key of whose phone rings first; default: who logged in")


class CallMade(Resource):
    ticket: str
    number: str
