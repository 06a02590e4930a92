"""The status page and the wallboard as they are sent: who sees what, and in which order."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from contactd.signals import Topic
from contactd.store.boardviews import Attained, BreachedCount, Figures, Marks
from contactd.tickets.people import Role
from contactd.web import live
from tests.fakes.board import FIGURES, FakeBoard, busy, call, risks
from tests.fakes.site import FakeIdentity, Site, browser, running_site
from tests.fakes.waiting import until
from tests.wire.test_http import Stream

SHENZHEN = {"Authorization": "Bearer cd_sz"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with browser() as session:
        yield session


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A page that asks for a login; the token `cd_sz` is of somebody who sees Shenzhen only."""
    async with running_site(public_status=False) as running:
        running.accounts.tokens["cd_sz"] = FakeIdentity(
            name="sz", role=Role.DESK, sites=frozenset({"sz"})
        )
        yield running


async def got(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, str]:
    async with http.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


def part(page: str, name: str) -> str:
    found = re.search(rf'<section[^>]*data-part="{name}".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


async def test_who_has_sites_sees_what_is_theirs_or_of_no_site(
    site: Site, http: aiohttp.ClientSession
) -> None:
    _, page = await got(http, f"{site.url}/?lang=en", **SHENZHEN)
    for name in ("risks", "queues", "calls", "duty", "tickets"):
        assert "Guangzhou" not in part(page, name), name
    assert "Shenzhen" in part(page, "duty")
    assert "26112000011" in part(page, "risks")  # of Shenzhen
    assert "26112000022" in part(page, "risks")  # of no site
    assert "26112000000" not in part(page, "risks")  # of Guangzhou
    assert "1 broken" in part(page, "risks")
    assert "120 kept" in part(page, "promises")
    assert "412" not in part(page, "promises")
    _, everything = await got(http, f"{site.url}/?lang=en", Authorization="Bearer cd_desk")
    assert "26112000000" in part(everything, "risks")
    assert "532 kept" in part(everything, "promises")


async def test_a_stream_is_of_the_same_sites_as_its_page(
    site: Site, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{site.url}/live?lang=en", headers=SHENZHEN) as answer:
        page = Stream(answer)
        await page.until("duty", "Shenzhen")
        site.board.show(calls=(call(1, site="gz"), call(2, site="sz", engineer="Huang")))
        site.signals.raise_(Topic.BOARD)
        await page.until("calls", "Huang")
    assert "Guangzhou" not in "".join(page.parts.values())


@pytest.mark.parametrize(("wanted", "status"), [("sz", 200), ("gz", 404), ("nowhere", 404)])
@pytest.mark.parametrize("path", ["/?wall", "/live?wall"])
async def test_a_site_of_somebody_else_is_as_if_it_were_not_there(
    site: Site, http: aiohttp.ClientSession, path: str, wanted: str, status: int
) -> None:
    async with http.get(f"{site.url}{path}&site={wanted}", headers=SHENZHEN) as answer:
        assert answer.status == status


async def test_a_wall_of_one_site_shows_that_site_and_follows_it(
    http: aiohttp.ClientSession,
) -> None:
    async with running_site() as site:
        _, page = await got(http, f"{site.url}/?wall&site=gz&lang=en")
        assert "Guangzhou" in part(page, "duty")
        assert "Shenzhen" not in part(page, "duty")
        source = re.search(r'data-source="([^"]+)"', page)
        assert source is not None
        assert "site=gz" in source[1]
        assert "wall" in source[1]
        async with http.get(site.url + source[1].replace("&amp;", "&")) as answer:
            await Stream(answer).until("duty", "Guangzhou")
        assert "<nav" not in page
        assert "<a " not in page


async def test_what_is_broken_comes_first_but_leaves_room_for_what_can_be_kept(
    http: aiohttp.ClientSession,
) -> None:
    now = datetime.now(UTC)
    old, coming = risks(now)[0], risks(now)[4]
    many = [
        replace(old, ticket=f"B{n:02}", due_at=now - timedelta(hours=30 - n)) for n in range(30)
    ]
    board = FakeBoard(
        replace(busy(), risks=(*many, coming), breached=(BreachedCount(site="", count=44),))
    )
    async with running_site(board=board) as site:
        _, page = await got(http, f"{site.url}/?lang=en")
    shown = re.findall(r"B\d\d|2611\d+", part(page, "risks"))
    assert shown == [*(f"B{n:02}" for n in range(9)), coming.ticket]
    assert "44 broken" in page
    assert "and 35 more" in page


async def test_a_clock_that_runs_out_between_two_looks_counts_as_broken(
    http: aiohttp.ClientSession,
) -> None:
    now = datetime.now(UTC)
    late = replace(risks(now)[3], due_at=now - timedelta(milliseconds=1))
    board = FakeBoard(replace(busy(), at=now - timedelta(seconds=4), risks=(late,), breached=()))
    async with running_site(board=board) as site:
        _, page = await got(http, f"{site.url}/?lang=en")
    assert 'class="risk broken"' in part(page, "risks")
    assert "1 broken" in part(page, "risks")


@pytest.mark.parametrize(
    ("kept", "missed", "shown", "verdict"),
    [
        (95, 5, "95.0 %", "on target"),
        (949, 51, "94.9 %", "below target"),
        (9499, 501, "94.9 %", "below target"),  # not 95.0: that would look kept
        (1, 0, "100.0 %", "on target"),
        (0, 1, "0.0 %", "below target"),
    ],
)
async def test_attainment_is_never_rounded_up_to_the_target(
    http: aiohttp.ClientSession, kept: int, missed: int, shown: str, verdict: str
) -> None:
    metric = FIGURES.attained[0].metric
    figures = Figures(
        attained=(Attained(site="", metric=metric, kept=kept, missed=missed),),
        marks=(Marks(site="", satisfied=0, marks=0),),
    )
    async with running_site(board=FakeBoard(replace(busy(), figures=figures))) as site:
        _, page = await got(http, f"{site.url}/?lang=en")
    text = part(page, "promises")
    assert shown in text
    assert verdict in text
    assert "Satisfaction" not in text  # nobody has given a mark


async def test_pages_that_keep_up_are_told_without_their_tasks(
    monkeypatch: pytest.MonkeyPatch, http: aiohttp.ClientSession
) -> None:
    """The same bytes for all of one view; a page that comes later gets everything first."""
    async with running_site() as site:
        sent: list[bytes] = []
        news = site.live._news_for

        def kept(reader: Any) -> bytes:
            sent.append(news(reader))
            return sent[-1]

        monkeypatch.setattr(site.live, "_news_for", kept)
        async with (
            http.get(f"{site.url}/live?lang=en") as one,
            http.get(f"{site.url}/live?lang=en") as two,
        ):
            first, second = Stream(one), Stream(two)
            await first.until("health", "Working")
            await second.until("health", "Working")
            readers = site.live._readers
            await until(lambda: all(reader.wire for reader in readers))
            monkeypatch.setattr(live, "write", None)  # the tasks may not write
            sent.clear()
            for number in range(3):
                site.board.show(calls=(call(engineer=f"E{number}"),))
                site.signals.raise_(Topic.BOARD)
                await first.until("calls", f"E{number}")
                await second.until("calls", f"E{number}")
            assert len({id(each) for each in sent}) == len(sent) / 2
            monkeypatch.undo()
            async with http.get(f"{site.url}/live?lang=en") as late:
                third = Stream(late)
                await third.until("health", "Working")
                assert "E2" in third.parts["calls"]
