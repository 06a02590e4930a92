"""Recordings of ended calls: fetched from the PBX's folder, whole, late, or not at all."""

import errno
import os
import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from contactd.errors import TemporaryFailure
from contactd.store.blobs import Blobs
from contactd.telephony.recordings import GIVE_UP_AFTER, WAV_HEADER_BYTES, Recordings
from contactd.tickets.contact import Blob, CallFacts, Contact, Medium
from contactd.tickets.events import CallEnded
from tests.fakes.clock import FakeClock

EVENT = CallEnded(ticket_id=1, contact_id=7)
WAV = b"R" * WAV_HEADER_BYTES + b"sound"
EMPTY_WAV = b"R" * WAV_HEADER_BYTES
MONITOR = "/var/spool/asterisk/monitor"


@dataclass(slots=True)
class Shelf:
    """Contacts by id, and what was attached to them."""

    contacts: dict[int, Contact] = field(default_factory=dict)
    attached: list[tuple[int, str, str]] = field(default_factory=list)  # contact, kind, name

    async def attach(self, contact_id: int, kind: str, blob: Blob) -> None:
        if (contact_id, kind, blob.name) not in self.attached:
            self.attached.append((contact_id, kind, blob.name))


class Desk:
    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.root = folder / "pbx"
        self.root.mkdir()
        self.outside = folder / "secret.wav"
        self.outside.write_bytes(WAV)
        self.kept = folder / "blobs"
        self.clock = clock
        self.shelf = Shelf()
        self.recordings = Recordings(
            attachments=self.shelf, put=Blobs(self.kept).put, roots={"pbx1": self.root}, clock=clock
        )

    def called(self, *, answered: bool = True, pbx: str = "pbx1", **facts: Any) -> None:
        now = self.clock.now()
        self.shelf.contacts[7] = Contact(
            medium=Medium.CALL, external_id=f"{pbx}-1.1", received_at=now,
            call=CallFacts(
                pbx=pbx, did="4008001234", final=True, ended_at=now,
                answered_at=now if answered else None, **facts,
            ),
        )  # fmt: skip

    async def keep(self) -> None:
        await self.recordings.keep(EVENT, self.shelf.contacts[EVENT.contact_id])

    def write(self, name: str, content: bytes = WAV) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    @property
    def blobs(self) -> int:
        return sum(path.is_file() for path in self.kept.rglob("*"))


@pytest.fixture
def desk(tmp_path: Path, clock: FakeClock) -> Desk:
    return Desk(tmp_path, clock)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


async def test_what_a_call_left_is_kept_under_the_contact(desk: Desk) -> None:
    desk.called(recording=f"{MONITOR}/1.wav", voicemail="/var/spool/asterisk/voicemail/1.wav")
    desk.write(f"{MONITOR}/1.wav")
    desk.write("/var/spool/asterisk/voicemail/1.wav", WAV + b"!")
    await desk.keep()
    assert desk.shelf.attached == [(7, "recording", "1.wav"), (7, "voicemail", "1.wav")]
    assert desk.blobs == 2


async def test_a_call_that_nobody_answered_has_no_recording_to_wait_for(desk: Desk) -> None:
    desk.called(answered=False, recording=f"{MONITOR}/1.wav")
    await desk.keep()
    assert desk.shelf.attached == []


async def test_a_call_that_left_nothing_and_a_contact_that_is_no_call_are_done(desk: Desk) -> None:
    desk.called()
    await desk.keep()
    desk.shelf.contacts[7] = replace(desk.shelf.contacts[7], call=None)
    await desk.keep()
    assert desk.shelf.attached == []


@pytest.mark.parametrize("there", [None, b"", EMPTY_WAV])
async def test_a_file_that_is_not_complete_yet_is_waited_for(
    desk: Desk, there: bytes | None
) -> None:
    desk.called(voicemail=f"{MONITOR}/1.wav")
    if there is not None:
        desk.write(f"{MONITOR}/1.wav", there)
    with pytest.raises(TemporaryFailure, match="voicemail of contact 7 is not on the PBX yet"):
        await desk.keep()
    desk.write(f"{MONITOR}/1.wav")
    await desk.keep()
    assert desk.shelf.attached == [(7, "voicemail", "1.wav")]


async def test_a_file_that_does_not_come_within_a_day_is_given_up(
    desk: Desk, logged: list[MutableMapping[str, Any]]
) -> None:
    desk.called(voicemail=f"{MONITOR}/1.wav")
    desk.clock.advance(GIVE_UP_AFTER)
    with pytest.raises(TemporaryFailure):
        await desk.keep()
    desk.clock.advance(timedelta(seconds=1))
    await desk.keep()
    assert [entry["event"] for entry in logged] == ["recording.missing"]


async def test_a_recording_that_is_late_does_not_delay_the_voicemail(desk: Desk) -> None:
    desk.called(recording=f"{MONITOR}/1.wav", voicemail=f"{MONITOR}/2.wav")
    desk.write(f"{MONITOR}/2.wav")
    with pytest.raises(TemporaryFailure, match="the recording of contact 7"):
        await desk.keep()
    assert desk.shelf.attached == [(7, "voicemail", "2.wav")]


async def test_a_file_that_may_not_be_read_is_tried_again_and_says_what_to_do(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.called(voicemail=f"{MONITOR}/1.wav")
    desk.write(f"{MONITOR}/1.wav")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "stat", _refuse)
        with pytest.raises(TemporaryFailure, match=r"Permission denied.*operations\.md, 3\.9"):
            await desk.keep()
    await desk.keep()
    assert desk.shelf.attached == [(7, "voicemail", "1.wav")]


def _refuse(path: Path, **options: bool) -> NoReturn:
    """Stand for a folder without permission, which tests that run as root cannot make."""
    assert threading.current_thread() is not threading.main_thread()
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


async def test_the_same_event_again_keeps_nothing_twice(desk: Desk) -> None:
    desk.called(voicemail=f"{MONITOR}/1.wav")
    desk.write(f"{MONITOR}/1.wav")
    for _ in range(2):
        await desk.keep()
    assert (desk.shelf.attached, desk.blobs) == ([(7, "voicemail", "1.wav")], 1)


@pytest.mark.parametrize("name", ["/../secret.wav", "../secret.wav", "/spool/../../secret.wav"])
async def test_a_path_that_leads_out_of_the_pbxs_folder_is_refused(
    desk: Desk, logged: list[MutableMapping[str, Any]], name: str
) -> None:
    desk.called(voicemail=name)
    await desk.keep()
    assert [entry["event"] for entry in logged] == ["recording.refused"]
    assert (desk.shelf.attached, desk.blobs) == ([], 0)


async def test_a_link_that_leads_out_of_the_pbxs_folder_is_refused(
    desk: Desk, logged: list[MutableMapping[str, Any]]
) -> None:
    (desk.root / "link.wav").symlink_to(desk.outside)
    desk.called(voicemail="/link.wav")
    await desk.keep()
    assert [entry["event"] for entry in logged] == ["recording.refused"]
    assert desk.blobs == 0


async def test_a_call_of_a_pbx_that_is_not_configured_any_more_is_refused(
    desk: Desk, logged: list[MutableMapping[str, Any]]
) -> None:
    desk.called(pbx="pbx9", voicemail="/1.wav")
    await desk.keep()
    assert [entry["event"] for entry in logged] == ["recording.refused"]
