"""Requesters on the pages: found, completed, made one; and tickets that the desk opens."""

from typing import Any

import pytest
from sqlalchemy import func, select

from contactd.store.schema import addresses, journal, people, tickets
from contactd.tickets.people import Role
from contactd.web.access import ACTING, PERSONAL
from tests.fakes.desk import Desk
from tests.fakes.history import CALLER
from tests.wire.test_ticket_acts import KEY, STRANGER, Browser, browser, desk, row

__all__ = ["browser", "desk"]  # fixtures

OTHER = "13712340002"


async def count(desk: Desk, table: Any) -> int:
    async with desk.database.reading() as connection:
        found = await connection.execute(select(func.count()).select_from(table))
        return int(found.scalar_one())


async def latest(desk: Desk) -> dict[str, Any]:
    async with desk.database.reading() as connection:
        found = await connection.execute(select(tickets).order_by(tickets.c.id.desc()).limit(1))
        return dict(found.mappings().one())


async def person(desk: Desk, person_id: int) -> dict[str, Any]:
    async with desk.database.reading() as connection:
        found = await connection.execute(select(people).where(people.c.id == person_id))
        return dict(found.mappings().one())


# People


@pytest.mark.parametrize(
    ("words", "found"),
    [("梁", True), ("139 2222 3333", True), ("2222333", True), ("LIANG@", True), ("总经理", True),
     ("%", False), ("nobody", False), ("x" * 900, False), ("\x00", False), ("王伟", False)],
)  # fmt: skip
async def test_people_are_found_by_what_is_known_of_them(
    browser: Browser, words: str, found: bool
) -> None:
    async with browser.http.get(
        f"{browser.site.url}/desk/people",
        params={"q": words},
        headers={"Accept": "text/html", "Authorization": "Bearer cd_desk"},
    ) as answer:
        assert answer.status == 200
        assert ("liang@example.com" in await answer.text()) == found


@pytest.mark.parametrize("role", [*Role])
async def test_people_are_for_who_sees_tickets_and_changed_by_who_works(
    browser: Browser, role: Role
) -> None:
    ticket = await browser.desk.write(STRANGER)
    found, who = (await row(browser.desk, ticket))["requester_id"], f"cd_{role}"
    for path in ("/desk/people", f"/desk/people/{found}"):
        assert (await browser.get(path, who))[0] == (200 if role in PERSONAL else 403)
    assert (await browser.get("/desk/new", who))[0] == (200 if role in ACTING else 403)
    fields = {"name": f"by {role}"}
    status, _ = await browser.post(f"/desk/people/{found}", fields, who)
    assert status == (303 if role in ACTING else 403)
    assert ((await person(browser.desk, found))["name"] == f"by {role}") == (role in ACTING)


async def test_a_caller_is_completed_with_further_addresses(browser: Browser) -> None:
    desk = browser.desk
    found = (await row(desk, await desk.write(STRANGER)))["requester_id"]
    fields = {
        "name": "周敏", "department": "财务部", "site": "gz", "language": "en", "has_vip": "1",
        "vip": "1", "number": "020-38880009", "mail": "Zhou@x.cn，min@x.cn",
    }  # fmt: skip
    assert (await browser.post(f"/desk/people/{found}", fields))[0] == 303
    known = await person(desk, found)
    assert (known["name"], known["site"], known["vip"], known["language"]) == (
        "周敏", "gz", True, "en",
    )  # fmt: skip
    html = (await browser.get(f"/desk/people/{found}"))[1]
    for shown in ("+8613712340001", "+862038880009", "zhou@x.cn", "min@x.cn", "财务部"):
        assert shown in html
    gone = {"has_vip": "1", "without": "min@x.cn"}
    assert (await browser.post(f"/desk/people/{found}", gone))[0] == 303
    known, html = await person(desk, found), (await browser.get(f"/desk/people/{found}"))[1]
    assert (known["vip"], known["name"], "min@x.cn" in html) == (False, "周敏", False)


async def test_an_address_of_another_leads_to_making_them_one(browser: Browser) -> None:
    desk = browser.desk
    one = (await row(desk, await desk.write(STRANGER)))["requester_id"]
    other = (await row(desk, await desk.write(OTHER)))["requester_id"]
    status, html = await browser.post(f"/desk/people/{one}", {"number": OTHER, "name": "周<敏>"})
    assert status == 422
    assert "another person’s" in html
    assert 'value="周&lt;敏&gt;"' in html
    assert f'name="into" value="{other}"' in html
    status, where = await browser.post(f"/desk/people/{one}/merge", {"into": other})
    assert (status, where) == (303, f"/desk/people/{other}?did=1")
    assert (await browser.get(f"/desk/people/{one}"))[0] == 404
    html = (await browser.get(f"/desk/people/{other}"))[1]
    assert "+8613712340001" in html
    assert (await browser.post(f"/desk/people/{other}/merge", {"into": other}))[0] == 422
    assert (await browser.post(f"/desk/people/{other}/merge", {"into": ""}))[0] == 422


async def test_who_is_kept_in_the_desk_file_has_no_form(browser: Browser) -> None:
    desk = browser.desk
    found = (await row(desk, await desk.call(CALLER)))["requester_id"]
    html = (await browser.get(f"/desk/people/{found}"))[1]
    assert "kept in the desk file" in html
    assert 'name="department"' not in html
    status, html = await browser.post(f"/desk/people/{found}", {"name": "x"})
    assert (status, "kept in the desk file" in html) == (422, True)


@pytest.mark.parametrize("number", ["0", "x", "9" * 30, "99999"])
async def test_nobody_has_a_page_of_their_own(browser: Browser, number: str) -> None:
    assert (await browser.get(f"/desk/people/{number}"))[0] == 404


async def test_a_person_cannot_be_given_a_site_that_is_not_the_senders(browser: Browser) -> None:
    desk = browser.desk
    found = (await row(desk, await desk.write(STRANGER)))["requester_id"]
    assert (await browser.post(f"/desk/people/{found}", {"site": "tokyo"}, "at_gz"))[0] == 404
    assert (await browser.post(f"/desk/people/{found}", {"site": "gz"}, "at_gz"))[0] == 303


# A ticket for somebody on the telephone


FIELDS = {
    "key": KEY, "title": "ERP打不开", "what": "登录后白屏", "device": "PC-0815", "system": "ERP",
    "happened_at": "2026-11-20T09:30", "impact": "1", "urgency": "1", "category": "software",
    "spoken": "1",
}  # fmt: skip


async def test_a_ticket_is_opened_once_for_somebody_new(browser: Browser) -> None:
    desk = browser.desk
    new = {"name": "周敏", "department": "财务部", "number": STRANGER, "site": "gz"}
    before = await count(desk, people)
    assert (await browser.post("/desk/new", FIELDS | new, "wang"))[0] == 303
    status, where = await browser.post("/desk/new", FIELDS | new, "wang")
    assert status == 303
    ticket = await latest(desk)
    assert await count(desk, tickets) == 1
    assert await count(desk, people) == before + 1
    assert where == f"/desk/tickets/{ticket['number']}?did=opened#done"
    assert (ticket["title"], ticket["priority"], ticket["site"], ticket["category"]) == (
        "ERP打不开", "P1", "gz", "software",
    )  # fmt: skip
    assert ticket["standard"]["happened_at"] == "2026-11-20T01:30:00.000000Z"
    told = [each.action for each in await desk.journal(ticket["number"])]
    assert told.count("answered") == 1
    html = await browser.page(ticket["number"])
    for shown in ("周敏", "财务部", "登录后白屏", "PC-0815"):
        assert shown in html


async def test_it_is_a_ticket_of_its_own_although_they_have_an_open_one(browser: Browser) -> None:
    desk = browser.desk
    older = await desk.call(CALLER)
    liang = (await row(desk, older))["requester_id"]
    status, _ = await browser.post("/desk/new", FIELDS | {"person": liang})
    assert status == 303
    ticket = await latest(desk)
    assert ticket["number"] != older
    assert ticket["requester_id"] == liang
    assert "梁总" in (await browser.get(f"/desk/new?person={liang}"))[1]


async def test_a_number_that_is_known_is_that_persons_ticket(browser: Browser) -> None:
    desk = browser.desk
    liang = (await row(desk, await desk.call(CALLER)))["requester_id"]
    known = await count(desk, addresses)
    fields = FIELDS | {"name": "Liang", "number": "+86 139 2222 3333"}
    assert (await browser.post("/desk/new", fields))[0] == 303
    assert (await latest(desk))["requester_id"] == liang
    assert await count(desk, addresses) == known
    assert (await person(desk, liang))["name"] == "梁总"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"title": " ", "what": ""}, "Say what happened"),
        ({"name": "", "number": ""}, "Say who it is for"),
        ({"number": "abc"}, "not a telephone number"),
        ({"happened_at": "gestern"}, "not a date"),
    ],
)
async def test_what_is_missing_is_said_and_nothing_is_lost(
    browser: Browser, changes: dict[str, str], says: str
) -> None:
    fields = FIELDS | {"name": "周敏", "number": STRANGER, "error": "0x<80>"} | changes
    status, html = await browser.post("/desk/new", fields)
    assert status == 422
    assert says in html
    assert "0x&lt;80&gt;</textarea>" in html
    assert await count(browser.desk, journal) == 0
