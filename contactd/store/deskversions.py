"""The versions of what people edit as text: the desk file and the words of mails.

A version is never changed. The newest is what holds: saving one puts it in force in the same
transaction, with an act that says who did it. The desk file on the disk makes a version, too, but
only when it is another than the last one that was read from there: what was changed on the web
outlives a restart, and a file that somebody changed has the last word.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sqlalchemy import RowMapping, bindparam, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import ConfigurationError, NotFound
from contactd.log import get_logger
from contactd.routing import deskfile
from contactd.routing.deskedit import Stale
from contactd.routing.deskfile import DeskFile
from contactd.store import duty
from contactd.store.acts import note_act
from contactd.store.desk import Loaded, load_within
from contactd.store.engine import Database
from contactd.store.schema import desk_versions
from contactd.store.unit_of_work import SqlUnitOfWork

log = get_logger()

SYSTEM: Final = "system"
LONGEST_NOTE: Final = 400
MOST_SHOWN: Final = 200  # versions of a list

_OF: Final = select(desk_versions).where(desk_versions.c.kind == bindparam("kind"))
_NEWEST: Final = _OF.order_by(desk_versions.c.number.desc()).limit(1)
_NUMBERED: Final = _OF.where(desk_versions.c.number == bindparam("number"))
_LAST_FILE: Final = (
    _OF.where(desk_versions.c.source == "file").order_by(desk_versions.c.number.desc()).limit(1)
)
_LAST: Final = select(func.max(desk_versions.c.number)).where(
    desk_versions.c.kind == bindparam("kind")
)
_ADD: Final = insert(desk_versions)
_HISTORY: Final = (
    select(*(column for column in desk_versions.c if column.name != "text"))
    .where(desk_versions.c.kind == bindparam("kind"))
    .order_by(desk_versions.c.number.desc())
    .limit(MOST_SHOWN)
)


class Kind(StrEnum):
    DESK = "desk"
    LETTERS = "letters"


class Source(StrEnum):
    FILE = "file"
    WEB = "web"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version; `text` is "" in a list."""

    number: int
    at: datetime
    actor: str
    source: Source
    note: str
    hash: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskSource:
    """A desk file as it was read, with the public holidays that it names."""

    path: Path
    text: str
    desk: DeskFile

    @property
    def hash(self) -> str:
        return digest(self.text, self.desk.holidays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A version that somebody wants: `base` is the number of the one that it was made from."""

    text: str
    base: int
    actor: str
    source: Source = Source.WEB
    note: str = ""
    hash: str = ""  # of the text, unless said otherwise
    action: str = "desk.changed"
    act: Mapping[str, Any] | None = None  # what the act says beside the number


def read_source(path: Path) -> DeskSource:
    """Read and check the desk file at `path`.

    Raises:
        ConfigurationError: every error found, one a line, each with its place.
    """
    desk = deskfile.read(path)
    try:
        return DeskSource(path=path, text=path.read_text(encoding="utf-8"), desk=desk)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def digest(text: str, holidays: str = "") -> str:
    return hashlib.sha256(f"{text}\0{holidays}".encode()).hexdigest()


class DeskVersions:
    """Reads and adds versions."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def newest(self, kind: Kind = Kind.DESK) -> Version | None:
        """Return the version that holds, None if there is none yet.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            return await _newest(connection, kind)

    async def numbered(self, number: int, kind: Kind = Kind.DESK) -> Version:
        """Return one version.

        Raises:
            NotFound: there is none of this number.
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            rows = await connection.execute(_NUMBERED, {"kind": kind, "number": number})
            row = rows.mappings().first()
        if row is None:
            raise NotFound(f"there is no version {number}")
        return _version(row)

    async def history(self, kind: Kind = Kind.DESK) -> list[Version]:
        """Return the versions without their texts, the newest first.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            rows = await connection.execute(_HISTORY, {"kind": kind})
            return [_version(row) for row in rows.mappings()]

    async def save_desk(self, wish: Wish, desk: DeskFile) -> tuple[int, Loaded]:
        """Make `wish`, of which `desk` was read, the newest version, and put it in force.

        Raises:
            Stale: there is a newer version than the one that the wish was made from.
            TemporaryFailure: nothing was stored.
        """
        async with self._database.new_work() as work:
            number = await self._add(work, Kind.DESK, wish)
            loaded = await load_within(work, desk, self._clock)
            await work.commit()
        log.info("desk.changed", version=number, source=wish.source, actor=wish.actor)
        return number, loaded

    async def save_letters(self, wish: Wish) -> int:
        """Make `wish` the newest words of mails; the caller has checked them.

        Raises:
            Stale: there is a newer version than the one that the wish was made from.
            TemporaryFailure: nothing was stored.
        """
        async with self._database.new_work() as work:
            number = await self._add(work, Kind.LETTERS, wish)
            await work.commit()
        log.info("letters.changed", version=number, actor=wish.actor)
        return number

    async def take_file(
        self, source: DeskSource, *, actor: str = SYSTEM, only_if_new: bool = False
    ) -> Loaded | None:
        """Load a desk file and keep it as a version, unless it is the newest one already.

        With `only_if_new` nothing happens (None) when the file says what it said the last time, so
        that what was changed on the web since then stays.

        Raises:
            TemporaryFailure: nothing was stored.
        """
        async with self._database.new_work() as work:
            newest = await _newest(work.connection, Kind.DESK)
            if only_if_new and await self._is_known(work.connection, source):
                return None
            if newest is None or newest.hash != source.hash:
                wish = Wish(
                    text=source.text,
                    base=newest.number if newest else 0,
                    actor=actor,
                    source=Source.FILE,
                    note=source.path.name,
                    hash=source.hash,
                    action="desk.loaded",
                )
                number = await self._add(work, Kind.DESK, wish)
                if newest is not None and newest.source is Source.WEB:
                    log.warning("desk.file_replaced_web", version=number, replaced=newest.number)
            loaded = await load_within(work, source.desk, self._clock)
            await work.commit()
        return loaded

    async def knows(self, source: DeskSource) -> bool:
        """Return whether a start would leave what holds as it is, since the file is as it was.

        Raises:
            TemporaryFailure: the database is away.
        """
        async with self._database.reading() as connection:
            return await self._is_known(connection, source)

    async def _is_known(self, connection: AsyncConnection, source: DeskSource) -> bool:
        row = (await connection.execute(_LAST_FILE, {"kind": Kind.DESK})).mappings().first()
        is_same = row is not None and row["hash"] == source.hash
        return is_same and await duty.plan(connection) is not None

    async def _add(self, work: SqlUnitOfWork, kind: Kind, wish: Wish) -> int:
        """Store a version and the act; return its number."""
        connection = work.connection
        last = (await connection.execute(_LAST, {"kind": kind})).scalar_one() or 0
        if last != wish.base:
            raise Stale(f"there is version {last} now; this was made from version {wish.base}")
        number = int(last) + 1
        row = {
            "kind": kind,
            "number": number,
            "at": self._clock.now(),
            "actor": wish.actor,
            "source": wish.source,
            "note": wish.note[:LONGEST_NOTE],
            "hash": wish.hash or digest(wish.text),
            "text": wish.text,
        }
        await connection.execute(_ADD, row)
        body = {"version": number, "note": wish.note[:LONGEST_NOTE], **(wish.act or {})}
        await note_act(
            connection,
            self._clock,
            actor=wish.actor,
            action=wish.action,
            subject=f"{kind} {number}",
            body=body,
        )
        return number


async def _newest(connection: AsyncConnection, kind: Kind) -> Version | None:
    row = (await connection.execute(_NEWEST, {"kind": kind})).mappings().first()
    return None if row is None else _version(row)


def _version(row: RowMapping) -> Version:
    return Version(
        number=row["number"],
        at=row["at"],
        actor=row["actor"],
        source=Source(row["source"]),
        note=row["note"],
        hash=row["hash"],
        text=row.get("text", ""),
    )
