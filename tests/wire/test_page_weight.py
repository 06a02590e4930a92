"""What pages weigh by the wire, and how their answers are compressed."""

import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from contactd.compressing import accepts_gzip, read_folder
from contactd.httpd import Problem, Route
from contactd.web.pages import STATIC
from tests.fakes.site import Site, browser, running_site

MOST_BYTES = 150_000
LOADED = re.compile(r'(?:src|href)="(/static/[^"]+)"')
PLAIN = {"Accept-Encoding": "identity"}
WORDS = "工单 ticket " * 400


async def words(request: web.Request) -> web.Response:
    return web.Response(text=WORDS, headers={"Vary": "Cookie"})


async def few(request: web.Request) -> web.Response:
    return web.Response(text="few")


async def tagged(request: web.Request) -> web.Response:
    return web.Response(text=WORDS, headers={"ETag": '"of-these-bytes"'})


async def picture(request: web.Request) -> web.Response:
    return web.Response(body=WORDS.encode(), content_type="image/png")


async def problem(request: web.Request) -> web.Response:
    return Problem(status=409, detail=WORDS).response()


ROUTES = [
    Route(method="GET", path=f"/{handler.__name__}", handler=handler, roles=None)
    for handler in (words, few, tagged, picture, problem)
]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site(routes=ROUTES) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


async def got(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[Any, bytes]:
    async with http.get(url, headers={"Accept-Encoding": "gzip"} | headers) as answer:
        return answer, await answer.read()


@pytest.mark.parametrize("path", ["/", "/?wall", "/login", "/nowhere"])
async def test_a_page_and_all_that_it_loads_weigh_little(
    site: Site, http: aiohttp.ClientSession, path: str
) -> None:
    _, page = await got(http, site.url + path, Accept="text/html")
    loaded = set(LOADED.findall(gzip.decompress(page).decode()))
    assert any(file.startswith("/static/app.css") for file in loaded)
    weight = len(page)
    for file in loaded:
        answer, body = await got(http, site.url + file)
        assert answer.status == 200
        weight += len(body)
    assert weight <= MOST_BYTES


def test_no_page_can_load_more_than_is_allowed() -> None:
    """All files together, as a page of ours that loaded every one of them would."""
    # But for noVNC: one page loads it, and an engineer's first session may take a moment longer.
    files = {n: f for n, f in read_folder(STATIC).items() if not n.startswith("vendor/novnc/")}
    assert sum(len(file.packed or file.plain) for file in files.values()) <= MOST_BYTES - 30_000


async def test_text_is_compressed_for_who_takes_it(site: Site, http: aiohttp.ClientSession) -> None:
    answer, body = await got(http, f"{site.url}/words")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Length"] == str(len(body))
    assert gzip.decompress(body).decode() == WORDS
    assert len(body) * 10 < len(WORDS.encode())
    answer, body = await got(http, f"{site.url}/words", **PLAIN)
    assert "Content-Encoding" not in answer.headers
    assert body.decode() == WORDS
    # A cache between must know that both exist, also when it was given the plain one.
    assert answer.headers["Vary"] == "Cookie, Accept-Encoding"


async def test_a_problem_is_compressed_too(site: Site, http: aiohttp.ClientSession) -> None:
    answer, body = await got(http, f"{site.url}/problem")
    assert (answer.status, answer.headers["Content-Encoding"]) == (409, "gzip")
    assert answer.content_type == "application/problem+json"
    assert b'"title": "Conflict"' in gzip.decompress(body)


@pytest.mark.parametrize("path", ["/few", "/tagged", "/picture", "/livez"])
async def test_what_is_small_tagged_or_no_text_is_left_alone(
    site: Site, http: aiohttp.ClientSession, path: str
) -> None:
    answer, _ = await got(http, site.url + path)
    assert "Content-Encoding" not in answer.headers


async def test_a_head_says_what_a_get_would(site: Site, http: aiohttp.ClientSession) -> None:
    asked = {"Accept-Encoding": "gzip"}
    answer, body = await got(http, f"{site.url}/words")
    async with http.head(f"{site.url}/words", headers=asked) as head:
        assert head.headers["Content-Length"] == str(len(body))
        assert head.headers["Content-Encoding"] == answer.headers["Content-Encoding"]
        assert await head.read() == b""


async def test_a_file_has_a_tag_of_its_own_in_each_form(
    site: Site, http: aiohttp.ClientSession
) -> None:
    url = f"{site.url}/static/app.css"
    packed, body = await got(http, url)
    plain, whole = await got(http, url, **PLAIN)
    assert gzip.decompress(body) == whole == (STATIC / "app.css").read_bytes()
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert packed.headers["Content-Type"] == "text/css; charset=utf-8"
    same = {"If-None-Match": packed.headers["ETag"]}
    again, nothing = await got(http, url, **same)
    assert (again.status, nothing) == (304, b"")
    assert again.headers["ETag"] == packed.headers["ETag"]
    other, _ = await got(http, url, **PLAIN, **same)
    assert other.status == 200


async def test_files_are_compressed_once(
    site: Site, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contactd.compressing.gzip.compress", None)
    monkeypatch.setattr("contactd.compressing.Path.read_bytes", None)
    answer, _ = await got(http, f"{site.url}/static/board.js?v=1")
    assert answer.status == 200
    assert answer.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("", False), ("br", False),
        ("gzip;q=0", False), ("gzip; q=0.0, *", False), ("x-gzip", False),
    ],
)  # fmt: skip
def test_gzip_is_sent_to_who_asks_for_it(header: str, takes: bool) -> None:
    assert accepts_gzip({"Accept-Encoding": header}) is takes


async def test_a_stream_of_events_is_compressed_and_can_be_read_at_once(site: Site) -> None:
    async with browser() as http, http.get(f"{site.url}/live?lang=en") as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        found = b""
        while b"event: health" not in found:
            found += await answer.content.readany()
    assert b"event: summary" in found
