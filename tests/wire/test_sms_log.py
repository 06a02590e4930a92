"""The gateway `log`: nobody gets its texts, and they can be looked at."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing.notify import Notification, Reason, Trace
from contactd.settings import SmsSettings
from contactd.sms.gateways import GATEWAYS, gateway
from contactd.sms.log import LogTexts
from contactd.tickets.contact import Medium
from tests.fakes.clock import FakeClock


def notification(number: int = 1, **changes: Any) -> Notification:
    given: dict[str, Any] = {
        "ref": f"n-{number}", "ticket": "26112000017", "recipient": "wang", "name": "王伟",
        "medium": Medium.TEXT, "address": "+8613800000001", "language": "zh",
        "reason": Reason.NEW, "facts": {"site_name": "广州"},
    }  # fmt: skip
    return Notification(**{**given, **changes})


async def test_the_log_has_neither_number_nor_name_nor_words(clock: FakeClock) -> None:
    with capture_logs() as events:
        await LogTexts(clock, keep=10).send(notification())
    (event,) = events
    assert (event["event"], event["ref"], event["segments"]) == ("text.sent", "n-1", 1)
    assert not any(secret in str(event) for secret in ("138", "王伟", "广州", "回复"))


async def test_the_last_texts_are_kept_to_be_shown_the_latest_first(clock: FakeClock) -> None:
    texts = LogTexts(clock, keep=2)
    for number in (1, 2, 3):
        await texts.send(notification(number))
    assert [kept.ref for kept in texts.kept()] == ["n-3", "n-2"]
    assert texts.kept()[0].text.startswith("新工单26112000017，广州。回复")
    assert texts.kept()[0].at == clock.now()


async def test_a_ref_is_sent_once(clock: FakeClock, tmp_path: Path) -> None:
    texts = LogTexts(clock, keep=10, path=tmp_path / "texts")
    await asyncio.gather(*(texts.send(notification()) for _ in range(5)))
    assert len((tmp_path / "texts").read_text(encoding="utf-8").splitlines()) == 1
    assert len(texts.kept()) == 1


@pytest.mark.parametrize("address", ["", "wang", "wang@example.cn", "13", "1380000\n0001"])
async def test_what_is_no_number_is_refused_for_good(clock: FakeClock, address: str) -> None:
    texts = LogTexts(clock, keep=10)
    with pytest.raises(PermanentFailure):
        await texts.send(notification(address=address))
    assert texts.kept() == ()


async def test_a_file_remembers_over_a_restart_what_went_out_and_what_never_did(
    clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    await LogTexts(clock, keep=10, path=path).send(notification())
    with path.open("a", encoding="utf-8") as lines:
        lines.write('{"ref": "n-2"')  # cut short
    later = LogTexts(clock, keep=10, path=path)
    assert await later.find("n-1") is Trace.SENT
    assert await later.find("n-2") is Trace.NEVER
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert (line["address"], line["reason"]) == ("+8613800000001", "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_without_a_file_a_restart_forgets_and_says_so(clock: FakeClock) -> None:
    texts = LogTexts(clock, keep=10)
    await texts.send(notification())
    await texts.stop(["n-1"])
    assert await texts.find("n-1") is Trace.SENT
    assert await LogTexts(clock, keep=10).find("n-1") is Trace.UNKNOWN


async def test_a_file_that_cannot_be_written_means_not_sent(
    clock: FakeClock, tmp_path: Path
) -> None:
    texts = LogTexts(clock, keep=10, path=tmp_path / "absent" / "texts")
    with pytest.raises(TemporaryFailure, match=r"sms\.log_file"):
        await texts.send(notification())
    assert texts.kept() == ()
    assert await texts.find("n-1") is Trace.NEVER
    (tmp_path / "folder").mkdir()
    with pytest.raises(TemporaryFailure, match=r"sms\.log_file"):
        await LogTexts(clock, keep=10, path=tmp_path / "folder").find("n-1")


def test_the_settings_choose_a_gateway_of_the_table_or_none(clock: FakeClock) -> None:
    assert gateway(SmsSettings(), clock) is None
    assert isinstance(gateway(SmsSettings(gateway="log"), clock), LogTexts)
    pattern = SmsSettings.model_json_schema()["properties"]["gateway"]["pattern"]
    assert pattern == f"^({'|'.join(GATEWAYS)})?$"
