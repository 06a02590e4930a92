"""Files that are kept under the hash of their content, on a real file system."""

import hashlib
from pathlib import Path

import pytest

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.store.blobs import CHUNK, Blobs

SOUND = b"RIFF" + bytes(range(256)) * 100
HASH = hashlib.sha256(SOUND).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "spool" / "call.wav"
    path.parent.mkdir()
    path.write_bytes(SOUND)
    return path


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "data" / "blobs")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_file_is_kept_under_its_hash_with_the_name_it_had(
    blobs: Blobs, source: Path, tmp_path: Path
) -> None:
    blob = await blobs.put(source, "audio/wav")
    assert (blob.sha256, blob.size_bytes) == (HASH, len(SOUND))
    assert (blob.media_type, blob.name) == ("audio/wav", "call.wav")
    assert blobs.path(HASH).read_bytes() == SOUND
    assert source.read_bytes() == SOUND, "the PBX's own file stays"
    assert files(tmp_path / "data") == [HASH]


async def test_the_same_content_is_kept_once(blobs: Blobs, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(SOUND)
    first, second = await blobs.put(source, "audio/wav"), await blobs.put(other, "audio/wav")
    assert (first.sha256, second.name) == (second.sha256, "other.wav")
    assert files(tmp_path / "data") == [HASH]


async def test_a_file_larger_than_one_piece_is_kept_whole(blobs: Blobs, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(b"\x07" * (2 * CHUNK + 1))
    blob = await blobs.put(large, "audio/wav")
    assert blob.size_bytes == 2 * CHUNK + 1
    assert blobs.path(blob.sha256).stat().st_size == 2 * CHUNK + 1


async def test_a_source_that_cannot_be_read_is_a_temporary_failure_and_leaves_nothing(
    blobs: Blobs, tmp_path: Path
) -> None:
    with pytest.raises(TemporaryFailure, match="No such file"):
        await blobs.put(tmp_path / "nowhere.wav", "audio/wav")
    with pytest.raises(TemporaryFailure, match="Is a directory"):
        await blobs.put(tmp_path, "audio/wav")
    assert files(tmp_path) == []


async def test_a_folder_that_cannot_be_written_is_a_temporary_failure_and_leaves_nothing(
    blobs: Blobs, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "data" / "blobs").mkdir(parents=True)
    (tmp_path / "data" / "blobs" / HASH[:2]).write_text("in the way")
    with pytest.raises(TemporaryFailure, match="cannot keep a copy"):
        await blobs.put(source, "audio/wav")
    assert files(tmp_path / "data") == [HASH[:2]]


def test_only_a_hash_names_a_file(blobs: Blobs) -> None:
    for name in ("", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "../" + "a" * 61):
        with pytest.raises(PermanentFailure, match="not a SHA-256"):
            blobs.path(name)
