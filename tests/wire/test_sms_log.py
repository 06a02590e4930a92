"""The gateway `log`: nobody gets its texts, and they can be looked at."""

import json
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.routing.notify import Trace
from contactd.settings import LogSettings, Settings, SmsSettings
from contactd.sms.gateways import Site, ways
from contactd.sms.log import LogGateway
from tests.fakes.clock import FakeClock
from tests.fakes.sms import FakeInbox, handed, outgoing


async def test_a_ref_is_written_once(clock: FakeClock, tmp_path: Path) -> None:
    gateway = LogGateway(LogSettings(file=tmp_path / "texts"), clock)
    for _ in range(3):
        await gateway.submit(outgoing())
    assert len((tmp_path / "texts").read_text(encoding="utf-8").splitlines()) == 1


async def test_a_file_remembers_over_a_restart_what_went_out_and_what_never_did(
    clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    await LogGateway(LogSettings(file=path), clock).submit(outgoing())
    with path.open("a", encoding="utf-8") as lines:
        lines.write('{"ref": "n-2"')  # cut short
    later = LogGateway(LogSettings(file=path), clock)
    for ref, trace in (("n-1", Trace.SENT), ("n-2", Trace.NEVER)):
        found = await later.find(handed(outgoing(ref=ref), "log", clock.now()))
        assert found.trace is trace
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert (line["address"], line["reason"]) == ("+8613800000001", "received")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_without_a_file_nobody_can_tell(clock: FakeClock) -> None:
    gateway = LogGateway(LogSettings(), clock)
    await gateway.submit(outgoing())
    found = await gateway.find(handed(outgoing(), "log", clock.now()))
    assert found.trace is Trace.UNKNOWN


async def test_texts_are_shown_on_the_console_only_if_asked_for(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    await LogGateway(LogSettings(), clock).submit(outgoing())
    assert capsys.readouterr().err == ""
    await LogGateway(LogSettings(show=True), clock).submit(outgoing())
    assert capsys.readouterr().err == "text to +8613800000001: 工单26112000017已收到。\n"


async def test_a_file_that_cannot_be_written_means_not_sent(
    clock: FakeClock, tmp_path: Path
) -> None:
    gateway = LogGateway(LogSettings(file=tmp_path / "absent" / "texts"), clock)
    with pytest.raises(TemporaryFailure, match=r"sms\.log\.file"):
        await gateway.submit(outgoing())
    (tmp_path / "folder").mkdir()
    gateway = LogGateway(LogSettings(file=tmp_path / "folder"), clock)
    with pytest.raises(TemporaryFailure, match=r"sms\.log\.file"):
        await gateway.find(handed(outgoing(), "log", clock.now()))


def _none(name: str) -> NoReturn:
    raise AssertionError(f"nothing asks for {name}")


def test_the_settings_choose_gateways_of_the_table_in_their_order(clock: FakeClock) -> None:
    def names(*gateways: str) -> list[str]:
        settings = Settings(sms=SmsSettings(gateways=gateways))
        site = Site(
            settings=settings, inbox=FakeInbox(), clock=clock, pbx_texts=_none, bookmark=_none
        )
        return [way.name for way in ways(site)]

    assert names() == []
    assert names("log") == ["log"]
    with pytest.raises(ValueError, match="at most once"):
        names("log", "log")
    with pytest.raises((ValueError, ConfigurationError), match="log, twilio"):
        names("carrier-pigeon")
