"""What follows from the PBX's records: recorded ones of Asterisk 22, and made ones."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.telephony.cel import CallRecords, CelRow, Listing, QueueLine, cel_row, queue_line
from contactd.tickets.contact import CallFacts, Contact, Medium, Outcome, Source
from contactd.tickets.model import merge
from tests.fakes.records import DID, Recorder

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
LATER = 3600.0


def read(recorder: Recorder) -> tuple[list[CelRow], list[QueueLine]]:
    return [cel_row(row) for row in recorder.rows], [queue_line(line) for line in recorder.lines]


def records_of(rows: Iterable[CelRow], lines: Iterable[QueueLine]) -> CallRecords[int]:
    records: CallRecords[int] = CallRecords(pbx="pbx1", hotline_contexts=["hotline"])
    for number, row in enumerate(rows):
        records.add(row, number)
    for line in lines:
        records.add_queue(line)
    return records


def contacts_of(rows: Iterable[CelRow], lines: Iterable[QueueLine]) -> dict[str, Contact]:
    records = records_of(rows, lines)
    return {call_id: records.contact(call_id, final=True) for call_id in records.calls()}


def the_contact(recorder: Recorder) -> Contact:
    (contact,) = contacts_of(*read(recorder)).values()
    return contact


def the_facts(recorder: Recorder) -> CallFacts:
    facts = the_contact(recorder).call
    assert facts is not None
    return facts


def engineers(facts: CallFacts) -> list[str]:
    return [leg.engineer for leg in facts.legs]


# Recorded with a real Asterisk


def transcript() -> list[Contact]:
    cel = (TRANSCRIPTS / "cel-22-calls.csv").read_text(encoding="utf-8").splitlines()[1:]
    queue_log = (TRANSCRIPTS / "queue_log-22-calls.txt").read_text(encoding="utf-8")
    rows = [cel_row(fields) for fields in csv.reader(cel, strict=True)]
    lines = [queue_line(line) for line in queue_log.splitlines()[1:]]
    return list(contacts_of(rows, lines).values())


def test_recorded_calls_end_as_they_did() -> None:
    assert [contact.outcome for contact in transcript()] == [
        Outcome.ANSWERED,
        Outcome.ABANDONED_GREETING,
        Outcome.ABANDONED_MENU,
        Outcome.ABANDONED_QUEUE,
        Outcome.ABANDONED_VOICEMAIL,
        Outcome.ANSWERED,
        Outcome.ANSWERED,
        Outcome.ABANDONED_QUEUE,
    ]


def test_recorded_answered_call_has_all_its_facts() -> None:
    contact = transcript()[0]
    facts = contact.call
    assert facts is not None
    assert facts.answered_at is not None
    assert facts.ended_at is not None
    assert (contact.external_id, contact.to_value) == ("pbx1-1795319588.0", DID)
    assert (contact.from_value, contact.from_name) == ("13912345678", "zhang san")
    assert contact.received_at.isoformat() == "2026-11-22T03:53:08.985730+00:00"
    assert (contact.medium, contact.source) == (Medium.CALL, Source.REPLAY)
    assert (facts.stage, facts.queue, facts.end_reason) == ("queue", "gz", "COMPLETEAGENT")
    assert engineers(facts) == ["wang"]
    assert facts.waited == timedelta(seconds=2.716815)
    assert facts.talked == timedelta(seconds=3.117624)
    assert facts.hangup_cause == 16
    assert facts.recording.endswith("pbx1-1795319588.0.wav")


def test_recorded_transfer_has_two_legs_and_the_talk_of_both() -> None:
    facts = transcript()[6].call
    assert facts is not None
    assert engineers(facts) == ["wang", "13800000003"]
    assert facts.talked == timedelta(seconds=15.094872)  # queue_log says 12
    assert facts.end_reason == "BLINDTRANSFER"


def test_recorded_passes_name_who_did_not_take_the_call() -> None:
    facts = transcript()[5].call
    assert facts is not None
    assert (facts.passed_by, engineers(facts)) == (("wang",), ["li"])


def test_made_records_have_the_shape_of_recorded_ones() -> None:
    with (TRANSCRIPTS / "cel-22-calls.csv").open(encoding="utf-8", newline="") as file:
        next(file)
        recorded = {tuple(row[1:3]): row for row in csv.reader(file, strict=True)}
    recorder = Recorder()
    recorder.answered()
    recorder.transferred()
    for row in recorder.rows:
        there = recorded[row[1], row[2]]
        assert [bool(row[i]) for i in (3, 4, 5)] == [bool(there[i]) for i in (3, 4, 5)]
        assert len(row) == len(there)


# How calls end


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (Recorder.greeting_only, Outcome.ABANDONED_GREETING),
        (Recorder.in_menu, Outcome.ABANDONED_MENU),
        (lambda pbx: pbx.in_menu("29"), Outcome.SELF_SERVICE),
        (Recorder.in_queue, Outcome.ABANDONED_QUEUE),
        (Recorder.answered, Outcome.ANSWERED),
        (Recorder.to_voicemail, Outcome.VOICEMAIL),
        (lambda pbx: pbx.to_voicemail(message=False), Outcome.ABANDONED_VOICEMAIL),
        (Recorder.transferred, Outcome.ANSWERED),
        (Recorder.transferred_with_talk, Outcome.ANSWERED),
        (Recorder.lost, Outcome.PBX_LOST),
        (Recorder.lost_after_a_message, Outcome.VOICEMAIL),
    ],
)
def test_outcome(what: Callable[[Recorder], object], outcome: Outcome) -> None:
    recorder = Recorder()
    what(recorder)
    contact = the_contact(recorder)
    assert contact.outcome is outcome
    assert contact.call is not None
    assert contact.call.ended_at is not None


@pytest.mark.parametrize("event", ["EXITEMPTY", "WITHDRAW", "EXITWITHKEY"])
def test_queue_that_ends_without_a_person_has_not_reached_anybody(event: str) -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.join_queue(call)
    recorder.wait(5)
    recorder.queue(call, event, 1, 1, 5)
    recorder.hang_up(call)
    contact = the_contact(recorder)
    assert contact.outcome is Outcome.UNREACHED
    assert contact.call is not None
    assert contact.call.end_reason == event


def test_floor_that_nobody_answers_has_not_reached_anybody() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.stage(call, "direct")
    recorder.wait(20)
    recorder.hang_up(call, cause=19)
    contact = the_contact(recorder)
    assert contact.outcome is Outcome.UNREACHED
    assert contact.call is not None
    assert contact.call.hangup_cause == 19


def test_floor_that_answers_without_a_queue_counts_as_a_person() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.stage(call, "direct")
    legs = recorder.offer(call, "TAKEN", engineer="1001", number="1001")
    bridges = recorder.connect(call, legs)
    recorder.lines.clear()
    recorder.wait(5)
    recorder.hang_up_talk(call, legs, bridges)
    recorder.lines.clear()
    facts = the_facts(recorder)
    assert (engineers(facts), facts.queue, facts.queued_at) == (["1001"], "", None)


def test_call_that_dies_before_the_dialplan_is_a_call() -> None:
    recorder = Recorder()
    call = recorder.channel("PJSIP/trunk-#", context="hotline", exten=DID)
    recorder.row("CHAN_START", call)
    recorder.hang_up(call)
    contact = the_contact(recorder)
    assert (contact.outcome, contact.to_value) == (Outcome.ABANDONED_GREETING, DID)


def test_call_in_progress_is_received_and_has_no_end() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.join_queue(call)
    recorder.connect(call, recorder.offer(call, "TAKEN"))
    records = records_of(*read(recorder))
    contact = records.contact(call.uniqueid, final=False)
    assert contact.outcome is Outcome.RECEIVED
    assert contact.call is not None
    assert (contact.call.final, contact.call.ended_at, contact.call.talked) == (False, None, None)
    assert engineers(contact.call) == ["wang"]
    assert contact.call.legs[0].ended_at is None


# Details


def test_keys_stage_and_files_come_from_the_dialplan() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.stage(call, "greeting")
    recorder.user("RECORDING", call, "/spool/a.wav")
    recorder.stage(call, "menu")
    for key in "290":
        recorder.user("KEY", call, key)
    recorder.join_queue(call)
    recorder.queue(call, "EXITWITHTIMEOUT", 1, 1, 5)
    recorder.stage(call, "voicemail")
    recorder.user("VOICEMAIL", call, "/spool/b.wav")
    recorder.hang_up(call)
    facts = the_facts(recorder)
    assert (facts.keys, facts.stage) == ("290", "voicemail")
    assert (facts.recording, facts.voicemail) == ("/spool/a.wav", "/spool/b.wav")


def test_waiting_time_of_a_caller_who_gives_up_ends_with_the_hangup() -> None:
    recorder = Recorder()
    recorder.in_queue()
    facts = the_facts(recorder)
    assert facts.queued_at is not None
    assert facts.ended_at is not None
    assert facts.waited is not None
    assert facts.waited == pytest.approx(
        facts.ended_at - facts.queued_at, abs=timedelta(milliseconds=10)
    )


def test_who_passed_and_who_pressed_nothing_are_named_once_in_order() -> None:
    recorder = Recorder()
    recorder.to_voicemail()
    assert the_facts(recorder).passed_by == ("wang", "li")


def test_who_passed_first_and_took_it_later_did_not_pass() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.join_queue(call)
    recorder.offer(call, "PASSED")
    legs = recorder.offer(call, "TAKEN")
    bridges = recorder.connect(call, legs)
    recorder.wait(9)
    recorder.hang_up_talk(call, legs, bridges)
    facts = the_facts(recorder)
    assert (facts.passed_by, engineers(facts)) == ((), ["wang"])


def test_caller_on_hold_stays_one_leg_and_the_pause_is_not_talk() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.join_queue(call)
    legs = recorder.offer(call, "TAKEN")
    outer, inner = recorder.connect(call, legs)
    recorder.wait(10)
    recorder.leave(outer, legs[0])
    recorder.wait(30)
    recorder.enter(outer, legs[0], peers=call.name)
    recorder.wait(10)
    recorder.hang_up_talk(call, legs, (outer, inner))
    facts = the_facts(recorder)
    assert engineers(facts) == ["wang"]
    assert facts.talked is not None
    assert facts.talked == pytest.approx(timedelta(seconds=20), abs=timedelta(milliseconds=20))


def test_attended_transfer_behind_the_local_channel_has_two_legs() -> None:
    recorder = Recorder()
    recorder.transferred_with_talk()
    facts = the_facts(recorder)
    assert engineers(facts) == ["wang", "1002"]
    assert facts.talked is not None
    assert facts.talked == pytest.approx(timedelta(seconds=35), abs=timedelta(milliseconds=20))


def test_changed_linkedid_does_not_end_the_call_early() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    old = call.linkedid
    call.linkedid = "pbx1-1.1"
    recorder.stage(call, "queue")
    other = recorder.channel("PJSIP/1001-#", context="phones", exten="1", linkedid=old)
    recorder.row("LINKEDID_END", other)
    records = records_of(*read(recorder))
    assert records.ended_at(call.uniqueid) is None
    assert not records.finished(call.uniqueid, horizon=recorder.now + 100)


def test_end_of_the_linkedid_ends_a_call_whose_own_end_is_missing() -> None:
    recorder = Recorder()
    call = recorder.greeting_only()
    recorder.rows = [row for row in recorder.rows if row[1] not in ("HANGUP", "CHAN_END")]
    records = records_of(*read(recorder))
    assert records.finished(call.uniqueid, horizon=recorder.now + 3)
    assert records.contact(call.uniqueid, final=True).outcome is Outcome.ABANDONED_GREETING


def test_queue_log_alone_tells_who_talked_when_cel_has_no_bridges() -> None:
    recorder = Recorder()
    recorder.answered()
    recorder.rows = [row for row in recorder.rows if not row[1].startswith("BRIDGE")]
    facts = the_facts(recorder)
    assert engineers(facts) == ["wang"]
    assert facts.talked is not None
    assert timedelta(seconds=59) <= facts.talked <= timedelta(seconds=61)


def test_queue_log_alone_tells_who_talked_when_half_a_local_channel_is_missing() -> None:
    recorder = Recorder()
    recorder.answered()
    recorder.rows = [row for row in recorder.rows if not row[5].endswith(";2")]
    assert engineers(the_facts(recorder)) == ["wang"]


def test_connection_without_a_word_was_none() -> None:
    """The caller left while the engineer pressed the key."""
    recorder = Recorder()
    call = recorder.arrive()
    recorder.join_queue(call)
    legs = recorder.offer(call, "TAKEN")
    recorder.queue(call, "CONNECT", 2, legs[0].uniqueid, 2, agent="wang")
    recorder.queue(call, "COMPLETECALLER", 2, 0, 1, agent="wang")
    recorder.hang_up(*legs, call)
    assert the_facts(recorder).answered_at is None


def test_caller_who_hangs_up_just_as_the_call_is_taken_was_answered() -> None:
    """They have met the member's Local channel, and not yet the phone behind it."""
    recorder = Recorder()
    call = recorder.arrive()
    recorder.join_queue(call)
    legs = recorder.offer(call, "TAKEN")
    recorder.queue(call, "CONNECT", 2, legs[0].uniqueid, 2, agent="wang")
    bridge = recorder.bridge(call, legs[0])
    recorder.wait(0.3)
    recorder.leave(bridge, call)
    recorder.leave(bridge, legs[0])
    recorder.queue(call, "COMPLETECALLER", 2, 0, 1, agent="wang")
    recorder.hang_up(*legs, call)
    contact = the_contact(recorder)
    assert contact.outcome is Outcome.ANSWERED
    assert contact.call is not None
    assert engineers(contact.call) == ["wang"]


def test_person_who_is_no_member_and_has_no_number_is_named_by_channel() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.stage(call, "direct")
    phone = recorder.channel("PJSIP/1001-#", context="phones", exten="", linkedid=call.linkedid)
    recorder.row("CHAN_START", phone)
    bridge = recorder.bridge(phone, call)
    recorder.wait(5)
    recorder.leave(bridge, phone)
    recorder.leave(bridge, call)
    recorder.hang_up(phone, call)
    assert engineers(the_facts(recorder)) == ["1001"]


def test_who_left_the_conference_before_the_caller_came_did_not_talk() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    early, late = (
        recorder.channel(f"PJSIP/{number}-#", context="phones", exten="")
        for number in ("1001", "1002")
    )
    bridge = recorder.bridge(early, late)
    recorder.leave(bridge, early)
    recorder.wait(1)
    recorder.enter(bridge, call, peers=late.name)
    recorder.wait(5)
    recorder.leave(bridge, call)
    recorder.hang_up(call)
    assert engineers(the_facts(recorder)) == ["1002"]


def test_row_with_broken_details_is_read_without_them() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    recorder.row("HANGUP", call, extra={"hangupcause": "busy"})
    recorder.rows[-1][16] = '{"hangupcause":'
    recorder.row("CHAN_END", call)
    assert the_facts(recorder).hangup_cause is None


def test_what_the_pbx_dials_through_the_trunk_is_not_a_call() -> None:
    recorder = Recorder()
    recorder.answered()
    assert len(contacts_of(*read(recorder))) == 1


def test_call_sent_to_the_hotline_from_elsewhere_begins_with_its_channel() -> None:
    recorder = Recorder()
    call = recorder.channel("PJSIP/1001-#", context="phones", exten=DID)
    call.number = "1001"
    recorder.row("CHAN_START", call)
    recorder.wait(20)
    call.context = "hotline"
    recorder.user("HOTLINE", call, DID)
    recorder.hang_up(call)
    contact = the_contact(recorder)
    assert (contact.from_value, contact.to_value) == ("1001", DID)
    assert contact.received_at.timestamp() == pytest.approx(recorder.now - 20, abs=0.01)


def test_name_of_a_caller_becomes_one_line_of_bounded_length() -> None:
    recorder = Recorder()
    call = recorder.arrive(name='张三 "; DROP\r\nEvent: x\x00' + "长" * 300)
    recorder.hang_up(call)
    name = the_contact(recorder).from_name
    assert name.startswith('张三 "; DROP Event: x 长')
    assert len(name) == 254


def test_caller_without_a_number_has_none() -> None:
    recorder = Recorder()
    recorder.hang_up(recorder.arrive(caller="", name=""))
    contact = the_contact(recorder)
    assert (contact.from_value, contact.from_name) == ("", "")


def test_pbx_that_restarts_ends_its_calls_then_at_the_latest() -> None:
    recorder = Recorder()
    call = recorder.lost()
    records = records_of(*read(recorder))
    assert not records.finished(call.uniqueid, horizon=recorder.now)
    assert records.finished(call.uniqueid, horizon=recorder.now + 2)
    contact = records.contact(call.uniqueid, final=True)
    assert contact.call is not None
    assert contact.call.ended_at is not None
    assert contact.call.ended_at.timestamp() <= recorder.now
    assert engineers(contact.call) == ["wang"]
    assert contact.call.legs[0].ended_at == contact.call.ended_at


def test_channel_names_used_again_after_a_restart_are_other_channels() -> None:
    recorder = Recorder()
    first = recorder.lost()
    second = recorder.arrive()
    recorder.join_queue(second)
    legs = recorder.offer(second, "TAKEN", engineer="li", number="13800000001")
    bridges = recorder.connect(second, legs, "li")
    recorder.wait(7)
    recorder.hang_up_talk(second, legs, bridges, "li")
    contacts = contacts_of(*read(recorder))
    facts = [contacts[call.uniqueid].call for call in (first, second)]
    assert [engineers(one) for one in facts if one] == [["wang"], ["li"]]


def test_call_that_the_pbx_does_not_list_is_over_after_a_minute() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    records = records_of(*read(recorder))
    began, now = records.started_at(call.uniqueid), recorder.now + 1_000
    soon = Listing(at=began + 59, uniqueids=frozenset())
    later = Listing(at=began + 61, uniqueids=frozenset())
    alive = Listing(at=began + 61, uniqueids=frozenset({call.uniqueid}))
    assert not records.finished(call.uniqueid, horizon=now, live=soon)
    assert not records.finished(call.uniqueid, horizon=now, live=alive)
    assert not records.finished(call.uniqueid, horizon=now)
    assert records.finished(call.uniqueid, horizon=now, live=later)
    assert records.contact(call.uniqueid, final=True).outcome is Outcome.PBX_LOST


def test_call_without_an_end_is_given_up_after_a_day() -> None:
    recorder = Recorder()
    call = recorder.arrive()
    records = records_of(*read(recorder))
    assert not records.finished(call.uniqueid, horizon=recorder.now + 86_000)
    assert records.finished(call.uniqueid, horizon=recorder.now + 86_500)


def test_call_is_finished_two_seconds_after_its_end() -> None:
    recorder = Recorder()
    call = recorder.answered()
    records = records_of(*read(recorder))
    assert not records.finished(call.uniqueid, horizon=recorder.now + 1.9)
    assert records.finished(call.uniqueid, horizon=recorder.now + 2.1)


def test_late_rows_of_a_call_finished_before_the_cursor_bring_nothing() -> None:
    recorder = Recorder()
    old = recorder.arrive()
    young = recorder.arrive()
    rows, _ = read(recorder)
    low = next(n for n, row in enumerate(rows) if row.uniqueid == young.uniqueid)
    recorder.user("HOTLINE", old, DID)
    rows, _ = read(recorder)
    records: CallRecords[int] = CallRecords(
        pbx="pbx1", hotline_contexts=["hotline"], oldest=young.uniqueid
    )
    for number, row in enumerate(rows[low:]):
        records.add(row, number)
    assert records.calls() == [young.uniqueid]


def test_call_whose_first_row_was_unreadable_is_not_lost() -> None:
    recorder = Recorder()
    call = recorder.greeting_only()
    del recorder.rows[0]
    contact = the_contact(recorder)
    assert (contact.external_id, contact.to_value) == (call.uniqueid, DID)
    assert contact.from_value == "13912345678"


@pytest.mark.parametrize("bad", [["1795140000.0"], ["x"] * 17, ["nan"] * 17, ["9" * 30] * 17])
def test_row_that_is_none_is_refused(bad: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        cel_row(bad)


@pytest.mark.parametrize(
    "bad", ["", "1|2|3|4", "x|a|b|c|ENTERQUEUE", "1795140000|a|b|c|", "0|a|b|c|d"]
)
def test_line_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        queue_line(bad)


def test_row_with_more_columns_than_we_know_is_read() -> None:
    recorder = Recorder()
    recorder.arrive()
    assert cel_row([*recorder.rows[0], "new"]) == cel_row(recorder.rows[0])


# Order and cuts

CALLS: Sequence[Callable[[Recorder], object]] = (
    Recorder.greeting_only,
    lambda pbx: pbx.in_menu("2"),
    Recorder.in_queue,
    Recorder.answered,
    Recorder.to_voicemail,
    Recorder.transferred,
    Recorder.transferred_with_talk,
)


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[CelRow], list[QueueLine]]:
    """Return one to four calls, overlapping at random, in the order of time."""
    rows: list[CelRow] = []
    lines: list[QueueLine] = []
    kinds = draw(st.lists(st.sampled_from(CALLS), min_size=1, max_size=4))
    for number, kind in enumerate(kinds):
        recorder = Recorder(_channels=100 * number, _bridges=100 * number)
        recorder.wait(draw(st.floats(0, 60)))
        kind(recorder)
        more_rows, more_lines = read(recorder)
        rows += more_rows
        lines += more_lines
    rows.sort(key=lambda row: row.at)
    lines.sort(key=lambda line: line.at)
    return rows, lines


@st.composite
def shuffled(draw: st.DrawFn, rows: Sequence[CelRow]) -> list[CelRow]:
    """Return `rows` in any order that keeps each channel's own."""
    by_channel: dict[str, list[CelRow]] = defaultdict(list)
    for row in rows:
        by_channel[row.uniqueid].append(row)
    order = draw(st.permutations([row.uniqueid for row in rows]))
    return [by_channel[uniqueid].pop(0) for uniqueid in order]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_of_rows_across_channels_does_not_matter(data: st.DataObject) -> None:
    rows, lines = data.draw(traffic())
    assert contacts_of(data.draw(shuffled(rows)), lines) == contacts_of(rows, lines)


def cut_and_read_again(
    rows: Sequence[CelRow], lines: Sequence[QueueLine], cut: int
) -> dict[str, Contact]:
    """Return what is stored if contactd ends after `cut` rows and is started again."""
    before = records_of(rows[:cut], [line for line in lines if line.at <= rows[cut - 1].at + 2])
    horizon = rows[cut - 1].at
    found = {}
    for call_id in before.calls():
        if before.finished(call_id, horizon=horizon):
            found[call_id] = before.contact(call_id, final=True)
            before.forget(call_id)
    low = before.low_water()
    start, oldest = (low[0], low[1]) if low else (cut, "")

    after: CallRecords[int] = CallRecords(pbx="pbx1", hotline_contexts=["hotline"], oldest=oldest)
    for number, row in enumerate(rows[start:], start):
        after.add(row, number)
    for line in lines:
        if low is None or line.at >= low[2] - 2:
            after.add_queue(line)
    end = rows[-1].at + LATER
    for call_id in after.calls():
        assert after.finished(call_id, horizon=end)
        again = after.contact(call_id, final=True)
        found[call_id] = merge(found.get(call_id, again), again)
    return found


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_stream_cut_anywhere_and_read_again_gives_the_same_facts(data: st.DataObject) -> None:
    rows, lines = data.draw(traffic())
    cut = data.draw(st.integers(1, len(rows)))
    assert cut_and_read_again(rows, lines, cut) == contacts_of(rows, lines)


def test_calls_whose_starts_are_written_out_of_order_began_when_they_began() -> None:
    """Read again from the start of the one that lasts, the other's start is not seen any more."""
    short, long = Recorder(_channels=100), Recorder(_channels=0)
    short.greeting_only(seconds=1)
    long.wait(0.000_05)  # it begins after the short one's start, before that one's next row
    long.greeting_only(seconds=10)
    rows = sorted(read(short)[0] + read(long)[0], key=lambda row: row.at)
    hung_up = len(rows) - 2
    assert rows[hung_up - 1].event == "HANGUP"
    assert cut_and_read_again(rows, [], hung_up) == contacts_of(rows, [])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_sweeping_between_rows_changes_nothing(data: st.DataObject) -> None:
    rows, lines = data.draw(traffic())
    records: CallRecords[int] = CallRecords(pbx="pbx1", hotline_contexts=["hotline"])
    for line in lines:
        records.add_queue(line)
    for number, row in enumerate(rows):
        records.add(row, number)
        records.sweep(horizon=row.at)
    assert {c: records.contact(c, final=True) for c in records.calls()} == contacts_of(rows, lines)


def test_the_channel_of_all_texts_which_never_ends_holds_nothing_up() -> None:
    """As Asterisk 22 writes it at the first SIP MESSAGE after each of its starts."""
    start = (
        '"1795379012.351082","CHAN_START","","pbx1-1795379012.0","pbx1-1795379012.0",'
        '"Message/ast_msg_queue","default","s","","","","","","","","",""'
    )
    records = records_of([cel_row(next(csv.reader([start])))], [])
    assert list(records.calls()) == []
    assert records.low_water() is None
