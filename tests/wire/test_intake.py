"""Filing a call once, however many messengers bring it at the same time."""

import asyncio

import pytest

from contactd.errors import TemporaryFailure
from contactd.telephony import intake as intake_module
from contactd.telephony.intake import Intake
from contactd.tickets.contact import Contact, Filed, Medium
from tests.fakes.clock import FakeClock


class Office:
    """Files a contact when it is let; `failure` is raised instead."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.open = asyncio.Event()
        self.failure: Exception | None = None

    async def receive(self, contact: Contact) -> Filed:
        self.received.append(contact.external_id)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return filed(len(self.received))


def filed(number: int) -> Filed:
    return Filed(
        contact_id=number, ticket_id=number, ticket=str(number), new_contact=True, opened=True,
        joined=False, open_ticket="", person_id=1, vip=False, language="zh", site="", queue="",
    )  # fmt: skip


def call(number: int = 1) -> Contact:
    return Contact(
        medium=Medium.CALL, external_id=f"pbx1-1.{number}", received_at=FakeClock().now()
    )


async def under_way(office: Office, count: int = 1) -> None:
    while len(office.received) < count:
        await asyncio.sleep(0)


async def test_who_comes_second_waits_for_the_first_and_gets_its_answer() -> None:
    office = Office()
    intake = Intake(office.receive)
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(intake.file(call())) for _ in range(5)]
        await under_way(office)
        office.open.set()
    assert [task.result() for task in answers] == [filed(1)] * 5
    assert await intake.file(call()) == filed(1)
    assert office.received == ["pbx1-1.1"]


async def test_calls_do_not_wait_for_each_other() -> None:
    office = Office()
    intake = Intake(office.receive)
    async with asyncio.TaskGroup() as tasks:
        for number in (1, 2):
            tasks.create_task(intake.file(call(number)))
        await under_way(office, 2)
        office.open.set()


async def test_a_failure_reaches_everybody_who_waits_and_is_not_remembered() -> None:
    office = Office()
    office.failure = TemporaryFailure("the database is away")
    intake = Intake(office.receive)
    first, second = (asyncio.ensure_future(intake.file(call())) for _ in range(2))
    await under_way(office)
    office.open.set()
    for waiting in (first, second):
        with pytest.raises(TemporaryFailure, match="the database is away"):
            await waiting
    office.failure = None
    assert await intake.file(call()) == filed(2)


async def test_who_waits_is_not_cancelled_with_the_one_who_files() -> None:
    office = Office()
    intake = Intake(office.receive)
    first = asyncio.ensure_future(intake.file(call()))
    await under_way(office)
    second = asyncio.ensure_future(intake.file(call()))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(TemporaryFailure, match="cancelled"):
        await second


async def test_who_files_is_not_cancelled_with_the_one_who_waits() -> None:
    office = Office()
    intake = Intake(office.receive)
    first = asyncio.ensure_future(intake.file(call()))
    await under_way(office)
    second = asyncio.ensure_future(intake.file(call()))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    office.open.set()
    assert await first == filed(1)


async def test_only_so_many_calls_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "REMEMBERED", 2)
    office = Office()
    office.open.set()
    intake = Intake(office.receive)
    for number in (1, 2, 3, 2, 3, 1):
        await intake.file(call(number))
    assert office.received == ["pbx1-1.1", "pbx1-1.2", "pbx1-1.3", "pbx1-1.1"]
