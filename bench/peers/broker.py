"""The broker of remote help by itself: `python -m bench.peers.broker SESSIONS RECORDS`.

The real broker, sockets, filter and recorder on the real HTTP server; what lasts is kept in memory,
for it is not what is measured. Says in a line of JSON how to get into each session, then serves.
With RECORDS 0 nothing is recorded, which the program itself never does.
"""

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from contactd.clock import SystemClock
from contactd.remote import picture
from contactd.remote.admissions import Admissions
from contactd.remote.broker import Broker
from contactd.remote.legs import Filter, Recorder, Tape
from contactd.remote.sockets import Sockets
from contactd.settings import RemoteSettings
from contactd.signals import Signals
from contactd.store.blobs import Blobs
from contactd.tickets.contact import Blob
from contactd.tickets.people import Role
from contactd.tickets.remote import Ending, Leg, Mode, Right, State
from contactd.tickets.sharing import Consent, Counts, LegRecord, Line, Session, SharedFile, Taken
from contactd.web.access import ACTING, DECIDING, sees
from tests.fakes.site import running_site

FAST: Final = 100_000_000_000  # bytes a second: the cap is not what is measured
ENDLESS: Final = 1 << 50


@dataclass(slots=True, kw_only=True)
class Memory:
    """What `store.remote.RemoteSessions` keeps, as far as the broker asks."""

    sessions: dict[int, Session] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)

    def add(self, number: int) -> tuple[Session, str]:
        """Return a session whose user has agreed, claimed by an engineer, and its helper's key."""
        now, key = SystemClock().now(), secrets.token_urlsafe(32)
        made = Session(
            id=number, ref=f"r{number}", ticket=f"{26112300000 + number}", ticket_id=number,
            site="", state=State.AGREED, since=now, mode=Mode.CONTROL, language="zh", medium="",
            invited_by="requester", invited_at=now, code_until=now, agreed_at=now,
            user=f"e{number}", engineer=f"E{number}", claimed_at=now, started_at=None,
            ended_at=None, ending=None,
        )  # fmt: skip
        self.sessions[number] = made
        self.keys[key] = number
        return made, key

    async def session(self, session_id: int) -> Session | None:
        return self.sessions.get(session_id)

    async def take_key(self, key: str, kind: str = "helper") -> Taken | None:
        number = self.keys.pop(key, 0)
        if not number:
            return None
        return Taken(session=self.sessions[number], resume_key="-", resumed=False)

    async def settle(self) -> tuple[tuple[int, int], ...]:
        return ()

    async def open_leg(self, session_id: int, consent: Consent) -> Leg | None:
        known, now = self.sessions[session_id], SystemClock().now()
        leg = Leg(
            number=len(known.legs) + 1, user=consent.user, engineer=consent.engineer,
            purpose=consent.purpose, rights=consent.rights, consent=1, opened_at=now,
        )  # fmt: skip
        record = LegRecord(leg=leg, settled=False, counts=Counts(), recording=None, note="")
        self.sessions[session_id] = replace(
            known, state=State.ACTIVE, started_at=now, legs=(*known.legs, record)
        )
        return leg

    async def change_rights(
        self,
        session_id: int,
        number: int,
        rights: frozenset[Right],
        by: str,
        consent: Consent | None = None,
    ) -> Leg:
        return replace(self.sessions[session_id].legs[number - 1].leg, rights=rights)

    async def declined(self, session_id: int, consent: Consent) -> None:
        return None

    async def close_leg(
        self,
        session_id: int,
        number: int,
        ending: Ending,
        counts: Counts,
        recording: Blob | None = None,
        note: str = "",
    ) -> bool:
        known = self.sessions[session_id]
        legs = [
            replace(each, settled=True, leg=replace(each.leg, ended_at=each.leg.opened_at))
            if each.leg.number == number
            else each
            for each in known.legs
        ]
        self.sessions[session_id] = replace(known, legs=tuple(legs))
        return True

    async def freeze(self, session_id: int) -> bool:
        return self._becomes(session_id, State.FROZEN)

    async def end(self, session_id: int, ending: Ending, actor: str) -> bool:
        return self._becomes(session_id, State.ENDED)

    def _becomes(self, session_id: int, state: State) -> bool:
        self.sessions[session_id] = replace(self.sessions[session_id], state=state)
        return True

    async def say(self, session_id: int, who: str, text: str) -> Line | None:
        return None

    async def chat(self, session_id: int) -> tuple[Line, ...]:
        return ()

    async def files(self, session_id: int) -> tuple[SharedFile, ...]:
        return ()

    async def answer_file(
        self, session_id: int, number: int, *, by: str, yes: bool, consent: Consent | None = None
    ) -> SharedFile:
        raise NotImplementedError


class NoRecorder:
    def record(self, data: bytes) -> None:
        """Keep nothing."""


def no_recorder(filter_: Filter, tape: Tape) -> Recorder:
    return NoRecorder()


async def main(count: int, records: bool) -> None:
    memory, clock = Memory(), SystemClock()
    admissions = Admissions(clock)
    with tempfile.TemporaryDirectory(prefix="bench-remote-") as name:
        folder = Path(name)
        broker = Broker(
            sessions=memory, signals=Signals(), clock=clock, service="bench", folder=folder / "now",
            settings=RemoteSettings(
                bytes_per_second=FAST, max_recording_bytes=ENDLESS, max_sessions=count + 1
            ),
            put=Blobs(folder / "blobs").put, make_filter=picture.make_filter,
            make_recorder=picture.make_recorder if records else no_recorder,
        )  # fmt: skip
        sockets = Sockets(
            broker=broker, admissions=admissions, clock=clock, public_url="", acting=ACTING,
            looking=DECIDING, sees=sees,
        )  # fmt: skip
        async with (
            broker.running(),
            running_site(routes=sockets.routes(), max_connections=10 * count + 100) as site,
        ):
            told: list[Mapping[str, object]] = []
            for number in range(1, count + 1):
                session, key = memory.add(number)
                site.accounts.roles[session.user] = Role.ENGINEER
                site.accounts.sessions[f"secret{number}"] = session.user
                told.append({
                    "session": number, "key": key, "cookie": f"contactd_session=secret{number}",
                    "desk": admissions.give(number, session.user, "desk"),
                    "screen": admissions.give(number, session.user, "screen"),
                })  # fmt: skip
            print(json.dumps({"port": site.port, "sessions": told}), flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            broker.end_streams()


def _arguments(argv: Sequence[str]) -> tuple[int, bool]:
    return int(argv[1]), argv[2] == "1"


if __name__ == "__main__":
    asyncio.run(main(*_arguments(sys.argv)))
