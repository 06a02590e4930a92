"""Stories to be told with crashes: what happens, what sort of person everybody is, what fails.

Each is made from a seed. Time is wide: the next person is told after 90 minutes, the next medium
after 40, and people need minutes to answer, each another time. A crash costs about a minute, and
there are at most three in a story: they make things late and must change nothing else.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from contactd.routing.deskfile import parse
from contactd.routing.notify import REQUESTER
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.tickets.contact import Medium, Outcome
from tests.fakes.clock import FakeClock

BEGIN: Final = datetime(2026, 11, 20, 0, 0, tzinfo=UTC)  # 8 o'clock in Shanghai
MOST_DEATHS: Final = 3
BLIND: Final = frozenset({Medium.MAIL})  # cannot tell what became of a message
MAILED: Final = frozenset({"james", "sun"})  # can be told by a blind medium, so are always called


# The desk


def _site(key: str, area_code: str) -> dict[str, Any]:
    return {
        "key": key, "name_zh": key, "name_en": key, "floor": "+8613800000090",
        "area_code": area_code, "supervisor": "sun", "contract": "slow",
    }  # fmt: skip


def _engineer(key: str, number: int, *page: str) -> dict[str, Any]:
    rules = {"page": list(page), "mails": [f"{key}@x.cn"]}
    return {"key": key, "name": key, "number": f"1380000000{number}", **rules}


def _team(site: str, tier: int) -> dict[str, Any]:
    return {"key": f"{site}-{tier}", "tier": tier, "sites": [site]}


def _rotation(team: str, engineer: str) -> dict[str, Any]:
    """Return a month of duty after the other: few rows, for they are read very often here."""
    turn = {"turn": "month", "start": date(2026, 1, 1)}
    return {"key": f"always-{team}", "team": team, "members": [engineer], **turn}


ZHANG, QIAN, HE = "13922223333", "02038880002", "075528880003"
DESK: Final = {
    "sites": [_site("gz", "20"), _site("sz", "755")],
    "engineers": [
        _engineer("wang", 1, "call", "text after 40m"),
        _engineer("li", 2, "call"),
        _engineer("chen", 3, "text", "call after 40m"),
        _engineer("james", 4, "call", "mail after 40m"),
        _engineer("sun", 5, "call", "mail after 40m"),
    ],
    "people": [
        {"key": "zhang", "name": "zhang", "site": "gz", "numbers": [ZHANG]},
        {"key": "qian", "name": "qian", "site": "gz", "numbers": [QIAN], "mails": ["q@x.cn"]},
        {"key": "he", "name": "he", "site": "sz", "numbers": [HE]},
    ],
    "teams": [_team("gz", 1), _team("gz", 2), _team("sz", 1), _team("sz", 2)],
    "rotations": [
        _rotation("gz-1", "wang"), _rotation("gz-2", "li"),
        _rotation("sz-1", "chen"), _rotation("sz-2", "james"),
    ],
    "contracts": [{"key": "slow", "promises": {"all": {"answer": "72h"}}}],
    "policies": [
        {
            "key": "standard",
            "steps": [
                {"tell": "tier 1", "each": "90m"},
                {"after": "90m", "tell": "tier 2", "each": "90m"},
                {"after": "90m", "tell": "supervisor", "each": "90m"},
                {"after": "90m", "tell": "everybody", "parallel": True},
            ],
            "rounds": 1, "again_after": "90m", "ack_expires": "150m",
        },
        {
            "key": "p1",
            "steps": [
                {"tell": ["tier 1", "tier 2"], "parallel": True, "need": 2, "conference": True},
                {"after": "90m", "tell": "supervisor", "need": 2},
            ],
            "rounds": 1, "again_after": "90m", "ack_expires": "150m",
        },
    ],
}  # fmt: skip
THINKS: Final = {
    person: timedelta(minutes=6 * number)
    for number, person in enumerate(("wang", "li", "chen", "james", "sun", "floor", REQUESTER), 1)
}


async def write_desk(path: Path) -> None:
    """Load the desk into the empty database at `path`, which stories then copy."""
    database = Database(f"sqlite:///{path}")
    async with database.running():
        await load_desk(database, parse(DESK), FakeClock(BEGIN))


# Stories


class Temper(StrEnum):
    TAKES = "takes it"
    PASSES = "passes on"
    SETS_OUT = "is on the way"
    IGNORES = "does not hear"
    MACHINE = "is an answering machine"
    READS = "takes it when reading"


class Fault(StrEnum):
    AWAY = "the medium is away"
    BUSY = "every channel is in use"
    LOST = "no answer came, and nothing had gone out"
    MUTE = "no answer came, though it had gone out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that happens at least so long after the turn before."""

    after: timedelta
    act: str  # a name in _ACTS
    about: str  # who reports, or a ticket's place in the story and what is said of it
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    seed: int
    tempers: Mapping[str, Temper]
    refuses: frozenset[tuple[str, Medium]]  # what never takes a message
    troubled: bool  # the media have faults that pass
    plot: tuple[Turn, ...]

    def faults(self, ref: str, medium: Medium) -> list[Fault]:
        """Return how the first attempts to send `ref` fail.

        What a blind medium loses twice nobody can know: so it loses pages only, for a ladder goes
        on to others.
        """
        chance = random.Random(f"{self.seed}-{ref}")
        if not self.troubled or chance.random() < 0.4:
            return []
        found = chance.choices(list(Fault), k=chance.choice((1, 1, 2)))
        may_lose = medium not in BLIND or ref.startswith("page-")
        return [fault for fault in found if may_lose or fault is not Fault.LOST]

    def turns(self, ref: str) -> int:
        """Return how long `ref` takes to be sent: so often others have their turn meanwhile."""
        return random.Random(f"turns-{self.seed}-{ref}").choice((1, 40))


def story(seed: int, *, troubled: bool) -> Story:
    chance = random.Random(f"story-{seed}")
    people = ("wang", "li", "chen", "james", "sun", "floor")
    tempers = {who: chance.choices(list(Temper), (10, 3, 2, 2, 1, 1))[0] for who in people}
    refuses = {
        (who, medium) for who in people for medium in (Medium.CALL, Medium.TEXT)
        if chance.random() < (0.15 if troubled else 0.05)
        and who not in MAILED
    }  # fmt: skip
    turns = [_report(chance)]
    turns += [_turn(chance) for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 2)))]
    return Story(
        seed=seed,
        tempers=tempers,
        refuses=frozenset(refuses),
        troubled=troubled,
        plot=(
            *turns,
            Turn(
                after=timedelta(minutes=chance.choice((15, 15, 15, 100, 190))), act="end", about=""
            ),
        ),
    )


def _report(chance: random.Random) -> Turn:
    return Turn(
        after=timedelta(),
        act=chance.choice(("write", "call")),
        about=chance.choice((ZHANG, QIAN, HE)),
        word=chance.choice((Outcome.UNREACHED, Outcome.VOICEMAIL)),
    )


def _turn(chance: random.Random) -> Turn:
    after = timedelta(minutes=chance.choice((1, 10, 45)))
    if chance.random() < 0.2:
        return replace(_report(chance), after=after)
    act = chance.choices(("resolve", "dispatch", "urge", "hand over"), (5, 2, 2, 1))[0]
    word = {
        "resolve": ("1", "2", ""), "dispatch": ("wang", "james"), "urge": ("",),
        "hand over": ("li", "sun"),
    }[act]  # fmt: skip
    return Turn(after=after, act=act, about=str(chance.choice((0, 0, 1))), word=chance.choice(word))
