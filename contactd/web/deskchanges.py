"""Changes of the desk file as pages make them: looked at first, then saved if nothing is wrong.

A change is a function from the file's text to its new text. It is made anew on whatever version is
the newest when it is saved, so that two people who change different entries do not hinder each
other; see `routing.deskedit` for what happens when it is the same entry.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contactd.clock import Clock
from contactd.errors import ConfigurationError, PermanentFailure
from contactd.routing import deskedit, rota
from contactd.routing.deskedit import Change, Fault, Stale
from contactd.routing.deskfile import DeskFile
from contactd.routing.holes import Effect, effect
from contactd.routing.plan import Plan, with_past
from contactd.routing.rota import Problem
from contactd.signals import Signals, Topic
from contactd.store import duty
from contactd.store.deskversions import DeskVersions, Version, Wish
from contactd.store.engine import Database
from contactd.store.feeds import feed_leaves

Edit = Callable[[str], str]

TRIES: Final = 4  # to save what others save something beside
_NOTHING: Final = Effect(holes=(), sites=frozenset())


class NotLoaded(PermanentFailure):
    """There is no version of the desk file that could be changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A change as it would be saved. `desk` is None when `faults` say what is wrong."""

    base: Version
    text: str
    desk: DeskFile | None = None
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    effect: Effect = _NOTHING
    warnings: tuple[Problem, ...] = ()  # of the rota, that there were not before

    @property
    def before(self) -> dict[str, Any]:
        return deskedit.document(self.base.text)

    @property
    def is_right(self) -> bool:
        return self.desk is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the check of a rota needs beside the file."""

    plan: Plan | None  # in force
    holidays: Mapping[str, Any]
    leaves: tuple[Any, ...]  # of external calendars
    now: datetime

    def rota(self, plan: Plan) -> rota.Rota:
        return plan.rota(self.holidays, self.leaves)


class DeskChanges:
    """Drafts and saves changes of the desk file."""

    def __init__(
        self, database: Database, versions: DeskVersions, clock: Clock, signals: Signals
    ) -> None:
        self._database = database
        self.versions = versions
        self._clock = clock
        self._signals = signals

    async def newest(self) -> Version:
        """Return the version that holds.

        Raises:
            NotLoaded: there is none.
            TemporaryFailure: the database is away.
        """
        newest = await self.versions.newest()
        if newest is None:
            raise NotLoaded("no desk file was loaded yet: contactd load FILE")
        return newest

    async def draft(self, edit: Edit) -> Draft:
        """Return what a change would be; nothing is stored.

        Raises:
            NotLoaded: there is nothing to change.
            Stale: the entry that was to be changed is not there any more as it was.
            TemporaryFailure: the database is away.
        """
        base = await self.newest()
        known = await self._known()
        return await asyncio.to_thread(_looked_at, base, edit, known)

    async def save(  # noqa: PLR0913 - what a change says beside itself
        self,
        edit: Edit,
        *,
        actor: str,
        note: str = "",
        act: Mapping[str, Any] | None = None,
        may_save: Callable[[Draft], bool] = lambda draft: not draft.effect.holes,
        base: int | None = None,
    ) -> tuple[Draft, int]:
        """Save a change if it is right and `may_save` says so; return it and its number, else 0.

        With `base` only if that is still the newest version.

        Raises:
            NotLoaded: there is nothing to change.
            Stale: the entry that was to be changed is not there any more as it was, or, with
                `base`, there is a newer version.
            TemporaryFailure: nothing was stored.
        """
        for left in reversed(range(TRIES)):
            draft = await self.draft(edit)
            if base not in (None, draft.base.number):
                raise Stale(f"there is version {draft.base.number} now")
            if draft.desk is None or not may_save(draft):
                return draft, 0
            if draft.text == draft.base.text:
                return draft, draft.base.number
            body = {"changes": _named(draft.changes), **(act or {})}
            wish = Wish(text=draft.text, base=draft.base.number, actor=actor, note=note, act=body)
            try:
                number, loaded = await self.versions.save_desk(wish, draft.desk)
            except Stale:
                if not left:
                    raise
                continue
            if loaded.changed:
                self._signals.raise_(Topic.ROSTER)
            return draft, number
        raise AssertionError("the last try returns or raises")

    async def problems(self) -> list[Problem]:
        """Return what is wrong with the rota in force in the next 60 days.

        Raises:
            TemporaryFailure: the database is away.
        """
        return await duty.problems(self._database, self._clock)

    async def _known(self) -> _Known:
        async with self._database.reading() as connection:
            plan = await duty.plan(connection)
            return _Known(
                plan=plan,
                holidays=await duty.holiday_data(connection),
                leaves=tuple(await feed_leaves(connection, plan.feeds)) if plan else (),
                now=self._clock.now().replace(second=0, microsecond=0),
            )


def _looked_at(base: Version, edit: Edit, known: _Known) -> Draft:
    """Make a change and look at it: takes a second for a large rota, so not in the event loop."""
    text = edit(base.text)
    try:
        desk = deskedit.check(text)
    except ConfigurationError as error:
        return Draft(base=base, text=text, faults=tuple(deskedit.faults(error)))
    changes = deskedit.summary(deskedit.document(base.text), deskedit.document(text))
    plan = desk.plan()
    if known.plan is not None:
        plan = with_past(plan, known.plan, known.now)
    before = None if known.plan is None else known.rota(known.plan)
    after, start, end = known.rota(plan), known.now, known.now + duty.HORIZON
    if before == after:
        return Draft(base=base, text=text, desk=desk, changes=tuple(changes))
    old = set(rota.problems(before, start, end)) if before is not None else set()
    return Draft(
        base=base,
        text=text,
        desk=desk,
        changes=tuple(changes),
        effect=effect(before, after, start, end),
        warnings=tuple(each for each in rota.problems(after, start, end) if each not in old),
    )


def _named(changes: tuple[Change, ...]) -> list[str]:
    """Return what changed without what it says: people's numbers are not for the journal."""
    return [
        f"{change.section} {_how(change)} {_key(change)}: "
        + ", ".join(name for name, _, _ in change.fields)
        for change in changes[:_MOST_NAMED]
    ]


_MOST_NAMED: Final = 50


def _how(change: Change) -> str:
    if change.before is None:
        return "added"
    return "removed" if change.after is None else "changed"


def _key(change: Change) -> str:
    entry = change.after or change.before or {}
    return str(entry.get("key") or entry.get("engineer") or "")
