"""The vocabulary of the stories: callers, engineers, and what became of a call.

A story runs on a real PBX with the real daemon. What it asserts is seen from three sides: by
contactd's API, by the phones of the public network, and by what the PBX played to whom.
"""

import asyncio
import csv
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

import aiohttp

from contactd.lab.desk import DID, DeskLab, open_desk
from contactd.lab.network import Leg
from contactd.web.resources import ContactItem, LedgerItem, Page, TicketDetail
from tests.fakes.waiting import WITHIN_S

T = TypeVar("T")

FLOOR: Final = "13800019999"
# Landlines by site, without their last two digits: 0, area code, subscriber (8 or 7 digits).
_LANDLINES: Final = {
    "gz": "020388800",
    "sz": "0755288800",
    "zh": "075628880",
    "fs": "0757828800",
    "zq": "075828880",
}
# The public network notes the time of a call when it tells us, the PBX when it sees the INVITE.
_EARLIER: Final = timedelta(seconds=1)
_CHECK_S: Final = 0.25  # how often something is asked for that nobody tells
_PLAYED: Final = re.compile(r"<([^>]+)> Playing '([^']+)\.\w+' \(language '(\w+)'\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a module's desk is like.

    `tiers`: site -> engineers on duty, tier by tier, day and night. `requesters` is TOML, as in
    etc/desk.toml, and so is `terms` (policies). `options` are globals of the dialplan, `widen_s`
    the waiting times after which tier 2, tier 3 and the floor are rung too. Who hangs up is not
    called back within the time of a test, unless `redial_within_s` says so.
    """

    tiers: Mapping[str, Sequence[Sequence[str]]]
    english: Sequence[str] = ()  # engineers who are spoken to in English
    requesters: str = ""
    options: Mapping[str, str]
    widen_s: tuple[int, int, int] = (60, 120, 180)
    terms: str = ""
    redial_within_s: float = 86_400.0
    page_ring_s: float = 30.0
    page_channels: int = 12
    zone: str = "Asia/Shanghai"  # of all sites

    @property
    def phones(self) -> Mapping[str, str]:
        """Return each engineer's number, as the carrier gets it."""
        keys = dict.fromkeys(key for tiers in self.tiers.values() for tier in tiers for key in tier)
        return {key: f"138000100{n:02}" for n, key in enumerate(keys, start=1)}

    def desk_file(self) -> str:
        """Return the desk file: every site of the PBX, a shift of 24 h for everybody."""
        tables = [
            f'[[sites]]\nkey = "{site}"\nname_zh = "{site}"\nname_en = "{site}"\n'
            f'floor = "{FLOOR}"\narea_code = "{_area(site)}"\nzone = "{self.zone}"'
            for site in _LANDLINES
        ]
        tables += [
            f'[[engineers]]\nkey = "{key}"\nname = "{key.title()}"\nnumber = "{number}"\n'
            f'language = "{"en" if key in self.english else "zh"}"'
            for key, number in self.phones.items()
        ]
        tables += [
            f'[[shifts]]\nsite = "{site}"\ntier = {tier}\nengineer = "{key}"\n'
            'start = "00:00"\nend = "00:00"'
            for site, tiers in self.tiers.items()
            for tier, keys in enumerate(tiers, start=1)
            for key in keys
        ]
        return "\n\n".join([*tables, self.requesters, self.terms]) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A sound file as a player gets it, piece by piece."""

    wav: bytes
    media_type: str


@dataclass(slots=True, kw_only=True, eq=False)
class Desk:
    lab: DeskLab
    setup: Setup
    token: str
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    # What people do

    def somebody_at(self, site: str) -> str:
        """Return a number at `site` that has never called."""
        return f"{_LANDLINES[site]}{next(self._numbers):02}"

    async def call(
        self, script: str, *, site: str = "gz", caller: str | None = None, name: str = ""
    ) -> Leg:
        """Let somebody new at `site`, or `caller` ("": number withheld), call the hotline."""
        number = self.somebody_at(site) if caller is None else caller
        return await self.lab.network.call(caller=number, did=DID, script=script, name=name)

    async def phone(self, engineer: str, script: str) -> None:
        """Say what the engineer's phone does from now on."""
        await self.lab.network.phone(self.setup.phones[engineer], script)

    async def ring(self, engineer: str, call: Leg | None, within_s: float = WITHIN_S) -> Leg:
        """Wait until the engineer's phone rings (once more), for `call` if one is given."""
        caller = call.caller if call is not None else ""
        number = self.setup.phones[engineer]
        return await self.lab.network.wait_ring(number, within_s, caller=caller)

    async def open_ticket(self, number: str) -> str:
        """Let somebody with this number report a fault in the portal; return the ticket."""
        body = {"from": number, "text": "没有网络"}
        opened = await self.lab.daemon.post("/api/v1/tickets", body, token=self.token)
        return str(opened["ticket"])

    async def act(self, ticket: str, action: str, **body: object) -> None:
        """Let the desk do something to a ticket."""
        path = f"/api/v1/tickets/{ticket}/actions/{action}"
        await self.lab.daemon.post(path, body, token=self.token)

    # What the public network saw

    def rings(self, call: Leg) -> list[Leg]:
        """Return the rings of engineers' phones for a call, in order; pages are not among them."""
        return [
            ring
            for ring in self.lab.network.rings
            if ring.caller == call.caller and ring.started_at >= call.started_at
        ]

    def rang(self, call: Leg) -> list[str]:
        """Return the engineers whose phones rang for a call, in order."""
        return [self.engineer(ring) for ring in self.rings(call)]

    def engineer(self, ring: Leg) -> str:
        names = {number: key for key, number in self.setup.phones.items()} | {FLOOR: "floor"}
        return names.get(ring.number, ring.number)

    # What contactd knows

    async def contacts_of(self, call: Leg) -> list[ContactItem]:
        """Return the contacts of a call: those of its caller since it began."""
        page = Page[ContactItem].model_validate(
            await self.lab.daemon.get("/api/v1/contacts?limit=200", token=self.token)
        )
        return [
            contact
            for contact in page.items
            if _bare(contact.from_) == _bare(call.caller)
            and contact.received_at >= call.started_at - _EARLIER
        ]

    async def contact(self, call: Leg, within_s: float = WITHIN_S) -> ContactItem:
        """Return the one contact of a call, once the PBX's records of it are filed."""

        async def final() -> ContactItem | None:
            found = await self.contacts_of(call)
            assert len(found) < 2, f"one call, {len(found)} contacts: {found}"
            return next((one for one in found if one.call is not None and one.call.final), None)

        await call.ended(within_s)
        return await eventually(final, within_s, f"the records of {call} are filed")

    async def kept(
        self, call: Leg, kind: str, within_s: float = WITHIN_S
    ) -> tuple[ContactItem, int]:
        """Return the contact of an ended call and its attachment of `kind`, once it is there."""

        async def attached() -> tuple[ContactItem, int] | None:
            contact = await self.contact(call, within_s)
            ids = [one.id for one in contact.attachments if one.kind == kind]
            assert len(ids) < 2, f"{kind} twice: {contact}"
            return (contact, ids[0]) if ids else None

        return await eventually(attached, within_s, f"the {kind} of {call} is kept")

    async def ticket(self, number: str) -> TicketDetail:
        return TicketDetail.model_validate(
            await self.lab.daemon.get(f"/api/v1/tickets/{number}", token=self.token)
        )

    async def ledger(self) -> LedgerItem:
        """Return today's ledger."""
        page = Page[LedgerItem].model_validate(
            await self.lab.daemon.get("/api/v1/ledger", token=self.token)
        )
        return page.items[0]

    async def play(self, attachment: int) -> Recorded:
        """Fetch a recording as a browser's player does: its head first, then the rest."""
        url = f"{self.lab.daemon.url}/api/v1/attachments/{attachment}"
        parts = []
        media_type = ""
        async with aiohttp.ClientSession() as http:
            for span in ("bytes=0-43", "bytes=44-"):
                headers = {"Authorization": f"Bearer {self.token}", "Range": span}
                async with http.get(url, headers=headers) as answer:
                    assert answer.status == 206, await answer.text()
                    parts.append(await answer.read())
                    assert answer.headers["Content-Range"].startswith(span.replace("=", " "))
                    media_type = answer.content_type
        assert len(parts[0]) == 44
        return Recorded(wav=b"".join(parts), media_type=media_type)

    # What the PBX wrote, read by other code than contactd's

    def records(self, contact: ContactItem) -> list[list[str]]:
        """Return the CEL rows of a call and of everything that was dialled for it."""
        with self.lab.pbx.cel_path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(file))
        linked = {row[4] for row in rows if row[3] == contact.external_id}
        return [row for row in rows if row[4] in linked]

    def heard(self, contact: ContactItem) -> list[str]:
        """Return what was played to the caller, in order: `contactd/consent`, `digits/3`, …"""
        channels = {row[5] for row in self.records(contact) if row[3] == contact.external_id}
        return [sound for channel, sound, _ in self._played() if channel in channels]

    def heard_by_engineers(self, contact: ContactItem) -> list[tuple[str, str]]:
        """Return what was played on the phones that were rung for a call, with its language."""
        channels = {
            row[5]
            for row in self.records(contact)
            if row[3] != contact.external_id and row[5].startswith("PJSIP/")
        }
        return [
            (sound, language) for channel, sound, language in self._played() if channel in channels
        ]

    def _played(self) -> list[tuple[str, str, str]]:
        log = self.lab.pbx.path("/var/log/asterisk/heard")
        return _PLAYED.findall(log.read_text(encoding="utf-8", errors="replace"))

    async def listen_in(self) -> None:
        """Have the PBX note what it plays to whom; a restarted PBX has to be told again."""
        await self.lab.pbx.cli("logger add channel heard verbose(3)")

    def logs(self) -> str:
        """Return everybody's logs, but for the questions that a story asked."""
        daemon = self.lab.daemon.log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in daemon if "request.answered" not in line][-80:]
        return "\n".join(["--- contactd", *told, self.lab.lab.logs()])

    async def all_quiet(self) -> None:
        """End every call; from now on nobody answers."""
        await self.lab.network.hang_up_all()
        for engineer in self.setup.phones:
            await self.phone(engineer, "n")


@asynccontextmanager
async def desk(setup: Setup, folder: Path) -> AsyncIterator[Desk]:
    """Run a desk, with everybody on duty known to the PBX."""
    desk_file = folder / "desk.toml"
    desk_file.write_text(setup.desk_file(), encoding="utf-8")
    async with open_desk(
        desk_file=desk_file,
        options={"FLOOR": FLOOR, **setup.options},
        tiers_s=setup.widen_s,
        settings={
            "hotline": {
                "redial_within_s": setup.redial_within_s,
                "page_ring_s": setup.page_ring_s,
            },
            "pbx": {"page_channels": setup.page_channels},
        },
    ) as lab:
        token = await lab.daemon.run("token", "create", "--name", "stories", "--role", "admin")
        found = Desk(lab=lab, setup=setup, token=token.strip())
        await found.listen_in()
        await members_written(found)
        yield found


async def members_written(desk: Desk) -> None:
    """Wait until the queues have the members that the rota says."""
    expected = {
        (site, key) for site, tiers in desk.setup.tiers.items() for tier in tiers for key in tier
    }

    async def written() -> bool:
        listing = await desk.lab.pbx.cli("queue show")
        return expected <= members(listing)

    await eventually(written, 10, f"the queues' members are {expected}")


def members(listing: str) -> set[tuple[str, str]]:
    """Return (queue, member's name) of what `queue show` prints."""
    found = set()
    queue = ""
    for line in listing.splitlines():
        if head := re.match(r"(\w+) has \d+ calls", line):
            queue = head[1]
        elif member := re.match(r"\s+(\w+) \(Local/", line):
            found.add((queue, member[1]))
    return found


async def eventually(look: Callable[[], Awaitable[T | None]], within_s: float, what: str) -> T:
    """Return the first true thing that `look` brings; fail if none comes in time."""
    try:
        async with asyncio.timeout(within_s):
            while not (found := await look()):
                await asyncio.sleep(_CHECK_S)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


def spelled(number: str) -> list[str]:
    """Return the sounds of a ticket's number."""
    return [f"digits/{digit}" for digit in number]


def _area(site: str) -> str:
    return _LANDLINES[site][1:3] if site == "gz" else _LANDLINES[site][1:4]


def _bare(number: str) -> str:
    """Return a number without what its national or international form has in front.

    A number that is withheld is "", whatever the network says instead.
    """
    if number == "anonymous":
        return ""
    return number.removeprefix("+86").lstrip("0")
