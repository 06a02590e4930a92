"""What must hold however often a process dies, and what crashes may not change."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from contactd.routing.escalation import Phase
from contactd.routing.following import Case
from contactd.routing.notify import COURTESIES, SendState
from contactd.tickets.contact import Medium
from contactd.tickets.journal import verify
from tests.stories.crash_plots import BLIND
from tests.stories.crash_town import Account, Sent

_FINAL: Final = frozenset(
    {SendState.SENT, SendState.DELIVERED, SendState.NOT_REACHED, SendState.TAKEN,
     SendState.PASSED, SendState.FAILED, SendState.STOPPED}
)  # fmt: skip
_IN_DOUBT: Final = frozenset({SendState.UNKNOWN, SendState.DOUBTFUL})


def faults(account: Account) -> Iterator[str]:
    """Return what may be in no account, with crashes or without."""
    if account.failures:
        yield f"{account.failures:.0f} handlers failed"
    if account.wrong_clocks:
        yield f"the stored clocks are not those of the journal: {account.wrong_clocks}"
    yield from (f"nobody handles {row}" for row in account.overdue)
    yield from _wrong_notices(account)
    yield from _wrong_copies(account)
    for number, case in account.cases.items():
        if found := verify(case.journal, last_hash=case.ticket.journal_hash):
            yield f"journal of {number}: {found}"
        yield from _doubled(case)
        yield from _forgotten(account, case)


def _wrong_notices(account: Account) -> Iterator[str]:
    for row in account.notices:
        state, medium = SendState(row["state"]), Medium(row["medium"])
        if state not in _FINAL and not (state in _IN_DOUBT and medium in BLIND):
            yield f"{row['client_ref']} is {state}"
        is_told = state in _FINAL - {SendState.FAILED, SendState.STOPPED}
        if is_told and not account.town.copies(row["client_ref"]):
            yield f"{row['client_ref']} is {state} and has never gone out"


def _wrong_copies(account: Account) -> Iterator[str]:
    town = account.town
    medium = {row["client_ref"]: Medium(row["medium"]) for row in account.notices}
    for ref in dict.fromkeys(each.notification.ref for each in town.network):
        if town.copies(ref) > 1 + town.repeats.count(ref):
            yield f"{ref} has gone out {town.copies(ref)} times, {town.repeats.count(ref)} in doubt"
    sent_again = Counter(medium[ref] for ref in town.repeats)
    for each in Medium:
        if sent_again[each] != account.repeated[each]:
            yield f"{each}: {sent_again[each]} sent again, {account.repeated[each]:.0f} counted"


_ONCE: Final = frozenset(
    {"opened", "escalation.started", "escalation.told", "escalation.acknowledged",
     "escalation.passed", "escalation.expired", "escalation.over", "escalation.reopened"}
)  # fmt: skip


def _doubled(case: Case) -> Iterator[str]:
    """Return what the journal says twice of one generation and person, or of one promise."""
    found = Counter(
        (entry.action, entry.actor, json.dumps(_essence(entry.body), sort_keys=True))
        for entry in case.journal
        if entry.action in _ONCE or entry.action.startswith(("clock.", "dispatch."))
    )
    yield from (
        f"{key} is {count} times in the journal" for key, count in found.items() if count > 1
    )


def _forgotten(account: Account, case: Case) -> Iterator[str]:
    """Return whose ladder nothing will go on with."""
    ladder = case.escalation
    if ladder is None:
        return
    if ladder.timer is not None and f"escalation-{ladder.timer.key}" not in account.armed:
        yield f"{case.ticket.number}: {ladder.timer} is not armed"
    if ladder.timer is None and ladder.phase is Phase.PAGING:
        yield f"{case.ticket.number}: nobody is told any more"


def _essence(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in body if key not in ("acks", "at", "breached_at")}


def differences(calm: Account, stormy: Account) -> Iterator[str]:
    """Return what crashes have changed."""
    if list(calm.cases) != list(stormy.cases):
        yield f"tickets {list(stormy.cases)} instead of {list(calm.cases)}"
        return
    for number, case in calm.cases.items():
        for what, look in _LOOKS.items():
            wanted, found = look(calm, case), look(stormy, stormy.cases[number])
            if wanted != found:
                yield f"{number}: {what}: {found} instead of {wanted}"
        yield from _misreached(calm, stormy, number)
    yield from _unlike(calm, stormy)


def _unlike(calm: Account, stormy: Account) -> Iterator[str]:
    """Return messages that only one account has, and other words that people then heard."""
    wanted, found = _messages(calm, stormy), _messages(stormy, calm)
    if wanted - found:
        yield f"missing: {wanted - found}"
    if found - wanted:
        yield f"too many: {found - wanted}"


def _messages(account: Account, other: Account) -> Counter[tuple[str, str]]:
    words = account.town.words
    refs = dict.fromkeys(each.notification.ref for each in _certain(account, other))
    return Counter((_name(ref), words.get(ref, "")) for ref in refs)


def _certain(account: Account, other: Account) -> list[Sent]:
    """Return what went out, but for pages in doubt: their ladder goes on to others, and repeats
    them in that person's next turn. What belongs to no ladder is sent again.
    """
    doubts = {_way(ref) for each in (account, other) for ref in each.town.doubts} - {""}
    return [each for each in account.town.network if _way(each.notification.ref) not in doubts]


def _way(ref: str) -> str:
    """Return whom a page is for, and its medium; "" for other messages."""
    kind, ticket, _, *way = ref.split("-")
    return "-".join((ticket, *way)) if kind == "page" else ""


def _name(ref: str) -> str:
    """Return `ref` without the journal's length, which some hold: it grows when people repeat."""
    return _LENGTH.sub("", ref)


_LENGTH: Final = re.compile(r"(?<=solved-.{11}|signed-.{11}|minder-.{11}|closed-.{11})-[0-9]+")


def _reached(account: Account, other: Account, ticket: str) -> dict[str, datetime]:
    """Return when each person was first told of a ticket, but for what a requester hears unasked:
    that waits for its medium, and nobody for it.
    """
    found: dict[str, datetime] = {}
    for each in _certain(account, other):
        note = each.notification
        if note.ticket == ticket and note.reason not in COURTESIES:
            found.setdefault(each.notification.recipient, each.at)
    return found


def _misreached(calm: Account, stormy: Account, ticket: str) -> Iterator[str]:
    """Return who was told of a ticket in another order, or not at all."""
    wanted, found = _reached(calm, stormy, ticket), _reached(stormy, calm, ticket)
    order = [wanted[who] for who in found if who in wanted]
    if wanted.keys() != found.keys() or order != sorted(order):
        yield f"{ticket}: reached {list(found)} instead of {list(wanted)}"


def _ladder(_: Account, case: Case) -> object:
    found = case.escalation
    if found is None:
        return None
    return found.phase, found.acks, found.need, found.step, found.round, found.passed


def _entries(_: Account, case: Case) -> Counter[str]:
    """Count the journal's entries but what people repeat who have heard nothing."""
    return Counter(
        entry.action for entry in case.journal if entry.action != "escalation.ignored"
    ) - Counter({"on_my_way": 100})


_LOOKS: Final[Mapping[str, Callable[[Account, Case], object]]] = {
    "state": lambda _, case: case.ticket.state,
    "assignee": lambda _, case: case.ticket.assignee,
    "ladder": _ladder,
    "journal": _entries,
}
