"""All tables. Alembic's revisions in `migrations/` bring a database to exactly this.

Instants are aware UTC in Python; SQLite keeps them as fixed-width ISO text (so that comparing
strings compares instants), PostgreSQL as `timestamptz`. JSON columns hold what is only ever read
as a whole.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant with microseconds; a naive one is refused."""

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant must be aware")
        value = value.astimezone(UTC)
        if dialect.name == "postgresql":
            return value
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return datetime.fromisoformat(value)


# SQLite gives only an INTEGER PRIMARY KEY its own numbers.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

sites = Table(
    "sites",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("name_zh", String(80), nullable=False),
    Column("name_en", String(80), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("language", String(8), nullable=False, server_default="zh"),
    Column("queue", String(32), nullable=False),
    Column("floor", String(32), nullable=False),
    Column("area_code", String(8), nullable=False, server_default=""),
    Column("contract", String(48), nullable=False, server_default=""),  # versioned: gold.3
    Column("calendar", String(48), nullable=False, server_default=""),  # versioned: gz-hours.2
    CheckConstraint("floor <> ''", name="floor_is_never_empty"),
)

people = Table(
    "people",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", String(32), unique=True),  # engineers and people of the desk file; NULL else
    Column("name", String(120), nullable=False, server_default=""),
    Column("department", String(120), nullable=False, server_default=""),
    Column("site", String(32), ForeignKey("sites.key")),
    Column("role", String(16), nullable=False, server_default="requester"),
    Column("vip", Boolean, nullable=False, server_default="0"),
    Column("language", String(8), nullable=False, server_default=""),  # "": the site's
    Column("created_at", Instant, nullable=False),
)

addresses = Table(  # a person keeps several numbers; a number belongs to one person
    "addresses",
    metadata,
    Column("kind", String(8), primary_key=True),  # phone (E.164 or extension), mail
    Column("value", String(254), primary_key=True),
    Column("person_id", Id, ForeignKey("people.id"), nullable=False, index=True),
    Column("rank", Integer, nullable=False, server_default="0"),  # 0 is tried first
    Column("bounced_at", Instant),  # mail to it came back for good; NULL again once it writes
)

rotas = Table(  # one row: the rota and the people in it, replaced as a whole
    "rotas",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("body", JSON, nullable=False),
    Column("loaded_at", Instant, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("number", String(24), nullable=False, unique=True),
    Column("requester_id", Id, ForeignKey("people.id"), nullable=False, index=True),
    Column("site", String(32), ForeignKey("sites.key")),
    Column("state", String(16), nullable=False),
    Column("impact", Integer, nullable=False),
    Column("urgency", Integer, nullable=False),
    Column("priority", String(2), nullable=False),
    Column("priority_reason", String(200), nullable=False),
    Column("title", String(200), nullable=False, server_default=""),
    Column("assignee_id", Id, ForeignKey("people.id")),
    Column("opened_at", Instant, nullable=False, index=True),
    Column("acknowledged_at", Instant),
    Column("closed_at", Instant),
    Column("last_contact_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("journal_seq", Integer, nullable=False, server_default="0"),  # last entry's seq
    Column("journal_hash", String(64), nullable=False, server_default=""),  # and its hash
    Column("category", String(16), nullable=False, server_default=""),
    Column("system", String(40), nullable=False, server_default=""),
    Column("team", String(32), nullable=False, server_default=""),
    Index("ix_tickets_state_priority", "state", "priority"),
)

contacts = Table(
    "contacts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("ticket_id", Id, ForeignKey("tickets.id"), nullable=False, index=True),
    Column("person_id", Id, ForeignKey("people.id"), nullable=False),
    Column("medium", String(8), nullable=False),
    Column("external_id", String(200), nullable=False),
    Column("direction", String(4), nullable=False),
    Column("source", String(8), nullable=False),  # live, replay (= repaired)
    Column("received_at", Instant, nullable=False, index=True),
    Column("from_value", String(254), nullable=False, server_default=""),
    Column("from_name", String(254), nullable=False, server_default=""),
    Column("to_value", String(254), nullable=False, server_default=""),
    Column("outcome", String(24), nullable=False),
    Column("text", Text, nullable=False, server_default=""),
    Column("call", JSON(none_as_null=True)),  # CallFacts, for medium = call
    Column("call_final", Boolean, nullable=False, server_default="0"),
    Column("filed_at", Instant, nullable=False),
    Column("mail", JSON(none_as_null=True)),  # MailFacts, for medium = mail
    UniqueConstraint("medium", "external_id"),
)

attachments = Table(
    "attachments",
    metadata,
    Column("id", Id, primary_key=True),
    Column("contact_id", Id, ForeignKey("contacts.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),  # recording, voicemail, raw, attachment, inline
    Column("sha256", String(64), nullable=False),  # the file's name below data_dir/blobs
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", String(80), nullable=False),
    Column("name", String(200), nullable=False),
    Column("stored_at", Instant, nullable=False),
    Column("content_id", String(254), nullable=False, server_default=""),  # of a mail's part
    UniqueConstraint("contact_id", "kind", "sha256"),
)

mail_ids = Table(  # the mails we received: an answer to one of them belongs to its ticket
    "mail_ids",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the Message-ID
    Column("contact_id", Id, ForeignKey("contacts.id"), primary_key=True),
)

mail_pages = Table(  # the HTML of mails, safe to show
    "mail_pages",
    metadata,
    Column("contact_id", Id, ForeignKey("contacts.id"), primary_key=True),
    Column("html", Text, nullable=False),
)

keys = Table(  # secrets that this installation made itself
    "keys",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary(32), nullable=False),
    Column("created_at", Instant, nullable=False),
)

journal = Table(  # append-only: triggers refuse UPDATE and DELETE
    "journal",
    metadata,
    Column("ticket_id", Id, ForeignKey("tickets.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),  # 1, 2, 3, … without a gap
    Column("at", Instant, nullable=False),
    Column("actor", String(80), nullable=False),  # requester, system, engineer:<key>, user:<name>
    Column("action", String(40), nullable=False),
    Column("state", String(16), nullable=False),  # the ticket's state after it
    Column("body", JSON, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("body", JSON, nullable=False),
    Column("dedup_key", String(120), unique=True),  # NULL: no deduplication
    Column("created_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("lease_until", Instant),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("error", String(400), nullable=False, server_default=""),
    Column("parked_at", Instant),  # given up; an operator looks
    *(  # a million timers may be armed: what is asked of them all the time is in an index
        Index(name, *columns, sqlite_where=text(rows), postgresql_where=text(rows))
        for name, columns, rows in (
            ("ix_outbox_due_at", ("due_at", "id"), "parked_at IS NULL"),
            ("ix_outbox_attempts", ("attempts",), "attempts > 0"),
            ("ix_outbox_parked_at", ("parked_at",), "parked_at IS NOT NULL"),
        )
    ),
)

notifications = Table(  # one message to one person: a call, a text, a mail
    "notifications",
    metadata,
    Column("id", Id, primary_key=True),
    Column("dedup_key", String(120), nullable=False, unique=True),
    Column("ticket_id", Id, ForeignKey("tickets.id"), nullable=False, index=True),
    Column("recipient", String(32), nullable=False),  # engineer's key, floor, requester
    Column("medium", String(8), nullable=False),
    Column("address", String(254), nullable=False),
    Column("client_ref", String(120), nullable=False, unique=True),  # AMI ChannelId, gateway's
    Column("reason", String(24), nullable=False),  # routing.notify.Reason
    Column("facts", JSON, nullable=False),  # what its text says
    Column("step", Integer, nullable=False, server_default="0"),
    Column("generation", Integer, nullable=False, server_default="0"),
    Column("state", String(16), nullable=False),  # routing.notify.SendState
    Column("detail", String(200), nullable=False, server_default=""),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index("ix_notifications_address", "address", "created_at"),
)

texts = Table(  # what a gateway was handed: one row a notification
    "texts",
    metadata,
    Column("ref", String(120), primary_key=True),  # the notification's client_ref
    Column("gateway", String(16), nullable=False),
    Column("message_id", String(80), nullable=False, server_default=""),  # the provider's
    Column("number", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Column("segments", Integer, nullable=False),
    Column("delivery", String(16), nullable=False, server_default=""),  # sms.gateway.Delivery
    Column("error", String(80), nullable=False, server_default=""),  # the provider's code
    Column("handed_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index("ix_texts_message_id", "gateway", "message_id"),
    Index("ix_texts_number", "number", "handed_at"),
    Index("ix_texts_handed_at", "handed_at"),
)

text_reports = Table(  # what was reported of a text before its id was known
    "text_reports",
    metadata,
    Column("gateway", String(16), primary_key=True),
    Column("message_id", String(80), primary_key=True),
    Column("delivery", String(16), nullable=False),
    Column("error", String(80), nullable=False, server_default=""),
    Column("reported_at", Instant, nullable=False, index=True),
)

text_parts = Table(  # of texts that come in several: kept until they can surely not come again
    "text_parts",
    metadata,
    Column("gateway", String(16), primary_key=True),
    Column("sender", String(32), primary_key=True),
    Column("recipient", String(32), primary_key=True),
    Column("reference", Integer, primary_key=True),
    Column("total", Integer, primary_key=True),
    Column("series", Integer, primary_key=True),  # references are used again: 0, 1, 2, …
    Column("number", Integer, primary_key=True),
    Column("body", Text, nullable=False),  # UTF-16BE in hexadecimal: half a sign is no text
    Column("given_up", Boolean, nullable=False, server_default="0"),  # filed with gaps
    Column("received_at", Instant, nullable=False, index=True),
)

opt_outs = Table(  # numbers that want no texts
    "opt_outs",
    metadata,
    Column("number", String(16), primary_key=True),
    Column("word", String(40), nullable=False),  # what they wrote, or which gateway says so
    Column("since", Instant, nullable=False),
)

spans = Table(  # who is on duty: rota.spans, 60 days ahead; holes are rows with engineer ""
    "spans",
    metadata,
    Column("id", Id, primary_key=True),
    Column("site", String(32), nullable=False),
    Column("tier", Integer, nullable=False),
    Column("team", String(32), nullable=False, server_default=""),
    Column("engineer", String(32), nullable=False),
    Column("since", Instant, nullable=False),
    Column("until", Instant, nullable=False, index=True),
    Column("why", JSON, nullable=False),  # [[kind, key], …]
    Column("instead_of", String(32), nullable=False, server_default=""),
)

feeds = Table(  # external iCalendar files: the last good copy of each
    "feeds",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("url", String(500), nullable=False),  # what it is a copy of
    Column("body", Text, nullable=False, server_default=""),
    Column("etag", String(200), nullable=False, server_default=""),
    Column("absences", JSON, nullable=False),  # [[start, end], …]: what it says, UTC
    Column("read_until", Instant),  # how far into the future it was read
    Column("tried_at", Instant, nullable=False),
    Column("good_at", Instant),  # when the copy was last known to be current
    Column("error", String(400), nullable=False, server_default=""),
)

terms = Table(  # every version of what was promised and of who is told; never changed
    "terms",
    metadata,
    Column("kind", String(16), primary_key=True),  # contract, calendar, policy
    Column("key", String(40), primary_key=True),
    Column("version", Integer, primary_key=True),  # 1, 2, …
    Column("body", JSON, nullable=False),
    Column("since", Instant, nullable=False),
)

holidays = Table(  # public holidays, as the last file that was imported has them
    "holidays",
    metadata,
    Column("key", String(8), primary_key=True),  # cn
    Column("body", Text, nullable=False),
    Column("confirmed_through", String(10), nullable=False),  # YYYY-MM-DD
    Column("imported_at", Instant, nullable=False),
)

clocks = Table(  # a copy of what routing.clocks says of a ticket's journal
    "clocks",
    metadata,
    Column("ticket_id", Id, ForeignKey("tickets.id"), primary_key=True),
    Column("metric", String(16), primary_key=True),
    Column("entry", Integer, primary_key=True),  # the journal entry that started it
    Column("state", String(16), nullable=False),
    Column("goal_s", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("due_at", Instant),
    Column("provisional", Boolean, nullable=False),
    Column("stopped_at", Instant),
    Column("breached_at", Instant),
    Column("segments", JSON, nullable=False),
    Index("ix_clocks_state_due_at", "state", "due_at"),
)

escalations = Table(  # who is told about a ticket: routing.escalation.Escalation
    "escalations",
    metadata,
    Column("ticket_id", Id, ForeignKey("tickets.id"), primary_key=True),
    Column("phase", String(16), nullable=False),  # "": nobody had to be told yet
    Column("site", String(32), nullable=False),
    Column("symptom", String(120), nullable=False, server_default=""),
    Column("leader", String(24), nullable=False, server_default="", index=True),
    Column("seen_seq", Integer, nullable=False),  # the journal entries it knows of
    Column("body", JSON(none_as_null=True)),  # NULL: nobody had to be told yet
    Index("ix_escalations_phase_site", "phase", "site", "symptom"),
)

dispatches = Table(  # somebody who is sent to the site; the code proves the arrival
    "dispatches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("ticket_id", Id, ForeignKey("tickets.id"), nullable=False, index=True),
    Column("number", Integer, nullable=False),  # 1, 2, … of its ticket
    Column("engineer", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("code", String(8), nullable=False),
    Column("wrong_codes", Integer, nullable=False, server_default="0"),
    Column("is_proved", Boolean, nullable=False, server_default="0"),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("ticket_id", "number"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("source", String(80), primary_key=True),
    Column("position", Text, nullable=False),
    Column("updated_at", Instant, nullable=False),
)

sequences = Table(  # the daily sequence of ticket numbers
    "sequences",
    metadata,
    Column("day", String(6), primary_key=True),  # YYMMDD in the service's time zone
    Column("last", Integer, nullable=False),
)

ledger_days = Table(
    "ledger_days",
    metadata,
    Column("day", String(10), primary_key=True),  # YYYY-MM-DD in the service's time zone
    Column("medium", String(8), primary_key=True),
    Column("source", String(40), primary_key=True),  # the PBX's name
    Column("outside", Integer, nullable=False),  # what the outside says came in
    Column("contacts", Integer, nullable=False),
    Column("missing", JSON, nullable=False),  # external ids known outside only
    Column("extra", JSON, nullable=False),  # external ids known to us only
    Column("repaired", JSON, nullable=False),  # external ids that only the replay brought
    Column("computed_at", Instant, nullable=False),
)

tokens = Table(  # API tokens: only a hash of the secret is kept
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of 256 random bits
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
)

users = Table(  # people who log in to the pages
    "users",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(200), nullable=False),  # Argon2id
    Column("created_at", Instant, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the cookie's value
    Column("user_name", String(80), ForeignKey("users.name"), nullable=False),
    Column("expires_at", Instant, nullable=False),
)
