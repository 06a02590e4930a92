"""The ticket list as a page, on both databases: what it shows to whom, search, saved filters."""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from contactd.httpd import Route
from contactd.routing.deskfile import parse
from contactd.signals import Signals
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.store.lists import PAGE, Lists
from contactd.store.schema import clocks
from contactd.store.search import Progress, SearchIndex
from contactd.store.views import Views
from contactd.tickets.contact import Contact, MailFacts, Medium
from contactd.tickets.model import Category, Classification
from contactd.tickets.people import Role
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from contactd.web.access import PERSONAL
from contactd.web.listpage import FILTERS, PATH, ROWS, ListHandlers, read_choice, routes
from contactd.web.pages import Pages
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, VIP, document
from tests.fakes.site import FakeIdentity, Site, running_site
from tests.wire.test_search import ids

AT_SZ = "075528880001"
HOSTILE = "<script>alert(1)</script>打印\"'{{ 7*7 }}"
ENGINEER = "cd_wang"
AT_SZ_ONLY = "cd_sz"


@dataclass(slots=True, kw_only=True)
class Workbench:
    """The page of one desk, and what happens at it."""

    site: Site
    http: aiohttp.ClientSession
    tickets: TicketService
    database: Database
    clock: FakeClock
    index: SearchIndex
    progress: list[Progress] = field(default_factory=list)

    async def get(self, query: str = "", *, token: str = "cd_admin", path: str = PATH) -> str:
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
        headers["Accept-Language"] = "en"
        async with self.http.get(f"{self.site.url}{path}?{query}", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def numbers(self, query: str = "", **more: Any) -> list[str]:
        return re.findall(r'href="/desk/tickets/(\d+)" data-row', await self.get(query, **more))

    async def post(self, *, token: str = "cd_admin", **form: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.post(
            f"{self.site.url}{FILTERS}", data=form, headers=headers, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers.get("Location", "")

    async def comes_in(self, text: str, sender: str = AT_GZ, medium: Medium = Medium.TEXT) -> str:
        """Somebody writes or calls; return the ticket's number."""
        self.clock.advance(timedelta(minutes=1))
        is_mail = "@" in sender
        filed = await self.tickets.receive(
            Contact(
                medium=medium,
                external_id=f"{sender}-{self.clock.now().timestamp()}",
                received_at=self.clock.now(),
                from_value=sender,
                text=text,
                mail=MailFacts(subject=text[:40]) if is_mail else None,
            )
        )
        return filed.ticket

    async def promises(self, number: str, within: timedelta, metric: str = "resolution") -> None:
        """Let a clock of a ticket run."""
        (ticket,) = await ids(self.database, number)
        async with self.database.writing() as connection:
            await connection.execute(
                insert(clocks),
                {
                    "ticket_id": ticket, "metric": metric, "entry": 1, "state": "running",
                    "goal_s": 3600, "started_at": self.clock.now(),
                    "due_at": self.clock.now() + within, "provisional": False, "segments": [],
                },
            )  # fmt: skip


@asynccontextmanager
async def working(
    database: Database, clock: FakeClock, tickets: TicketService
) -> AsyncIterator[Workbench]:
    await load_desk(database, parse(document()), clock)
    progress: list[Progress] = []

    def make_routes(pages: Pages) -> Iterable[Route]:
        return routes(
            ListHandlers(
                pages=pages,
                lists=Lists(database, clock),
                views=Views(database, clock),
                clock=clock,
                zone="Asia/Shanghai",
                progress=lambda: progress[-1] if progress else None,
            )
        )

    async with running_site(make_routes=make_routes) as site, aiohttp.ClientSession() as http:
        site.accounts.tokens[ENGINEER] = FakeIdentity(
            name="wang", role=Role.ENGINEER, engineer="wang"
        )
        site.accounts.tokens[AT_SZ_ONLY] = FakeIdentity(
            name="sz", role=Role.DESK, sites=frozenset({"sz"})
        )
        yield Workbench(
            site=site, http=http, tickets=tickets, database=database, clock=clock,
            index=SearchIndex(database, clock, Signals()), progress=progress,
        )  # fmt: skip


@pytest.fixture
async def bench(
    database: Database, clock: FakeClock, tickets: TicketService
) -> AsyncIterator[Workbench]:
    async with working(database, clock, tickets) as bench:
        yield bench


async def test_without_a_wish_it_shows_open_tickets_by_what_is_due_next(bench: Workbench) -> None:
    late = await bench.comes_in("late")
    none = await bench.comes_in("none", "13800138001")
    soon = await bench.comes_in("soon", "13800138002")
    over = await bench.comes_in("over", "13800138003")
    gone = await bench.comes_in("gone", "13800138004")
    await bench.tickets.act(gone, Action.CANCEL, actor="user:li")
    for number, minutes in ((late, 300), (soon, 20), (over, -5)):
        await bench.promises(number, timedelta(minutes=minutes))
    assert await bench.numbers() == [over, soon, late, none]
    html = await bench.get()
    assert 'class="left over"' in html
    assert "5 min over" in unescape(html)
    assert 'class="left near"' in html
    assert 'class="left far"' in html
    assert "4 tickets" in html


async def test_every_order_is_what_it_says(bench: Workbench) -> None:
    first = await bench.comes_in("one")
    second = await bench.comes_in("two", "13800138001")
    urgent = await bench.comes_in("three", "13800138002")
    await bench.tickets.classify(
        urgent, Classification(impact=Impact.COMPANY, urgency=Urgency.HIGH), actor="user:li"
    )
    await bench.comes_in("one again")
    assert await bench.numbers("sort=newest") == [urgent, second, first]
    assert await bench.numbers("sort=priority") == [urgent, first, second]
    assert await bench.numbers("sort=waiting") == [second, urgent, first]


@pytest.mark.parametrize("over", [False, True], ids=["open", "whatever state"])
async def test_every_filter_asks_what_it_says(bench: Workbench, over: bool) -> None:
    gz = await bench.comes_in("打印机卡纸")
    vip = await bench.comes_in("网络断了", VIP)
    sz = await bench.comes_in("邮箱满了", AT_SZ)
    mail = await bench.comes_in("VPN", "li@y.cn", Medium.MAIL)
    await bench.tickets.classify(
        vip,
        Classification(category=Category.NETWORK, impact=Impact.COMPANY, urgency=Urgency.HIGH),
        actor="user:li",
    )
    await bench.tickets.take(sz, "wang", how="web", actor="user:li")
    await bench.promises(gz, timedelta(minutes=30))
    await bench.promises(sz, timedelta(minutes=-1))
    await bench.index.catch_up()
    more = "&state=all" if over else ""
    for query, expected in {
        "site=gz": [gz, vip],
        "site=sz": [sz],
        "site=none": [mail],
        "priority=P1": [vip],
        "vip=1": [vip],
        "category=network": [vip],
        "assignee=wang": [sz],
        "assignee=nobody": [gz, vip, mail],
        "medium=mail": [mail],
        "due=soon": [gz],
        "due=breached": [sz],
        "since=2026-11-20&until=2026-11-20": [gz, vip, sz, mail],
        "since=2026-11-21": [],
        "until=2026-11-19": [],
        "site=gz&priority=P1&category=network": [vip],
    }.items():
        assert sorted(await bench.numbers(query + more)) == sorted(expected), query
    assert await bench.numbers("assignee=me" + more, token=ENGINEER) == [sz]
    assert await bench.numbers("assignee=me" + more) == []


async def test_what_is_over_is_listed_the_newest_first(bench: Workbench) -> None:
    numbers = [await bench.comes_in(f"{n}", f"1380013800{n}") for n in range(3)]
    for number in numbers[:2]:
        await bench.tickets.act(number, Action.CANCEL, actor="user:li")
    await bench.index.catch_up()
    assert await bench.numbers("state=over") == [numbers[1], numbers[0]]
    assert await bench.numbers("state=cancelled") == [numbers[1], numbers[0]]
    assert await bench.numbers("state=all") == numbers[::-1]
    assert await bench.numbers("state=new") == [numbers[2]]


async def test_who_belongs_to_a_site_sees_its_tickets_and_those_of_no_site(
    bench: Workbench,
) -> None:
    gz = await bench.comes_in("打印机")
    sz = await bench.comes_in("打印机", AT_SZ)
    nowhere = await bench.comes_in("打印机", "x@y.cn", Medium.MAIL)
    await bench.index.catch_up()
    for query in ("", "state=all", "q=打印", "state=all&medium=text", "sort=newest"):
        found = await bench.numbers(query, token=AT_SZ_ONLY)
        assert gz not in found, query
        assert sz in found, query
    assert sorted(await bench.numbers("q=打印", token=AT_SZ_ONLY)) == sorted([sz, nowhere])
    assert await bench.numbers("site=gz", token=AT_SZ_ONLY) == []
    assert await bench.numbers("site=gz&q=打印", token=AT_SZ_ONLY) == []
    html = await bench.get(token=AT_SZ_ONLY)
    assert '<option value="gz"' not in html
    assert gz not in html


async def test_search_goes_through_all_states_and_marks_what_it_found(bench: Workbench) -> None:
    over = await bench.comes_in("三楼打印机卡纸")
    await bench.tickets.act(over, Action.CANCEL, actor="user:li")
    here = await bench.comes_in("打印机没墨", "13800138001")
    await bench.tickets.updated(here, actor="user:li", note="硒鼓到货了")
    await bench.index.catch_up()
    assert await bench.numbers("q=打印") == [here, over]
    assert await bench.numbers("q=打印&state=open") == [here]
    assert "<mark>打印</mark>机没墨" in await bench.get("q=打印")
    assert "<mark>硒鼓</mark>到货了" in await bench.get("q=硒鼓")  # from the journal
    assert f"<mark>{here[-4:]}</mark>" in await bench.get(f"q={here[-4:]}")
    assert "Nothing is found" in await bench.get("q=没有这个")


async def test_nothing_anybody_wrote_runs_on_the_page(bench: Workbench) -> None:
    await bench.comes_in(HOSTILE)
    await bench.index.catch_up()
    for query in ("", "q=打印", f"q={HOSTILE}", "q=alert"):
        html = await bench.get(urlencode(parse_qsl(query)))
        assert "<script>alert" not in html, query
        assert "{{ 7*7 }}" in unescape(html), query
        assert "49" not in re.findall(r"<mark>(.*?)</mark>", html)


async def test_pages_follow_each_other_without_a_gap(bench: Workbench) -> None:
    numbers = [await bench.comes_in("打印机", f"138{n:08}") for n in range(PAGE + 7)]
    await bench.index.catch_up()
    for query, expected in (
        ("sort=waiting", numbers),
        ("sort=due", numbers),
        ("sort=priority", numbers),
        ("sort=newest", numbers[::-1]),
        ("q=打印", numbers[::-1]),
        ("state=all", numbers[::-1]),
        ("state=all&medium=text", numbers[::-1]),
    ):
        html = await bench.get(query)
        assert f"{PAGE + 7} tickets" in html
        found = await bench.numbers(query)
        assert found == expected[:PAGE], query
        (further,) = re.findall(r'href="/desk\?([^"]+)" rel="next"', html)
        rest = await bench.numbers(unescape(further))
        assert rest == expected[PAGE:], query


@pytest.mark.parametrize("cursor", ["x", "W10=", "WzFd", "bnVsbA==", "WyJhIiwgMV0=", "Wy0xXQ=="])
async def test_a_cursor_of_somebody_else_is_refused_or_harmless(
    bench: Workbench, cursor: str
) -> None:
    headers = {"Authorization": "Bearer cd_admin"}
    for query in ("sort=newest", "sort=due", "sort=priority", "q=打印", "state=all"):
        url = f"{bench.site.url}{PATH}?{query}&cursor={cursor}"
        async with bench.http.get(url, headers=headers) as answer:
            assert answer.status in (200, 400, 409, 422), query


async def test_a_filter_is_saved_shared_preferred_and_dropped(bench: Workbench) -> None:
    gz = await bench.comes_in("one")
    sz = await bench.comes_in("two", AT_SZ)
    status, to = await bench.post(
        do="save", name="  深圳  ", query="site=sz&sort=newest", shared="1", default="1"
    )
    assert (status, to) == (303, "/desk?state=open&site=sz&sort=newest")
    assert await bench.numbers() == [sz]  # it is what is shown first
    assert sorted(await bench.numbers("state=open")) == sorted([gz, sz])
    html = await bench.get(token="cd_desk")
    assert "深圳</bdi>" in html  # others have it, too,
    assert sorted(await bench.numbers(token="cd_desk")) == sorted([gz, sz])  # but not first
    (number,) = re.findall(r'name="filter" value="(\d+)"', await bench.get())
    assert (await bench.post(token="cd_desk", do="drop", filter=number))[0] == 404
    assert (await bench.post(token="cd_desk", do="default", filter=number))[0] == 303
    assert await bench.numbers(token="cd_desk") == [sz]
    assert (await bench.post(token="cd_desk", do="default"))[0] == 303
    assert sorted(await bench.numbers(token="cd_desk")) == sorted([gz, sz])
    assert (await bench.post(do="drop", filter=number))[0] == 303
    assert "深圳</bdi>" not in await bench.get()


async def test_what_is_not_shared_is_its_owners_alone(bench: Workbench) -> None:
    await bench.post(do="save", name="mine", query="priority=P1")
    assert "mine</bdi>" in await bench.get()
    assert "mine</bdi>" not in await bench.get(token="cd_desk")
    assert (await bench.post(token="cd_desk", do="default", filter="1"))[0] == 404
    await bench.post(do="save", name="mine", query="priority=P2")  # the same name: replaced
    html = await bench.get()
    assert html.count("mine</bdi>") == 1
    assert "priority=P2" in html


@pytest.mark.parametrize(
    "form",
    [
        {"do": "save", "name": "", "query": ""},
        {"do": "save", "name": "x" * 61, "query": ""},
        {"do": "save", "name": "a\x00b", "query": ""},
        {"do": "drop", "filter": "x"},
        {"do": "drop", "filter": "9" * 30},
        {"do": "explode"},
        {},
    ],
)
async def test_a_form_that_is_none_of_ours_is_refused(
    bench: Workbench, form: dict[str, str]
) -> None:
    assert 400 <= (await bench.post(**form))[0] < 500


@pytest.mark.parametrize("role", list(Role))
async def test_only_who_may_see_requesters_sees_the_list(bench: Workbench, role: Role) -> None:
    headers = {"Authorization": f"Bearer cd_{role}"}
    for path in (PATH, ROWS):
        async with bench.http.get(f"{bench.site.url}{path}", headers=headers) as answer:
            assert answer.status == (200 if role in PERSONAL else 403)
    status, _ = await bench.post(token=f"cd_{role}", do="default")
    assert status == (303 if role in PERSONAL else 403)


async def test_the_rows_alone_are_what_the_page_fetches(bench: Workbench) -> None:
    number = await bench.comes_in("one")
    html = await bench.get("state=open&sort=newest", path=ROWS)
    assert html.lstrip().startswith("<section")
    assert number in html
    assert f'hx-get="{ROWS}?state=open&amp;sort=newest"' in html
    assert "<html" not in html


async def test_it_says_how_far_the_index_is(bench: Workbench) -> None:
    assert "being built" not in await bench.get()
    bench.progress.append(Progress(done=120_000, total=1_000_000))
    assert "120,000 of 1,000,000" in await bench.get()


async def test_the_tabs_count_what_is_open(bench: Workbench) -> None:
    number = ""
    for n in range(3):
        number = await bench.comes_in("x", f"1380013800{n}")
    await bench.tickets.take(number, "wang", how="web", actor="user:li")
    await bench.promises(number, timedelta(minutes=-1))
    html = await bench.get(token=ENGINEER)
    tabs = re.findall(
        r'<a href="/desk\?([^"]+)"[^>]*>\s*([^<]+?)\s*<span class="count[^>]*>(\d+)', html
    )
    assert {name: int(count) for _, name, count in tabs} == {
        "Open": 3, "Mine": 1, "Nobody’s": 2, "Due soon": 0, "Broken": 1,
    }  # fmt: skip


async def test_empty_lists_say_what_to_do(bench: Workbench) -> None:
    assert "No ticket is open" in await bench.get()
    assert "There is no ticket yet" in await bench.get("state=all")
    assert "No ticket is like this" in await bench.get("priority=P1")
    assert "Nothing is found" in await bench.get("q=x")


@given(st.dictionaries(st.sampled_from([
    "q", "state", "priority", "site", "assignee", "team", "medium", "due", "vip", "category",
    "since", "until", "sort", "cursor", "x",
]), st.text(max_size=12)))  # fmt: skip
def test_any_address_asks_something(asked: dict[str, str]) -> None:
    choice = read_choice(asked.items())
    assert read_choice(parse_qsl(choice.address())) == choice
    identity = FakeIdentity(name="x", role=Role.DESK)
    choice.filters(identity, ZoneInfo("Asia/Shanghai"))
    assert replace(choice, state="").shown_state in ("open", "all")


def test_days_at_the_end_of_time_are_no_days() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    identity = FakeIdentity(name="x", role=Role.DESK)
    for day in ("9999-12-31", "0001-01-01"):
        filters = read_choice([("since", day), ("until", day)]).filters(identity, zone)
        assert filters.opened_from is None
        assert filters.opened_to is None
    good = read_choice([("until", "2026-11-20")]).filters(identity, zone)
    assert good.opened_to == datetime(2026, 11, 20, 16, tzinfo=UTC)
