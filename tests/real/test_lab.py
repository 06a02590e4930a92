"""The lab itself: it starts, it can be killed and restarted, and it leaves nothing behind."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from contactd.lab.asterisk import LabError, asterisk_root, claim_seat, configuration
from contactd.lab.network import Leg, PublicNetwork
from contactd.lab.pbx import Lab, open_lab, pbx_configuration
from tests.fakes.waiting import WITHIN_S, until

pytestmark = pytest.mark.real

DID = "4008001234"
FLOOR = "13800000009"

# A process that opens a lab, tells the pids and folders, and is then killed.
VICTIM = """
import asyncio
from contactd.lab.pbx import open_lab

async def main():
    async with open_lab() as lab:
        for one in (lab.pbx, lab.network.asterisk):
            print(one.pid, one.files_root, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with open_lab(options={"GREETING": "no", "FLOOR": FLOOR}) as lab:
        yield lab


@pytest.fixture
async def networks() -> AsyncIterator[tuple[PublicNetwork, PublicNetwork]]:
    """Two public networks, each the other's PBX."""
    with claim_seat(last_octet=1) as here, claim_seat(last_octet=2) as there:
        async with (
            PublicNetwork.start(seat=here, pbx=there) as one,
            PublicNetwork.start(seat=there, pbx=here) as other,
        ):
            yield one, other


async def test_a_call_to_the_hotline_rings_the_floor_with_the_callers_number(lab: Lab) -> None:
    call = await lab.network.call(caller="13912345678", did=DID, script="w30", name="张三")
    ring = await lab.network.wait_ring(FLOOR, WITHIN_S)
    assert (ring.caller, ring.name) == ("13912345678", "张三")
    await call.hangup()
    assert await call.ended(WITHIN_S) == 16
    await ring.ended(WITHIN_S)
    assert f'"HOTLINE,{DID}"' in lab.pbx.cel_path.read_text(encoding="utf-8")


async def test_a_killed_pbx_comes_back_in_its_folders_with_its_ports(lab: Lab) -> None:
    await lab.pbx.cli("database put lab life one")
    cut = await lab.network.call(caller="13912345678", did=DID, script="w600")
    await cut.answered(WITHIN_S)

    await _on_disk(lab, "/lab/life")
    await lab.pbx.kill()
    with pytest.raises(LabError, match="is not running"):
        await lab.pbx.cli("core show uptime")
    early = await lab.network.call(caller="13912345679", did=DID, script="w600")
    await lab.pbx.boot()

    assert "Value: one" in await lab.pbx.cli("database get lab life")
    await early.answered(WITHIN_S)  # its INVITE was repeated until somebody was there
    await lab.network.hang_up_all()


async def test_two_labs_do_not_meet(lab: Lab) -> None:
    async with open_lab(options={"GREETING": "no", "FLOOR": FLOOR}) as other:
        call = await other.network.call(caller="13912345678", did=DID, script="w30")
        await other.network.wait_ring(FLOOR, WITHIN_S)
        assert lab.network.rings == []
        await call.hangup()


async def test_nothing_outlives_a_killed_test_run() -> None:
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM, stdout=asyncio.subprocess.PIPE
    )
    assert victim.stdout is not None
    told = [(await victim.stdout.readline()).decode().split() for _ in range(2)]
    victim.kill()
    await victim.wait()
    for pid, folder in told:
        async with asyncio.timeout(WITHIN_S):
            while _is_asterisk(int(pid)):
                await asyncio.sleep(0.01)
        assert folder not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    with claim_seat(last_octet=1), claim_seat(last_octet=2):
        pass  # whoever comes next on these seats clears up
    assert [folder for _, folder in told if Path(folder).exists()] == []


async def test_a_frozen_pbx_can_be_ended(lab: Lab) -> None:
    lab.pbx.signal(signal.SIGSTOP)
    await lab.pbx.stop()
    assert not lab.pbx.running


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        ("张三", "张三"),
        ("Zhang, San <sip:1@2>;x=1", "Zhang, San <sip:1@2>;x=1"),
        # PJSIP escapes quotes when it sends and leaves the escapes in when it receives.
        ('"张三 \\"; DROP', '\\"张三 \\\\\\"; DROP'),
        # A channel's caller name has 79 bytes, and a cut character is dropped.
        ("x" * 300, "x" * 79),
        ("字" * 300, "字" * 26),
        ("cr\rx", "cr\\\rx"),  # a lone CR does get through
    ],
)
async def test_a_display_name_arrives(
    networks: tuple[PublicNetwork, PublicNetwork], sent: str, arrived: str
) -> None:
    one, other = networks
    call = await one.call(caller="13912345678", did=DID, script="h", name=sent)
    ring = await other.wait_ring(DID, WITHIN_S)
    assert (ring.caller, ring.name) == ("13912345678", arrived)
    await call.hangup()
    await ring.ended(WITHIN_S)


async def test_a_display_name_with_a_line_feed_never_gets_into_the_pbx(
    networks: tuple[PublicNetwork, PublicNetwork],
) -> None:
    one, other = networks
    evil = await one.call(caller="13912345678", did=DID, script="h", name="x\r\nEvil: 1")
    good = await one.call(caller="13912345679", did=DID, script="h")
    ring = await other.wait_ring(DID, WITHIN_S)
    assert ring.caller == "13912345679"
    await until(lambda: "syntax error" in other.asterisk.logs())
    await evil.hangup()
    await good.hangup()


async def test_phones_do_what_their_script_says(
    networks: tuple[PublicNetwork, PublicNetwork],
) -> None:
    one, other = networks

    async def causes(script: str) -> tuple[bool, int]:
        await other.phone(FLOOR, script)
        call: Leg = await one.call(caller="13912345678", did=FLOOR, script="w600")
        return (await call.ended(WITHIN_S), call.answered_at is not None)[::-1]

    assert await causes("b") == (False, 17)
    assert await causes("r") == (False, 21)
    assert await causes("u") == (False, 34)
    assert await causes("w0.1-a-p0.2-d12#-h") == (True, 16)


def test_a_line_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("bind=1\n", encoding="utf-8")
    with pytest.raises(LabError, match="'bind=2' is there 0 times"):
        configuration(tmp_path, {"a.conf": {"bind=2": "bind=3"}})


def test_the_lab_fits_the_configuration_that_is_shipped() -> None:
    with claim_seat(last_octet=1) as here, claim_seat(last_octet=2) as there:
        files = pbx_configuration(
            here, network=there, ami_secret="s3cret", options={"FLOOR": "1"}, tiers_s=[1, 2, 3]
        )
    assert "\nFLOOR=1\n" in files["contactd_globals.conf"]
    assert "\npenaltychange => 3,9" in files["queuerules.conf"]


def test_without_root_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="run as root, or use the compose file"):
        asterisk_root()


def test_without_an_asterisk_root_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("CONTACTD_CACHE", str(tmp_path))
    with pytest.raises(LabError, match=r"scripts/asterisk-root\.sh"):
        asterisk_root()


async def _on_disk(lab: Lab, key: str) -> None:
    """Wait until AstDB, which commits once a second, has committed `key`."""
    query = "SELECT count(*) FROM astdb WHERE key = ?"
    async with asyncio.timeout(WITHIN_S):
        with closing(sqlite3.connect(lab.pbx.path("/var/lib/asterisk/astdb.sqlite3"))) as database:
            while database.execute(query, (key,)).fetchone() != (1,):
                await asyncio.sleep(0.05)


def _is_asterisk(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "asterisk"
    except FileNotFoundError:
        return False
