"""The administration, on both databases: forms, what they refuse, and for whom they are."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contactd.routing import deskedit
from contactd.store.engine import Database
from contactd.store.schema import acts
from contactd.tickets.people import Role
from contactd.web.access import ADMINISTERING, PLANNING
from contactd.web.adminpage import PATH
from contactd.web.adminwords import SECTIONS
from tests.fakes.admin import Admin, administered
from tests.fakes.clock import FakeClock

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
SHIFT: dict[str, Any] = {
    "engineer": "wang", "tier": "1", "site": "gz", "start": "00:00", "end": "24:00", "days": DAYS
}  # fmt: skip
SITE = {"key": "gz", "name_zh": "广州", "name_en": "Canton", "floor": "13800000090",
        "area_code": "20"}  # fmt: skip


@pytest.fixture
async def admin(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Admin]:
    async with administered(database, clock, tmp_path) as found:
        yield found


async def test_every_section_has_a_list_and_a_form(admin: Admin) -> None:
    assert await admin.get(PATH) == 200
    for section in SECTIONS:
        assert await admin.get(f"{PATH}/desk/{section}") in (200, 303), section
        assert await admin.get(f"{PATH}/desk/{section}/new") == 200, section
        assert "<form" in admin.html
    for page in ("/text", "/versions", "/versions/1", "/letters", "/prompts", "/holidays"):
        assert await admin.get(f"{PATH}{page}") == 200, page


async def test_an_entry_is_shown_changed_checked_and_saved(admin: Admin) -> None:
    was = await admin.was("sites")
    assert await admin.get(f"{PATH}/desk/sites/{was}") == 200
    assert 'value="广州"' in admin.html
    assert await admin.send("sites", "review", {"was": was, **SITE}) == 200
    assert "English name gz Canton" in admin.words
    assert 'name="name_en" value="Canton"' in admin.html
    assert await admin.text() == (await admin.versions.numbered(1)).text
    assert await admin.send("sites", "save", {"was": was, "note": "as they say", **SITE}) == 303
    assert admin.location == f"{PATH}/desk/sites?saved=2"
    assert (await admin.entry("sites"))["name_en"] == "Canton"
    assert (await admin.text()).startswith("# the desk\n")
    await admin.get(f"{PATH}/versions")
    assert "as they say" in admin.words


async def test_what_is_wrong_is_told_at_its_field_and_nothing_is_saved(admin: Admin) -> None:
    was = await admin.was("sites")
    sent = {"was": was, **SITE, "floor": "nobody", "supervisor": "ghost"}
    for do in ("review", "save"):
        assert await admin.send("sites", do, sent) == 422
        floor = admin.html.partition('id="floor"')[2]
        assert "neither a telephone number nor an extension" in floor[: floor.index("</div>")]
        assert "“ghost” does not exist" in admin.words
        assert 'value="nobody"' in admin.html
    assert await admin.versions.history() == [(await admin.versions.history())[0]]


async def test_a_new_entry_with_a_key_that_is_taken_is_refused(admin: Admin) -> None:
    assert await admin.send("sites", "save", SITE) == 422
    assert "“gz” is used already" in admin.words


async def test_a_hole_is_refused_and_named_with_who_is_rung_instead(admin: Admin) -> None:
    was = await admin.was("shifts")
    sent = {"was": was, **SHIFT, "end": "08:00"}
    for do in ("review", "save"):
        assert await admin.send("shifts", do, sent) == 409
        assert "Refused: the rota would have a hole" in admin.words
        assert "gz, Tier 1" in admin.words
        assert "Asia/Shanghai" in admin.words
        assert "2026-11-20 10:00 – 2026-11-21 00:00 rung instead: 李娜" in admin.words
    assert len(await admin.versions.history()) == 1


async def test_a_hole_with_nobody_else_names_the_floor_number(admin: Admin) -> None:
    was = await admin.was("shifts", 3)  # the only one of tier 3 at sz; chen has tier 1
    await admin.send("shifts", "remove", {"was": was})
    assert "rung instead: 陈静" in admin.words
    document = deskedit.document(await admin.text())
    for _ in deskedit.entries(document, "shifts"):
        sent = {"was": await admin.was("shifts"), "despite": "1", "reason": "moving"}
        assert await admin.send("shifts", "remove", sent) == 303
    assert await admin.get(PATH) == 200
    assert "Nobody on duty" in admin.words


async def test_a_hole_is_saved_with_a_tick_and_a_reason_that_is_noted(
    admin: Admin, database: Database
) -> None:
    sent = {"was": await admin.was("shifts"), **SHIFT, "end": "08:00", "despite": "1"}
    assert await admin.send("shifts", "save", sent) == 409
    assert "Say why it is saved" in admin.words
    assert await admin.send("shifts", "save", {**sent, "reason": "office is closed"}) == 303
    async with database.reading() as connection:
        rows = (await connection.execute(select(acts).order_by(acts.c.id))).all()
    assert rows[-1].body["despite"] == "office is closed"
    assert rows[-1].actor == "user:oa-admin"


async def test_what_others_refer_to_is_not_removed_and_they_are_named(admin: Admin) -> None:
    was = await admin.was("engineers")
    for do in ("delete", "remove"):
        assert await admin.send("engineers", do, {"was": was}) == 409
        assert "others refer to it" in admin.words
        assert "shifts.#1.engineer" in admin.words
        assert f"{PATH}/desk/shifts/{await admin.was('shifts')}" in admin.html


async def test_two_who_change_different_entries_both_keep_what_they_wrote(admin: Admin) -> None:
    first, second = await admin.was("sites", 0), await admin.was("sites", 1)
    assert await admin.send("sites", "save", {"was": first, **SITE}) == 303
    other = {"key": "sz", "name_zh": "深圳", "name_en": "SZ", "floor": "13800000090"}
    assert await admin.send("sites", "save", {"was": second, **other}) == 303
    assert [(await admin.entry("sites", n))["name_en"] for n in (0, 1)] == ["Canton", "SZ"]


async def test_of_two_who_change_one_entry_the_second_sees_both_and_loses_nothing(
    admin: Admin,
) -> None:
    was = await admin.was("sites")
    await admin.send("sites", "save", {"was": was, **SITE, "name_en": "Theirs"})
    assert await admin.send("sites", "save", {"was": was, **SITE, "name_en": "Mine"}) == 409
    assert "Somebody else has changed this entry meanwhile" in admin.words
    assert "English name Theirs" in admin.words
    assert 'value="Mine"' in admin.html
    now = await admin.was("sites")
    assert f'name="was" value="{now}"' in admin.html
    assert await admin.send("sites", "save", {"was": now, **SITE, "name_en": "Mine"}) == 303


async def test_more_rows_are_drawn_and_nothing_typed_is_lost(admin: Admin) -> None:
    sent = {"key": "night", "members.0.engineer": "wang", "members.1.engineer": "li"}
    assert await admin.send("rotations", "more", sent) == 200
    assert 'name="members.5.engineer"' in admin.html
    assert 'value="night"' in admin.html


async def test_the_whole_file_can_be_edited_as_text(admin: Admin) -> None:
    text = await admin.text()
    changed = text.replace('"name_en"', '"name_en"').replace('name_en = "gz"', 'name_en = "C"')
    assert await admin.post(f"{PATH}/text", do="review", base="1", text=changed) == 200
    assert "The lines that change" in admin.words
    assert await admin.post(f"{PATH}/text", do="save", base="1", text=changed) == 303
    assert (await admin.entry("sites"))["name_en"] == "C"
    broken = changed + '[[teams]]\nkey = "x"\n[[\n'
    assert await admin.post(f"{PATH}/text", do="save", base="2", text=broken) == 422
    assert "not TOML" in admin.words
    assert "[[teams]]" in admin.html


async def test_text_that_is_based_on_an_older_version_is_kept_and_not_saved(admin: Admin) -> None:
    mine = (await admin.text()).replace("the desk", "my desk")
    await admin.send("sites", "save", {"was": await admin.was("sites"), **SITE})
    assert await admin.post(f"{PATH}/text", do="save", base="1", text=mine) == 409
    assert "my desk" in admin.html
    assert 'name_en = "Canton"' in admin.words
    assert len(await admin.versions.history()) == 2


async def test_an_older_version_is_compared_and_restored(admin: Admin) -> None:
    first = await admin.text()
    await admin.send("sites", "save", {"was": await admin.was("sites"), **SITE})
    await admin.get(f"{PATH}/versions/2?with=1")
    assert 'name_en = "Canton"' in admin.words
    assert await admin.post(f"{PATH}/versions/1", do="review") == 200
    assert await admin.post(f"{PATH}/versions/1", do="save", base="2") == 303
    assert await admin.text() == first
    assert [each.number for each in await admin.versions.history()] == [3, 2, 1]


async def test_rules_are_put_in_order(admin: Admin) -> None:
    for policy in ("p1", "standard"):
        assert await admin.send("rules", "save", {"policy": policy}) == 303
    assert await admin.send("rules", "down", {"was": await admin.was("rules")}) == 303
    assert [(await admin.entry("rules", n))["policy"] for n in (0, 1)] == ["standard", "p1"]


async def test_of_many_entries_the_first_are_shown_and_the_others_found(admin: Admin) -> None:
    text = await admin.text()
    for number in range(130):
        text += f'[[people]]\nkey = "p{number}"\nname = "Name {number}"\n'
    assert (await admin.changes.save(lambda _: text, actor="user:test"))[1]
    await admin.get(f"{PATH}/desk/people")
    assert "The first 100 of 131 are shown." in admin.words
    await admin.get(f"{PATH}/desk/people?q=NAME+129")
    assert "Name 129 (p129)" in admin.words
    assert "Name 12 " not in admin.words
    await admin.get(f"{PATH}/desk/people?q=nobody")
    assert "Nothing fits what you look for." in admin.words


async def test_what_people_write_is_shown_as_text(admin: Admin) -> None:
    hostile = '<script>alert(1)</script>"{{ 7 * 7 }} %(x)s'
    sent = {"was": await admin.was("sites"), **SITE, "name_en": hostile}
    for do in ("review", "save"):
        await admin.send("sites", do, sent)
        assert "<script>alert" not in admin.html
    for page in ("", "/desk/sites", f"/desk/sites/{await admin.was('sites')}", "/versions/2",
                 "/text"):  # fmt: skip
        await admin.get(f"{PATH}{page}")
        assert "<script>alert" not in admin.html


async def test_the_overview_says_that_the_file_replaced_what_was_edited(
    admin: Admin, tmp_path: Path
) -> None:
    from tests.fakes.admin import source
    from tests.fakes.rota import desk_document

    await admin.send("sites", "save", {"was": await admin.was("sites"), **SITE})
    await admin.versions.take_file(source(desk_document(sites=("gz",)), tmp_path))
    await admin.get(PATH)
    assert "has replaced what was edited here" in admin.words
    assert f"{PATH}/versions/3?with=2" in admin.html


async def test_without_a_version_the_remedy_is_shown(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    async with administered(database, clock, tmp_path, loaded=False) as admin:
        assert await admin.get(PATH) == 200
        assert "contactd load /etc/contactd/desk.toml" in admin.words
        assert await admin.get("/desk/duty") == 200
        for path in (f"{PATH}/desk/sites", f"{PATH}/text", f"{PATH}/desk/shifts/new"):
            assert await admin.get(path) == 303
            assert admin.location == PATH


# To whom


@pytest.mark.parametrize("role", [*Role])
async def test_the_rota_is_for_planners_and_the_rest_for_administrators(
    admin: Admin, role: Role
) -> None:
    plans, administers = role in PLANNING, role in ADMINISTERING
    assert (await admin.get(PATH, f"cd_{role}") == 200) == (plans or administers)
    assert (await admin.get(f"{PATH}/desk/shifts/new", f"cd_{role}") == 200) == plans
    for page in ("/desk/sites", "/text", "/versions/1", "/letters", "/prompts", "/holidays"):
        assert (await admin.get(f"{PATH}{page}", f"cd_{role}") == 200) == administers, page
    sent = {"was": await admin.was("sites"), **SITE}
    assert (await admin.send("sites", "save", sent, f"cd_{role}") == 303) == administers
    sent = {"was": await admin.was("shifts"), **SHIFT, "engineer": "li"}
    assert (await admin.send("shifts", "save", sent, f"cd_{role}") == 303) == plans


async def test_who_plans_for_some_sites_changes_nothing_elsewhere(admin: Admin) -> None:
    admin.user("gz", Role.SUPERVISOR, sites=["gz"])
    sent = {"was": await admin.was("shifts", 2), "engineer": "li", "tier": "1", "site": "sz",
            "start": "00:00", "end": "24:00", "days": SHIFT["days"]}  # fmt: skip
    assert await admin.send("shifts", "save", sent, "gz") == 409
    assert "not yours: sz" in admin.words
    ours = {"was": await admin.was("shifts"), **SHIFT, "engineer": "li"}
    assert await admin.send("shifts", "save", ours, "gz") == 303


async def test_letters_are_edited_shown_and_refused_when_wrong(admin: Admin) -> None:
    path = f"{PATH}/letters/solved/zh"
    await admin.get(path)
    was = admin.html.partition('name="was" value="')[2].partition('"')[0]
    assert await admin.post(path, do="save", was=was, sentence="好了") == 422
    assert "{ticket} is missing" in admin.words
    assert await admin.post(path, do="preview", was=was, sentence="{ticket}好了") == 200
    assert "26112200172好了" in admin.words
    assert await admin.post(path, do="save", was=was, sentence="{ticket}好了") == 303
    assert await admin.post(path, do="save", was=was, sentence="{ticket}行了") == 409
    assert "{ticket}行了" in admin.html


async def test_a_prompt_is_played_if_its_file_is_there(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "zh" / "contactd").mkdir(parents=True)
    (tmp_path / "zh" / "contactd" / "welcome.wav").write_bytes(b"RIFF")
    await admin.get(f"{PATH}/prompts")
    assert admin.html.count("<audio") == 1
    assert await admin.get(f"{PATH}/prompts/zh/contactd/welcome") == 200
    assert await admin.get(f"{PATH}/prompts/en/contactd/welcome") == 404
    assert await admin.get(f"{PATH}/prompts/zh/contactd/..%2f..%2fx") == 404
