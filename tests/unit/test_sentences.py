"""What the ticket's page says of journal entries: words for all there is, and none of them lost."""

import inspect
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from contactd.routing import clocks, closing, escalation, following, needs, promises
from contactd.routing.clocks import Kind, Metric, Row
from contactd.routing.notify import Reason, SendState
from contactd.store import remote
from contactd.tickets import dispatching, model
from contactd.tickets.contact import Medium, Outcome
from contactd.tickets.journal import Draft, Entry, chain
from contactd.tickets.model import Category
from contactd.tickets.priority import Impact, Urgency, priority
from contactd.web import words
from contactd.web.i18n import Clockwork, Language, catalogues
from contactd.web.sentences import Line, Teller, keys, length

AT = datetime(2026, 11, 20, 2, tzinfo=UTC)
TEXTS = catalogues()


def teller(language: Language = Language.EN) -> Teller:
    def say(text: str, **values: str) -> str:
        return TEXTS[language].gettext(text) % values

    times = Clockwork(language=language, zone=ZoneInfo("Asia/Shanghai"))
    return Teller(say=say, times=times, names={"wang": "王伟", "li": "李娜"}, now=AT)


def entry(action: str, actor: str = "system", **body: Any) -> Entry:
    draft = Draft(at=AT, actor=actor, action=action, state="new", body=body)
    return chain("26112000018", [draft], seq=0, prev_hash="")[0]


def line(action: str, actor: str = "system", **body: Any) -> Line:
    return teller().line(entry(action, actor, **body))


def actions() -> set[str]:
    """Return every action that the program writes, as its source has it."""
    written = re.compile(r'(?:write|draft|note)\((?:\w+, )*\s*(?:now, actor, )?"([a-z_.]+)"')
    found = set(promises._MEANING) | {promises.WARNED, promises.BREACHED, closing.ASKED}
    found |= {needs.HAND_OVER_DECLINED, "on_my_way", "ticket.separated"}
    found |= {"acknowledged", "assigned", "call.ended", "call.corrected"}
    found |= set(dispatching._DONE.values()) | set(model._DONE.values())
    for module in (following, model, dispatching):
        found |= set(written.findall(inspect.getsource(module)))
    of_remote = set(re.findall(r'"(remote\.[a-z_]+)"', inspect.getsource(remote)))
    found |= of_remote - {"remote.asked_user", "remote.timed_out"}  # these are on the log only
    recorded = re.findall(r'\.record\(\s*"(\w+)"', inspect.getsource(escalation))
    return found | {f"escalation.{each}" for each in recorded}


@pytest.mark.parametrize("action", sorted(actions()))
def test_every_action_has_words_even_of_an_empty_body(action: str) -> None:
    said = line(action)
    assert said.text != action
    assert "%" not in said.text.replace(" % of", "")


def test_the_actions_that_are_checked_are_those_there_are() -> None:
    found = actions()
    found_by_reading = {
        "team.assigned", "handed_over", "dispatch.code_refused", "hand_over.not_told",
        "classified", "escalation.told", "escalation.ignored", "remote.handed_over",
    }  # fmt: skip
    assert found_by_reading <= found


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        (words.ONE_OF, Medium), (words.OUTCOMES, Outcome), (words.CATEGORIES, Category),
        (words.IMPACTS, Impact), (words.URGENCIES, Urgency), (words.METRICS, Metric),
        (words.CLOCK_STATES, clocks.State), (words.REASONS, Reason), (words.SENT, SendState),
        (words.DISPATCHES, dispatching.State),
    ],
)  # fmt: skip
def test_every_value_has_a_word(table: Mapping[Any, str], kinds: type[Enum]) -> None:
    assert set(table) == set(kinds)


def test_every_reason_to_run_has_words() -> None:
    rules = clocks.RULES
    running = {
        kind.value
        for kind, rule in rules.items()
        if rule.starts or rule.reopens or rule.retargets or kind is Kind.RESUMED
    }
    assert set(words.RUNS) == running


@pytest.mark.parametrize(
    ("action", "actor", "body", "said"),
    [
        ("handed_over", "user:amy", {"engineer": "wang", "before": "li"},
         "Handed over from 李娜 to 王伟"),
        ("handed_over", "user:amy", {"engineer": "wang", "before": ""}, "Handed over to 王伟"),
        ("handed_over", "engineer:wang", {"engineer": "wang", "before": "li"},
         "Took the ticket over from 李娜"),
        ("acknowledged", "engineer:wang", {"engineer": "wang", "how": "page"},
         "Took the ticket when told"),
        ("acknowledged", "user:amy", {"engineer": "wang", "how": "web"},
         "王伟 took the ticket on the web"),
        ("acknowledged", "user:amy", {}, "Took the ticket"),
        ("team.assigned", "system", {"team": "field", "before": ""}, "Team field is responsible"),
        ("team.assigned", "system", {"team": "", "before": "field"}, "No team is responsible"),
        ("escalation.told", "system", {"people": ["wang", "floor"], "step": 0},
         "王伟, Floor number told (step 1)"),
        ("escalation.told", "system", {"people": [], "step": 3}, "Nobody to tell (step 4)"),
        ("clock.warned", "system", {"percent": 75, "metric": "remote"},
         "75 % of the time is spent: Remote help begins"),
        ("clock.breached", "system", {"metric": "of tomorrow"}, "Promise broken: of tomorrow"),
        ("dispatch.offered", "user:amy", {"dispatch": 2, "engineer": "gone"},
         "Dispatch 2 offered to gone"),
        ("remote.started", "user:wang", {"engineer": "王伟", "rights": ["view"]},
         "Remote session began: 王伟 sees the screen"),
        ("remote.started", "user:wang", {}, "Remote session began"),
        ("remote.rights", "requester", {"engineer": "王伟", "rights": ["control", "view", "x"]},
         "王伟 may now use keyboard and mouse, see the screen, x"),
        ("remote.rights", "requester", {"engineer": "王伟", "rights": []},
         "王伟 may do nothing now"),
        ("remote.declined", "requester", {"engineer": "王伟", "asked": "rights"},
         "Said no when 王伟 asked to do more"),
        ("remote.left", "user:wang", {"engineer": "王伟", "ending": "stopped"},
         "王伟 sees the screen no more: stopped by the user"),
        ("remote.file", "requester", {"name": "a.txt", "accepted": False}, "File a.txt: not taken"),
        ("priority.changed", "user:amy", {"before": "P3", "priority": "P1"},
         "Priority changed from P3 to P1"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_the_body_has(
    action: str, actor: str, body: dict[str, Any], said: str
) -> None:
    assert line(action, actor, **body).text == said


def test_who_wrote_it_is_named() -> None:
    actors = ("engineer:wang", "engineer:gone", "engineer:floor", "user:amy", "system", "requester")
    assert [teller().actor(actor) for actor in actors] == [
        "王伟", "gone", "Floor number", "amy", "contactd", "Requester"
    ]  # fmt: skip


def test_a_fact_that_was_noted_late_has_its_own_time() -> None:
    def noted(at: datetime) -> Line:
        return line("answered", "engineer:wang", how="call_back", answered_at=at.isoformat())

    assert noted(AT).details == ()
    assert noted(AT - timedelta(hours=1)).details == (("When it was", "20 Nov 09:00:00"),)


def test_details_are_what_the_sentence_leaves_out() -> None:
    said = line("dispatch.arrived", "engineer:wang", dispatch=1, engineer="wang", proved=False)
    assert (said.text, said.details) == ("Dispatch 1: arrived", (("Arrival code", "not told"),))
    held = line("held", "engineer:wang", note="100 % sure\nno part")
    assert (held.text, held.details, held.note) == ("Put on hold", (), "100 % sure\nno part")
    ended = line("call.ended", outcome="unreached", waited_s=95, reason="EXITWITHTIMEOUT")
    assert ended.details == (("Waited", "0:01:35"),)


@pytest.mark.parametrize("impact", [*Impact])
@pytest.mark.parametrize("vip", [True, False])
def test_the_reason_of_a_priority_is_in_words(impact: Impact, vip: bool) -> None:
    _, reason = priority(impact, Urgency.MEDIUM, vip=vip)
    said = teller(Language.ZH).reason(reason)
    assert said.startswith("影响范围：")
    assert ("重要客户" in said) == vip
    assert not re.search("[a-z]", said)


@pytest.mark.parametrize("reason", ["", "set by hand", "impact world, urgency high"])
def test_a_reason_nobody_knows_is_shown_as_it_is(reason: str) -> None:
    assert teller().reason(reason) == reason


def test_what_says_the_same_again_and_again_is_one_group() -> None:
    told = [line_entry(n) for n in range(1, 6)]
    other = [entry("resolved"), entry("reopened"), entry("resolved")]
    groups = teller().lines([*told, *other, *told[:3]])
    assert [len(group) for group in groups] == [5, 1, 1, 1, 1, 1, 1]


def line_entry(generation: int) -> Entry:
    return entry("escalation.told", people=["floor"], step=6, round=9, generation=generation)


def test_why_a_clock_rests_is_told_in_the_words_of_who_said_it() -> None:
    def cause(reason: str, *, running: bool) -> str:
        row = Row(
            since=AT, until=None, running=running, reason=reason, entry=1, goal=timedelta(1),
            calendar="", worked=timedelta(), total=timedelta(),
        )  # fmt: skip
        return teller().cause(row)

    assert cause("opened", running=True) == "the ticket was opened"
    assert cause("opened", running=False) == "opened"
    assert cause("pending", running=False) == "on hold"
    assert cause("no part", running=False) == "no part"


def test_the_people_of_a_journal_are_those_who_wrote_it_and_those_it_names() -> None:
    entries = [
        entry("held", "engineer:wang"),
        entry("handed_over", "user:amy", engineer="li", before=""),
        entry("escalation.told", people=["chen", "floor"]),
        entry("escalation.acknowledged", acks=2),
    ]
    assert keys(entries) >= {"wang", "li", "chen", "floor"}
    assert "amy" not in keys(entries)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00:00"),
        (59.6, "0:01:00"),
        (3725, "1:02:05"),
        (360_000, "100:00:00"),
        (-90, "−0:01:30"),
    ],
)
def test_a_length_has_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert length(timedelta(seconds=seconds)) == shown
