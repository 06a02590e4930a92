"""The spool: what is kept is durable, read once it is, and put away when all of it is done."""

import asyncio
import errno
import os
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from contactd.clock import SystemClock
from contactd.errors import ConfigurationError, TemporaryFailure
from contactd.mail.content import Content, Fault
from contactd.mail.spool import DiskFull, Envelope, Receipt, Spool, SpoolReader, digest_of
from tests.fakes.waiting import WITHIN_S

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")


def envelope(*recipients: str, at: datetime = NOON) -> Envelope:
    return Envelope(
        received_at=at, peer="192.0.2.1", helo="me", reverse_path="a@b.test",
        recipients=recipients or ("support@desk.test",),
    )  # fmt: skip


def writer(folder: Path, *, segment_bytes: int = 1 << 20, segment_age_s: float = 3600) -> Spool:
    return Spool(
        folder / "spool", name="t", clock=SystemClock(), segment_bytes=segment_bytes,
        segment_age_s=segment_age_s,
    )  # fmt: skip


def reader(folder: Path) -> SpoolReader:
    return SpoolReader(
        folder / "spool", folder / "accepted", day_of=lambda at: at.astimezone(SHANGHAI).date()
    )


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "spool").iterdir())


async def keep(folder: Path, *raws: bytes) -> None:
    """Keep mails in one segment that is closed afterwards."""
    spool = writer(folder)
    async with spool.running():
        for raw in raws:
            await spool.keep(envelope(), raw)


# Writing


async def test_a_mail_comes_back_as_it_was(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    given = Envelope(
        received_at=NOON, peer="192.0.2.1", helo="mé", reverse_path="", smtputf8=True,
        recipients=("Support@desk.test", "support+x@desk.test"), protocol="ESMTPSA",
        submitter="nas",
    )  # fmt: skip
    async with spool.running():
        mail_id = await spool.keep(given, bytearray(b"\x00raw\r\n"))

        [mail] = reader(tmp_path).poll()

    assert mail.id == mail_id
    assert mail.envelope == given
    assert mail.raw() == b"\x00raw\r\n"


async def test_an_empty_mail_is_a_mail(tmp_path: Path) -> None:
    await keep(tmp_path, b"")

    assert [mail.raw() for mail in reader(tmp_path).poll()] == [b""]


async def test_mails_that_come_together_share_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0

    def fdatasync(file: int) -> None:
        nonlocal syncs
        syncs += 1

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    spool = writer(tmp_path)
    async with spool.running():
        ids = await asyncio.gather(*(spool.keep(envelope(), b"raw") for _ in range(200)))

    assert len(set(ids)) == 200
    assert syncs == 1


async def test_no_mail_is_reported_kept_before_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: happened.append("synced"))
    spool = writer(tmp_path)
    async with spool.running():
        await spool.keep(envelope(), b"raw")
        happened.append("kept")

    assert happened == ["synced", "kept"]


async def test_a_new_segment_and_its_folder_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink())
    )
    await keep(tmp_path, b"raw")

    # First the folder in its own, then the file, then the folder with the file in it.
    assert synced[0] == tmp_path
    assert synced[1].suffix == ".new"
    assert synced[2:] == [tmp_path / "spool"]


def _full_after(written: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full when so many bytes of the next group are written."""
    real = os.writev

    def writev(file: int, pieces: Sequence[bytes]) -> int:
        if written:
            real(file, [b"".join(pieces)[:written]])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", writev)


@pytest.mark.parametrize("written", [0, 10, 300, 350, 500])
async def test_a_full_disk_keeps_nothing_of_the_group_and_the_next_try_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    spool, looking = writer(tmp_path), reader(tmp_path)
    async with spool.running():
        before = await spool.keep(envelope(), b"before")
        with monkeypatch.context() as patched:
            _full_after(written, patched)
            outcomes = await asyncio.gather(
                *(spool.keep(envelope(), b"lost") for _ in range(3)), return_exceptions=True
            )
        assert [type(each) for each in outcomes] == [DiskFull] * 3
        after = await spool.keep(envelope(), b"after")
        found = looking.poll()

    # An id that somebody may have seen never names another mail.
    assert after.rpartition("-")[0] != before.rpartition("-")[0]
    assert [(mail.id, mail.raw()) for mail in found] == [(before, b"before"), (after, b"after")]
    assert looking.poll() == []


async def test_the_last_of_the_disk_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)

    def statvfs(path: Path) -> os.statvfs_result:
        return os.statvfs_result((*real[:1], 1, *real[2:4], 1000, *real[5:]))

    spool = Spool(tmp_path / "spool", name="t", clock=SystemClock(), reserve_bytes=500)
    monkeypatch.setattr(os, "statvfs", statvfs)
    async with spool.running():
        await spool.keep(envelope(), b"x" * 500)
        with pytest.raises(DiskFull):
            await spool.keep(envelope(), b"x" * 501)
        await spool.keep(envelope(), b"x" * 500)


async def test_a_sync_that_fails_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fdatasync(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    spool, looking = writer(tmp_path), reader(tmp_path)
    async with spool.running():
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fdatasync)
            with pytest.raises(TemporaryFailure, match="Input/output error"):
                await spool.keep(envelope(), b"lost")
        after = await spool.keep(envelope(), b"after")
        assert [mail.id for mail in looking.poll()] == [after]


async def test_a_mail_nobody_waits_for_is_not_written(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    async with spool.running():
        gone = asyncio.ensure_future(spool.keep(envelope(), b"gone"))
        await asyncio.sleep(0)
        gone.cancel()
        await spool.keep(envelope(), b"stays")

    assert [mail.raw() for mail in reader(tmp_path).poll()] == [b"stays"]


async def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    async with spool.running():
        pass
    with pytest.raises(TemporaryFailure):
        await spool.keep(envelope(), b"late")


async def test_a_folder_that_cannot_be_made_is_an_error_of_the_configuration(
    tmp_path: Path,
) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"service\.data_dir"):
        await keep(tmp_path, b"raw")


async def test_a_segment_that_is_long_enough_is_followed_by_another(tmp_path: Path) -> None:
    spool, looking = writer(tmp_path, segment_bytes=1000), reader(tmp_path)
    async with spool.running():
        ids = [await spool.keep(envelope(), b"x" * 400) for _ in range(6)]
        assert len(segments(tmp_path)) == 3

        assert [mail.id for mail in looking.poll()] == ids


async def test_an_old_segment_is_closed_although_no_mail_comes(tmp_path: Path) -> None:
    spool, looking = writer(tmp_path, segment_age_s=0.02), reader(tmp_path)
    async with spool.running():
        await spool.keep(envelope(), b"raw")
        async with asyncio.timeout(WITHIN_S):
            while segments(tmp_path):
                for mail in looking.poll():
                    looking.done(mail)
                await asyncio.sleep(0)
        await spool.keep(envelope(), b"more")


# Reading


async def test_a_mail_cut_at_any_byte_is_left_out_and_those_before_it_are_not(
    tmp_path: Path,
) -> None:
    await keep(tmp_path, b"first", b"second")
    [path] = segments(tmp_path)
    whole = path.read_bytes()
    [first, _] = reader(tmp_path).poll()

    for end in range(first.offset + first.length, len(whole)):
        path.write_bytes(whole[:end])
        assert [mail.raw() for mail in reader(tmp_path).poll()] == [b"first"], end


async def test_a_mail_with_a_wrong_bit_is_not_handed_out(tmp_path: Path) -> None:
    await keep(tmp_path, b"first", b"second")
    [path] = segments(tmp_path)
    whole = bytearray(path.read_bytes())
    [first, _] = reader(tmp_path).poll()
    for at in range(first.offset + first.length, len(whole)):
        whole[at] ^= 4
        path.write_bytes(whole)
        assert [mail.raw() for mail in reader(tmp_path).poll()] == [b"first"], at
        whole[at] ^= 4


async def test_what_is_written_but_not_synced_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, seen = reader(tmp_path), []

    def fdatasync(file: int) -> None:
        seen.append(len(looking.poll()))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    spool = writer(tmp_path)
    async with spool.running():
        await spool.keep(envelope(), b"one")
        await spool.keep(envelope(), b"two")
        assert seen == [0, 1]
        assert len(looking.poll()) == 1


@pytest.mark.parametrize("content", [b"", b"contactd", b"\x00" * 100, b"contactd spool 1"])
async def test_a_file_that_is_no_segment_has_no_mails(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "x.mail").write_bytes(content)
    looking = reader(tmp_path)
    assert looking.poll() == []


async def test_mails_are_handed_out_once_and_so_many_at_a_time(tmp_path: Path) -> None:
    await keep(tmp_path, *(str(n).encode() for n in range(10)))
    looking = reader(tmp_path)

    found = [[int(mail.raw()) for mail in looking.poll(4)] for _ in range(4)]

    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


async def test_a_new_reader_gets_what_its_predecessor_did_not_finish(tmp_path: Path) -> None:
    await keep(tmp_path, b"one", b"two")
    looking = reader(tmp_path)
    one, _ = looking.poll()
    looking.done(one)
    looking.poll()

    assert [mail.raw() for mail in reader(tmp_path).poll()] == [b"one", b"two"]


def _finish(looking: SpoolReader, mails: Sequence[Receipt]) -> None:
    for mail in mails:
        looking.done(mail)
    looking.poll()


async def test_a_segment_is_put_away_when_all_of_it_is_done(tmp_path: Path) -> None:
    await keep(tmp_path, b"one", b"two")
    looking = reader(tmp_path)
    one, two = looking.poll()

    _finish(looking, [one])
    assert segments(tmp_path)
    assert looking.pending == 1

    _finish(looking, [two, two])
    assert segments(tmp_path) == []
    assert looking.pending == 0


async def test_a_segment_that_is_still_written_to_is_not_put_away(tmp_path: Path) -> None:
    spool, looking = writer(tmp_path), reader(tmp_path)
    async with spool.running():
        await spool.keep(envelope(), b"one")
        _finish(looking, looking.poll())
        assert segments(tmp_path)
        await spool.keep(envelope(), b"two")
        [two] = looking.poll()
    assert two.raw() == b"two"


async def test_a_segment_that_cannot_be_booked_stays(tmp_path: Path) -> None:
    (tmp_path / "accepted").write_text("a file")
    await keep(tmp_path, b"one")
    looking = reader(tmp_path)
    _finish(looking, looking.poll())
    assert segments(tmp_path)
    assert looking.fault

    (tmp_path / "accepted").unlink()
    looking.poll()
    assert segments(tmp_path) == []
    assert looking.fault == ""


# The book


async def test_what_was_accepted_on_a_day_is_known_before_and_after_it_is_put_away(
    tmp_path: Path,
) -> None:
    spool = writer(tmp_path)
    evening = datetime(2024, 5, 1, 15, 59, 59, tzinfo=UTC)  # a second before Shanghai's midnight
    async with spool.running():
        today = await spool.keep(envelope(at=evening), b"today")
        tomorrow = await spool.keep(envelope(at=evening + timedelta(seconds=1)), b"tomorrow")
    looking = reader(tmp_path)

    for _ in ("in the spool", "put away"):
        assert [entry.id for entry in looking.accepted(date(2024, 5, 1))] == [today]
        assert [entry.id for entry in looking.accepted(date(2024, 5, 2))] == [tomorrow]
        assert list(looking.accepted(date(2024, 5, 3))) == []
        _finish(looking, looking.poll())
    [entry] = looking.accepted(date(2024, 5, 1))
    assert entry.received_at == evening


async def test_a_segment_booked_twice_counts_once_and_a_cut_line_not_at_all(tmp_path: Path) -> None:
    await keep(tmp_path, b"one", b"two")
    [path] = segments(tmp_path)
    copy = path.read_bytes()
    looking = reader(tmp_path)
    _finish(looking, looking.poll())
    book = next((tmp_path / "accepted").iterdir())
    book.write_bytes(book.read_bytes()[:-10])  # the machine went down while it was written
    path.write_bytes(copy)

    again = reader(tmp_path)
    _finish(again, again.poll())

    assert len(list(again.accepted(NOON.date()))) == 2
    assert len(book.read_text().splitlines()) == 4


def test_a_digest_is_that_of_the_mail_and_its_recipients() -> None:
    sha256 = "ab" * 32
    same = {
        digest_of(sha256, ["a@desk.test", "b@desk.test"]),
        digest_of(sha256, ["B@desk.test", "A@DESK.test"]),
    }
    assert len(same) == 1
    assert {
        digest_of(sha256, ["a@desk.test"]),
        digest_of("cd" * 32, ["a@desk.test"]),
    } & same == set()
    assert len(same.pop()) == 49


# What comes after DATA


def _fed(pieces: Sequence[bytes], limit: int = 1 << 20) -> tuple[Content, bytes]:
    content = Content(limit)
    for number, piece in enumerate(pieces):
        rest = content.feed(piece)
        if rest is not None:
            return content, rest + b"".join(pieces[number + 1 :])
    raise AssertionError("the end was not seen")


def _splits(whole: bytes) -> Iterator[list[bytes]]:
    yield [whole]
    yield [whole[at : at + 1] for at in range(len(whole))]
    for at in range(1, len(whole)):
        yield [whole[:at], whole[at:]]
    source = random.Random(1)
    for _ in range(50):
        cuts = sorted(source.choices(range(len(whole)), k=4))
        yield [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@pytest.mark.parametrize(
    ("sent", "mail"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n...\r\nb.\r\n..\r\n.\r\n", b".a\r\n..\r\nb.\r\n.\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n.b\r\n.\r\n", b"a\r\nb\r\n"),
    ],
)
def test_a_mail_is_the_same_however_it_comes_in_pieces(sent: bytes, mail: bytes) -> None:
    for pieces in _splits(sent + b"MAIL FROM:<>\r\n"):
        content, rest = _fed(pieces)
        assert (content.fault, bytes(content.take()), rest) == (None, mail, b"MAIL FROM:<>\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"a\n.\r\nb\r\n.\r\n", b"a\n.\nb\r\n.\r\n", b"a\r\n.\nb\r\n.\r\n", b"a\r.\rb\r\n.\r\n",
        b"a\r\n.\rb\r\n.\r\n", b"a\r.\r\nb\r\n.\r\n", b"a\r\r\n.\r\n", b"a\n\r\n.\r\n",
        b"\n.\r\n\r\n.\r\n", b"\ra\r\n.\r\n", b"a\n\r.\r\n\r\n.\r\n",
    ],
)  # fmt: skip
def test_a_line_end_that_is_half_a_line_end_is_seen_in_any_pieces(sent: bytes) -> None:
    for pieces in _splits(sent + b"x"):
        content, rest = _fed(pieces)
        assert (content.fault, rest) == (Fault.BARE, b"x"), pieces


def test_a_mail_is_as_big_as_it_is_and_not_bigger_for_its_end() -> None:
    for pieces in _splits(b"12345678\r\n.\r\n"):
        assert _fed(pieces, limit=10)[0].fault is None
        assert _fed(pieces, limit=9)[0].fault is Fault.TOO_BIG


def test_a_mail_that_is_too_big_is_not_held() -> None:
    content = Content(1000)
    for _ in range(1000):
        assert content.feed(b"x" * 998 + b"\r\n") is None
        assert content.held <= 1010
    assert content.feed(b".\r\nQUIT\r\n") == b"QUIT\r\n"
    assert content.fault is Fault.TOO_BIG


def test_the_longest_line_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contactd.mail.content.LINE_BYTES", 10)
    source = random.Random(2)
    for _ in range(2000):
        lengths = [source.choice([0, 1, 5, 9, 10, 10, 11]) for _ in range(source.randint(1, 6))]
        sent = b"".join(b"a" * length + b"\r\n" for length in lengths)
        content, _ = _fed([sent + b".\r\n"])
        assert (content.fault is Fault.LONG_LINE) == (max(lengths) > 10), lengths
