"""Who has to hear of a ticket, read from its journal."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contactd.routing.needs import HAND_OVER_DECLINED, Need, latest
from contactd.routing.notify import Reason
from contactd.tickets.contact import Medium, Outcome
from contactd.tickets.journal import Draft, Entry, chain, instant_text

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
REDIAL = timedelta(minutes=2)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


class Journal:
    """A journal in the making; `minute` is when each entry is written."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []

    def write(self, action: str, minute: float = 0, **body: Any) -> "Journal":
        self.drafts.append(Draft(at=at(minute), actor="system", action=action, state="", body=body))
        return self

    def contact(self, name: str, medium: Medium, minute: float = 0, late: float = 0) -> "Journal":
        """Let a contact come in; `late`: contactd learned of it so many minutes later."""
        action = "contact.added" if self.drafts else "opened"
        received_at = instant_text(at(minute))
        return self.write(
            action, minute + late, medium=medium.value, contact=name, received_at=received_at
        )

    def call(self, name: str, minute: float = 0) -> "Journal":
        return self.contact(name, Medium.CALL, minute)

    def ends(
        self, name: str, outcome: Outcome, minute: float, late: float = 0, **more: Any
    ) -> "Journal":
        ended_at = instant_text(at(minute))
        more = {"voicemail": False, **more}
        action = more.pop("action", "call.ended")
        return self.write(
            action, minute + late, contact=name, outcome=outcome.value, ended_at=ended_at, **more
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        return chain("26112000018", self.drafts, seq=0, prev_hash="")

    @property
    def need(self) -> Need | None:
        """Return the need that is open, if there is one."""
        found, is_open = latest(self.entries, redial_within=REDIAL)
        return found if is_open else None


def missed() -> Journal:
    """Return the journal of somebody who called at 0 and reached nobody at 3."""
    return Journal().call("a").ends("a", Outcome.UNREACHED, 3)


def test_nothing_has_happened() -> None:
    assert latest((), redial_within=REDIAL) == (None, False)


@pytest.mark.parametrize("medium", [Medium.TEXT, Medium.MAIL, Medium.WEB])
def test_who_writes_has_to_be_heard_at_once(medium: Medium) -> None:
    need = Journal().contact("a", medium, 0, late=5).need
    assert need == Need(reason=Reason.NEW, since=at(0), due_at=at(5), entry=1, contact="a")


def test_while_somebody_calls_the_queue_rings_people() -> None:
    assert Journal().call("a").need is None


DUE = {
    Outcome.UNREACHED: (Reason.MISSED, 3),
    Outcome.PBX_LOST: (Reason.MISSED, 3),
    Outcome.ABANDONED_VOICEMAIL: (Reason.MISSED, 3),
    Outcome.VOICEMAIL: (Reason.VOICEMAIL, 3),
    Outcome.ABANDONED_GREETING: (Reason.MISSED, 5),
    Outcome.ABANDONED_MENU: (Reason.MISSED, 5),
    Outcome.ABANDONED_QUEUE: (Reason.MISSED, 5),
    Outcome.ANSWERED: None,
    Outcome.SELF_SERVICE: None,
    Outcome.RECEIVED: None,
    Outcome.NO_ANSWER: None,
    Outcome.BUSY: None,
}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_how_a_call_ends_says_who_has_to_hear_of_it_and_when(outcome: Outcome) -> None:
    need = Journal().call("a").ends("a", outcome, 3).need
    due = (need.reason, need.due_at) if need else None
    expected = DUE[outcome]
    assert due == (expected and (expected[0], at(expected[1])))


def test_a_message_is_heard_however_the_call_ended() -> None:
    need = Journal().call("a").ends("a", Outcome.ABANDONED_QUEUE, 3, voicemail=True).need
    assert need is not None
    assert (need.reason, need.since) == (Reason.VOICEMAIL, at(3))


def test_the_time_to_call_again_counts_from_the_end_of_the_call() -> None:
    """The records came an hour late: nobody waits two minutes more."""
    need = Journal().call("a").ends("a", Outcome.ABANDONED_QUEUE, 3, late=60).need
    assert need is not None
    assert need.due_at == at(63)


def test_a_call_without_an_end_ended_when_that_was_learned() -> None:
    journal = Journal().call("a")
    need = journal.write(
        "call.ended", 7, contact="a", outcome="unreached", ended_at=None, voicemail=False
    ).need
    assert need is not None
    assert need.since == at(7)


def test_who_spoke_to_somebody_in_this_call_needs_nobody() -> None:
    """Transferred, and hung up in the other queue."""
    journal = Journal().call("a").write("call.answered", 1, contact="a", answered_at=text(1))
    assert journal.ends("a", Outcome.ABANDONED_QUEUE, 3).need is None


def text(minute: float) -> str:
    return instant_text(at(minute))


MEETS: list[tuple[str, dict[str, Any]]] = [
    ("call.answered", {"contact": "b", "answered_at": text(4)}),
    ("answered", {"answered_at": text(4)}),
    ("acknowledged", {"acknowledged_at": text(4)}),
    ("acknowledged", {}),
    ("assigned", {"acknowledged_at": text(4)}),
    ("page.taken", {}),
    ("escalation.acknowledged", {}),
    ("handed_over", {"engineer": "li"}),
    ("ticket.separated", {"contact": "a"}),
    ("resolved", {}),
    ("closed", {}),
    ("cancelled", {}),
]


@pytest.mark.parametrize(("action", "body"), MEETS)
def test_a_need_is_met(action: str, body: dict[str, Any]) -> None:
    assert missed().write(action, 4, **body).need is None


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("call.answered", {"contact": "b", "answered_at": text(2)}),
        ("answered", {"answered_at": text(2)}),
        ("acknowledged", {"acknowledged_at": text(2)}),
        ("assigned", {"acknowledged_at": text(2)}),
        ("ticket.separated", {"contact": "b"}),
        ("escalation.told", {"people": ["wang"]}),
        ("updated", {}),
        ("held", {}),
        ("classified", {}),
    ],
)
def test_what_was_before_or_means_nothing_leaves_it_open(action: str, body: dict[str, Any]) -> None:
    assert missed().write(action, 4, **body).need is not None


def test_who_has_the_ticket_does_not_know_of_the_next_call() -> None:
    journal = missed().write("acknowledged", 4, acknowledged_at=text(4))
    need = journal.call("b", 10).ends("b", Outcome.UNREACHED, 12).need
    assert need is not None
    assert (need.contact, need.entry) == ("b", 5)


def test_facts_of_a_call_that_are_corrected_are_no_new_need() -> None:
    journal = missed().write("acknowledged", 4, acknowledged_at=text(4))
    journal.ends("a", Outcome.ABANDONED_QUEUE, 3, late=60, action="call.corrected")
    assert journal.need is None


def test_a_correction_can_find_a_need_that_was_not_known() -> None:
    journal = Journal().call("a").ends("a", Outcome.SELF_SERVICE, 1)
    journal.ends("a", Outcome.UNREACHED, 3, late=60, action="call.corrected")
    need = journal.need
    assert need is not None
    assert need.due_at == at(63)


def test_the_last_need_is_the_one_that_counts() -> None:
    need = missed().contact("b", Medium.TEXT, 10).need
    assert need is not None
    assert (need.reason, need.contact) == (Reason.NEW, "b")


@pytest.mark.parametrize(
    ("action", "reason"), [("reopened", Reason.REOPENED), (HAND_OVER_DECLINED, Reason.NEW)]
)
def test_a_ticket_that_comes_back_needs_somebody_at_once(action: str, reason: Reason) -> None:
    journal = missed().write("acknowledged", 4, acknowledged_at=text(4)).write(action, 9)
    assert journal.need == Need(reason=reason, since=at(9), due_at=at(9), entry=4)
    assert journal.write("escalation.acknowledged", 10).need is None


# Who calls again


def gave_up() -> Journal:
    return Journal().call("a").ends("a", Outcome.ABANDONED_QUEUE, 1)


def test_who_is_in_the_line_again_is_waited_for() -> None:
    need = gave_up().call("b", 2).need
    assert need is not None
    assert need.due_at == at(12), "ten minutes, should the end of that call never be heard of"


def test_the_second_call_counts_once_it_has_ended() -> None:
    need = gave_up().call("b", 2).ends("b", Outcome.ABANDONED_QUEUE, 4).need
    assert need is not None
    assert (need.contact, need.due_at) == ("b", at(6))


def test_a_second_call_that_needed_nobody_does_not_help_with_the_first() -> None:
    need = gave_up().call("b", 2).ends("b", Outcome.SELF_SERVICE, 2.5).need
    assert need is not None
    assert (need.contact, need.due_at) == ("a", at(3))


def test_a_second_call_that_is_answered_does() -> None:
    journal = gave_up().call("b", 2).write("call.answered", 4, contact="b", answered_at=text(4))
    assert journal.need is None


def test_a_second_call_about_something_else_is_not_waited_for() -> None:
    need = gave_up().call("b", 2).write("ticket.separated", 2, contact="b").need
    assert need is not None
    assert need.due_at == at(3)


def test_who_left_a_message_or_wrote_is_not_kept_waiting_by_a_call() -> None:
    message = Journal().call("a").ends("a", Outcome.VOICEMAIL, 1).call("b", 2).need
    written = Journal().contact("a", Medium.TEXT).call("b", 2).need
    assert message is not None
    assert message.due_at == at(1)
    assert written is not None
    assert written.due_at == at(0)


@pytest.mark.parametrize(
    ("action", "says", "is_need"),
    [
        ("opened", "stop", False), ("opened", "start", False), ("opened", "status", True),
        ("contact.added", "stop", False), ("contact.added", "start", False),
        ("contact.added", "status", False), ("contact.added", "reply", True),
    ],
)  # fmt: skip
def test_a_wish_and_a_question_that_we_answer_need_nobody(
    action: str, says: str, is_need: bool
) -> None:
    told = Journal().write(
        action, medium="text", contact="t1", received_at=instant_text(at(0)), says=says,
        **({"reply": True} if says == "reply" else {}),
    )  # fmt: skip
    assert (told.need is not None) is is_need


@pytest.mark.parametrize("action", ["rated", "reply.heard"])
def test_a_reply_that_was_done_needs_nobody_but_another_contact_does(action: str) -> None:
    told = Journal().contact("t1", Medium.TEXT).contact("t2", Medium.TEXT, 1)
    assert told.write(action, 2, contact="t1").need is not None
    assert told.write(action, 2, contact="t2").need is None
