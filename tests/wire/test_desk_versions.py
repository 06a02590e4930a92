"""Versions of the desk file on both databases: the file, the web, and which of them holds."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from contactd.clock import SystemClock
from contactd.mail.letterbook import Letterbook
from contactd.routing import deskedit
from contactd.routing.deskedit import Stale
from contactd.routing.notify import Reason
from contactd.signals import Signals, Topic
from contactd.store import duty
from contactd.store.deskversions import DeskVersions, Kind, Source, Wish
from contactd.store.engine import Database
from contactd.store.schema import acts, desk_versions
from contactd.web.deskchanges import DeskChanges, NotLoaded
from tests.fakes.admin import source
from tests.fakes.clock import FakeClock
from tests.fakes.rota import desk_document
from tests.fakes.waiting import WITHIN_S
from tests.wire.test_commands import Shell, shell

__all__ = ["shell"]  # the fixture


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
async def versions(
    database: Database, clock: FakeClock, tmp_path: Path, log: list[Any]
) -> DeskVersions:
    found = DeskVersions(database, clock)
    await found.take_file(source(desk_document(), tmp_path), only_if_new=True)
    return found


@pytest.fixture
def changes(versions: DeskVersions, database: Database, clock: FakeClock) -> DeskChanges:
    return DeskChanges(database, versions, clock, Signals())


def renamed(text: str, name: str = "Canton") -> str:
    site = deskedit.entries(deskedit.document(text), "sites")[0]
    return deskedit.put(text, "sites", {**site, "name_en": name}, was=deskedit.fingerprint(site))


async def name_in_force(database: Database) -> str:
    async with database.reading() as connection:
        plan = await duty.plan(connection)
    assert plan is not None
    return plan.sites[0].name_en


async def test_a_file_that_did_not_change_leaves_what_was_edited_on_the_web(
    versions: DeskVersions, changes: DeskChanges, database: Database, tmp_path: Path
) -> None:
    _, number = await changes.save(renamed, actor="user:li")
    assert number == 2
    again = await versions.take_file(source(desk_document(), tmp_path), only_if_new=True)
    assert again is None
    assert await name_in_force(database) == "Canton"


async def test_a_file_that_changed_has_the_last_word_and_the_log_says_so(
    versions: DeskVersions, changes: DeskChanges, database: Database, tmp_path: Path,
    log: list[Any],
) -> None:  # fmt: skip
    await changes.save(renamed, actor="user:li")
    other = desk_document(sites=("gz", "sz"))
    loaded = await versions.take_file(source(other, tmp_path), only_if_new=True)
    assert loaded is not None
    assert await name_in_force(database) == "gz"
    assert [each.source for each in await versions.history()] == [
        Source.FILE, Source.WEB, Source.FILE
    ]  # fmt: skip
    (told,) = [each for each in log if each["event"] == "desk.file_replaced_web"]
    assert (told["version"], told["replaced"]) == (3, 2)


async def test_the_same_file_loaded_by_hand_undoes_the_web_and_is_a_version(
    versions: DeskVersions, changes: DeskChanges, database: Database, tmp_path: Path
) -> None:
    await changes.save(renamed, actor="user:li")
    await versions.take_file(source(desk_document(), tmp_path))
    assert await name_in_force(database) == "gz"
    await versions.take_file(source(desk_document(), tmp_path))
    assert len(await versions.history()) == 3


async def test_what_is_saved_holds_and_is_an_act_in_the_same_transaction(
    changes: DeskChanges, database: Database
) -> None:
    await changes.save(renamed, actor="user:li", note="new name")
    async with database.reading() as connection:
        rows = (await connection.execute(select(acts).order_by(acts.c.id))).all()
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("system", "desk.loaded", "desk 1"),
        ("user:li", "desk.changed", "desk 2"),
    ]
    assert rows[1].body["note"] == "new name"
    assert rows[1].body["changes"] == ["sites changed gz: name_en"]


async def test_nothing_is_kept_of_a_version_that_cannot_be_put_in_force(
    versions: DeskVersions, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("contactd.store.deskversions.load_within", broken)
    newest = await versions.newest()
    assert newest is not None
    desk = deskedit.check(newest.text)
    with pytest.raises(RuntimeError):
        await versions.save_desk(Wish(text="", base=1, actor="user:li"), desk)
    async with database.reading() as connection:
        assert len((await connection.execute(select(desk_versions))).all()) == 1
        assert len((await connection.execute(select(acts))).all()) == 1


async def test_of_two_who_save_at_once_neither_loses_anything(
    changes: DeskChanges, versions: DeskVersions
) -> None:
    def numbered(text: str) -> str:
        site = deskedit.entries(deskedit.document(text), "sites")[1]
        return deskedit.put(text, "sites", {**site, "area_code": "999"},
                            was=deskedit.fingerprint(site))  # fmt: skip

    saved = await asyncio.gather(
        changes.save(renamed, actor="user:li"), changes.save(numbered, actor="user:wang")
    )
    assert sorted(number for _, number in saved) == [2, 3]
    newest = await versions.newest()
    assert newest is not None
    sites = deskedit.entries(deskedit.document(newest.text), "sites")
    assert (sites[0]["name_en"], sites[1]["area_code"]) == ("Canton", "999")


async def test_the_same_entry_is_changed_by_one_of_two(
    changes: DeskChanges, versions: DeskVersions
) -> None:
    newest = await versions.newest()
    assert newest is not None
    site = deskedit.entries(deskedit.document(newest.text), "sites")[0]
    seen = deskedit.fingerprint(site)

    def put(name: str) -> Any:
        return lambda text: deskedit.put(text, "sites", {**site, "name_en": name}, was=seen)

    await changes.save(put("One"), actor="user:li")
    with pytest.raises(Stale):
        await changes.save(put("Two"), actor="user:wang")


async def test_a_change_with_a_hole_is_not_saved_unless_somebody_says_so(
    changes: DeskChanges, versions: DeskVersions
) -> None:
    def without(text: str) -> str:
        shift = deskedit.entries(deskedit.document(text), "shifts")[0]
        return deskedit.drop(text, "shifts", deskedit.fingerprint(shift))

    draft, number = await changes.save(without, actor="user:li")
    assert number == 0
    assert {(hole.site, hole.tier, hole.instead) for hole in draft.effect.holes} == {
        ("gz", 1, ("li",))
    }
    assert len(await versions.history()) == 1
    _, number = await changes.save(without, actor="user:li", may_save=lambda _: True)
    assert number == 2


async def test_the_queues_are_told_when_the_rota_changed(
    versions: DeskVersions, database: Database, clock: FakeClock
) -> None:
    signals = Signals()
    changes = DeskChanges(database, versions, clock, signals)
    with signals.listening(Topic.ROSTER) as woken:
        await changes.save(renamed, actor="user:li")
        async with asyncio.timeout(WITHIN_S):
            await woken.wait()


async def test_without_any_version_the_remedy_is_named(
    database: Database, clock: FakeClock
) -> None:
    changes = DeskChanges(database, DeskVersions(database, clock), clock, Signals())
    with pytest.raises(NotLoaded, match="contactd load FILE"):
        await changes.save(renamed, actor="user:li")


async def test_letters_edited_on_the_web_hold_after_a_restart(
    versions: DeskVersions, database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    file = tmp_path / "letters.toml"
    file.write_text('[solved.zh]\nsentence = "{ticket}好了" # ours\n', encoding="utf-8")
    book = Letterbook(versions, file, service="contactd")
    text, number = await book.current()
    assert number == 0
    was = deskedit.fingerprint(book.wording(text, Reason.CLOSED, "zh"))
    words = {"sentence": "{ticket}关了"}
    await book.save(Reason.CLOSED, "zh", words, was=was, actor="user:li")
    assert book.letters.wording(Reason.CLOSED, "zh").sentence == "{ticket}关了"
    assert book.letters.wording(Reason.SOLVED, "zh").sentence == "{ticket}好了"
    again = Letterbook(versions, file, service="contactd")
    async with again.running():
        assert again.letters.wording(Reason.CLOSED, "zh").sentence == "{ticket}关了"
    newest = await versions.newest(Kind.LETTERS)
    assert newest is not None
    assert "# ours" in newest.text
    with pytest.raises(Stale):
        await book.save(Reason.CLOSED, "zh", {}, was=was, actor="user:wang")


def test_the_commands_load_and_print_what_holds(shell: Shell) -> None:
    shell.run("desk", "export", code=os.EX_CONFIG)
    assert "contactd load FILE" in shell.complaint
    shell.desk_file.write_text(source(desk_document(), shell.folder).text, encoding="utf-8")
    assert "replaces" not in shell.loaded()
    assert shell.run("desk", "export") == shell.desk_file.read_text(encoding="utf-8")

    async def edit(database: Database) -> None:
        clock = SystemClock()
        changes = DeskChanges(database, DeskVersions(database, clock), clock, Signals())
        await changes.save(renamed, actor="user:li")

    shell.do(edit)
    assert 'name_en = "Canton"' in shell.run("desk", "export")
    assert "it replaces version 2, which was edited on the web" in shell.loaded()
    assert shell.run("desk", "export") == shell.desk_file.read_text(encoding="utf-8")


def test_the_command_shows_a_letter_in_the_words_of_the_web(shell: Shell) -> None:
    shell.run("migrate")
    assert "行了" not in shell.run("letter", "solved")

    async def edit(database: Database) -> None:
        book = Letterbook(DeskVersions(database, SystemClock()), None, service="contactd")
        was = deskedit.fingerprint({})
        await book.save(Reason.SOLVED, "zh", {"sentence": "{ticket}行了"}, was=was, actor="user:li")

    shell.do(edit)
    assert "26112200172行了" in shell.run("letter", "solved")
