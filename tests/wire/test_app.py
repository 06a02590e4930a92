"""The daemon as a whole: its parts open and close in order, and its end has the right exit code."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from sqlalchemy import select

import contactd.log
from contactd import app
from contactd.__main__ import main
from contactd.clock import SystemClock
from contactd.core import policy
from contactd.lab.daemon import Daemon
from contactd.lab.ports import free_port
from contactd.metrics import LOOP_LAG
from contactd.service import Health, Service
from contactd.settings import Settings
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.outbox import Relay
from contactd.store.schema import outbox
from contactd.tickets.contact import CallFacts, Contact, Medium, Outcome
from contactd.tickets.service import TicketService
from tests.fakes import config
from tests.fakes.agi import Caller, header
from tests.fakes.pbx import FakePbx
from tests.fakes.rota import FROM_GZ, small_desk
from tests.fakes.waiting import eventually, until

GRACE = timedelta(seconds=5)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the daemon not take over this process's log."""
    monkeypatch.setattr(contactd.log, "configure", lambda **_: None)
    with structlog.testing.capture_logs():
        yield


@dataclass(slots=True, kw_only=True)
class Part:
    """A service that writes down what happens to it; it may break, or not want to end."""

    name: str
    diary: list[str]
    breaks_on_opening: bool = False
    breaks: asyncio.Event = field(default_factory=asyncio.Event)
    ends: asyncio.Event | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self.breaks_on_opening:
            raise ZeroDivisionError(self.name)
        self.diary.append(f"{self.name} opens")
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(self._work())
                yield
                if self.ends is not None:
                    await self.ends.wait()
                work.cancel()
        finally:
            self.diary.append(f"{self.name} closes")

    async def _work(self) -> None:
        await self.breaks.wait()
        raise ZeroDivisionError(self.name)

    def health(self) -> list[Health]:
        return []


def parts(*names: str, **changes: Any) -> tuple[list[Part], list[str]]:
    diary: list[str] = []
    return [Part(name=name, diary=diary, **changes) for name in names], diary


# Order


async def test_parts_open_in_order_and_close_in_reverse() -> None:
    services, diary = parts("store", "telephony", "http")
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.serve(services, stop, grace=GRACE))
        await until(lambda: len(diary) == 3)
        stop.set()
    assert diary == [
        "store opens", "telephony opens", "http opens",
        "http closes", "telephony closes", "store closes",
    ]  # fmt: skip


async def test_a_stop_that_comes_during_the_start_is_obeyed_after_it() -> None:
    services, diary = parts("store", "http")
    stop = asyncio.Event()
    stop.set()
    await app.serve(services, stop, grace=GRACE)
    assert diary == ["store opens", "http opens", "http closes", "store closes"]


async def test_a_part_that_breaks_ends_the_daemon_with_the_others_closed_first() -> None:
    services, diary = parts("store", "telephony", "http")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_when(lambda: len(diary) == 3, services[1].breaks))
        with pytest.raises(BaseExceptionGroup) as caught:
            await app.serve(services, asyncio.Event(), grace=GRACE)
    assert caught.group_contains(ZeroDivisionError, match="telephony")
    assert diary[3:] == ["http closes", "telephony closes", "store closes"]


async def _when(condition: Any, event: asyncio.Event) -> None:
    await until(condition)
    event.set()


async def test_a_part_that_cannot_open_closes_those_that_have() -> None:
    services, diary = parts("store", "telephony")
    (broken,), _ = parts("http", breaks_on_opening=True)
    with pytest.raises(BaseExceptionGroup) as caught:
        await app.serve([*services, broken], asyncio.Event(), grace=GRACE)
    assert caught.group_contains(ZeroDivisionError, match="http")
    assert diary[2:] == ["telephony closes", "store closes"]


async def test_what_does_not_drain_in_time_is_cut_short() -> None:
    services, diary = parts("store", "http")
    services[1].ends = asyncio.Event()  # never
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(TimeoutError):
        await app.serve(services, stop, grace=timedelta(milliseconds=20))
    assert diary[2:] == ["http closes", "store closes"]


async def test_draining_may_take_as_long_as_it_has() -> None:
    services, diary = parts("store", "http")
    stop, drained = asyncio.Event(), asyncio.Event()
    services[1].ends = drained
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(app.serve(services, stop, grace=GRACE))
        await until(lambda: len(diary) == 2)
        stop.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not serving.done()
        drained.set()
    assert diary[2:] == ["http closes", "store closes"]


def test_the_real_parts_open_what_others_lean_on_first(tmp_path: Path) -> None:
    services = app.build(config.settings(tmp_path, config.document(tmp_path)))
    assert [service.name for service in services] == [
        "database", "desk-file", "letters", "duty", "calendar", "feeds", "texts", "outbox",
        "telephony", "search", "board", "live", "desk-live", "webhooks", "remote",
        "loop", "http",
    ]  # fmt: skip


# Exit codes


def serve(path: Path) -> int:
    return main(["serve", "-c", str(path)])


def test_a_broken_part_ends_the_daemon_with_70(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    diary: list[str] = []

    def build(settings: Settings) -> list[Service]:
        broken = Part(name="broken", diary=diary)
        broken.breaks.set()
        return [Part(name="store", diary=diary), broken]

    monkeypatch.setattr(app, "build", build)
    assert serve(config.write(tmp_path, config.document(tmp_path))) == os.EX_SOFTWARE
    assert diary[-2:] == ["broken closes", "store closes"]
    assert "ZeroDivisionError: broken" in caplog.text


def test_a_drain_that_is_cut_short_is_still_an_orderly_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary: list[str] = []

    def build(settings: Settings) -> list[Service]:
        stubborn = Part(name="stubborn", diary=diary, ends=asyncio.Event())
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), 15)
        return [stubborn]

    monkeypatch.setattr(app, "build", build)
    sections = config.document(tmp_path)
    sections["service"]["drain_s"] = 0.02
    assert serve(config.write(tmp_path, sections)) == os.EX_OK
    assert diary == ["stubborn opens", "stubborn closes"]


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("http", "port", 99_999, "http.port: "),
        ("service", "zone", "Mars/Olympus", "service.zone: 'Mars/Olympus' is not a time zone"),
        ("database", "url", "mysql://u:secret@h/d", "database.url: neither sqlite:///"),
        ("database", "desk_file", "/nowhere/desk.toml", "/nowhere/desk.toml"),
        ("redis", "url", "http://h", "redis.url: "),
    ],
)
def test_a_wrong_configuration_ends_with_78_before_anything_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, key: str, value: Any,
    said: str,
) -> None:  # fmt: skip
    sections = config.document(tmp_path)
    sections.setdefault(section, {})[key] = value
    assert serve(config.write(tmp_path, dict(sorted(sections.items())))) == os.EX_CONFIG
    complaint = capsys.readouterr().err
    assert complaint.startswith("contactd: the configuration is wrong:\n")
    assert said in complaint
    assert "secret" not in complaint
    assert not (tmp_path / "data").exists()


def test_all_errors_of_a_configuration_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = config.document(tmp_path)
    sections["http"]["prot"] = 1
    sections["agi"]["port"] = 0
    sections["pbx"][0]["secret"] = ""
    assert serve(config.write(tmp_path, sections)) == os.EX_CONFIG
    complaint = capsys.readouterr().err
    for line in ("http.prot: no such setting", "agi.port: ", "pbx.0: secret or secret_file"):
        assert line in complaint


def test_an_address_that_is_taken_ends_with_78_and_names_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for section in ("agi", "http"):
        sections = config.document(tmp_path)
        with socket.socket() as other:
            other.bind(("127.0.0.1", sections[section]["port"]))
            other.listen()
            assert serve(config.write(tmp_path, sections)) == os.EX_CONFIG
        assert f"{section}" in capsys.readouterr().err


def test_a_database_that_is_away_at_the_start_ends_with_75(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = f"postgresql://u:secret@127.0.0.1:{free_port()}/d"
    sections = config.document(tmp_path, database_url=away)
    assert serve(config.write(tmp_path, sections)) == os.EX_TEMPFAIL
    complaint = capsys.readouterr().err
    assert "the database cannot be reached" in complaint
    assert "secret" not in complaint


# What is wired


async def test_a_recording_that_is_late_does_not_delay_the_page(
    tmp_path: Path, database_url: str
) -> None:
    settings = config.settings(tmp_path, config.document(tmp_path, database_url=database_url))
    services = {service.name: service for service in app.build(settings)}
    database, relay = services["database"], services["outbox"]
    assert isinstance(database, Database)
    assert isinstance(relay, Relay)
    async with database.running():
        await load_desk(database, small_desk(), SystemClock())
        tickets = TicketService(database.new_work, SystemClock(), policy(settings))
        now = SystemClock().now()
        await tickets.receive(
            Contact(
                medium=Medium.CALL, external_id="pbx1-1.1", received_at=now, from_value=FROM_GZ,
                outcome=Outcome.VOICEMAIL,
                call=CallFacts(
                    pbx="pbx1", did="4008001234", final=True, ended_at=now,
                    voicemail="/var/spool/asterisk/voicemail/1.wav",  # is not there yet
                ),
            )
        )  # fmt: skip
        await relay.drain()
        async with database.reading() as connection:
            rows = await connection.execute(select(outbox.c.kind, outbox.c.error))
            left = {row.kind: row.error for row in rows}
    assert "voicemail of contact 1 is not on the PBX yet" in left["CallEnded"]
    assert "no PBX is connected to ring through" in left["NoticeDue"]


async def test_the_worst_delay_of_the_event_loop_is_a_metric() -> None:
    watch = app.LoopWatch()
    async with watch.running():
        await asyncio.sleep(0)
        time.sleep(0.12)  # something that keeps the loop from its work
        await until(lambda: LOOP_LAG._value.get() >= 0.05)
    assert watch.health() == []


# The real thing


@asynccontextmanager
async def daemon_of(
    folder: Path, database_url: str, *, pbx_port: int = 0, **agi: float
) -> AsyncIterator[tuple[Daemon, dict[str, Any]]]:
    sections = config.document(folder, pbx_port=pbx_port, database_url=database_url)
    sections["agi"] |= agi
    child = config.daemon(folder, sections)
    await child.start()
    try:
        yield child, sections
    finally:
        await child.kill()


async def test_a_daemon_serves_a_call_and_ends_with_0_on_sigterm(
    tmp_path: Path, database_url: str
) -> None:
    async with FakePbx() as exchange:
        opened = daemon_of(tmp_path, database_url, pbx_port=exchange.port)
        async with opened as (child, sections):
            await exchange.logged_in()
            await exchange.until(lambda: len(exchange.members) == 12)
            answer = await Caller.ask(sections["agi"]["port"], header("arrive", "4008001234"))
            assert answer.fields[0] == "ok"
            token = (await child.run("token", "create", "--name", "t", "--role", "desk")).strip()
            (contact,) = (await child.get("/api/v1/contacts", token=token))["items"]
            assert contact["ticket"] == answer.fields[1]
            assert await child.stop() == os.EX_OK
        assert len(exchange.members) == 12, "the queues keep their members"
    assert "daemon.stopped" in child.tail()
    assert "Traceback" not in child.log.read_text()


async def test_while_it_stops_it_answers_the_question_in_hand_and_takes_no_new_ones(
    tmp_path: Path, sqlite_url: str
) -> None:
    opened = daemon_of(tmp_path, sqlite_url, header_timeout_s=9, exchange_timeout_s=9)
    async with opened as (child, sections):
        question = header("arrive", "4008001234")
        caller = await Caller.connect(sections["agi"]["port"])
        caller.writer.write(question[:-10])
        # Its connection was taken before the one of a question that is answered.
        await Caller.ask(sections["agi"]["port"], header("progress"))
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(child.stop())
            await eventually(lambda: _refused(sections["http"]["port"]))
            caller.writer.write(question[-10:])
            answer = await caller.answer()
        assert answer.fields[0] == "ok"
        caller.writer.close()
        assert stopping.result() == os.EX_OK


async def _refused(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/livez"):
            return False
    except aiohttp.ClientConnectionError:
        return True


async def test_a_killed_daemon_starts_again_on_what_it_had(tmp_path: Path, sqlite_url: str) -> None:
    async with daemon_of(tmp_path, sqlite_url) as (child, sections):
        first = await Caller.ask(sections["agi"]["port"], header("arrive", "4008001234"))
        await child.kill()
        await child.start()
        again = await Caller.ask(sections["agi"]["port"], header("arrive", "4008001234"))
    assert again.fields == first.fields
