"""The commands that look or load and end, on both databases: what they print, and exit codes."""

import asyncio
import io
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from sqlalchemy import text

from contactd.__main__ import main
from contactd.clock import SystemClock
from contactd.lab.daemon import toml
from contactd.routing import deskfile
from contactd.store.accounts import Accounts, Identity
from contactd.store.engine import Database
from contactd.store.ledger import Ledger, LedgerDay
from contactd.tickets.contact import CallFacts, Contact, Filed, Leg, Medium, Outcome, Source
from contactd.tickets.model import TicketPolicy
from contactd.tickets.people import Role
from contactd.tickets.service import TicketService
from contactd.tickets.states import Action
from tests.fakes import config
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk
from tests.fakes.records import Recorder
from tests.fakes.rota import FROM_GZ, FROM_SZ, desk_document

T = TypeVar("T")

ZONE = "Asia/Shanghai"
DAY = "2025-01-15"
MORNING = datetime(2025, 1, 15, 2, tzinfo=UTC)  # ten o'clock in Shanghai, a Wednesday


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Shell:
    """Runs commands with one configuration."""

    def __init__(self, folder: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = database_url
        self.folder = folder
        self.sections = config.document(folder, database_url=database_url)
        self.desk_file = folder / "desk.toml"
        self._path = config.write(folder, self.sections)
        self._capsys = capsys
        self.complaint = ""

    def run(self, *arguments: str, code: int = os.EX_OK) -> str:
        """Return what the command prints; `complaint` is what it says to stderr."""
        found = main([*arguments, "-c", str(self._path)])
        printed = self._capsys.readouterr()
        self.complaint = printed.err
        assert found == code, printed.err
        return printed.out

    def loaded(self) -> str:
        return self.run("load", str(self.desk_file))

    def do(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """Do something to the database between two commands."""

        async def run() -> T:
            database = Database(self.url)
            async with database.running():
                return await work(database)

        return asyncio.run(run())

    def called(self, *, source: Source = Source.LIVE, call_id: str = "pbx1-1736906400.0") -> Filed:
        async def call(database: Database) -> Filed:
            tickets = TicketService(database.new_work, SystemClock(), TicketPolicy())
            facts = CallFacts(
                pbx="pbx1", did="4008001234", final=True, stage="queue",
                answered_at=MORNING + timedelta(seconds=9),
                ended_at=MORNING + timedelta(seconds=69),
                waited=timedelta(seconds=9), talked=timedelta(seconds=60),
                legs=(Leg(engineer="wang", answered_at=MORNING + timedelta(seconds=9)),),
            )  # fmt: skip
            return await tickets.receive(
                Contact(
                    medium=Medium.CALL, external_id=call_id, received_at=MORNING, source=source,
                    from_value=FROM_GZ, to_value="4008001234", outcome=Outcome.ANSWERED, call=facts,
                )
            )  # fmt: skip

        return self.do(call)

    def recorded(self, calls: int = 1) -> None:
        """Let the PBX have calls of that morning in its records, and one of the day before."""
        before = Recorder(now=(MORNING - timedelta(days=1)).timestamp())
        before.in_menu()
        records = Recorder(now=MORNING.timestamp())
        for _ in range(calls):
            records.in_menu()
        (self.folder / "pbx" / "cel.csv").write_bytes(before.cel + records.cel)

    def settled(self, outside: Mapping[str, datetime], *, now: datetime) -> LedgerDay:
        """Balance that day as the daemon did then."""
        clock = FakeClock()
        clock.advance(now - clock.now())
        return self.do(
            lambda database: Ledger(database, clock, ZONE).settle(MORNING.date(), "pbx1", outside)
        )


@pytest.fixture
def shell(tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, database_url, capsys)


# load


def test_loading_says_what_there_is_and_what_is_wrong_with_the_rota(shell: Shell) -> None:
    lines = shell.loaded().splitlines()
    assert lines[0] == "loaded 3 sites, 4 engineers, 1 people, 4 entries of the rota"
    assert lines[1] == "warning: site zh: nobody is on duty at any time; its floor number rings"
    assert len(lines) == 2


def test_loading_twice_is_harmless(shell: Shell) -> None:
    assert shell.loaded() == shell.loaded()
    assert len(re.findall(r"(?m)^  tier", shell.run("oncall", "--site", "gz"))) == 2


def test_a_desk_file_that_is_wrong_is_not_loaded(shell: Shell) -> None:
    shell.loaded()
    document = desk_document()
    document["shifts"][0]["engineer"] = "nobody"
    wrong = shell.folder / "wrong.toml"
    wrong.write_text(toml(document), encoding="utf-8")
    shell.run("load", str(wrong), code=os.EX_CONFIG)
    assert "nobody" in shell.complaint
    shell.run("load", str(shell.folder / "absent.toml"), code=os.EX_CONFIG)
    assert "absent.toml" in shell.complaint
    assert "王伟" in shell.run("oncall")


# oncall


def test_oncall_says_who_until_when_and_why(shell: Shell) -> None:
    shell.loaded()
    printed = shell.run("oncall", "--at", "2026-11-20T10:00")
    assert "gz  广州 / gz  2026-11-20 10:00:00" in printed
    line = "  tier 1  王伟 (wang)  +8613800000001  until 2026-11-21 00:00:00, by shift wang-gz\n"
    assert line in printed
    assert "  tier 2  李娜 (li)  +8613800000002" in printed
    assert "  floor   floor (floor)  +8613800000090" in printed
    titles = [line[:2] for line in printed.splitlines() if line[0] != " "]
    assert titles[:3] == ["gz", "sz", "zh"]


NOT_STORED = "worked out now from the rota in force: duty of that time is not stored\n"


@pytest.mark.parametrize(("days", "stored"), [(0, True), (40, True), (70, False), (-70, False)])
def test_oncall_says_when_duty_is_not_stored(shell: Shell, days: int, stored: bool) -> None:
    shell.loaded()
    at = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    printed = shell.run("oncall", "--at", at)
    assert "王伟" in printed
    assert printed.endswith(NOT_STORED) is not stored


def test_oncall_of_an_instant_too_far_away_is_refused(shell: Shell) -> None:
    shell.loaded()
    shell.run("oncall", "--at", "9999-12-31", code=os.EX_DATAERR)
    assert "five years" in shell.complaint


def on_leave(shell: Shell, **away: str) -> str:
    """Return who is on duty at gz on a day on which these are away, each with a backup."""
    text = toml(desk_document())
    for engineer, backup in away.items():
        named = f'backup = "{backup}"\n' if backup else ""
        text += f'\n[[leaves]]\nengineer = "{engineer}"\nfirst = 2026-11-20\n{named}'
    shell.desk_file.write_text(text, encoding="utf-8")
    shell.run("load", str(shell.desk_file))
    return shell.run("oncall", "--at", "2026-11-20T10:00", "--site", "gz")


def test_oncall_names_who_is_stood_in_for(shell: Shell) -> None:
    printed = on_leave(shell, wang="chen")
    assert "  tier 1  陈静 (chen)  +8613800000003  until 2026-11-21 00:00:00," in printed
    assert " by shift wang-gz, then leave wang-20261120 instead of wang\n" in printed


def test_oncall_names_the_times_without_anybody(shell: Shell) -> None:
    printed = on_leave(shell, wang="", li="", chen="", james="")
    assert "  floor   floor (floor)  +8613800000090" in printed
    assert (
        "  gz tier 1: nobody instead of wang, 2026-11-20 00:00–2026-11-21 00:00,"
        " by shift wang-gz, then leave wang-20261120\n"
    ) in printed


def test_oncall_of_one_site_and_of_an_instant_with_offset(shell: Shell) -> None:
    shell.loaded()
    printed = shell.run("oncall", "--site", "sz", "--at", "2026-11-20T02:00:00+00:00")
    assert printed.startswith("sz  深圳 / sz  2026-11-20 10:00:00\n")
    assert "王伟" not in printed


def test_oncall_without_a_rota_names_the_remedy(shell: Shell) -> None:
    assert shell.run("oncall", code=os.EX_CONFIG) == ""
    assert shell.complaint == "no rota is loaded: contactd load FILE\n"


def test_oncall_of_a_site_that_is_not_there_names_those_that_are(shell: Shell) -> None:
    shell.loaded()
    shell.run("oncall", "--site", "bj", code=os.EX_DATAERR)
    assert shell.complaint == "contactd: there is no site 'bj'; there are: gz, sz, zh\n"


# ledger


def test_a_balanced_day(shell: Shell) -> None:
    shell.recorded()
    shell.called(source=Source.REPLAY)
    printed = shell.run("ledger", "--day", DAY)
    assert printed.splitlines() == [
        f"{DAY}  pbx1  was never balanced",
        f"{DAY}  pbx1  call: 1 in the PBX's CEL, 1 contacts, 1 repaired: balanced",
        "  repaired: pbx1-1736906400.0",
    ]


def test_a_difference_is_told_call_by_call_and_by_the_exit_code(shell: Shell) -> None:
    shell.recorded(calls=2)
    shell.called(call_id="pbx1-1736906400.0")
    shell.called(call_id="pbx1-1736906400.99")
    lines = shell.run("ledger", "--day", DAY, code=1).splitlines()[1:]
    assert lines[0].endswith("2 in the PBX's CEL, 2 contacts, 0 repaired: DIFFERENCE")
    assert lines[1].startswith("  missing here: pbx1-17369064")
    assert lines[2] == "  unknown there: pbx1-1736906400.99"


def test_a_day_without_calls_and_today_are_balanced(shell: Shell) -> None:
    shell.recorded()
    assert "0 in the PBX's CEL, 0 contacts" in shell.run("ledger", "--day", "2025-01-16")
    assert shell.run("ledger").rstrip().endswith("balanced")


def test_an_old_day_keeps_what_was_found_when_its_records_were_there(shell: Shell) -> None:
    filed = shell.called(call_id="pbx1-1736906400.0")
    assert filed.opened
    shell.settled({"pbx1-1736906400.0": MORNING}, now=MORNING + timedelta(hours=1))
    as_found = (
        f"{DAY}  pbx1  call: 1 in the PBX's CEL, 1 contacts, 0 repaired: balanced, "
        "as found 2025-01-15 11:00:00"
    )
    for _ in range(2):  # looking changes nothing
        assert shell.run("ledger", "--day", DAY).splitlines() == [
            as_found,
            "  the PBX's records of the whole day are no longer kept",
        ]
    shell.recorded(calls=2)
    for _ in range(2):
        lines = shell.run("ledger", "--day", DAY, code=1).splitlines()
        assert lines[0] == as_found
        assert lines[1].endswith("2 in the PBX's CEL, 1 contacts, 0 repaired: DIFFERENCE")


def test_a_day_of_which_nothing_is_known_is_not_balanced(shell: Shell) -> None:
    assert shell.run("ledger", "--day", DAY, code=1).splitlines() == [
        f"{DAY}  pbx1  was never balanced",
        "  the PBX's records of the whole day are no longer kept",
    ]


# explain


def test_explain_tells_the_whole_story_of_a_ticket(shell: Shell) -> None:
    shell.loaded()
    filed = shell.called()
    lines = shell.run("explain", filed.ticket).splitlines()
    assert re.match(rf"{filed.ticket}  in_progress  P3 \(.+\)  site gz  engineer wang", lines[0])
    assert lines[1] == (
        "  2025-01-15 10:00:00  call pbx1-1736906400.0: answered, waited 9 s, talked 60 s, wang"
    )
    actions = [re.split(r" {2,}", line.strip())[3] for line in lines[2:6]]
    assert actions == ["opened", "call.answered", "acknowledged", "call.ended"]
    assert lines[6:] == [
        "  clock answer: stopped, 0:00:09 of 0:30:00, due 2025-01-15 10:30:00",
        "      2025-01-15 10:00:00 – 2025-01-15 10:00:09  runs: contact_received (entry 1),"
        " 0:00:09 counted by always",
        "  journal: whole",
    ]


def test_explain_says_who_was_told_and_what_was_written(shell: Shell) -> None:
    """What strangers wrote cannot write anywhere else on an operator's terminal."""

    async def two_hours() -> str:
        clock = FakeClock(datetime.now(UTC) - timedelta(hours=3))
        database = Database(shell.url, clock=clock)
        async with database.running():
            desk = Desk(database, clock)
            await desk.load_file(deskfile.read(shell.desk_file))
            ticket = await desk.write(FROM_SZ, text="打印机\x1b[2J坏了\nHelp!")
            await desk.fast_forward(timedelta(hours=2))
            await desk.press("chen", "4")
            note = "备件\n\x1b]0;owned\x07明天到"
            await desk.tickets.act(ticket, Action.HOLD, actor="engineer:chen", note=note)
            await desk.tickets.assign_team(ticket, "field", actor="user:amy")
        return ticket

    printed = shell.run("explain", asyncio.run(two_hours()))
    lines = printed.splitlines()
    assert lines[1] == "  team field; 打印机 [2J坏了 Help!"
    assert not set(printed) & {"\x1b", "\x07"}
    said = [re.split(r" {2,}", line.strip(), maxsplit=4)[2:] for line in lines]
    assert ["system", "escalation.told", "people chen; step 0; round 1; generation 1"] in said
    assert ["engineer:chen", "on_my_way"] in said
    assert ["engineer:chen", "held", "note 备件 ]0;owned 明天到"] in said
    assert re.search(r"clock\.breached  metric answer; .*at \d{4}-\d\d-\d\d [\d:]{8}; .*", printed)
    assert "; goal 0:30:00; calendar always; warnings 50, 75, 90; pausable no\n" in printed
    # The floor is told every five minutes in the end: one line says so.
    place = next(n for n, line in enumerate(lines) if "more like it" in line)
    assert re.fullmatch(r" {7}… \d+ more like it …", lines[place])
    assert all("people floor; step 6; " in lines[near] for near in (place - 1, place + 1))
    assert sum("people floor; step 6; " in line for line in lines) == 2
    assert re.search(r"(?m)^  call to floor \(new\): \w+ \d\d times, last [\d-]{10} ", printed)
    assert re.search(r"(?m)^  call to chen \(new\): taken [\d-]{10} [\d:]{8}$", printed)


def test_explain_finds_a_journal_that_somebody_changed(shell: Shell) -> None:
    filed = shell.called()

    async def tamper(database: Database) -> None:
        async with database.writing() as connection:
            if database.dialect == "sqlite":
                await connection.execute(text("DROP TRIGGER journal_refuses_update"))
            else:
                await connection.execute(text("ALTER TABLE journal DISABLE TRIGGER ALL"))
            await connection.execute(text("UPDATE journal SET actor = 'user:li' WHERE seq = 2"))

    shell.do(tamper)
    printed = shell.run("explain", filed.ticket, code=os.EX_DATAERR)
    assert "journal: BROKEN: " in printed


def test_explain_of_an_unknown_ticket(shell: Shell) -> None:
    shell.run("explain", "26112000019", code=os.EX_DATAERR)
    assert shell.complaint.startswith("contactd: ")


# token, user


def test_a_new_token_is_printed_alone_and_opens_the_api(shell: Shell) -> None:
    secret = shell.run("token", "create", "--name", "oa", "--role", "manager").strip()
    assert re.fullmatch(r"cd_[\w-]{43}", secret)
    found = shell.do(lambda database: Accounts(database, SystemClock()).find_token(secret))
    assert found == Identity(name="oa", role=Role.MANAGER)
    shell.run("token", "create", "--name", "oa", "--role", "manager", code=os.EX_DATAERR)
    assert "there is a token 'oa'" in shell.complaint


def test_tokens_are_listed_without_their_secrets_and_revoked(shell: Shell) -> None:
    secret = shell.run("token", "create", "--name", "oa", "--role", "manager").strip()
    shell.run("token", "create", "--name", "bi", "--role", "desk")
    first, second = shell.run("token", "list").splitlines()
    assert re.fullmatch(r"bi  desk  created [\d-]{10} [\d:]{8}", first)
    assert re.fullmatch(r"oa  manager  created [\d-]{10} [\d:]{8}", second)
    assert shell.run("token", "revoke", "--name", "oa") == "token oa is revoked\n"
    found = shell.do(lambda database: Accounts(database, SystemClock()).find_token(secret))
    assert found is None
    assert re.search(r"(?m)^oa .+  revoked [\d-]{10} [\d:]{8}$", shell.run("token", "list"))
    shell.run("token", "revoke", "--name", "oa", code=os.EX_DATAERR)
    assert shell.complaint == "contactd: there is no token 'oa' in use\n"


def test_a_user_is_added_with_the_password_from_standard_input(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    printed = shell.run("user", "add", "--name", "li", "--role", "supervisor")
    assert printed == "user li may log in as supervisor\n"
    accounts = shell.do(
        lambda database: Accounts(database, SystemClock()).check_password("li", "correct horse")
    )
    assert accounts == Identity(name="li", role=Role.SUPERVISOR)
    assert shell.run("user", "remove", "--name", "li") == "user li may no longer log in\n"
    shell.run("user", "remove", "--name", "li", code=os.EX_DATAERR)
    assert shell.complaint == "contactd: there is no user 'li'\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    shell.run("user", "add", "--name", "li", "--role", "desk", code=os.EX_DATAERR)
    assert shell.complaint == "contactd: a password has at least 8 characters\n"


# letter


def test_a_letter_is_shown_in_the_words_that_are_configured(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("letter", "solved").startswith("Subject: [26112200172]")
    assert "<html" in shell.run("letter", "new", "--language", "en", "--html")
    words = tmp_path / "letters.toml"
    words.write_text('[solved.zh]\nsentence = "工单{ticket}好了。"\n', encoding="utf-8")
    shell.sections["mail"] = {"letters_file": str(words)}
    config.write(tmp_path, shell.sections)
    assert "工单26112200172好了。" in shell.run("letter", "solved")
    words.write_text('[solved.zh]\nsentence = "{nothing}"\n', encoding="utf-8")
    shell.run("letter", "solved", code=os.EX_CONFIG)
    assert "mail.letters_file" in shell.complaint


# migrate, and what goes wrong with all of them


def test_migrating_is_harmless_twice(shell: Shell) -> None:
    for _ in range(2):
        assert shell.run("migrate") == "the database has this version's schema\n"


def test_a_database_without_tables_is_made_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path, f"sqlite:///{tmp_path}/new/contactd.sqlite3", capsys)
    for migrates in (True, False):  # at the start of the daemon: who only looks never does
        shell.sections["database"]["migrate_on_start"] = migrates
        config.write(tmp_path, shell.sections)
        for words in (["oncall"], ["ledger"], ["explain", "26112000018"]):
            shell.run(*words, code=os.EX_CONFIG)
            assert "run `contactd migrate`" in shell.complaint
    shell.run("migrate")
    shell.run("oncall", code=os.EX_CONFIG)
    assert "no rota is loaded" in shell.complaint


def test_a_configuration_that_is_not_there_is_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["oncall", "-c", "/nowhere/contactd.toml"]) == os.EX_CONFIG
    assert "/nowhere/contactd.toml: cannot be read" in capsys.readouterr().err


def test_wrong_arguments_are_refused_before_anything_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (
        [],
        ["nonsense"],
        ["ledger", "--day", "yesterday"],
        ["oncall", "--at", "noon"],
        ["token", "create", "--name", "x", "--role", "king"],
        ["explain"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "usage: contactd" in capsys.readouterr().err
