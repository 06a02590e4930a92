"""Templates are compiled once and kept; what was kept is never trusted blindly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from contactd.web.i18n import Language
from contactd.web.pages import Pages

SHOWN: Final[Mapping[str, Any]] = {
    "identity": None, "code": 404, "title": "No such page", "remedy": "",
    "switch": dict.fromkeys(Language, "?"),
}  # fmt: skip


def pages(cache: Path | None) -> Pages:
    return Pages(name="contactd", zone=ZoneInfo("Asia/Shanghai"), language=Language.ZH, cache=cache)


def drawn(cache: Path | None) -> dict[Language, str]:
    made = pages(cache)
    return {each: made.draw("problem.html", each, **SHOWN) for each in Language}


def test_what_was_compiled_is_used_at_the_next_start_and_says_the_same(tmp_path: Path) -> None:
    fresh = drawn(None)
    assert fresh[Language.ZH] != fresh[Language.EN]
    cache = tmp_path / "cache"
    assert drawn(cache) == fresh
    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) > 50
    assert drawn(cache) == fresh
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept


def test_what_was_kept_and_is_spoilt_is_made_again(tmp_path: Path) -> None:
    fresh = drawn(tmp_path)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        path.write_bytes((b"", b"rubbish", path.read_bytes()[:40])[number % 3])
    assert drawn(tmp_path) == fresh
    assert all(path.stat().st_size > 100 for path in tmp_path.iterdir())
