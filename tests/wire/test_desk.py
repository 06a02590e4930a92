"""Loading the desk file into both databases, once and again."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select

from contactd.routing.deskfile import DeskFile, parse, read
from contactd.routing.oncall import on_duty
from contactd.store import duty
from contactd.store.desk import Loaded, load_desk
from contactd.store.engine import Database
from contactd.store.schema import addresses, people, rotas, sites
from contactd.store.views import PersonView, Views
from contactd.tickets.contact import Contact, Filed, Medium
from contactd.tickets.service import TicketService
from tests.fakes.clock import FakeClock

SAMPLE = Path(__file__).parents[2] / "etc" / "desk.toml"


def desk(*persons: dict[str, Any], **parts: Any) -> DeskFile:
    site = {"key": "gz", "name_zh": "广州", "name_en": "Guangzhou", "floor": "8000"}
    wang = {"key": "wang", "name": "王伟", "number": "13800000001"}
    shift = {"site": "gz", "tier": 1, "engineer": "wang", "start": "00:00", "end": "24:00"}
    return parse(
        {"sites": [site], "engineers": [wang], "shifts": [shift], "people": list(persons)} | parts
    )


def person(key: str, *numbers: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "name": key.title(), "numbers": list(numbers), **more}


async def everything(database: Database) -> dict[str, list[Any]]:
    async with database.reading() as connection:

        async def all_of(table: Table) -> list[Any]:
            found = await connection.execute(select(table).order_by(*table.primary_key.columns))
            return [tuple(row) for row in found]

        return {table.name: await all_of(table) for table in (sites, people, addresses, rotas)}


async def known(database: Database, clock: FakeClock) -> dict[str, PersonView]:
    return {each.key: each for each in await Views(database, clock).people() if each.key}


async def call(tickets: TicketService, number: str, clock: FakeClock) -> Filed:
    return await tickets.receive(
        Contact(
            medium=Medium.CALL,
            external_id=f"pbx1-{number}-{clock.now().timestamp()}",
            received_at=clock.now(),
            from_value=number,
        )
    )


async def test_the_sample_comes_back_as_it_was_written(
    database: Database, clock: FakeClock
) -> None:
    sample = read(SAMPLE)
    loaded = await load_desk(database, sample, clock)
    assert loaded == Loaded(sites=5, engineers=14, people=6, rota=12, changed=True)
    async with database.reading() as connection:
        assert await duty.plan(connection) == sample.plan()
    views = Views(database, clock)
    assert [site.key for site in await views.sites()] == ["fs", "gz", "sz", "zh", "zq"]
    found = await known(database, clock)
    assert found["ceo"].vip
    assert found["ceo"].numbers == ("+8613900000001", "+862038880001", "+8613600000001")
    assert found["ceo"].mails == ("liang@example.com",)
    assert (found["wang"].role, found["ceo"].role) == ("engineer", "requester")


async def test_loading_the_same_file_again_changes_nothing(
    database: Database, clock: FakeClock
) -> None:
    sample = read(SAMPLE)
    await load_desk(database, sample, clock)
    before = await everything(database)
    clock.advance(timedelta(days=1))
    assert not (await load_desk(database, sample, clock)).changed
    assert await everything(database) == before


async def test_before_the_first_load_the_rota_is_empty(
    database: Database, clock: FakeClock
) -> None:
    found = await duty.duties(database, clock)
    assert (found.sites, found.engineers) == ((), ())


async def test_what_changed_in_the_file_changes_in_the_database(
    database: Database, clock: FakeClock
) -> None:
    await load_desk(database, desk(person("zhang", "13900000011", "8011")), clock)
    moved = {"key": "gz", "name_zh": "广州", "name_en": "Canton", "floor": "8009"}
    engineers = [{"key": "wang", "name": "王伟", "number": "8001"}]
    loaded = await load_desk(
        database,
        desk(person("zhang", "8011", vip=True), sites=[moved], engineers=engineers),
        clock,
    )
    assert loaded.changed
    found = await known(database, clock)
    assert (found["zhang"].numbers, found["zhang"].vip) == (("8011",), True)
    assert found["wang"].numbers == ("8001",)
    (there,) = on_duty(await duty.duties(database, clock), "gz", clock.now())
    assert there.engineer.number == "8001"
    assert (await Views(database, clock).sites())[0].name_en == "Canton"


async def test_a_number_can_go_from_one_person_to_another(
    database: Database, clock: FakeClock
) -> None:
    await load_desk(database, desk(person("zhang", "8011"), person("li", "8012")), clock)
    await load_desk(database, desk(person("zhang", "8012"), person("li", "8011")), clock)
    found = await known(database, clock)
    assert (found["zhang"].numbers, found["li"].numbers) == (("8012",), ("8011",))


async def test_who_is_no_longer_in_the_file_stays_but_is_not_on_duty(
    database: Database, clock: FakeClock, tickets: TicketService
) -> None:
    await load_desk(database, desk(person("zhang", "13900000011")), clock)
    filed = await call(tickets, "13900000011", clock)
    site = {"key": "sz", "name_zh": "深圳", "name_en": "Shenzhen", "floor": "8000"}
    li = {"key": "li", "name": "李娜", "number": "13800000002"}
    shift = {"site": "sz", "tier": 1, "engineer": "li", "start": "00:00", "end": "24:00"}
    await load_desk(database, desk(sites=[site], engineers=[li], shifts=[shift]), clock)
    assert [each.key for each in (await duty.duties(database, clock)).engineers] == ["li"]
    detail = await Views(database, clock).ticket(filed.ticket)
    assert detail.requester.key == "zhang"
    assert set(await known(database, clock)) == {"wang", "zhang", "li"}


async def test_a_caller_who_was_only_a_number_becomes_the_person_of_the_file(
    database: Database, clock: FakeClock, tickets: TicketService
) -> None:
    filed = await call(tickets, "13900000011", clock)
    await load_desk(database, desk(person("zhang", "8011", "13900000011", site="gz")), clock)
    detail = await Views(database, clock).ticket(filed.ticket)
    assert (detail.requester.key, detail.requester.id) == ("zhang", filed.person_id)
    assert detail.requester.numbers == ("8011", "+8613900000011")
    again = await call(tickets, "8011", clock)
    assert (again.ticket, again.site) == (filed.ticket, "gz")


async def test_two_callers_who_turn_out_to_be_one_person_become_one_with_all_their_tickets(
    database: Database, clock: FakeClock, tickets: TicketService
) -> None:
    first = await call(tickets, "13900000011", clock)
    second = await call(tickets, "13900000012", clock)
    assert first.person_id != second.person_id
    await load_desk(database, desk(person("zhang", "13900000011", "13900000012")), clock)
    views = Views(database, clock)
    for filed in (first, second):
        detail = await views.ticket(filed.ticket)
        assert detail.requester.key == "zhang"
        assert {contact.person_id for contact in detail.contacts} == {detail.requester.id}
    assert len(await views.people()) == 2  # with the engineer


async def test_a_caller_is_merged_into_a_person_who_gets_another_number(
    database: Database, clock: FakeClock, tickets: TicketService
) -> None:
    await load_desk(database, desk(person("zhang", "8011")), clock)
    filed = await call(tickets, "13900000011", clock)
    await load_desk(database, desk(person("zhang", "8011", "13900000011")), clock)
    assert (await Views(database, clock).ticket(filed.ticket)).requester.key == "zhang"


async def test_a_failed_load_leaves_everything_as_it_was(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load_desk(database, desk(person("zhang", "8011")), clock)
    before = await everything(database)

    async def fail(*_: object) -> bool:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("contactd.store.desk._load_rota", fail)
    with pytest.raises(RuntimeError):
        await load_desk(database, desk(person("zhang", "8012"), person("li", "8011")), clock)
    assert await everything(database) == before


async def test_a_file_of_thousands_loads(database: Database, clock: FakeClock) -> None:
    many = [person(f"p{n}", f"139{n:08d}", f"+8620{38880000 + n}") for n in range(1, 2001)]
    await load_desk(database, desk(*many), clock)
    await load_desk(database, desk(*many), clock)
    found = await Views(database, clock).people(limit=5000)
    assert len(found) == 2001
    assert all(len(each.numbers) == 2 for each in found if each.role == "requester")
