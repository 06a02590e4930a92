"""`contactd check`: what is broken is named, with what to do about it."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

import contactd.log
from contactd import check as check_module
from contactd.check import check
from contactd.clock import SystemClock
from contactd.errors import ConfigurationError
from contactd.lab.ports import free_port
from contactd.store.engine import Database, upgrade
from tests.fakes import config
from tests.fakes.pbx import FakePbx
from tests.fakes.records import Recorder
from tests.fakes.redis_server import RedisServer
from tests.fakes.smart_host import smart_host
from tests.fakes.sms_smpp import PASSWORD, smpp_provider
from tests.fakes.sms_twilio import ACCOUNT, SENDER, TOKEN, FakeTwilio, serving


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contactd.log, "configure", lambda **_: None)
    monkeypatch.setattr(check_module, "PROBE_S", 1.0)  # how long an absent PBX is waited for
    # Whether the browser's files are built is another test's business.
    monkeypatch.setattr(check_module, "version_of_static", lambda: "1")


class Table:
    """What was printed: component -> (verdict, detail)."""

    def __init__(self, printed: str, code: int) -> None:
        self.code = code
        self.lines = [line for line in printed.splitlines() if line.startswith("  ")]
        self.last = printed.splitlines()[-1]

    def __getitem__(self, component: str) -> tuple[str, str]:
        """Return the first line of a component."""
        line = next(line for line in self.lines if line[2:24].rstrip() == component)
        verdict, _, detail = line[25:].partition(" ")
        return verdict, detail.strip()

    def broken(self) -> set[str]:
        return {line[2:24].rstrip() for line in self.lines if not line[25:].startswith("ok")}


class Desk:
    """A desk in order; a test breaks one thing."""

    def __init__(self, folder: Path, exchange: FakePbx, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.exchange = exchange
        self.sections: dict[str, Any] = config.document(
            folder, pbx_port=exchange.port, sites=("gz", "sz")
        )
        self.pbx: dict[str, Any] = self.sections["pbx"][0]
        self._capsys = capsys
        (folder / "pbx" / "cel.csv").write_bytes(b"")
        (folder / "pbx" / "queue_log").write_bytes(b"")
        for queue in ("gz", "sz", "desk"):
            member = f"Local/1@engineer-{queue}/n"
            exchange.members[queue, member] = {"Name": "wang", "Penalty": "1"}

    @property
    def database_url(self) -> str:
        return config.settings(self.folder, self.sections).database_url

    async def check(self) -> Table:
        code = await check(config.settings(self.folder, self.sections))
        return Table(self._capsys.readouterr().out, code)

    async def only_broken(self, component: str, verdict: str = "FAILED") -> str:
        """Check that nothing else is wrong; return what is said of it."""
        table = await self.check()
        assert table.broken() == {component}, table.lines
        assert table[component][0] == verdict
        assert table.code == (os.EX_UNAVAILABLE if verdict == "FAILED" else os.EX_OK)
        return table[component][1]


@pytest.fixture
async def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    async with FakePbx() as exchange:
        desk = Desk(tmp_path, exchange, capsys)
        await upgrade(desk.database_url)
        yield desk


async def test_a_desk_in_order_is_all_ok(desk: Desk) -> None:
    table = await desk.check()
    assert (table.broken(), table.code) == (set(), os.EX_OK)
    assert table.last == "15 ok, 0 warnings, 0 failed"
    assert table["rota"] == ("ok", "2 sites, 4 engineers")
    assert table["pbx pbx1"][1].startswith("Asterisk 22")
    assert table["pbx pbx1 queues"] == ("ok", "desk, gz, sz")
    assert table["database"][1].startswith("sqlite, revision ")


async def test_postgresql_is_looked_at_as_well(desk: Desk, postgres_url: str) -> None:
    desk.sections["database"]["url"] = postgres_url
    assert (await desk.check())["database"][1].startswith("postgresql, revision ")


async def test_checking_changes_nothing(desk: Desk) -> None:
    before = dict(desk.exchange.members)
    await desk.check()
    assert desk.exchange.members == before
    assert desk.exchange.actions("QueueAdd") == []


async def test_todays_calls_are_counted(desk: Desk) -> None:
    records = Recorder(now=time.time())
    records.in_menu()
    (desk.folder / "pbx" / "cel.csv").write_bytes(records.cel)
    assert (await desk.check())["pbx1 records"] == ("ok", "1 hotline calls today")


# Each broken alone


async def test_a_data_folder_that_cannot_be_written(desk: Desk) -> None:
    # Root may write anywhere, but not below a file.
    url = desk.database_url
    (desk.folder / "file").write_text("")
    desk.sections["service"]["data_dir"] = str(desk.folder / "file" / "data")
    desk.sections["database"]["url"] = url
    assert "Not a directory: give it to contactd's user" in await desk.only_broken("data_dir")


async def test_a_disk_that_is_almost_full(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "ENOUGH_BYTES", 1 << 60)
    said = await desk.only_broken("data_dir", "warning")
    assert "GiB free: recordings take 1 MB a minute" in said


async def test_a_database_that_is_away(desk: Desk) -> None:
    desk.sections["database"]["url"] = f"postgresql://u:secret@127.0.0.1:{free_port()}/d"
    said = await desk.only_broken("database")
    assert "the database cannot be reached" in said
    assert "see database.url" in said
    assert "secret" not in said


async def test_a_database_without_our_tables(desk: Desk) -> None:
    desk.sections["database"]["url"] = f"sqlite:///{desk.folder}/new.sqlite3"
    said = await desk.only_broken("database", "warning")
    assert "`contactd serve` does it at its start" in said
    desk.sections["database"]["migrate_on_start"] = False
    assert "run `contactd migrate`" in await desk.only_broken("database")


async def test_a_desk_file_that_is_wrong_names_every_place(desk: Desk) -> None:
    desk_file = Path(desk.sections["database"]["desk_file"])
    text = desk_file.read_text(encoding="utf-8")
    desk_file.write_text(text.replace('"wang"', '"Wang W"', 1), encoding="utf-8")
    table = await desk.check()
    assert table.broken() == {"rota"}
    assert sum(line[2:24].rstrip() == "rota" for line in table.lines) > 1
    assert table.code == os.EX_UNAVAILABLE


async def test_no_rota_at_all(desk: Desk) -> None:
    del desk.sections["database"]["desk_file"]
    assert "contactd load FILE, or set database.desk_file" in await desk.only_broken("rota")


async def test_a_rota_with_holes_is_a_warning_a_hole(desk: Desk) -> None:
    desk_file = Path(desk.sections["database"]["desk_file"])
    text = desk_file.read_text(encoding="utf-8")
    desk_file.write_text(text.replace('end = "24:00"', 'end = "18:00"'), encoding="utf-8")
    table = await desk.check()
    holes = [line for line in table.lines if "nobody is on duty" in line]
    assert len(holes) == 4  # one for each tier of a site
    assert table.code == os.EX_OK


async def test_scripts_of_the_pages_that_are_not_built(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise ConfigurationError("htmx.min.js is not there: run scripts/setup.sh")

    monkeypatch.setattr(check_module, "version_of_static", missing)
    assert "run scripts/setup.sh" in await desk.only_broken("pages")


async def test_ports_that_are_taken(desk: Desk) -> None:
    for section in ("http", "agi"):
        with socket.socket() as other:
            other.bind(("127.0.0.1", desk.sections[section]["port"]))
            other.listen()
            said = await desk.only_broken(f"listener {section}", "warning")
        assert "Address already in use; fine if contactd is running" in said
        assert f"change {section}.port" in said


async def test_redis_that_is_away(desk: Desk) -> None:
    desk.sections["redis"] = {"url": f"redis://127.0.0.1:{free_port()}/0"}
    said = await desk.only_broken("redis", "warning")
    assert "start it or see redis.url" in said


async def test_redis_that_answers(desk: Desk, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        desk.sections["redis"] = {"url": server.url}
        assert (await desk.check())["redis"] == ("ok", "answers")
    finally:
        server.kill()


async def test_redis_that_never_answers(desk: Desk) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        desk.sections["redis"] = {"url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"}
        assert "no answer within 1 s" in await desk.only_broken("redis")


async def test_no_pbx_is_configured(desk: Desk) -> None:
    desk.sections["pbx"] = []
    assert await desk.only_broken("pbx") == "none is configured: add a section [[pbx]]"


async def test_a_pbx_that_is_not_running(desk: Desk) -> None:
    desk.exchange.stop()
    said = await desk.only_broken("pbx pbx1")
    assert "Connection refused" in said
    assert "is Asterisk running, with enabled=yes and this address in manager.conf?" in said


async def test_a_wrong_password_of_the_manager_interface(desk: Desk) -> None:
    desk.pbx["secret"] = "wrong"
    said = await desk.only_broken("pbx pbx1")
    assert "compare secret and permit in its manager.conf" in said
    assert "wrong" not in said


async def test_something_else_that_listens_where_the_pbx_should_be(desk: Desk) -> None:
    desk.exchange.faults.banner = b"220 mail.example.com ESMTP\r\n"
    assert "not a manager interface" in await desk.only_broken("pbx pbx1")


async def test_a_manager_user_that_may_not_see_the_queues(desk: Desk) -> None:
    desk.exchange.faults.unanswered = {"QueueStatus"}
    table = await desk.check()
    assert table["pbx pbx1"][0] == "FAILED"


async def test_a_queue_that_the_pbx_does_not_have(desk: Desk) -> None:
    for queue, member in tuple(desk.exchange.members):
        if queue in ("sz", "desk"):
            del desk.exchange.members[queue, member]
    said = await desk.only_broken("pbx pbx1 queues")
    assert "missing: desk, sz: add them to contactd_queues.conf" in said
    assert "queue reload all" in said


async def test_record_files_that_are_not_there_yet(desk: Desk) -> None:
    for name, setting in (("cel.csv", "cel_path"), ("queue_log", "queue_log_path")):
        path = desk.folder / "pbx" / name
        path.unlink()
        said = await desk.only_broken(f"pbx1 {setting.removesuffix('_path')}", "warning")
        assert f"see pbx.{setting} and cel_custom.conf" in said
        path.write_bytes(b"")


async def test_a_record_file_that_cannot_be_read(desk: Desk) -> None:
    desk.pbx["queue_log_path"] = str(desk.folder)
    said = await desk.only_broken("pbx1 queue_log")
    assert "put contactd's user into asterisk's group" in said


async def test_the_pbxs_file_system_that_is_not_mounted(desk: Desk) -> None:
    desk.pbx["files_root"] = str(desk.folder / "nowhere")
    assert "see pbx.files_root" in await desk.only_broken("pbx1 records")


async def test_it_runs_beside_a_daemon_and_twice(desk: Desk) -> None:
    database = Database(desk.database_url)
    async with database.running():
        assert (await desk.check()).code == os.EX_OK
        assert (await desk.check()).code == os.EX_OK


# Mail ------------------------------------------------------------------------------------------


async def test_the_smart_host_is_asked_and_gets_no_mail(desk: Desk) -> None:
    async with smart_host() as host:
        desk.sections["mail"] = mail(host.port)
        assert (await desk.check())["mail"] == ("ok", f"127.0.0.1:{host.port} takes our mail")
    assert (host.connections, host.taken) == (1, [])


async def test_a_smart_host_that_is_away_or_refuses_us_is_a_warning(desk: Desk) -> None:
    desk.sections["mail"] = mail(free_port())
    assert "till then mails wait" in await desk.only_broken("mail", "warning")
    async with smart_host(auth=True) as host:
        desk.sections["mail"] = mail(host.port) | {"username": "contactd", "password": "wrong"}
        said = await desk.only_broken("mail", "warning")
    assert "it refuses mail.username and its password" in said
    assert "wrong" not in said


def mail(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "security": "none", "sender": "desk@example.cn"}


async def test_gateways_for_texts_are_tried(desk: Desk, tmp_path: Path) -> None:
    assert (await desk.check())["texts"] == ("ok", "no gateway configured: there are no texts")
    desk.sections["sms"] = {"gateways": ["log"]}
    assert (await desk.check())["texts log"] == ("ok", "nobody gets these texts")
    desk.sections["sms"] = {"gateways": ["twilio"]}
    assert "account_sid" in await desk.only_broken("texts twilio", "FAILED")
    twilio = FakeTwilio(clock=SystemClock())
    async with serving(twilio.app()) as url:
        account = {"account_sid": ACCOUNT, "auth_token": TOKEN, "sender": SENDER, "api_url": url}
        desk.sections["sms"] = {"gateways": ["twilio"], "twilio": account}
        desk.sections["http"]["public_url"] = "https://desk.example.cn"
        assert (await desk.check())["texts twilio"] == ("ok", "its provider answers")
        desk.sections["sms"]["twilio"] = {**account, "auth_token": "0" * 32}
        assert "texts wait" in await desk.only_broken("texts twilio", "warning")
        twilio.end()
    async with smpp_provider() as provider:
        host = {
            "host": "127.0.0.1",
            "port": provider.smsc.port,
            "system_id": "contactd",
            "password": PASSWORD,
            "sender": "10690000",
        }
        desk.sections["sms"] = {"gateways": ["smpp"], "smpp": host}
        assert (await desk.check())["texts smpp"][0] == "ok"
    assert "texts wait" in await desk.only_broken("texts smpp", "warning")
    desk.sections["sms"] = {"gateways": ["sip"], "sip": {"pbx": "pbx9"}}
    assert "pbx9" in await desk.only_broken("texts sip", "FAILED")


async def test_mail_that_is_taken_without_a_certificate_is_a_warning(desk: Desk) -> None:
    desk.sections["smtp"] = {"mailboxes": ["support@x.cn"], "port": free_port()}
    assert "without certificate_file" in await desk.only_broken("smtp", "warning")


async def test_a_certificate_that_cannot_be_read_is_named(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "mail.pem").write_text("no certificate", encoding="utf-8")
    desk.sections["smtp"] = {
        "mailboxes": ["support@x.cn"], "port": free_port(),
        "certificate_file": str(tmp_path / "mail.pem"), "key_file": str(tmp_path / "mail.pem"),
    }  # fmt: skip
    assert "smtp.certificate_file" in await desk.only_broken("smtp")
