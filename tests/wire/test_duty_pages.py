"""My duty, on both databases: the calendar, swaps and leave, and who decides."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from contactd.routing import deskedit
from contactd.store.dutyrequests import RequestState
from contactd.store.engine import Database
from contactd.tickets.people import Role
from contactd.web.access import PERSONAL
from contactd.web.dutypage import PATH
from tests.fakes.admin import Admin, administered
from tests.fakes.clock import FakeClock


@pytest.fixture
async def admin(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Admin]:
    async with administered(database, clock, tmp_path) as found:
        for key in ("wang", "li", "chen"):
            found.user(key, Role.ENGINEER, engineer=key)
        found.user("plan", Role.SUPERVISOR)
        found.user("gz", Role.SUPERVISOR, sites=["gz"])
        yield found


async def leaves(admin: Admin) -> list[str]:
    listed = deskedit.entries(deskedit.document(await admin.text()), "leaves")
    return [str(each["key"]) for each in listed]


async def last_state(admin: Admin, who: str = "wang") -> RequestState:
    found = await admin.requests.of(who, admin.clock.now() - timedelta(days=1))
    return found[-1].state


@pytest.mark.parametrize("role", [*Role])
async def test_it_is_for_everybody_who_sees_tickets(admin: Admin, role: Role) -> None:
    assert (await admin.get(PATH, f"cd_{role}") == 200) == (role in PERSONAL)


async def test_an_engineer_sees_what_is_on_now_and_the_calendar(admin: Admin) -> None:
    for view in ("", "?view=week", "?day=2026-12-01", "?day=nonsense", "?day=1900-01-01"):
        assert await admin.get(f"{PATH}{view}", "wang") == 200
        assert "On duty until" in admin.words
        assert "00:00–24:00 Tier 1 · gz" in admin.words
    assert "/api/v1/oncall/person/wang.ics?token=…" in admin.words


async def test_who_is_no_engineer_is_told_how_to_become_one(admin: Admin) -> None:
    await admin.get(PATH, "plan")
    assert "no engineer of the desk file" in admin.words
    assert "王伟" in admin.words  # the rota is for everybody


async def test_the_rota_shows_the_sites_that_somebody_sees(admin: Admin) -> None:
    await admin.get(PATH, "gz")
    assert "王伟" in admin.words
    assert "陈静" not in admin.words
    await admin.get(PATH, "plan")
    assert "陈静" in admin.words
    assert "nobody on duty: the floor number rings" in admin.words  # at zh


async def test_leave_is_in_the_rota_at_once_if_somebody_stands_in(admin: Admin) -> None:
    assert await admin.post(f"{PATH}/leave", "wang", first="2026-12-01", backup="li") == 303
    assert admin.location.endswith("?done=agreed#requests")
    assert await leaves(admin) == ["leave-1"]
    await admin.get(f"{PATH}?day=2026-12-01", "li")
    assert "stands in for somebody on leave (王伟)" in admin.words
    newest = await admin.versions.newest()
    assert newest is not None
    assert newest.actor == "user:wang"


async def test_leave_that_makes_a_hole_waits_for_who_plans(admin: Admin) -> None:
    away = [f"{first}" for first in ("2026-12-01",)]
    for who in ("li", "chen"):
        assert await admin.post(f"{PATH}/leave", who, first=away[0], last="2026-12-02") == 303
    await admin.post(f"{PATH}/leave", "wang", first="2026-12-02", backup="li")
    # james is left: he stands in everywhere, until he is away, too
    admin.user("james", Role.ENGINEER, engineer="james")
    assert await admin.post(f"{PATH}/leave", "james", first="2026-12-02") == 303
    assert admin.location.endswith("?done=waiting#requests")
    assert await last_state(admin, "james") is RequestState.WAITING
    before = await leaves(admin)
    await admin.get(PATH, "james")
    assert "Nobody would be on duty" in admin.words
    assert "2026-12-02 00:00 – 2026-12-03 00:00" in admin.words
    await admin.get(PATH, "plan")
    assert "Agree although there is a hole" in admin.words
    number = before[-1].split("-")[1]
    request = f"{PATH}/requests/{int(number) + 1}"
    assert await admin.post(request, "wang", do="agree", answer="no right") == 404
    assert await admin.post(request, "plan", do="agree") == 303
    assert "done=reason" in admin.location
    assert await leaves(admin) == before
    assert await admin.post(request, "plan", do="agree", answer="a wedding") == 303
    assert len(await leaves(admin)) == len(before) + 1
    assert await last_state(admin, "james") is RequestState.AGREED


async def test_leave_is_taken_back_before_it_begins_and_not_after(
    admin: Admin, clock: FakeClock
) -> None:
    await admin.post(f"{PATH}/leave", "wang", first="2026-11-22", backup="li")
    await admin.post(f"{PATH}/leave", "wang", first="2026-12-01", backup="li")
    assert await admin.post(f"{PATH}/requests/1", "li", do="withdraw") == 404
    assert await admin.post(f"{PATH}/requests/1", "wang", do="withdraw") == 303
    assert await leaves(admin) == ["leave-2"]
    assert await admin.post(f"{PATH}/requests/1", "wang", do="withdraw") == 404
    clock.advance(timedelta(days=12))
    assert await admin.post(f"{PATH}/requests/2", "wang", do="withdraw") == 404
    assert await leaves(admin) == ["leave-2"]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "Say from which day on."),
        ({"first": "2026-12-02", "last": "2026-12-01"}, "The end must be after the start."),
        ({"first": "2026-11-01"}, "It must not have ended yet."),
        ({"first": "2026-12-01", "start": "2026-12-01T08:00"}, "not both"),
        ({"first": "2026-12-01", "backup": "wang"}, "The backup must be somebody else."),
        ({"first": "2026-12-01", "backup": "ghost"}, "“ghost” does not exist"),
        ({"first": "soon"}, "Say from which day on."),
    ],
)
async def test_leave_that_makes_no_sense_is_refused(
    admin: Admin, form: dict[str, str], words: str
) -> None:
    assert await admin.post(f"{PATH}/leave", "wang", **form) == 422
    assert words in admin.words
    assert await leaves(admin) == []
    assert await admin.requests.of("wang", admin.clock.now()) == []


async def rotate(admin: Admin) -> None:
    """Let wang and li have turns of a day in tier 1 of gz."""
    newest = await admin.text()
    text = deskedit.drop(newest, "shifts", await admin.was("shifts"))
    text = deskedit.put(text, "teams", {"key": "desk", "tier": 1, "sites": ["gz"]})
    rotation = {"key": "days", "team": "desk", "members": ["wang", "li"], "turn": "day",
                "start": __import__("datetime").date(2026, 11, 1)}  # fmt: skip
    text = deskedit.put(text, "rotations", rotation)
    _, number = await admin.changes.save(lambda _: text, actor="user:test")
    assert number


async def ask(admin: Admin) -> None:
    """Let wang ask li for a swap of two days."""
    await admin.get(PATH, "wang")
    mine = re.findall(r'<option value="(2026-11-2[2-9]T[^"]+)"', admin.html)[0]
    assert await admin.get(f"{PATH}/swap?other=li&mine={mine.replace('+', '%2B')}", "wang") == 200
    theirs = re.findall(r'name="theirs" value="([^"]+)"', admin.html)
    tier_one = [each for each in theirs if each.partition("/")[0].endswith("T00:00:00+00:00")]
    assert tier_one
    fields = {"mine": mine, "other": "li", "theirs": tier_one[0], "note": "请帮忙"}
    assert await admin.post(f"{PATH}/swap", "wang", **fields) == 303


async def test_a_swap_is_in_the_rota_when_the_colleague_accepts_it(admin: Admin) -> None:
    await rotate(admin)
    await ask(admin)
    assert await last_state(admin) is RequestState.ASKED
    await admin.get(PATH, "li")
    assert "请帮忙" in admin.words
    assert "Accept the swap" in admin.words
    assert await admin.post(f"{PATH}/requests/1", "wang", do="accept") == 404
    assert await admin.post(f"{PATH}/requests/1", "chen", do="accept") == 404
    assert await admin.post(f"{PATH}/requests/1", "li", do="accept") == 303
    assert admin.location.endswith("?done=agreed#requests")
    (swap,) = deskedit.entries(deskedit.document(await admin.text()), "swaps")
    assert (swap["key"], swap["one"]["engineer"]) == ("swap-1", "wang")
    await admin.get(PATH, "wang")
    assert "by a swap" in admin.words
    assert await admin.post(f"{PATH}/requests/1", "wang", do="withdraw") == 404


async def test_a_swap_that_is_refused_changes_nothing_and_both_see_it(admin: Admin) -> None:
    await rotate(admin)
    before = await admin.text()
    await ask(admin)
    assert await admin.post(f"{PATH}/requests/1", "li", do="refuse", answer="没空") == 303
    assert await admin.text() == before
    for who in ("wang", "li"):
        await admin.get(PATH, who)
        assert "refused" in admin.words
        assert "没空" in admin.words
    assert await admin.post(f"{PATH}/requests/1", "li", do="accept") == 404


async def test_a_time_that_is_not_theirs_cannot_be_asked_for(admin: Admin) -> None:
    made_up = "2026-12-01T00:00:00+00:00/2026-12-02T00:00:00+00:00"
    fields = {"mine": made_up, "other": "li", "theirs": made_up}
    assert await admin.post(f"{PATH}/swap", "wang", **fields) == 409
    assert await admin.post(f"{PATH}/swap", "plan", **fields) == 403


async def test_what_was_saved_before_a_crash_is_not_saved_twice(admin: Admin) -> None:
    await admin.post(f"{PATH}/leave", "wang", first="2026-12-01", backup="li")
    (asked,) = await admin.requests.of("wang", admin.clock.now())
    from contactd.web.dutypage import _writes

    text = await admin.text()
    assert _writes(asked)(text) == text
