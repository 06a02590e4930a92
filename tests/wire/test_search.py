"""Full-text search on both databases: it finds what a scan of everything said would find."""

import asyncio
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update

from contactd.service import HealthState
from contactd.signals import Signals, Topic
from contactd.store import search
from contactd.store.engine import Database
from contactd.store.finding import LONGEST_TEXT, Query, terms
from contactd.store.schema import (
    addresses,
    people,
    search_people,
    search_texts,
)
from contactd.store.schema import tickets as tickets_table
from contactd.store.search import BATCH, Facets, SearchIndex, Wanted, candidates, with_terms
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.model import Classification
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action, State
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import WITHIN_S

AT = datetime(2026, 11, 20, 2, tzinfo=UTC)


def naive(query: str, text: str) -> bool:
    """Say what must be found, without any of the program: each run of the query, one by one."""
    said = runs(text)
    return all(any(_has(needle, run) for run in said) for needle in runs(query))


def runs(text: str) -> list[str]:
    found, kind = [""], ""
    for sign in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        now = "cjk" if "\u4e00" <= sign <= "\u9fff" else "word" if sign.isalnum() else ""
        if now != kind:
            found.append("")
        kind = now
        found[-1] += sign if now else ""
    return [each for each in found if each]


def _has(needle: str, run: str) -> bool:
    if "\u4e00" <= needle[0] <= "\u9fff":
        return needle in run
    parts = [""]
    for sign in run:
        if parts[-1] and sign.isdigit() != parts[-1][-1].isdigit():
            parts.append("")
        parts[-1] += sign
    tails = {"".join(parts[place:]) for place in range(len(parts))}
    return any(_is_asked(needle, piece) for piece in tails | set(parts))


def _is_asked(needle: str, piece: str) -> bool:
    if needle == piece:
        return True
    if needle.isdigit():
        head = len(needle) >= 6 and piece.startswith(needle)
        tail = len(needle) >= 4 and piece.endswith(needle)
        return piece.isdigit() and (head or tail)
    return len(needle) >= 3 and piece.startswith(needle)


SIGNS = "打印机网络卡"
TEXTS = st.text(alphabet=f"{SIGNS}{SIGNS}aAbBｂ019９ .-_", min_size=0, max_size=24)
QUERIES = st.text(alphabet=f"{SIGNS}{SIGNS}aAbB019 ", min_size=1, max_size=9)


@given(text=TEXTS, query=QUERIES)
@example(text="打印 印机", query="打印机")
@example(text="ab019019", query="0190")
@settings(max_examples=400)
def test_the_rule_of_what_is_found_is_that_of_a_naive_scan(text: str, query: str) -> None:
    assert Query(query).fits(text) == naive(query, text)


@given(text=TEXTS, query=QUERIES)
@example(text="打印 印机", query="打印机")
@settings(max_examples=400)
def test_what_fits_has_the_terms_and_what_has_them_fits_if_they_are_exact(
    text: str, query: str
) -> None:
    known, asked = terms(text), Query(query)

    def is_there(term: Any) -> bool:
        return any(
            each.startswith(term.text) if term.is_prefix else each == term.text for each in known
        )

    has_all = all(any(map(is_there, group)) for group in asked.groups)
    if asked.fits(text):
        assert has_all
    if asked.is_exact and has_all:
        assert asked.fits(text)


@given(text=TEXTS, query=QUERIES)
def test_marking_keeps_every_sign_and_marks_something_of_what_fits(text: str, query: str) -> None:
    asked = Query(query)
    parts = asked.marked(text)
    assert "".join(part for part, _ in parts) == unicodedata.normalize("NFC", text)
    assert any(hit for _, hit in parts) == any(Query(needle).fits(text) for needle in asked.needles)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("13912345678", "+8613912345678"),
        ("139 1234 5678", "+8613912345678"),
        ("+86 13912345678", "+8613912345678"),
        ("5678", "+8613912345678"),
        ("139123", "+8613912345678"),
        ("020-38880002", "+862038880002"),
        ("02038880002", "+862038880002"),
        ("8880002", "+862038880002"),
        ("ＨＰ１０２０", "打印机HP1020坏了"),
        ("zhang.san@x.cn", "Zhang.San@X.cn"),
        ("STRASSE", "Straße 5"),
    ],
)
def test_numbers_and_widths_are_found_however_they_are_written(query: str, text: str) -> None:
    assert Query(query).fits(text)
    assert "".join(part for part, hit in Query(query).marked(text) if hit)


@pytest.mark.parametrize(
    ("query", "text"),
    [("678", "+8613912345678"), ("打机", "打印机"), ("rin", "printer"), ("1391", "13912345678")],
)
def test_what_is_in_the_middle_of_a_word_is_not_found(query: str, text: str) -> None:
    assert not Query(query).fits(text)


def test_a_snippet_shows_the_place_and_a_little_around_it() -> None:
    text = "很长的开头" * 20 + "蓝屏" + "很长的结尾" * 20
    shown = Query("蓝屏").snippet(text)
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert "蓝屏" in shown
    assert len(shown) < 90
    assert Query("没有").snippet(text) == ""


# The index


@pytest.fixture
def index(database: Database, clock: FakeClock) -> SearchIndex:
    return SearchIndex(database, clock, Signals())


async def put(database: Database, texts: Sequence[str], *, site: str = "") -> list[int]:
    """Store tickets that have these texts, straight into the index's table."""
    async with database.writing() as connection:
        person = (
            await connection.execute(
                insert(people).returning(people.c.id), {"name": "", "created_at": AT}
            )
        ).scalar_one()
        ids = []
        for text in texts:
            number = (await connection.execute(select(tickets_table.c.id))).scalars().all()
            row = {
                "number": f"{len(number)}-{person}", "requester_id": person, "state": "new",
                "impact": 3, "urgency": 2, "priority": "P3", "priority_reason": "", "title": text,
                "opened_at": AT, "last_contact_at": AT, "updated_at": AT,
            }  # fmt: skip
            added = await connection.execute(
                insert(tickets_table).returning(tickets_table.c.id), row
            )
            ids.append(added.scalar_one())
        rows = [
            {
                "ticket_id": each, "body": text, "facets": {search.facet("s", site), "_b0"},
                "journal_seq": 0, "seen_at": AT,
            }
            for each, text in zip(ids, texts, strict=True)
        ]  # fmt: skip
        await connection.execute(insert(search_texts), with_terms(rows))
    return ids


async def found(database: Database, words: str, **facets: Any) -> list[int]:
    """Return the tickets that have all the words, asked as the list asks."""
    query = Query(words)
    wanted = Wanted(query=query, facets=Facets(**facets))
    async with database.reading() as connection:
        ids = await candidates(connection, wanted, most=1000)
        bodies = {
            row.ticket_id: row.body
            for row in (
                await connection.execute(
                    select(search_texts.c.ticket_id, search_texts.c.body).where(
                        search_texts.c.ticket_id.in_(ids)
                    )
                )
            ).all()
        }
    assert ids == sorted(ids, reverse=True)
    return [each for each in ids if query.fits(bodies[each])]


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), queries=st.lists(QUERIES, max_size=8))
def test_search_finds_what_a_naive_scan_finds(
    database_url: str, texts: list[str], queries: list[str]
) -> None:
    async def body() -> None:
        database = Database(database_url)
        async with database.running():
            ids = await put(database, texts)
            for query in queries:
                if not runs(query):
                    continue
                expected = [
                    each for each, text in zip(ids, texts, strict=True) if naive(query, text)
                ]
                assert sorted(set(await found(database, query)) & set(ids)) == expected, query
            async with database.writing() as connection:
                await connection.execute(delete(search_texts))
                await connection.execute(delete(tickets_table))
            assert await found(database, "打") == []

    asyncio.run(body())


async def test_words_of_everything_said_find_a_ticket(
    tickets: TicketService, database: Database, index: SearchIndex, clock: FakeClock
) -> None:
    filed = await tickets.receive(mail("打印机卡纸", "三楼的打印机坏了，型号HP1020"))
    await tickets.updated(filed.ticket, actor="user:li", note="已经更换硒鼓")
    await tickets.classify(filed.ticket, Classification(system="OA系统"), actor="user:li")
    other = await tickets.receive(
        mail("网络很慢", "视频会议掉线", sender="li.na@y.cn", name="李娜")
    )
    await index.catch_up()
    (first, second) = await ids(database, filed.ticket, other.ticket)
    for words in (
        "打印", "卡纸", "打印机", "三楼", "hp1020", "1020", "硒鼓", "OA", "系统", "zhang.san@x.cn",
        "张三", filed.ticket, filed.ticket[-4:], "打印 硒鼓", "硒鼓 张三 hp",
    ):  # fmt: skip
        assert await found(database, words) == [first], words
    for words in ("打印 视频", "印打", "li.na@x.cn 打印", "0000000"):
        assert await found(database, words) == [], words
    assert await found(database, "网络") == [second]


async def test_the_newest_come_first_and_sites_bound_what_is_seen(database: Database) -> None:
    old = await put(database, ["打印机"] * 3, site="gz")
    new = await put(database, ["打印机"] * 2, site="sz")
    nowhere = await put(database, ["打印机"], site="")
    assert await found(database, "打印") == [*nowhere, *new[::-1], *old[::-1]]
    assert await found(database, "打印", sites={"gz", ""}) == [*nowhere, *old[::-1]]
    assert await found(database, "打印", sites={"g"}) == []


async def test_what_changes_is_indexed_again_and_what_it_said_is_forgotten(
    tickets: TicketService, database: Database, index: SearchIndex, clock: FakeClock
) -> None:
    filed = await tickets.receive(mail("打印机卡纸", "x"))
    await index.catch_up()
    (one,) = await ids(database, filed.ticket)
    assert await found(database, "", states={State.NEW}) == [one]
    clock.advance(timedelta(minutes=1))
    await tickets.classify(filed.ticket, Classification(title="键盘失灵"), actor="user:li")
    await tickets.act(filed.ticket, Action.CANCEL, actor="user:li")
    await index.catch_up()
    assert await found(database, "键盘") == [one]
    assert await found(database, "", states={State.NEW}) == []
    assert await found(database, "", states={State.CANCELLED}) == [one]


async def test_a_person_whose_name_becomes_known_is_found_by_it(
    tickets: TicketService, database: Database, index: SearchIndex, clock: FakeClock
) -> None:
    filed = await tickets.receive(mail("打印机", "x", name=""))
    await index.catch_up()
    assert await found(database, "欧阳锋") == []
    async with database.writing() as connection:
        person = (await connection.execute(select(people.c.id))).scalars().one()
        await connection.execute(update(people).values(name="欧阳锋"))
        await connection.execute(
            insert(addresses),
            {"kind": "phone", "value": "+8613912345678", "person_id": person, "rank": 1},
        )
    await index.catch_up()
    assert await found(database, "欧阳锋") == await ids(database, filed.ticket)
    assert await found(database, "5678") == await ids(database, filed.ticket)
    async with database.reading() as connection:
        assert (await connection.execute(select(search_people))).all() == []


async def test_a_row_that_was_committed_late_is_found_all_the_same(
    tickets: TicketService, database: Database, index: SearchIndex, clock: FakeClock
) -> None:
    first = await tickets.receive(mail("打印机", "one"))
    await index.catch_up()
    await index.catch_up()
    late = await tickets.receive(mail("投影仪", "two", sender="other@x.cn"))
    async with database.writing() as connection:  # as if its clock had been a minute behind
        await connection.execute(
            update(tickets_table)
            .where(tickets_table.c.number == late.ticket)
            .values(updated_at=clock.now() - timedelta(minutes=1))
        )
    await index.catch_up()
    assert await found(database, "投影") == await ids(database, late.ticket)
    assert await found(database, "打印") == await ids(database, first.ticket)


async def test_two_that_keep_the_index_do_no_harm(
    tickets: TicketService, database: Database, clock: FakeClock
) -> None:
    filed = [
        await tickets.receive(mail(f"打印机{number}", "x", sender=f"p{number}@x.cn"))
        for number in range(5)
    ]
    both = [SearchIndex(database, clock, Signals()) for _ in range(2)]
    await asyncio.gather(*(each.catch_up() for each in both))
    assert await found(database, "打印") == (await ids(database, *(f.ticket for f in filed)))[::-1]


async def test_an_older_reading_never_replaces_a_newer_one(database: Database) -> None:
    (one,) = await put(database, ["打印机"])
    async with database.writing() as connection:
        await connection.execute(update(search_texts).values(journal_seq=5))
    old = {
        "ticket_id": one, "body": "键盘", "facets": set(), "journal_seq": 4, "seen_at": AT,
    }  # fmt: skip
    index = SearchIndex(database, FakeClock(), Signals())
    await index._store([old])
    assert await found(database, "打印") == [one]
    assert await found(database, "键盘") == []


async def test_a_long_way_behind_it_says_how_far_it_is(
    database: Database, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FEW", 10)
    monkeypatch.setattr(search, "REST", 0)
    await put(database, ["打印机"] * (2 * BATCH + 5))
    async with database.writing() as connection:
        await connection.execute(delete(search_texts))
    assert await index._next_batch()
    (health,) = index.health()
    assert health.state is HealthState.DEGRADED
    assert health.detail == f"indexing {BATCH} of {2 * BATCH + 5} tickets"
    assert len(await found(database, "打印")) == BATCH
    again = SearchIndex(database, FakeClock(), Signals())  # a new process goes on where it was
    await again.catch_up()
    assert again.health()[0].state is HealthState.UP
    assert again.progress is None
    assert len(await found(database, "打印")) == 2 * BATCH + 5


async def test_the_service_indexes_what_is_filed_once_it_is_told(
    tickets: TicketService, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EVERY_S", 0.01)
    signals = Signals()
    index = SearchIndex(database, clock, signals)
    async with index.running():
        await tickets.receive(mail("打印机卡纸", "x"))
        async with asyncio.timeout(WITHIN_S):
            while not await found(database, "打印"):
                signals.raise_(Topic.BOARD)
                await asyncio.sleep(0.02)


async def test_a_mail_of_a_book_is_indexed_up_to_a_bound(
    tickets: TicketService, database: Database, index: SearchIndex
) -> None:
    await tickets.receive(mail("长信", "字" * LONGEST_TEXT + "尾巴"))
    await index.catch_up()
    assert len(await found(database, "字字")) == 1
    assert await found(database, "尾巴") == []


async def test_keys_of_any_signs_are_terms_of_their_own(database: Database) -> None:
    ours = await put(database, ["打印机"], site="gz'-\"甲 乙")
    assert await found(database, "打印", sites={"gz'-\"甲 乙"}) == ours
    assert await found(database, "打印", sites={"gz"}) == []


@pytest.mark.parametrize("words", ["' | 'x", '" OR "', "*", "打印' & '", "_sgz", "~8765", "\\"])
async def test_what_is_typed_is_never_an_expression(database: Database, words: str) -> None:
    await put(database, ["打印机"])
    await found(database, words)


async def ids(database: Database, *numbers: str) -> list[int]:
    async with database.reading() as connection:
        rows = await connection.execute(
            select(tickets_table.c.id)
            .where(tickets_table.c.number.in_(numbers))
            .order_by(tickets_table.c.id)
        )
        return list(rows.scalars())


def mail(subject: str, text: str, *, sender: str = "zhang.san@x.cn", name: str = "张三") -> Contact:
    return Contact(
        medium=Medium.WEB,
        external_id=f"{sender}-{subject}",
        received_at=AT,
        from_value=sender,
        from_name=name,
        text=f"{subject}\n{text}",
    )
