"""The commands that look or load and end; `__main__` parses their arguments."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from contactd.clock import SystemClock
from contactd.errors import NotFound
from contactd.routing import clocks, deskfile, promises
from contactd.routing.clocks import Clock
from contactd.routing.oncall import Why, next_duties, on_duty, problems
from contactd.settings import PbxSettings, Settings
from contactd.store import desk
from contactd.store.accounts import Accounts
from contactd.store.engine import Database, upgrade
from contactd.store.ledger import Ledger, LedgerDay
from contactd.store.views import ContactView, Views
from contactd.telephony.ledger import hotline_calls, records_since
from contactd.tickets import journal
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
    read = deskfile.read(file)
    async with _database(settings, migrates=True) as database:
        loaded = await desk.load_desk(database, read, SystemClock())
    print(
        f"loaded {loaded.sites} sites, {loaded.engineers} engineers, {loaded.people} people, "
        f"{loaded.shifts} shifts, {loaded.overrides} overrides"
    )
    for problem in problems(read.rota()):
        print(f"warning: {problem}")
    return os.EX_OK


async def create_token(settings: Settings, name: str, role: str) -> int:
    async with _accounts(settings) as accounts:
        print(await accounts.create_token(name, Role(role)))
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
            revoked = f"  revoked {_clock(token.revoked_at, zone)}" if token.revoked_at else ""
            print(f"{token.name}  {token.role}  created {_clock(token.created_at, zone)}{revoked}")
    return os.EX_OK


async def add_user(settings: Settings, name: str, role: str, password: str) -> int:
    async with _accounts(settings) as accounts:
        await accounts.add_user(name, password, Role(role))
    print(f"user {name} may log in as {role}")
    return os.EX_OK


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


def _print_ledger(settled: LedgerDay, when: str = "") -> None:
    word = "balanced" if settled.balanced else "DIFFERENCE"
    print(
        f"{settled.day}  {settled.source}  {settled.medium}: {settled.outside} in the PBX's CEL, "
        f"{settled.contacts} contacts, {len(settled.repaired)} repaired: {word}{when}"
    )
    for what, ids in (
        ("missing here", settled.missing),
        ("unknown there", settled.extra),
        ("repaired", settled.repaired),
    ):
        for call_id in ids:
            print(f"  {what}: {call_id}")


async def oncall(settings: Settings, at: datetime | None, site: str | None) -> int:
    """Print who is on duty, until when and why, and who comes next."""
    now = at or SystemClock().now()
    async with _database(settings) as database:
        rota = await desk.rota(database)
    keys = [place.key for place in rota.sites]
    if not keys:
        print("no rota is loaded: contactd load FILE", file=sys.stderr)
        return os.EX_CONFIG
    if site is not None and site not in keys:
        raise NotFound(f"there is no site {site!r}; there are: {', '.join(keys)}")
    for place in rota.sites:
        if site not in (None, place.key):
            continue
        zone = ZoneInfo(place.zone)
        print(f"{place.key}  {place.name_zh} / {place.name_en}  {_clock(now, zone)}")
        for duty in on_duty(rota, place.key, now):
            tier = "floor " if duty.why is Why.FLOOR else f"tier {duty.tier}"
            print(
                f"  {tier}  {duty.engineer.name} ({duty.engineer.key})  {duty.engineer.number}"
                f"  until {_clock(duty.until, zone)}, by {duty.why}"
            )
        for duty in next_duties(rota, place.key, now):
            print(f"  next: tier {duty.tier}  {duty.engineer.name}  {_clock(duty.since, zone)}")
    return os.EX_OK


async def explain(settings: Settings, number: str) -> int:
    """Print a ticket: what came in, what was done, its clocks, and whether its journal is whole."""
    zone, now = ZoneInfo(settings.service.zone), SystemClock().now()
    async with _database(settings) as database:
        detail = await Views(database, SystemClock()).ticket(number)
    ticket = detail.ticket
    print(
        f"{ticket.number}  {ticket.state}  {ticket.priority} ({detail.priority_reason})"
        f"  site {ticket.site or '-'}  engineer {ticket.engineer or '-'}"
    )
    for contact in detail.contacts:
        print(f"  {_clock(contact.received_at, zone)}  {_contact(contact)}")
    for entry in detail.journal:
        body = ", ".join(f"{key} {value}" for key, value in entry.body.items() if value != "")
        print(f"  {entry.seq:3}  {_clock(entry.at, zone)}  {entry.actor}  {entry.action}  {body}")
    broken = journal.verify(detail.journal, last_hash=detail.journal_hash)
    if broken:
        print(f"  journal: BROKEN: {broken}; what it says of the clocks would be worth nothing")
        return os.EX_DATAERR
    promised = promises.targets(
        answer=timedelta(seconds=settings.tickets.answer_within_s),
        remote=timedelta(seconds=settings.tickets.remote_within_s),
    )
    for clock in promises.clocks(detail.journal, promised):
        _print_clock(clock, zone, now)
    print("  journal: whole")
    return os.EX_OK


def _print_clock(clock: Clock, zone: ZoneInfo, now: datetime) -> None:
    spent = clocks.spent_at(clock, now)
    line = f"  clock {clock.metric}: {clock.state}, {_length(spent)} of {_length(clock.goal)}"
    if clock.due_at is not None:
        line += f", due {_clock(clock.due_at, zone)}"
    if (at := promises.breached_at(clock, now)) is not None:
        line += f", BREACHED {_clock(at, zone)}"
    print(line)
    for row in clocks.explain(clock, zone, at=now):
        until = _clock(row.until, zone) if row.until else "now"
        kind = "runs" if row.running else "paused"
        print(
            f"      {_clock(row.since, zone)} – {until}  {kind}: {row.reason} (entry {row.entry}),"
            f" {_length(row.worked)} counted"
        )


def _length(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _contact(contact: ContactView) -> str:
    text = f"{contact.medium} {contact.external_id}: {contact.outcome}"
    call = contact.call
    if call is None:
        return text
    for word, value in (("waited", call.waited), ("talked", call.talked)):
        if value is not None:
            text += f", {word} {value / timedelta(seconds=1):.0f} s"
    return text + "".join(f", {leg.engineer}" for leg in call.legs)


def _clock(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}"
