"""The HTTP server: what it bounds, whom it lets in, and what it says when something is wrong."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from contactd import httpd
from contactd.errors import (
    ActionNotAllowed,
    ConfigurationError,
    NotFound,
    PermanentFailure,
    TemporaryFailure,
)
from contactd.httpd import SESSION_COOKIE, Httpd, Phase, Route
from contactd.lab.ports import free_port
from contactd.service import Health, HealthState
from contactd.settings import HttpSettings
from contactd.signals import Topic
from contactd.tickets.people import Role
from contactd.web import live, streams
from contactd.web.board import CallStage, masked, masked_name
from contactd.web.login import own_page
from tests.fakes.board import HOSTILE_NAME, FakeBoard, busy, call
from tests.fakes.peers import PEERS, idle_crowd, visit
from tests.fakes.site import Site, browser, running_site
from tests.fakes.ticker import LIMIT_S, Ticker
from tests.fakes.waiting import WITHIN_S, until

PREFIX = b"GET / HTTP/1.1\r\n"
HTML = {"Accept": "text/html"}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running_site() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with browser() as session:
        yield session


def failing(error: Exception) -> Route:
    async def handler(request: web.Request) -> web.Response:
        raise error

    return Route(method="GET", path="/fails", handler=handler, roles=None)


async def echo_length(request: web.Request) -> web.Response:
    return web.json_response(len(await request.read()))


ECHO = Route(method="POST", path="/echo", handler=echo_length, roles=None)


async def log_in(site: Site, http: aiohttp.ClientSession) -> None:
    fields = {"name": "li", "password": "correct horse"}
    async with http.post(f"{site.url}/login", data=fields) as answer:
        assert answer.status == 200


@asynccontextmanager
async def raw(site: Site) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def to_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


# Peers


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())
async def test_a_bad_peer_is_thrown_out_and_costs_itself_alone(
    peer: Any, http: aiohttp.ClientSession
) -> None:
    async with (
        running_site(read_timeout_s=0.5, idle_timeout_s=0.5) as site,
        Ticker() as ticker,
        asyncio.timeout(WITHIN_S),
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(visit(site.port, peer, PREFIX))
        for _ in range(5):
            async with http.get(f"{site.url}/livez") as answer:
                assert answer.status == 200
    assert ticker.worst_s < LIMIT_S


async def test_three_hundred_silent_peers_leave_room_for_a_good_one(
    http: aiohttp.ClientSession,
) -> None:
    async with (
        running_site(read_timeout_s=0.5) as site,
        Ticker() as ticker,
        idle_crowd(site.port),
        http.get(f"{site.url}/livez") as answer,
    ):
        assert answer.status == 200
    assert ticker.worst_s < LIMIT_S


async def test_a_house_full_of_silent_peers_makes_room_for_who_asks() -> None:
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(
            running_site(max_connections=10, read_timeout_s=60, idle_timeout_s=60)
        )
        kept_reader, kept = await stack.enter_async_context(raw(site))
        kept.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"alive" in await kept_reader.readuntil(b"alive\n")
        silent = [await stack.enter_async_context(raw(site)) for _ in range(9)]
        await until(lambda: site.httpd.health()[0].figures["connections"] == 10)
        for _ in range(3):
            async with raw(site) as (reader, writer):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await to_end(reader)).startswith(b"HTTP/1.1 200 ")
                silent.append(await stack.enter_async_context(raw(site)))
        # Who was silent longest had to go, first of all who had been answered and kept its line.
        assert await to_end(kept_reader) == b""
        for reader, _ in silent[:2]:
            assert await to_end(reader) == b""


async def test_who_is_being_answered_is_not_sent_away_for_one_too_many(
    http: aiohttp.ClientSession,
) -> None:
    asked, ends = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        asked.release()
        await ends.wait()
        return web.Response(text="done\n")

    route = Route(method="GET", path="/slow", handler=slow, roles=None)
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(running_site(routes=[route], max_connections=10))
        peers = [await stack.enter_async_context(raw(site)) for _ in range(10)]
        for _, writer in peers:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await asked.acquire()
        async with raw(site) as (reader, _):
            assert (await to_end(reader)).startswith(b"HTTP/1.1 503 ")
        assert site.httpd.health()[0].state is HealthState.DEGRADED
        ends.set()
        for reader, _ in peers:
            assert (await to_end(reader)).endswith(b"done\n")
        await until(lambda: site.httpd.health()[0].state is HealthState.UP)
        async with http.get(f"{site.url}/livez") as answer:
            assert answer.status == 200


async def test_a_slow_second_head_on_a_kept_connection_is_cut_off() -> None:
    async with running_site(read_timeout_s=0.3, idle_timeout_s=60) as site, raw(site) as (r, w):
        w.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"alive" in await r.readuntil(b"alive\n")
        w.write(b"GET /livez HT")
        assert await to_end(r) == b""


async def test_a_connection_that_is_silent_after_an_answer_is_closed() -> None:
    async with running_site(read_timeout_s=60, idle_timeout_s=0.3) as site, raw(site) as (r, w):
        w.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await to_end(r)).endswith(b"alive\n")


async def test_a_body_that_does_not_come_is_answered_408() -> None:
    async with running_site(routes=[ECHO], read_timeout_s=0.3) as site, raw(site) as (r, w):
        w.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nten bytes.")
        assert (await to_end(r)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_beyond_the_limit_is_answered_413(http: aiohttp.ClientSession) -> None:
    async with running_site(routes=[ECHO], max_body_bytes=2048) as site:
        async with http.post(f"{site.url}/echo", data=b"x" * 2048) as answer:
            assert await answer.json() == 2048
        async with http.post(f"{site.url}/echo", data=b"x" * 2049) as answer:
            assert answer.status == 413
            assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["long request line", "long header", "many headers", "TLS"],
)
async def test_a_head_that_is_too_large_or_no_http_gets_a_short_400(
    site: Site, head: bytes
) -> None:
    async with raw(site) as (reader, writer):
        writer.write(head + b"\r\n")
        answer = await to_end(reader)
    assert re.match(rb"HTTP/1.[01] 400 ", answer)
    assert b"aaaa" not in answer
    assert b"aiohttp" not in answer


async def test_a_peer_that_leaves_an_answer_unread_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TCP_USER_TIMEOUT covers what no code of ours waits for: a file that nobody takes."""
    monkeypatch.setattr(httpd, "STALL_S", 1.0)

    async def much(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (32 << 20))

    route = Route(method="GET", path="/much", handler=much, roles=None)
    async with running_site(routes=[route]) as site:
        with socket.create_connection(("127.0.0.1", site.port)) as peer:
            peer.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
            peer.setblocking(False)
            async with asyncio.timeout(WITHIN_S):
                while not site.httpd.health()[0].figures["connections"]:
                    await asyncio.sleep(0.01)
                while site.httpd.health()[0].figures["connections"]:
                    await asyncio.sleep(0.05)


# Problems


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (TemporaryFailure("the database at db.example is away"), 503, "nothing was done"),
        (NotFound("there is no ticket 42"), 404, "there is no ticket 42"),
        (ActionNotAllowed("cannot close a ticket that is new"), 409, "cannot close"),
        (PermanentFailure("the name is too long"), 422, "the name is too long"),
        (ConfigurationError("secret path"), 500, ""),
        (ZeroDivisionError("secret value"), 500, ""),
    ],
)
async def test_errors_become_problems_without_inner_details(
    http: aiohttp.ClientSession, error: Exception, status: int, detail: str
) -> None:
    async with (
        running_site(routes=[failing(error)]) as site,
        http.get(f"{site.url}/fails") as answer,
    ):
        body = await answer.json(content_type="application/problem+json")
    assert answer.status == status
    assert body["status"] == status
    assert detail in body.get("detail", "")
    assert not {"secret", "db.example"} & set(re.split(r"[^\w.]", json.dumps(body)))


async def test_a_wrong_method_names_the_right_ones(site: Site, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{site.url}/livez") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"


async def test_a_browser_gets_a_problem_as_a_page_in_its_language(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{site.url}/nowhere?lang=en", headers=HTML) as answer:
        assert answer.status == 404
        assert "There is nothing at this address." in await answer.text()
    async with http.get(f"{site.url}/nowhere?lang=zh", headers=HTML) as answer:
        assert "这个地址没有内容" in await answer.text()


async def test_every_answer_carries_the_security_headers(
    site: Site, http: aiohttp.ClientSession
) -> None:
    for path in ("/", "/livez", "/nowhere", "/static/app.css"):
        async with http.get(site.url + path) as answer:
            assert set(httpd.SECURITY_HEADERS) <= set(answer.headers)
            assert answer.headers["Server"] == "contactd"
            assert "unsafe" not in answer.headers["Content-Security-Policy"]


async def test_static_files_last_under_their_version_only(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{site.url}/static/app.css?v=1") as answer:
        assert "immutable" in answer.headers["Cache-Control"]
    async with http.get(f"{site.url}/static/app.css") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/static/../httpd.py", "/static/%2e%2e/httpd.py", "/static/"])
async def test_no_path_leads_out_of_the_static_folder(site: Site, path: str) -> None:
    async with raw(site) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 40[34] ", await to_end(reader))


# Who may

ADMINS = Route(method="POST", path="/admins", handler=echo_length, roles=frozenset({Role.ADMIN}))


async def test_a_token_opens_what_its_role_may_open(http: aiohttp.ClientSession) -> None:
    async with running_site(routes=[ADMINS]) as site:
        for token, status in (("cd_admin", 200), ("cd_desk", 403), ("cd_wrong", 401), (None, 401)):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with http.post(f"{site.url}/admins", headers=headers) as answer:
                assert answer.status == status
                assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_the_status_page_asks_for_a_login_unless_it_is_public(
    http: aiohttp.ClientSession,
) -> None:
    async with running_site(public_status=False) as site:
        async with http.get(f"{site.url}/", headers=HTML, allow_redirects=False) as answer:
            assert answer.status == 303
            assert answer.headers["Location"] == "/login?next=%2F"
        async with http.get(f"{site.url}/live") as answer:
            assert answer.status == 401
        await log_in(site, http)
        async with http.get(f"{site.url}/?lang=en", headers=HTML) as answer:
            assert "Calls now" in await answer.text()
        async with http.post(f"{site.url}/logout", headers={"Origin": site.url}) as answer:
            assert not site.accounts.sessions
        async with http.get(f"{site.url}/", headers=HTML, allow_redirects=False) as answer:
            assert answer.status == 303


async def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(
    http: aiohttp.ClientSession,
) -> None:
    fields = {"name": "li", "password": "correct horse", "next": "//evil.example/"}
    async with (
        running_site(public_url="https://desk.example.cn") as site,
        http.post(f"{site.url}/login", data=fields, allow_redirects=False) as answer,
    ):
        cookie = answer.headers["Set-Cookie"]
        assert answer.headers["Location"] == "/"
        assert "max-age" in answer.headers["Strict-Transport-Security"]
    for attribute in (SESSION_COOKIE, "HttpOnly", "SameSite=Lax", "Secure", "Path=/"):
        assert attribute in cookie


async def test_ten_wrong_passwords_close_the_door_for_that_name_only(
    site: Site, http: aiohttp.ClientSession
) -> None:
    for status in [401] * 10 + [429]:
        async with http.post(f"{site.url}/login", data={"name": "li", "password": "x"}) as answer:
            assert answer.status == status
    async with http.post(f"{site.url}/login", data={"name": "wu", "password": "x"}) as answer:
        assert answer.status == 401
        assert "密码不正确" in await answer.text()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://desk.example.cn"}, 303),
        ({"Cookie": f"{SESSION_COOKIE}=x"}, 403),
        ({}, 303),
    ],
)
async def test_another_site_cannot_make_a_browser_change_anything(
    http: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    async with (
        running_site(public_url="https://desk.example.cn") as site,
        http.post(f"{site.url}/logout", headers=headers, allow_redirects=False) as answer,
    ):
        assert answer.status == status


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/desk?x=1", True), ("//evil.example", False), ("/\\evil.example", False),
        ("https://evil.example", False), ("/a\r\nSet-Cookie: x", False), ("", False),
    ],
)  # fmt: skip
def test_a_login_leads_to_pages_of_ours_only(path: str, kept: bool) -> None:
    assert own_page(path) == (path if kept else "/")


# Probes


async def test_ready_until_the_stop_is_announced_or_the_database_is_away(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async def ready() -> tuple[int, str]:
        async with http.get(f"{site.url}/readyz") as answer:
            return answer.status, await answer.text()

    assert await ready() == (200, "ready\n")
    site.board.health[0] = Health(component="database", state=HealthState.DOWN, detail="secret")
    assert await ready() == (503, "serving: database\n")
    site.board.health[0] = Health(component="database", state=HealthState.UP)
    site.httpd.announce_stop()
    assert await ready() == (503, "stopping: not ready\n")


async def test_metrics_ask_for_their_token_if_one_is_set(http: aiohttp.ClientSession) -> None:
    async with running_site(metrics_token="s3cret") as site:
        for token, status in (("s3cret", 200), ("cd_admin", 401), ("", 401)):
            headers = {"Authorization": f"Bearer {token}"}
            async with http.get(f"{site.url}/metrics", headers=headers) as answer:
                assert answer.status == status
    async with running_site() as site, http.get(f"{site.url}/metrics") as answer:
        text = await answer.text()
        assert 'contactd_service_up{component="pbx:pbx2"} 0.5' in text
        assert 'contactd_http_seconds_count{method="GET",route="/metrics"' in text


async def test_a_port_in_use_is_named(site: Site) -> None:
    second = Httpd(HttpSettings(port=site.port), routes=(), accounts=site.accounts)
    with pytest.raises(ConfigurationError, match=rf"http\.port: .*:{site.port}: .*in use"):
        async with second.running():
            pass


async def test_a_stop_finishes_the_request_in_hand_and_takes_no_new_one() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        begun.set()
        await may_end.wait()
        return web.Response(text="done")

    route = Route(method="GET", path="/slow", handler=slow, roles=None)
    port = free_port()
    async with browser() as http, asyncio.TaskGroup() as tasks:

        async def ask() -> str:
            async with http.get(f"http://127.0.0.1:{port}/slow") as answer:
                return await answer.text()

        async with running_site(routes=[route], port=port) as site:
            asked = tasks.create_task(ask())
            await begun.wait()
            asyncio.get_running_loop().call_later(0.1, may_end.set)
        assert site.httpd.phase is Phase.STOPPING
        assert await asked == "done"
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask()


# Live pages


class Stream:
    """An open `/live`, read event by event."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.parts: dict[str, str] = {}

    async def until(self, part: str, text: str, *, within_s: float = 5.0) -> str:
        """Read until `part` holds `text`; return the part."""
        async with asyncio.timeout(within_s):
            while text not in self.parts.get(part, ""):
                await self.event()
        return self.parts[part]

    async def event(self) -> str:
        name, lines = "", []
        while (line := await self._answer.content.readline()) != b"\n":
            if not line:
                raise EOFError
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                lines.append(value)
        if name:
            self.parts[name] = "\n".join(lines)
        return name


@asynccontextmanager
async def stream(
    site: Site, http: aiohttp.ClientSession, language: str = "en"
) -> AsyncIterator[Stream]:
    async with http.get(f"{site.url}/live?lang={language}") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


async def test_a_call_appears_on_an_open_page_within_a_second(
    site: Site, http: aiohttp.ClientSession
) -> None:
    site.board.show(calls=())
    async with stream(site, http) as page:
        await page.until("calls", "No call at the moment")
        site.board.show(calls=(call(stage=CallStage.QUEUED),))
        site.signals.raise_(Topic.BOARD)
        await page.until("calls", "…5678", within_s=1.0)


async def test_only_what_changed_is_sent_again(site: Site, http: aiohttp.ClientSession) -> None:
    async with stream(site, http) as page:
        await page.until("health", "Working")
        site.board.show(calls=())
        site.signals.raise_(Topic.BOARD)
        names = [await page.event() for _ in range(4)]
        assert set(names) == {"clock", "summary", "calls", "queues"}


async def test_a_burst_of_changes_is_looked_up_a_few_times_only(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with stream(site, http) as page:
        await page.until("health", "Working")
        asked = site.board.asked
        for number in range(200):
            site.board.show(calls=(call(engineer=f"engineer {number}"),))
            site.signals.raise_(Topic.BOARD)
            await asyncio.sleep(0.002)
        await page.until("calls", "engineer 199")
        assert site.board.asked - asked <= 8


async def test_fifty_pages_of_one_language_share_one_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[live.View] = []
    async with running_site() as site, browser() as http, AsyncExitStack() as opened:
        draw = site.live._draw

        def counted(scene: live.Scene, view: live.View) -> live.Parts:
            drawn.append(view)
            return draw(scene, view)

        monkeypatch.setattr(site.live, "_draw", counted)
        pages = [await opened.enter_async_context(stream(site, http)) for _ in range(50)]
        for page in pages:
            await page.until("health", "Working")
        drawn.clear()
        site.board.show(calls=(call(engineer="Wang"),))
        site.signals.raise_(Topic.BOARD)
        for page in pages:
            await page.until("calls", "Wang")
    assert len(drawn) == 1


async def test_one_live_page_too_many_is_refused(http: aiohttp.ClientSession) -> None:
    async with running_site(max_streams=1) as site, stream(site, http) as page:
        await page.until("clock", "time")
        async with http.get(f"{site.url}/live") as second:
            assert second.status == 503
            assert second.headers["Retry-After"] == "10"


async def test_a_page_that_does_not_read_is_cut_off_and_the_others_go_on(
    site: Site, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WRITE_S", 0.3)
    monkeypatch.setattr(live, "COALESCE_S", 0.0)
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", site.port))
    with peer:
        peer.sendall(b"GET /live?lang=en HTTP/1.1\r\nHost: x\r\n\r\n")
        async with Ticker() as ticker, stream(site, http) as page, asyncio.timeout(WITHIN_S):
            await page.until("health", "Working")
            while site.live.health()[0].figures["streams"] < 2:
                await asyncio.sleep(0.01)
            number = 0
            while site.live.health()[0].figures["streams"] == 2:
                number += 1
                site.board.show(calls=tuple(call(n, engineer=f"E{number}") for n in range(40)))
                site.signals.raise_(Topic.BOARD)
                await page.until("calls", f"E{number}<")
    assert ticker.worst_s < LIMIT_S


async def test_pages_say_that_the_database_is_away_and_keep_what_they_showed(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with stream(site, http) as page:
        await page.until("tickets", "26112000400")
        site.board.down = True
        site.signals.raise_(Topic.BOARD)
        await page.until("notice", "The database cannot be reached")
        async with http.get(f"{site.url}/?lang=en") as answer:
            text = await answer.text()
            assert "26112000400" in text
            assert "The database cannot be reached" in text
        site.board.down = False
        site.signals.raise_(Topic.BOARD)
        async with asyncio.timeout(WITHIN_S):
            while page.parts["notice"]:
                await page.event()


async def test_a_stop_ends_the_open_pages(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(WITHIN_S):
        async with running_site() as site, http.get(f"{site.url}/live") as answer:
            page = Stream(answer)
            await page.until("health", "li")
            site.httpd.announce_stop()
            with pytest.raises(EOFError):
                await page.until("never", "sent")


async def test_a_page_whose_session_ended_is_closed(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.2)
    async with running_site(public_status=False) as site:
        await log_in(site, http)
        async with stream(site, http) as page, asyncio.timeout(WITHIN_S):
            await page.until("health", "Working")
            site.accounts.sessions.clear()
            site.signals.raise_(Topic.BOARD)
            with pytest.raises(EOFError):
                await page.until("never", "sent")


async def test_nobody_looking_costs_nothing() -> None:
    async with running_site() as site:
        for _ in range(5):
            site.signals.raise_(Topic.BOARD)
            await asyncio.sleep(0)
        assert site.board.asked == 0


# What a page gives away


async def test_what_a_caller_chose_is_text_and_masked_where_anybody_may_look(
    http: aiohttp.ClientSession,
) -> None:
    shown = FakeBoard(busy())
    shown.show(calls=(call(name=HOSTILE_NAME, caller="<i>1"), call(name=HOSTILE_NAME)))
    async with running_site(board=shown) as site:
        async with http.get(f"{site.url}/?lang=en") as answer:
            public = await answer.text()
        await log_in(site, http)
        async with http.get(f"{site.url}/?lang=en") as answer:
            inside = await answer.text()
    for page in (public, inside):
        assert "<script>alert" not in page
        assert "13912345678" not in page
        assert "<i>1" not in page
        assert page.count("<script") == 2
        assert "style=" not in page
    assert "&lt;＊" in public
    assert "张三" not in public
    assert "192.0.2.7" not in public
    assert "&lt;script&gt;alert(1)" in inside
    assert "192.0.2.7" in inside


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("+8613912345678", "…5678"), ("8001", "8001"), ("anonymous", ""), ("", ""),
        ("a@example.cn", "…@example.cn"), ("<script>1", ""), ("٣٤٥٦٧٨", ""), ("x" * 300, ""),
    ],
)  # fmt: skip
def test_addresses_are_masked(value: str, shown: str) -> None:
    assert masked(value) == shown


def test_a_name_is_masked_to_its_first_character() -> None:
    assert masked_name("张三") == "张＊"
    assert masked_name(" ") == ""
    assert masked_name("\r\nx") == "x＊"


# Languages


@pytest.mark.parametrize(
    ("query", "cookie", "accept", "language"),
    [
        ("", "", "", "zh-CN"), ("", "", "en-GB,en;q=0.9", "en"), ("", "", "fr, zh-TW", "zh-CN"),
        ("", "en", "zh", "en"), ("?lang=zh", "en", "en", "zh-CN"), ("?lang=fr", "", "", "zh-CN"),
    ],
)  # fmt: skip
async def test_the_language_is_asked_chosen_or_the_browsers(
    site: Site, http: aiohttp.ClientSession, query: str, cookie: str, accept: str, language: str
) -> None:
    headers = {"Accept-Language": accept} | (
        {"Cookie": f"contactd_lang={cookie}"} if cookie else {}
    )
    async with http.get(f"{site.url}/{query}", headers=headers) as answer:
        assert f'<html lang="{language}">' in await answer.text()
        assert answer.headers["Content-Language"] == language


def test_every_text_is_in_both_catalogues_with_words(tmp_path: Path) -> None:
    from babel.messages.pofile import read_po

    from contactd.web.i18n import LOCALE_DIR

    ids = []
    for language in ("zh", "en"):
        with (LOCALE_DIR / language / "LC_MESSAGES" / "contactd.po").open("rb") as file:
            catalogue = read_po(file, locale=language)
        for message in catalogue:
            words = message.string if isinstance(message.string, tuple) else (message.string,)
            assert all(words), message.id
            assert not message.fuzzy or not message.id
            for word in words:  # a lost %(name)s would be an error on the page
                wanted = set(re.findall(r"%\(\w+\)s", str(message.id)))
                assert not message.id or wanted == set(re.findall(r"%\(\w+\)s", str(word)))
        ids.append({str(message.id) for message in catalogue})
    assert ids[0] == ids[1]
