"""`contactd calendar`, and what `contactd explain` says of contracts, on both databases."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from contactd.clock import SystemClock
from contactd.routing.calendars import HolidayData, read_calendar_data
from contactd.routing.deskfile import parse
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.tickets.contact import Contact, Medium
from contactd.tickets.model import TicketPolicy
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from tests.fakes.clock import FakeClock
from tests.fakes.rota import FROM_GZ, desk_document
from tests.wire.test_commands import Shell

OPENED_AT = datetime(2026, 12, 25, 4, tzinfo=UTC)  # Friday noon in Shanghai
YEAR = """
confirmed_through = {year}-12-31
[[year]]
year = {year}
sources = ["https://example.com/{year}"]
holidays = [{{ name = "元旦", first = {year}-01-01 }}]
working = []
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def shell(tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, database_url, capsys)


def document(**parts: Any) -> dict[str, Any]:
    known = desk_document()
    known["sites"][0] |= {"contract": "gold", "calendar": "office"}
    known["calendars"] = [
        {"key": "office", "weekly": {"mon-fri": ["09:00-18:00"]}, "holidays": "cn"}
    ]
    known["contracts"] = [{"key": "gold", "promises": {"all": {"resolution": "36h"}}}]
    return known | parts


def opened(shell: Shell) -> str:
    """Load the desk and let somebody in Guangzhou call; return the ticket's number."""

    async def open_ticket(database: Database) -> str:
        clock = FakeClock(OPENED_AT)
        await load_desk(database, parse(document(holidays=YEAR.format(year=2026))), clock)
        tickets = TicketService(database.new_work, clock, TicketPolicy())
        filed = await tickets.receive(
            Contact(
                medium=Medium.CALL,
                external_id="pbx1-1.0",
                received_at=clock.now(),
                from_value=FROM_GZ,
            )
        )
        await tickets.act(filed.ticket, Action.ACKNOWLEDGE, actor="engineer:wang")
        return filed.ticket

    return shell.do(open_ticket)


def holiday_file(shell: Shell, text: str) -> str:
    path = shell.folder / "cn.toml"
    path.write_text(text)
    return str(path)


def test_explain_shows_the_contract_s_clock_by_the_site_s_hours(shell: Shell) -> None:
    printed = shell.run("explain", opened(shell))
    assert "contract gold.1; calendar office.1" in printed
    # Six hours on Friday, nine on Monday, Tuesday and Wednesday, three on Thursday.
    assert ", due 2026-12-31 12:00:00\n" in printed
    assert " counted by office\n" in printed


def test_a_file_is_only_looked_at_unless_it_is_said_to_apply_it(shell: Shell) -> None:
    number = opened(shell)
    text = YEAR.format(year=2027).replace("working = []", "working = [2026-12-26]")
    file = holiday_file(shell, text)
    expected = [
        "public holidays are settled through 2027-12-31",
        f"  {number}  resolution  2026-12-31 12:00:00 -> 2026-12-30 12:00:00",
        "1 deadlines change",
    ]
    printed = shell.run("calendar", "import", file).splitlines()
    assert printed[:3] == expected
    assert printed[3] == "nothing was stored: add --apply to import it"
    assert shell.run("calendar", "import", file).splitlines() == printed

    applied = shell.run("calendar", "import", file, "--apply").splitlines()
    assert applied == [*expected, "imported; 1 open tickets are computed anew"]
    assert ", due 2026-12-30 12:00:00" in shell.run("explain", number)
    assert "0 deadlines change" in shell.run("calendar", "import", file)


def test_a_deadline_beyond_what_is_settled_is_marked_everywhere(shell: Shell) -> None:
    number = opened(shell)
    soon = YEAR.format(year=2026).replace("= 2026-12-31", "= 2026-12-30")
    shell.run("calendar", "import", holiday_file(shell, soon), "--apply")
    assert ", due 2026-12-31 12:00:00 (provisional)\n" in shell.run("explain", number)
    lines = shell.run("calendar", "status", code=1).splitlines()
    assert lines[1:3] == [
        f"  {number}  resolution  2026-12-31 12:00:00 (provisional)",
        "1 deadlines are provisional",
    ]


def test_the_status_says_what_is_settled_and_warns_when_a_file_is_missing(shell: Shell) -> None:
    assert shell.run("calendar", "status").splitlines() == [
        "no public holidays were imported",
        "0 deadlines are provisional",
    ]
    opened(shell)
    this_year = SystemClock().now().year
    shell.run(
        *("calendar", "import", holiday_file(shell, YEAR.format(year=this_year - 1)), "--apply")
    )
    lines = shell.run("calendar", "status", code=1).splitlines()
    through = f"public holidays are settled through {this_year - 1}-12-31"
    assert lines[0].startswith(f"{through}, imported ")
    assert lines[-1].startswith("warning: ")
    assert lines[-1].endswith(f"{through} only; import the file of the next year: "
                              "contactd calendar import FILE")  # fmt: skip
    shell.run(
        *("calendar", "import", holiday_file(shell, YEAR.format(year=this_year + 1)), "--apply")
    )
    assert "warning" not in shell.run("calendar", "status")


def test_a_file_that_cannot_be_used_is_refused(shell: Shell) -> None:
    opened(shell)
    for file in (str(shell.folder / "none.toml"), holiday_file(shell, "confirmed_through = 3")):
        shell.run("calendar", "import", file, "--apply", code=os.EX_CONFIG)
        assert "contactd: the configuration is wrong:" in shell.complaint
    (shell.folder / "cn.toml").write_bytes(b"\xff\xfe")
    shell.run("calendar", "import", str(shell.folder / "cn.toml"), code=os.EX_CONFIG)
    assert "not UTF-8" in shell.complaint


def test_the_file_of_the_tests_is_one() -> None:
    found = read_calendar_data(YEAR.format(year=2027))
    assert isinstance(found, HolidayData)
    assert found.confirmed_through - date(2027, 1, 1) == timedelta(days=364)
