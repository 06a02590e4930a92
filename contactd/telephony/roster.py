"""The queues' members: who should be one, and what makes the PBX's list equal to that (pure).

A tier is a penalty: queuerules.conf of the PBX lets it grow while a caller waits, so escalation
does not need contactd.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from contactd.routing.oncall import FLOOR_KEY, Duty, Engineer, Site, Why, floor

FLOOR_PENALTY: Final = 9  # last of all, by etc/asterisk/queuerules.conf
MAX_PENALTY: Final = FLOOR_PENALTY - 1

# Members with another interface were added by somebody else and are left alone.
_OURS: Final = re.compile(r"Local/\d+@engineer-(zh|en)/n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a queue. `name` is the engineer's key."""

    queue: str
    interface: str
    name: str
    penalty: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    member: Member

    def ami(self) -> tuple[str, Mapping[str, str]]:
        """Return the AMI action and its headers."""
        return "QueueAdd", {
            "Queue": self.member.queue,
            "Interface": self.member.interface,
            "MemberName": self.member.name,
            "Penalty": str(self.member.penalty),
            "Paused": "false",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    queue: str
    interface: str

    def ami(self) -> tuple[str, Mapping[str, str]]:
        return "QueueRemove", {"Queue": self.queue, "Interface": self.interface}


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    queue: str
    interface: str
    penalty: int

    def ami(self) -> tuple[str, Mapping[str, str]]:
        return "QueuePenalty", {
            "Queue": self.queue,
            "Interface": self.interface,
            "Penalty": str(self.penalty),
        }


Step = Add | Remove | Penalty


def interface(engineer: Engineer) -> str:
    """Return the queue member that rings an engineer and asks for the key in their language."""
    number = "".join(sign for sign in engineer.number if sign in "0123456789")
    language = "en" if engineer.language == "en" else "zh"
    return f"Local/{number}@engineer-{language}/n"


def wanted(
    sites: Sequence[Site], duties: Mapping[str, Sequence[Duty]], *, default_queue: str
) -> frozenset[Member]:
    """Return who should be in which queue, with `duties` by site key.

    Penalties are the ranks of the tiers among those on duty: with nobody in tier 1, tier 2 is
    rung at once. The floor number is in every queue. The default queue has everybody.
    """
    members: dict[tuple[str, str], Member] = {}
    for site in sites:
        for name, where, penalty in _of_site(site, duties.get(site.key, ())):
            for queue in (site.queue, default_queue):
                member = Member(queue=queue, interface=where, name=name, penalty=penalty)
                other = members.get((queue, where))
                if other is None or member.penalty < other.penalty:
                    members[queue, where] = member
    return frozenset(members.values())


def _of_site(site: Site, duties: Sequence[Duty]) -> Iterable[tuple[str, str, int]]:
    """Return name, interface and penalty of those who are rung for a site."""
    people = [duty for duty in duties if duty.why is not Why.FLOOR]
    ranks = {tier: n for n, tier in enumerate(sorted({duty.tier for duty in people}), 1)}
    for duty in people:
        yield duty.engineer.key, interface(duty.engineer), min(ranks[duty.tier], MAX_PENALTY)
    yield FLOOR_KEY, interface(floor(site)), FLOOR_PENALTY


def present(queue_members: Iterable[Mapping[str, str]]) -> frozenset[Member]:
    """Return the members that the PBX has, from its QueueMember events (QueueStatus)."""
    return frozenset(
        Member(
            queue=event.get("Queue", ""),
            interface=event.get("Location", ""),
            name=event.get("Name", ""),
            penalty=int(penalty) if (penalty := event.get("Penalty", "")).isdecimal() else -1,
        )
        for event in queue_members
        if event.get("Event", "QueueMember") == "QueueMember"
    )


def difference(want: Iterable[Member], have: Iterable[Member]) -> list[Step]:
    """Return the steps that make `have` equal to `want`, in the order to take them.

    Those who come are added before those who go are removed, so no queue is ever empty. Members
    that are not ours stay. A queue that `want` does not name is left alone.
    """
    wanted_ones = {(member.queue, member.interface): member for member in want}
    here = {
        (member.queue, member.interface): member
        for member in have
        if _OURS.fullmatch(member.interface)
    }
    queues = {queue for queue, _ in wanted_ones}
    adds: list[Step] = []
    moves: list[Step] = []
    removes: list[Step] = []
    renames: list[Step] = []
    for key, member in sorted(wanted_ones.items()):
        known = here.get(key)
        if known is None:
            adds.append(Add(member=member))
        elif known.name != member.name:  # a name cannot be changed in place
            alone = len({where for queue, where in here | wanted_ones if queue == key[0]}) == 1
            renames += _rename(member, alone=alone)
        elif known.penalty != member.penalty:
            moves.append(Penalty(queue=key[0], interface=key[1], penalty=member.penalty))
    for queue, where in sorted(here.keys() - wanted_ones.keys()):
        if queue in queues:
            removes.append(Remove(queue=queue, interface=where))
    return [*adds, *moves, *renames, *removes]


def _rename(member: Member, *, alone: bool) -> list[Step]:
    """Take a member out and add it with another name; if it is alone, somebody stands in."""
    steps: list[Step] = [Remove(queue=member.queue, interface=member.interface), Add(member=member)]
    if not alone:
        return steps
    zh, en = "@engineer-zh/n", "@engineer-en/n"
    here, other = (zh, en) if member.interface.endswith(zh) else (en, zh)
    stand_in = replace(member, interface=member.interface.removesuffix(here) + other)
    return [
        Add(member=stand_in),
        *steps,
        Remove(queue=stand_in.queue, interface=stand_in.interface),
    ]
