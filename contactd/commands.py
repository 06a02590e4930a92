"""The commands that look or load and end; `__main__` parses their arguments."""

import os
import sys
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime, time, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from contactd.clock import SystemClock
from contactd.errors import ConfigurationError, ContactdError, NotFound
from contactd.mail.ledger import YOUNG, accepted, spool_reader
from contactd.mail.templates import parse, preview, read_letters
from contactd.routing import clocks, promises, rota
from contactd.routing.clocks import Breached, Clock
from contactd.routing.notify import Reason
from contactd.routing.oncall import Duties, Duty, Site, Why, next_duties, on_duty
from contactd.routing.rota import HOLE
from contactd.routing.terms import Terms
from contactd.service import HealthState
from contactd.settings import PbxSettings, Settings
from contactd.store import duty, holidays
from contactd.store.accounts import Accounts
from contactd.store.deskversions import DeskVersions, Kind, Source, read_source
from contactd.store.engine import Database, upgrade
from contactd.store.ledger import Ledger, LedgerDay
from contactd.store.terms import LastTerms
from contactd.store.views import ContactView, MessageView, Views
from contactd.telephony.ledger import hotline_calls, records_since
from contactd.tickets import journal
from contactd.tickets.contact import Medium
from contactd.tickets.journal import Entry
from contactd.tickets.model import clean_line
from contactd.tickets.people import Role


@asynccontextmanager
async def _database(settings: Settings, *, migrates: bool = False) -> AsyncIterator[Database]:
    """Open the database; who only looks does not change its tables."""
    if migrates and settings.database.migrate_on_start:
        await upgrade(settings.database_url)
    database = Database(settings.database_url)
    async with database.running():
        yield database


@asynccontextmanager
async def _accounts(settings: Settings) -> AsyncIterator[Accounts]:
    async with _database(settings, migrates=True) as database:
        yield Accounts(database, SystemClock())


async def load(settings: Settings, file: Path) -> int:
    """Load sites, people and the rota; print what there is and what is wrong with the rota."""
    source = read_source(file)
    async with _database(settings, migrates=True) as database:
        versions = DeskVersions(database, SystemClock())
        before = await versions.newest()
        loaded = await versions.take_file(source)
        assert loaded is not None  # noqa: S101 - without only_if_new it is always loaded
        problems = await duty.problems(database, SystemClock())
    print(
        f"loaded {loaded.sites} sites, {loaded.engineers} engineers, {loaded.people} people, "
        f"{loaded.rota} entries of the rota"
    )
    if before is not None and before.source is Source.WEB and before.hash != source.hash:
        print(f"note: it replaces version {before.number}, which was edited on the web")
    for problem in problems:
        print(f"warning: {problem}")
    return os.EX_OK


async def export_desk(settings: Settings) -> int:
    """Print the desk file that holds, as it was loaded or edited last."""
    async with _database(settings) as database:
        newest = await DeskVersions(database, SystemClock()).newest()
    if newest is None:
        print("no desk file was loaded yet: contactd load FILE", file=sys.stderr)
        return os.EX_CONFIG
    print(newest.text, end="")
    return os.EX_OK


async def create_token(
    settings: Settings, name: str, role: str, sites: Sequence[str], lasts: timedelta | None
) -> int:
    expires_at = SystemClock().now() + lasts if lasts is not None else None
    async with _accounts(settings) as accounts:
        print(await accounts.create_token(name, Role(role), sites=sites, expires_at=expires_at))
    return os.EX_OK


async def revoke_token(settings: Settings, name: str) -> int:
    async with _accounts(settings) as accounts:
        await accounts.revoke_token(name)
    print(f"token {name} is revoked")
    return os.EX_OK


async def list_tokens(settings: Settings) -> int:
    zone = ZoneInfo(settings.service.zone)
    async with _accounts(settings) as accounts:
        for token in await accounts.tokens():
            line = f"{token.name}  {token.role}{_where(token.sites)}"
            line += f"  created {_clock(token.created_at, zone)}"
            if token.expires_at is not None:
                line += f"  expires {_clock(token.expires_at, zone)}"
            if token.revoked_at is not None:
                line += f"  revoked {_clock(token.revoked_at, zone)}"
            print(line)
    return os.EX_OK


async def add_user(  # noqa: PLR0913 - the options of a command
    settings: Settings,
    name: str,
    role: str,
    password: str,
    sites: Sequence[str] | None,
    engineer: str | None,
) -> int:
    async with _accounts(settings) as accounts:
        await accounts.add_user(name, password, Role(role), sites=sites, engineer=engineer)
    print(f"user {name} may log in as {role}")
    return os.EX_OK


async def list_users(settings: Settings) -> int:
    zone = ZoneInfo(settings.service.zone)
    async with _accounts(settings) as accounts:
        for user in await accounts.users():
            line = f"{user.name}  {user.grant.role}{_where(user.grant.sites)}"
            line += f"  engineer {user.grant.engineer}" if user.grant.engineer else ""
            line += "  company account" if user.is_external else ""
            line += "  second factor" if user.has_factor else ""
            line += f"  created {_clock(user.created_at, zone)}"
            line += f"  disabled {_clock(user.disabled_at, zone)}" if user.disabled_at else ""
            print(line)
    return os.EX_OK


async def reset_factor(settings: Settings, name: str) -> int:
    async with _accounts(settings) as accounts:
        await accounts.set_factor(name, None)
    print(f"user {name} logs in without a code")
    return os.EX_OK


def _where(sites: Collection[str]) -> str:
    return f"  sites {', '.join(sorted(sites))}" if sites else ""


async def remove_user(settings: Settings, name: str) -> int:
    async with _accounts(settings) as accounts:
        await accounts.remove_user(name)
    print(f"user {name} may no longer log in")
    return os.EX_OK


async def ledger(settings: Settings, day: date | None) -> int:
    """Balance a day and print it; the exit code is 1 if there is a difference.

    A day before yesterday keeps what was found then, and is compared again as far as the PBX still
    has its records.
    """
    async with _database(settings) as database:
        book = Ledger(database, SystemClock(), settings.service.zone)
        day = day or book.today()
        balanced = [await _balanced(settings, book, pbx, day) for pbx in settings.pbx]
        if settings.smtp.mailboxes:
            balanced.append(await _mail_balanced(settings, book, day))
    return os.EX_OK if all(balanced) else 1


async def _balanced(settings: Settings, book: Ledger, pbx: PbxSettings, day: date) -> bool:
    zone = settings.service.zone
    if book.is_closed(day):
        stored = await book.stored(day, pbx.name)
        if stored is None:
            print(f"{day}  {pbx.name}  was never balanced")
        else:
            _print_ledger(stored, f", as found {_clock(stored.computed_at, ZoneInfo(zone))}")
        since = await records_since(pbx.cel_path)
        if since is None or since > datetime.combine(day, time(), ZoneInfo(zone)):
            print("  the PBX's records of the whole day are no longer kept")
            return stored is not None and stored.balanced
    calls = await hotline_calls(
        pbx.cel_path, day=day, zone=zone, hotline_contexts=pbx.hotline_contexts
    )
    settled = await book.settle(day, pbx.name, calls)
    _print_ledger(settled)
    return settled.balanced


async def _mail_balanced(settings: Settings, book: Ledger, day: date) -> bool:
    spool = spool_reader(
        settings.service.data_dir,
        day_of=lambda at: at.astimezone(ZoneInfo(settings.service.zone)).date(),
    )
    name = settings.smtp.name
    outside = await accepted(spool, name, day)
    settled = await book.settle(day, name, outside, Medium.MAIL, YOUNG)
    _print_ledger(settled)
    return settled.balanced


def _print_ledger(settled: LedgerDay, when: str = "") -> None:
    word = "balanced" if settled.balanced else "DIFFERENCE"
    print(
        f"{settled.day}  {settled.source}  {settled.medium}: {settled.outside} "
        f"{_OUTSIDE[settled.medium]}, {settled.contacts} contacts, "
        f"{len(settled.repaired)} repaired: {word}{when}"
    )
    for what, ids in (
        ("missing here", settled.missing),
        ("unknown there", settled.extra),
        ("repaired", settled.repaired),
    ):
        for call_id in ids:
            print(f"  {what}: {call_id}")


_OUTSIDE: Final = {Medium.CALL: "in the PBX's CEL", Medium.MAIL: "accepted by SMTP"}


async def letter(settings: Settings, reason: Reason, language: str, *, as_html: bool) -> int:
    """Print a mail about a ticket that there never was, in the words that hold.

    Those of the file are shown without a database.
    """
    letters = read_letters(settings.mail.letters_file)
    with suppress(ContactdError):
        async with _database(settings) as database:
            newest = await DeskVersions(database, SystemClock()).newest(Kind.LETTERS)
        letters = parse(newest.text) if newest is not None else letters
    shown = preview(reason, language, letters, service=settings.service.name)
    print(shown.html if as_html else f"Subject: {shown.subject}\n\n{shown.text}")
    return os.EX_OK


async def oncall(settings: Settings, at: datetime | None, site: str | None) -> int:
    """Print who is on duty, until when and why, and who comes next."""
    now = at or SystemClock().now()
    async with _database(settings) as database:
        duties = await duty.duties(database, SystemClock(), now)
    keys = [place.key for place in duties.sites]
    if not keys:
        print("no rota is loaded: contactd load FILE", file=sys.stderr)
        return os.EX_CONFIG
    if site is not None and site not in keys:
        raise NotFound(f"there is no site {site!r}; there are: {', '.join(keys)}")
    for place in duties.sites:
        if site in (None, place.key):
            _print_duty(duties, place, now)
    if not duties.stored:
        print("worked out now from the rota in force: duty of that time is not stored")
    return os.EX_OK


def _print_duty(duties: Duties, site: Site, now: datetime) -> None:
    zone = ZoneInfo(site.zone)
    print(f"{site.key}  {site.name_zh} / {site.name_en}  {_clock(now, zone)}")
    for found in on_duty(duties, site.key, now):
        tier = "floor " if found.why is Why.FLOOR else f"tier {found.tier}"
        print(
            f"  {tier}  {found.engineer.name} ({found.engineer.key})  {found.engineer.number}"
            f"  until {_clock(found.until, zone)}, by {_reasons(found)}"
        )
    for span in duties.by_site[site.key][1]:
        if span.engineer == HOLE and span.since <= now < span.until:
            print(f"  {rota.explain(span, site.zone)}")
    for coming in next_duties(duties, site.key, now):
        print(f"  next: tier {coming.tier}  {coming.engineer.name}  {_clock(coming.since, zone)}")


def _reasons(found: Duty) -> str:
    reasons = ", then ".join(map(str, found.causes)) or found.why
    return f"{reasons} instead of {found.instead_of}" if found.instead_of else reasons


async def explain(settings: Settings, number: str) -> int:
    """Print a ticket: what came in, what was done, its clocks, whom anything was sent to.

    The exit code says whether its journal is whole.
    """
    zone, now = ZoneInfo(settings.service.zone), SystemClock().now()
    async with _database(settings) as database:
        detail = await Views(database, SystemClock()).ticket(number)
        promised = await _terms(settings, database)
    ticket = detail.ticket
    print(
        f"{ticket.number}  {ticket.state}  {ticket.priority} ({detail.priority_reason})"
        f"  site {ticket.site or '-'}  engineer {ticket.engineer or '-'}"
    )
    about = (ticket.category, ticket.system, ticket.team and f"team {ticket.team}", ticket.title)
    if any(about):
        print(f"  {'; '.join(filter(None, about))}")
    for contact in detail.contacts:
        print(f"  {_clock(contact.received_at, zone)}  {_contact(contact)}")
    _print_journal(detail.journal, zone)
    broken = journal.verify(detail.journal, last_hash=detail.journal_hash)
    if broken:
        print(f"  journal: BROKEN: {broken}; what it says of the clocks would be worth nothing")
        return os.EX_DATAERR
    for clock in promises.clocks(detail.journal, promised):
        _print_clock(clock, zone, now)
    _print_messages(detail.messages, zone)
    print("  journal: whole")
    return os.EX_OK


def _print_journal(entries: Iterable[Entry], zone: ZoneInfo) -> None:
    """Print the entries; of those that say the same again and again, the first and the last."""
    for _, alike in groupby(entries, key=_said):
        lines = [
            f"  {entry.seq:3}  {_clock(entry.at, zone)}  {entry.actor}  {entry.action}"
            f"  {_body(entry.body, zone)}".rstrip()
            for entry in alike
        ]
        if len(lines) > 3:
            lines[1:-1] = [f"       … {len(lines) - 2} more like it …"]
        print("\n".join(lines))


def _print_messages(messages: Iterable[MessageView], zone: ZoneInfo) -> None:
    """Print who was sent what, how often, and what became of it."""
    found: dict[str, list[datetime]] = {}
    for sent in messages:
        what = f"{sent.medium} to {sent.recipient} ({sent.reason}): {_spaced(sent.state)}"
        found.setdefault(what, []).append(sent.updated_at)
    for what, times in found.items():
        often = f"{len(times)} times, last " if len(times) > 1 else ""
        print(f"  {what} {often}{_clock(max(times), zone)}")


def _said(entry: Entry) -> tuple[str, str, dict[str, Any]]:
    counted = {"generation", "round"}
    body = {key: value for key, value in entry.body.items() if key not in counted}
    return entry.actor, entry.action, body


def _body(body: Mapping[str, Any], zone: ZoneInfo) -> str:
    """Return what an entry says, on one line: some of it was written by strangers."""
    told = []
    for key, value in body.items():
        if key.endswith("_s") and isinstance(value, int):
            told.append(f"{_spaced(key[:-2])} {_length(timedelta(seconds=value))}")
        elif value not in (None, "", []):
            told.append(f"{_spaced(key)} {_value(value, zone)}")
    return "; ".join(told)


def _value(value: object, zone: ZoneInfo) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_value(each, zone) for each in value)
    text = clean_line(str(value), 500)
    try:  # as journal.instant_text writes it
        return _clock(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z"), zone)
    except ValueError:
        return text


def _spaced(word: str) -> str:
    return word.replace("_", " ")


async def _terms(settings: Settings, database: Database) -> Terms:
    return await LastTerms(
        database,
        answer=timedelta(seconds=settings.tickets.answer_within_s),
        remote=timedelta(seconds=settings.tickets.remote_within_s),
    )()


def _print_clock(clock: Clock, zone: ZoneInfo, now: datetime) -> None:
    spent = clocks.spent_at(clock, now)
    line = f"  clock {clock.metric}: {clock.state}, {_length(spent)} of {_length(clock.goal)}"
    if clock.due_at is not None:
        line += f", due {_due(clock.due_at, clock.provisional, zone)}"
    if (at := promises.breached_at(clock, now)) is not None:
        line += f", BREACHED {_clock(at, zone)}"
    if clock.breached is Breached.STANDS:
        line += " (recorded; by what is known now it would not be)"
    print(line)
    for row in clocks.explain(clock, zone, at=now):
        until = _clock(row.until, zone) if row.until else "now"
        kind = "runs" if row.running else "paused"
        goal = f" of then {_length(row.goal)}" if row.goal != clock.goal else ""
        print(
            f"      {_clock(row.since, zone)} – {until}  {kind}: {row.reason} (entry {row.entry}),"
            f" {_length(row.worked)} counted by {row.calendar}{goal}"
        )


def _due(at: datetime | None, provisional: bool, zone: ZoneInfo) -> str:
    if at is None:
        return "open (paused)"
    return _clock(at, zone) + (" (provisional)" if provisional else "")


async def import_calendar(settings: Settings, file: Path, *, applies: bool) -> int:
    """Print which deadlines a file of public holidays moves; `applies` puts it in force."""
    body, zone = _read(file), ZoneInfo(settings.service.zone)
    async with _database(settings, migrates=applies) as database:
        promised = await _terms(settings, database)
        if applies:
            found = await holidays.apply(database, body, promised, SystemClock())
        else:
            found = await holidays.preview(database, body, promised)
    print(f"public holidays are settled through {found.confirmed_through}")
    for move in found.moves:
        before, after = (
            _due(each.at, each.provisional, zone) for each in (move.before, move.after)
        )
        print(f"  {move.after.ticket}  {move.after.metric}  {before} -> {after}")
    print(f"{len(found.moves)} deadlines change")
    if applies:
        print(f"imported; {found.tickets} open tickets are computed anew")
    else:
        print("nothing was stored: add --apply to import it")
    return os.EX_OK


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8: {error}") from error


async def calendar_status(settings: Settings) -> int:
    """Print how far public holidays are settled; the exit code is 1 if a newer file is needed."""
    zone, now = ZoneInfo(settings.service.zone), SystemClock().now()
    async with _database(settings) as database:
        promised = await _terms(settings, database)
        standing = await holidays.standing(database, promised)
    if standing.confirmed_through is None or standing.imported_at is None:
        print("no public holidays were imported")
    else:
        print(
            f"public holidays are settled through {standing.confirmed_through},"
            f" imported {_clock(standing.imported_at, zone)}"
        )
    for each in standing.provisional:
        print(f"  {each.ticket}  {each.metric}  {_due(each.at, each.provisional, zone)}")
    print(f"{len(standing.provisional)} deadlines are provisional")
    health = holidays.health_of(promised, now.astimezone(zone).date())
    if health.state is not HealthState.UP:
        print(f"warning: {health.detail}")
        return 1
    return os.EX_OK


def _length(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _contact(contact: ContactView) -> str:
    text = f"{contact.medium} {contact.external_id}: {_spaced(contact.outcome)}"
    call = contact.call
    if call is None:
        return text
    for word, value in (("waited", call.waited), ("talked", call.talked)):
        if value is not None:
            text += f", {word} {value / timedelta(seconds=1):.0f} s"
    return text + "".join(f", {leg.engineer}" for leg in call.legs)


def _clock(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}"
