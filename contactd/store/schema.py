"""All tables. Alembic's revisions in `migrations/` bring a database to exactly this.

Instants are aware UTC in Python; SQLite keeps them as fixed-width ISO text (so that comparing
strings compares instants), PostgreSQL as `timestamptz`. JSON columns hold what is only ever read
as a whole.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    DDL,
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
    event,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
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
        value = value if value.tzinfo is UTC else value.astimezone(UTC)
        if dialect.name == "postgresql":
            return value
        # As strftime("%Y-%m-%dT%H:%M:%S.%fZ"), three times as fast: a ticket has a dozen of them.
        return value.isoformat(timespec="microseconds")[:-6] + "Z"

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return datetime.fromisoformat(value)


class Terms(TypeDecorator[Collection[str]]):
    """What a ticket is found by, see `finding.terms`: letters, digits and `_~.-` only."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(TSVECTOR() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Collection[str] | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        mark = "'" if dialect.name == "postgresql" else ""
        return " ".join(f"{mark}{term}{mark}" for term in sorted(value))


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
    Column("role", String(16), nullable=False, server_default="requester", index=True),
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
    Column("standard", JSON, nullable=False, server_default="{}"),  # tickets.describing.Standard
    Column("merged_into", Id, index=True),  # the ticket that has its contacts now; NULL: none
    Index("ix_tickets_state_priority", "state", "priority"),
    Index("ix_tickets_updated_at", "updated_at"),
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
    Index(  # marks: few among millions of entries
        "ix_journal_rated",
        "at",
        sqlite_where=text("action = 'rated'"),
        postgresql_where=text("action = 'rated'"),
    ),
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
    *(
        Index(f"ix_clocks_{column}", column, sqlite_where=text(rows), postgresql_where=text(rows))
        for column, rows in (
            ("stopped_at", "stopped_at IS NOT NULL"),
            ("breached_at", "breached_at IS NOT NULL"),
        )
    ),
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
    Column("expires_at", Instant),  # NULL: never
    Column("sites", JSON, nullable=False, server_default="[]"),  # empty: all
)

users = Table(  # people who log in to the pages
    "users",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(200), nullable=False),  # Argon2id; "": only by OIDC
    Column("created_at", Instant, nullable=False),
    Column("sites", JSON, nullable=False, server_default="[]"),  # empty: all
    Column("engineer", String(32), nullable=False, server_default=""),  # key of the desk file
    Column("subject", String(255)),  # of the OIDC provider; NULL: none
    Column("totp_key", LargeBinary(32)),  # NULL: no second factor
    Column("totp_step", BigInteger, nullable=False, server_default="0"),  # the last one used
    Column("disabled_at", Instant),
    Index("uq_users_subject", "subject", unique=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the cookie's value
    Column("user_name", String(80), ForeignKey("users.name"), nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("created_at", Instant),  # NULL: before it was noted
    Column("agent", String(200), nullable=False, server_default=""),  # the browser's own words
)

desk_versions = Table(  # what people may edit, as text: the desk file, the words of mails
    "desk_versions",
    metadata,
    Column("kind", String(8), primary_key=True),  # desk, letters
    Column("number", Integer, primary_key=True),  # 1, 2, … of its kind
    Column("at", Instant, nullable=False),
    Column("actor", String(80), nullable=False),  # user:<name>, system
    Column("source", String(8), nullable=False),  # file, web
    Column("note", String(400), nullable=False, server_default=""),  # why
    Column("hash", String(64), nullable=False),  # of what was read: the text and its holidays
    Column("text", Text, nullable=False),
)

duty_requests = Table(  # swaps that somebody asked for, leave that somebody entered
    "duty_requests",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", String(8), nullable=False),  # swap, leave
    Column("engineer", String(32), nullable=False, index=True),  # who asks
    Column("other", String(32), nullable=False, server_default="", index=True),  # swap: with whom
    Column("state", String(12), nullable=False, index=True),
    Column("entry", JSON, nullable=False),  # of the desk file, when it is agreed
    Column("since", Instant, nullable=False),  # when it begins
    Column("until", Instant, nullable=False),
    Column("note", String(400), nullable=False, server_default=""),
    Column("answer", String(400), nullable=False, server_default=""),  # of who said no
    Column("asked_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("changed_by", String(80), nullable=False),
)

attempts = Table(  # log-ins that failed, by name and by address: what locks them out
    "attempts",
    metadata,
    Column("key", String(48), primary_key=True),  # a hash: people type passwords into the name
    Column("failures", Integer, nullable=False),
    Column("at", Instant, nullable=False, index=True),  # of the last one
    Column("until", Instant),  # locked so long; NULL: not
)

acts = Table(  # what people did beside tickets; append-only: triggers refuse UPDATE and DELETE
    "acts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Instant, nullable=False, index=True),
    Column("actor", String(80), nullable=False),  # user:<name>, token:<name>, system
    Column("action", String(40), nullable=False),  # desk.changed, user.added, recording.played, …
    Column("subject", String(120), nullable=False, server_default=""),  # what it was done to
    Column("body", JSON, nullable=False),
)

once = Table(  # keys of forms that were sent: the second time is not done again
    "once",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("at", Instant, nullable=False, index=True),
)

search_texts = Table(  # what a ticket is found by: `SearchIndex` keeps it, a second behind
    "search_texts",
    metadata,
    Column("ticket_id", Id, ForeignKey("tickets.id"), primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),  # everything said of it, a line each
    Column("terms", Terms, nullable=False),
    Column("journal_seq", Integer, nullable=False),  # of the ticket, as it was read
    Column("seen_at", Instant, nullable=False),  # its updated_at then
)
Index("ix_search_texts_terms", search_texts.c.terms, postgresql_using="gin",
      postgresql_with={"fastupdate": "off"}).ddl_if(dialect="postgresql")  # fmt: skip

# SQLite's full-text index keeps terms only; what it forgets it must be told, so triggers do it.
SEARCH_INDEX: Final = (
    "CREATE VIRTUAL TABLE search_index USING fts5(terms, content='search_texts',"
    " content_rowid='ticket_id', tokenize=\"ascii tokenchars '_~.-'\", detail=none, columnsize=0)",
    "CREATE TRIGGER search_texts_came AFTER INSERT ON search_texts BEGIN"
    " INSERT INTO search_index (rowid, terms) VALUES (NEW.ticket_id, NEW.terms); END",
    "CREATE TRIGGER search_texts_went AFTER DELETE ON search_texts BEGIN"
    " INSERT INTO search_index (search_index, rowid, terms)"
    " VALUES ('delete', OLD.ticket_id, OLD.terms); END",
    "CREATE TRIGGER search_texts_changed AFTER UPDATE OF terms ON search_texts"
    " WHEN OLD.terms <> NEW.terms BEGIN"
    " INSERT INTO search_index (search_index, rowid, terms)"
    " VALUES ('delete', OLD.ticket_id, OLD.terms);"
    " INSERT INTO search_index (rowid, terms) VALUES (NEW.ticket_id, NEW.terms); END",
)
for _statement in SEARCH_INDEX:
    _ddl = DDL(_statement).execute_if(dialect="sqlite")  # type: ignore[no-untyped-call]
    event.listen(search_texts, "after_create", _ddl)

search_people = Table(  # people whose name or addresses changed: triggers say so
    "search_people",
    metadata,
    Column("person_id", Id, ForeignKey("people.id"), primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False, server_default="1"),  # grows with each change
)

list_filters = Table(  # filters of the ticket list that people saved
    "list_filters",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(88), nullable=False),  # user:<name>
    Column("name", String(60), nullable=False),
    Column("query", String(1000), nullable=False),  # of the list's address
    Column("shared", Boolean, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("owner", "name"),
)

list_defaults = Table(  # what the list shows when nothing is asked of it
    "list_defaults",
    metadata,
    Column("owner", String(88), primary_key=True),
    Column("filter_id", Id, ForeignKey("list_filters.id"), nullable=False, index=True),
)

portal_codes = Table(  # who asked for a code for their tickets; known or not, it is a row
    "portal_codes",
    metadata,
    Column("challenge", String(32), primary_key=True),  # the code is made of it and our key
    Column("kind", String(8), nullable=False),
    Column("value", String(254), nullable=False),
    Column("language", String(8), nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("used_at", Instant),
)

portal_sessions = Table(  # requesters who have shown that an address is theirs
    "portal_sessions",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the cookie's value
    Column("person_id", Id, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("value", String(254), nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
)

portal_files = Table(  # files that were sent for a form before the form was
    "portal_files",
    metadata,
    Column("form", String(32), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", String(80), nullable=False),
    Column("name", String(200), nullable=False),
    Column("stored_at", Instant, nullable=False, index=True),
)

portal_counts = Table(  # how often something was done within an hour: what limits it
    "portal_counts",
    metadata,
    Column("key", String(64), primary_key=True),  # SHA-256 of what, by whom, in which hour
    Column("count", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
)

api_keys = Table(  # idempotency keys of the API's POSTs: what was done once is not done again
    "api_keys",
    metadata,
    Column("scope", String(100), primary_key=True),  # whose: token:<name>, user:<name>
    Column("key", String(255), primary_key=True),
    Column("request", LargeBinary(32), nullable=False),  # SHA-256 of what was sent
    Column("owner", String(32), nullable=False),  # the request that has it in hand
    Column("lease_until", Instant, nullable=False),
    Column("acted_at", Instant),  # in the transaction that did it; NULL: nothing was done yet
    Column("answer", LargeBinary),  # compressed; NULL: not answered yet
    Column("status", Integer),
    Column("location", String(200), nullable=False, server_default=""),
    Column("at", Instant, nullable=False, index=True),
)

webhooks = Table(  # other systems that want to hear of tickets
    "webhooks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("url", String(1000), nullable=False),
    Column("events", JSON, nullable=False),  # [kind, …]; empty: all
    Column("sites", JSON, nullable=False),  # of which tickets; empty: all
    Column("has_text", Boolean, nullable=False),  # it is sent what was said, too
    Column("secret", String(100), nullable=False),  # whsec_…: signs, so it cannot be a hash
    Column("old_secret", String(100), nullable=False, server_default=""),
    Column("old_secret_until", Instant),
    Column("created_at", Instant, nullable=False),  # it hears of what happens from then on
    Column("created_by", String(88), nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),  # since one went well
    Column("failing_since", Instant),
    Column("due_at", Instant, nullable=False),  # nothing is sent there before
    Column("lease_until", Instant),  # of the process that is sending
    Column("disabled_at", Instant),
    Column("disabled_why", String(200), nullable=False, server_default=""),
)

webhook_deliveries = Table(  # what they are told, and how that went
    "webhook_deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("webhook_id", Id, ForeignKey("webhooks.id"), nullable=False),
    Column("ref", String(64), nullable=False),  # webhook-id: the same each time it is tried
    Column("event", String(40), nullable=False),
    Column("ticket_id", Id),  # NULL: a test
    Column("seq", Integer, nullable=False),  # the journal entry that it tells of
    Column("body", Text, nullable=False),
    Column("state", String(12), nullable=False),  # waiting, delivered, given_up
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("status", Integer),  # of the last answer
    Column("error", String(200), nullable=False, server_default=""),
    Column("created_at", Instant, nullable=False, index=True),
    Column("due_at", Instant, nullable=False),
    Column("settled_at", Instant),
    UniqueConstraint("webhook_id", "ref"),
    Index("ix_webhook_deliveries_ticket_id", "ticket_id"),
    Index(
        "ix_webhook_deliveries_waiting",
        "webhook_id",
        "due_at",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
)

remote_sessions = Table(  # remote help: from the invitation to its end, see `tickets.remote`
    "remote_sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("ref", String(16), nullable=False, unique=True),  # what journals call it
    Column("ticket_id", Id, ForeignKey("tickets.id"), nullable=False, index=True),
    Column("state", String(12), nullable=False),
    Column("since", Instant, nullable=False),  # of its state
    Column("mode", String(12), nullable=False, server_default=""),  # "" until the user agreed
    Column("language", String(8), nullable=False),
    Column("medium", String(8), nullable=False, server_default=""),  # how the link went out
    Column("invited_by", String(80), nullable=False),  # requester, user:<name>, …
    Column("invited_at", Instant, nullable=False),
    Column("code_hash", LargeBinary(32), index=True),  # HMAC of the code; NULL: it opens nothing
    Column("code_until", Instant, nullable=False),
    Column("claim_hash", LargeBinary(32), index=True),  # the same, for an engineer who is told it
    Column("share_hash", LargeBinary(32), index=True),  # HMAC of the cookie of who agreed
    Column("agreed_at", Instant),
    Column("user_name", String(80), nullable=False, server_default=""),  # of who helps: log-in
    Column("engineer", String(120), nullable=False, server_default=""),  # and as the user is told
    Column("claimed_at", Instant),
    Column("started_at", Instant),  # somebody saw the screen for the first time
    Column("ended_at", Instant),
    Column("ending", String(12), nullable=False, server_default=""),
    Index(
        "ix_remote_sessions_open",
        "id",
        sqlite_where=text("state <> 'ended'"),
        postgresql_where=text("state <> 'ended'"),
    ),
)

remote_keys = Table(  # with which a user's helper shows whose it is; each opens the door once
    "remote_keys",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # HMAC
    Column("session_id", Id, ForeignKey("remote_sessions.id"), nullable=False, index=True),
    Column("kind", String(8), nullable=False),  # helper, resume, repeater
    Column("expires_at", Instant, nullable=False, index=True),
)

remote_consents = Table(  # what users said; append-only: triggers refuse UPDATE and DELETE
    "remote_consents",
    metadata,
    Column("id", Id, primary_key=True),
    Column("session_id", Id, ForeignKey("remote_sessions.id"), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(12), nullable=False),  # agree, consent, hand_over, look, rights, file
    Column("yes", Boolean, nullable=False),
    Column("user_name", String(80), nullable=False, server_default=""),  # who is let in: log-in
    Column("engineer", String(120), nullable=False, server_default=""),  # as the user was told
    Column("purpose", String(8), nullable=False, server_default=""),
    Column("mode", String(12), nullable=False, server_default=""),
    Column("rights", JSON, nullable=False),
    Column("language", String(8), nullable=False),
    Column("version", String(20), nullable=False),  # of the agreement
    Column("text_hash", String(64), nullable=False),  # SHA-256 of what was shown
)

remote_legs = Table(  # one person who saw the screen
    "remote_legs",
    metadata,
    Column("session_id", Id, ForeignKey("remote_sessions.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # 1, 2, … within the session
    Column("user_name", String(80), nullable=False),
    Column("engineer", String(120), nullable=False),
    Column("purpose", String(8), nullable=False),
    Column("rights", JSON, nullable=False),
    Column("consent_id", Id, ForeignKey("remote_consents.id"), nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("ending", String(12), nullable=False, server_default=""),
    Column("settled", Boolean, nullable=False, server_default="0"),  # what follows is final
    Column("keys", BigInteger, nullable=False, server_default="0"),
    Column("clicks", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("recording", JSON),  # of a file in data_dir/blobs; NULL: there is none
    Column("note", String(200), nullable=False, server_default=""),
)

remote_chat = Table(  # what was written; append-only: triggers refuse UPDATE and DELETE
    "remote_chat",
    metadata,
    Column("id", Id, primary_key=True),
    Column("session_id", Id, ForeignKey("remote_sessions.id"), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("who", String(80), nullable=False),  # requester, user:<name>
    Column("text", Text, nullable=False),
)

remote_files = Table(  # files that one side offers and the other takes, or does not
    "remote_files",
    metadata,
    Column("session_id", Id, ForeignKey("remote_sessions.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("sender", String(80), nullable=False),  # requester, user:<name>
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", String(80), nullable=False),
    Column("name", String(200), nullable=False),
    Column("state", String(12), nullable=False),  # offered, accepted, refused
    Column("offered_at", Instant, nullable=False),
    Column("answered_at", Instant),
)

remote_tries = Table(  # codes that opened nothing, within an hour: what locks the door
    "remote_tries",
    metadata,
    Column("key", String(64), primary_key=True),  # HMAC of by whom, in which hour
    Column("count", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
)
