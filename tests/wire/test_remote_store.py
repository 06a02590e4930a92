"""Remote sessions as they are kept, on both databases."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from contactd.errors import ActionNotAllowed, NotFound
from contactd.settings import RemoteSettings, Settings
from contactd.signals import Topic
from contactd.store.engine import Database
from contactd.store.keys import Keys
from contactd.store.remote import MOST_FILES, MOST_KEYS, RemoteSessions
from contactd.store.remotecodes import MOST_WRONG, MOST_WRONG_IN_ALL
from contactd.store.schema import (
    metadata,
    remote_chat,
    remote_consents,
    remote_keys,
    remote_legs,
    remote_sessions,
    remote_tries,
)
from contactd.tickets.contact import Blob, Medium
from contactd.tickets.journal import REQUESTER, Entry
from contactd.tickets.remote import Ending, Mode, Purpose, Right, State, may_pass
from contactd.tickets.sharing import Counts, FileState, Filters, Kind, Session
from contactd.tickets.states import Action
from tests.fakes.clock import FakeClock
from tests.fakes.desk import AT_GZ, AT_SZ, Desk
from tests.fakes.remote_desk import EVERYTHING, PEER, active, agreed, answer, consent, invited

RECORDING: Final = Blob(sha256="a" * 64, size_bytes=9, media_type="video/x-fbs", name="1.fbs")
LOOK: Final = consent(
    "sun", "孙明", kind=Kind.LOOK, purpose=Purpose.LOOK, rights=frozenset({Right.VIEW})
)


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    await desk.load()
    return desk


async def entries(desk: Desk, ticket: str) -> list[Entry]:
    return [each for each in await desk.journal(ticket) if each.action.startswith("remote.")]


async def actions(desk: Desk, ticket: str) -> list[str]:
    return [each.action for each in await entries(desk, ticket)]


async def present(desk: Desk, session: int) -> Session:
    found = await desk.remote.session(session)
    assert found is not None
    return found


async def rows(desk: Desk, table: Any) -> list[dict[str, Any]]:
    async with desk.database.reading() as connection:
        found = await connection.execute(select(table))
        return [dict(row) for row in found.mappings()]


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**9:09}"


# From the link to the end


async def test_a_session_goes_from_the_link_to_its_end(desk: Desk) -> None:
    guest = await active(desk)
    assert guest.leg is not None
    assert await desk.remote.close_leg(
        guest.session, 1, Ending.DONE, Counts(keys=3, clicks=2, bytes=9), RECORDING
    )
    desk.clock.advance(timedelta(minutes=5))
    assert await desk.remote.end(guest.session, Ending.DONE, "user:wang")
    assert await actions(desk, guest.ticket) == [
        "remote.asked", "remote.invited", "remote.agreed", "remote.claimed", "remote.started",
        "remote.left", "remote.ended",
    ]  # fmt: skip
    session = await present(desk, guest.session)
    assert (session.state, session.ending, session.mode) == (
        State.ENDED, Ending.DONE, Mode.CONTROL,
    )  # fmt: skip
    [record] = session.legs
    assert record.recording == RECORDING
    assert await desk.remote.recording(guest.session, 1) == RECORDING
    told = {each.action: each for each in await entries(desk, guest.ticket)}
    assert told["remote.started"].actor == "user:wang"
    assert told["remote.started"].body == {
        "session": session.ref, "engineer": "王伟", "leg": 1, "mode": "control",
        "rights": ["clipboard", "control", "view"],
    }  # fmt: skip
    assert told["remote.left"].body["recording"] == RECORDING.sha256
    assert told["remote.ended"].body == {
        "session": session.ref, "ending": "done", "lasted_s": 300, "legs": 1, "keys": 3,
        "clicks": 2, "bytes": 9,
    }  # fmt: skip
    await desk.check()


async def test_the_start_stops_the_clock_that_asking_began(desk: Desk) -> None:
    guest = await agreed(desk)
    assert (await desk.clocks(guest.ticket))["remote"]["state"] == "running"
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    await desk.when(desk.remote.open_leg(guest.session, consent(yes=False)))
    assert (await desk.clocks(guest.ticket))["remote"]["state"] == "running"
    await desk.when(desk.remote.open_leg(guest.session, consent()))
    assert (await desk.clocks(guest.ticket))["remote"]["state"] == "stopped"


async def test_an_engineers_invitation_starts_no_clock(desk: Desk) -> None:
    invitation = await invited(desk, actor="user:wang")
    assert await actions(desk, invitation.ticket) == ["remote.invited"]
    assert "remote" not in await desk.clocks(invitation.ticket)


async def test_nothing_is_kept_that_opens_anything(desk: Desk) -> None:
    """Neither code nor secret nor key can be read from the database, its journals or outbox."""
    guest = await agreed(desk)
    key = await desk.remote.helper_key(guest.session)
    taken = await desk.remote.take_key(key)
    assert taken is not None
    another = await invited(desk, await desk.call(AT_SZ))
    secrets = (guest.code, guest.secret, key, taken.resume_key, another.code)
    async with desk.database.reading() as connection:
        for table in metadata.sorted_tables:
            for row in await connection.execute(select(table)):
                kept = " ".join(
                    each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in row
                )
                assert [each for each in secrets if each in kept] == [], table.name


async def test_agreeing_is_kept_with_what_was_shown_before_anything_else(desk: Desk) -> None:
    guest = await agreed(desk, Mode.VIEW)
    [kept] = await rows(desk, remote_consents)
    said = answer()
    assert (kept["session_id"], kept["kind"], kept["yes"], kept["mode"]) == (
        guest.session, "agree", True, "view",
    )  # fmt: skip
    assert (kept["version"], kept["text_hash"], kept["language"], kept["at"]) == (
        said.version, said.text_hash, "zh", desk.clock.now(),
    )  # fmt: skip
    assert await rows(desk, remote_legs) == []


async def test_who_says_no_is_not_asked_again_by_this_link(desk: Desk) -> None:
    invitation = await invited(desk)
    assert await desk.remote.refuse(invitation.code, PEER, answer())
    [kept] = await rows(desk, remote_consents)
    assert (kept["kind"], kept["yes"]) == ("agree", False)
    assert (await present(desk, invitation.session)).ending is Ending.REFUSED
    assert (await actions(desk, invitation.ticket))[-1] == "remote.refused"
    assert await desk.remote.agree(invitation.code, PEER, answer()) is None
    assert not await desk.remote.refuse(invitation.code, PEER, answer())


@pytest.mark.parametrize("table", [remote_consents, remote_chat], ids=lambda table: table.name)
async def test_what_users_said_is_only_ever_added_to(desk: Desk, table: Any) -> None:
    guest = await agreed(desk)
    await desk.remote.say(guest.session, REQUESTER, "您好")
    column = {"remote_consents": "version", "remote_chat": "text"}[table.name]
    for statement in (update(table).values(**{column: "other"}), delete(table)):
        with pytest.raises(DBAPIError, match="only added"):
            async with desk.database.writing() as connection:
                await connection.execute(statement)
    [kept] = await rows(desk, table)
    assert kept[column] != "other"


# Codes


async def test_a_code_opens_the_page_once_and_looking_changes_nothing(desk: Desk) -> None:
    invitation = await invited(desk)
    before = await rows(desk, remote_sessions)
    for _ in range(30):  # scanners of mails look, too
        shown = await desk.remote.shown(invitation.code, PEER)
        assert shown is not None
        assert (shown.ticket, shown.session) == (invitation.ticket, invitation.session)
    assert await rows(desk, remote_sessions) == before
    assert await desk.remote.agree(invitation.code, PEER, answer()) is not None
    assert await desk.remote.shown(invitation.code, PEER) is None
    assert await desk.remote.agree(invitation.code, PEER, answer()) is None
    [kept] = await rows(desk, remote_sessions)
    assert kept["code_hash"] is None


async def test_two_who_agree_at_once_make_one_session(desk: Desk) -> None:
    invitation = await invited(desk)
    found = await asyncio.gather(
        *(desk.remote.agree(invitation.code, PEER, answer()) for _ in range(5))
    )
    assert len([each for each in found if each]) == 1
    assert Counter(await actions(desk, invitation.ticket))["remote.agreed"] == 1


async def test_a_code_is_read_however_it_is_typed(desk: Desk) -> None:
    code = (await invited(desk)).code
    assert len(code) == 9
    wide = "".join(chr(ord(each) + 0xFEE0) for each in code)
    for typed in (f"{code[:3]} {code[3:6]} {code[6:]}", f" {code[:4]}-{code[4:]}\n", wide):
        assert await desk.remote.shown(typed, PEER) is not None
    assert await desk.remote.shown(code + "1", PEER) is None
    assert await desk.remote.shown(code[:8], PEER) is None


async def test_a_code_is_over_after_ten_minutes(desk: Desk) -> None:
    invitation = await invited(desk)
    desk.clock.advance(timedelta(minutes=10) - timedelta(seconds=1))
    assert await desk.remote.shown(invitation.code, PEER) is not None
    desk.clock.advance(timedelta(seconds=1))
    assert await desk.remote.shown(invitation.code, PEER) is None
    assert await desk.remote.agree(invitation.code, PEER, answer()) is None
    await desk.drain()
    assert (await present(desk, invitation.session)).ending is Ending.EXPIRED


async def test_a_newer_invitation_replaces_the_older_one(desk: Desk) -> None:
    first = await invited(desk)
    second = await invited(desk, first.ticket)
    assert await desk.remote.shown(first.code, PEER) is None
    assert (await present(desk, first.session)).ending is Ending.REPLACED
    assert await desk.remote.shown(second.code, PEER) is not None
    other = await invited(desk, await desk.call(AT_SZ))
    assert await desk.remote.shown(second.code, PEER) is not None
    assert other.ticket != second.ticket


async def test_nobody_is_invited_while_somebody_sees_the_screen(desk: Desk) -> None:
    guest = await active(desk)
    with pytest.raises(ActionNotAllowed, match="under way"):
        await desk.remote.invite(guest.ticket, actor="user:li", language="zh")
    assert (await present(desk, guest.session)).state is State.ACTIVE
    await desk.remote.freeze(guest.session)  # their browser is gone for good
    again = await invited(desk, guest.ticket)
    assert (await present(desk, guest.session)).ending is Ending.REPLACED
    assert await desk.remote.shown(again.code, PEER) is not None


async def test_wrong_codes_lock_an_address_out_and_nobody_else(desk: Desk) -> None:
    invitation = await invited(desk)
    for _ in range(MOST_WRONG):
        assert await desk.remote.shown(wrong(invitation.code), PEER) is None
    assert await desk.remote.shown(invitation.code, PEER) is None
    assert await desk.remote.agree(invitation.code, PEER, answer()) is None
    assert not await desk.remote.refuse(invitation.code, PEER, answer())
    assert await desk.remote.shown(invitation.code, "192.0.2.8") is not None
    desk.clock.advance(timedelta(hours=1))
    again = await invited(desk, invitation.ticket)
    assert await desk.remote.shown(again.code, PEER) is not None


async def test_right_codes_are_not_counted_against_an_office(desk: Desk) -> None:
    invitation = await invited(desk)
    for _ in range(MOST_WRONG - 1):
        assert await desk.remote.shown(wrong(invitation.code), PEER) is None
        assert await desk.remote.shown(invitation.code, PEER) is not None


async def test_a_customers_ipv6_network_is_one_address(desk: Desk) -> None:
    invitation = await invited(desk)
    for number in range(MOST_WRONG):
        await desk.remote.shown(wrong(invitation.code), f"2001:db8:1:2::{number:x}")
    assert await desk.remote.shown(invitation.code, "2001:db8:1:2:ffff::1") is None
    assert await desk.remote.shown(invitation.code, "2001:db8:1:3::1") is not None


async def test_guesses_from_everywhere_lock_everybody_out(desk: Desk) -> None:
    invitation = await invited(desk)
    await desk.remote.shown("1", PEER)
    async with desk.database.writing() as connection:  # a thousand tries would take long
        await connection.execute(
            update(remote_tries).values(count=remote_tries.c.count + MOST_WRONG_IN_ALL)
        )
    assert await desk.remote.shown(invitation.code, "198.51.100.1") is None


async def test_guesses_that_come_at_once_are_all_counted(desk: Desk) -> None:
    invitation = await invited(desk)
    guesses = [wrong(invitation.code)] * MOST_WRONG
    await asyncio.gather(*(desk.remote.shown(each, PEER) for each in guesses))
    assert await desk.remote.shown(invitation.code, PEER) is None


async def test_counts_of_the_last_hour_are_cleared_away(desk: Desk) -> None:
    await desk.remote.shown("1", PEER)
    assert len(await rows(desk, remote_tries)) == 2
    desk.clock.advance(timedelta(hours=2))
    await desk.remote.shown("1", "198.51.100.1")
    assert len(await rows(desk, remote_tries)) == 2
    assert PEER not in str(await rows(desk, remote_tries))


# The user's cookie and helper


async def test_only_who_agreed_has_the_session_and_an_hour_after_its_end_nobody(
    desk: Desk,
) -> None:
    guest = await agreed(desk)
    found = await desk.remote.of_share(guest.secret)
    assert found is not None
    assert found.id == guest.session
    for other in ("", guest.secret[:-1], guest.secret + "A", guest.code, "\x00", "é" * 50):
        assert await desk.remote.of_share(other) is None
    await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    assert await desk.remote.of_share(guest.secret) is not None
    desk.clock.advance(timedelta(hours=1))
    assert await desk.remote.of_share(guest.secret) is None


async def test_each_key_lets_the_helper_in_once(desk: Desk) -> None:
    guest = await agreed(desk)
    first, second = [await desk.remote.helper_key(guest.session) for _ in range(2)]
    taken = await desk.remote.take_key(first)
    assert taken is not None
    assert (taken.session.id, taken.resumed) == (guest.session, False)
    assert await desk.remote.take_key(first) is None
    assert await desk.remote.take_key(second) is None  # of a second download of the same
    again = await desk.remote.take_key(taken.resume_key)
    assert again is not None
    assert again.resumed
    assert again.resume_key != taken.resume_key
    assert await desk.remote.take_key(taken.resume_key) is None
    assert await desk.remote.take_key(again.resume_key) is not None


async def test_two_helpers_with_one_key_are_one(desk: Desk) -> None:
    guest = await agreed(desk)
    key = await desk.remote.helper_key(guest.session)
    found = await asyncio.gather(*(desk.remote.take_key(key) for _ in range(5)))
    assert len([each for each in found if each]) == 1


async def test_a_key_ends_after_ten_minutes_and_with_its_session(desk: Desk) -> None:
    guest = await agreed(desk)
    key = await desk.remote.helper_key(guest.session)
    desk.clock.advance(timedelta(minutes=10))
    assert await desk.remote.take_key(key) is None
    key = await desk.remote.helper_key(guest.session)
    taken = await desk.remote.take_key(key)
    assert taken is not None
    await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    assert await desk.remote.take_key(taken.resume_key) is None
    assert await rows(desk, remote_keys) == []
    with pytest.raises(ActionNotAllowed):
        await desk.remote.helper_key(guest.session)


async def test_a_session_has_a_handful_of_downloads(desk: Desk) -> None:
    guest = await agreed(desk)
    keys = []
    for _ in range(MOST_KEYS + 2):
        keys.append(await desk.remote.helper_key(guest.session))
        desk.clock.advance(timedelta(seconds=1))
    assert len(await rows(desk, remote_keys)) == MOST_KEYS
    assert await desk.remote.take_key(keys[0]) is None
    assert await desk.remote.take_key(keys[-1]) is not None


async def test_a_key_is_for_the_mode_that_the_user_chose(desk: Desk) -> None:
    viewing = await agreed(desk, Mode.VIEW)
    with pytest.raises(ActionNotAllowed):
        await desk.remote.helper_key(viewing.session)
    with pytest.raises(ActionNotAllowed):
        await desk.remote.repeater_id(viewing.session)
    repeated = await agreed(desk, Mode.REPEATER, await desk.call(AT_SZ))
    number = await desk.remote.repeater_id(repeated.session)
    assert number.isdigit()
    assert await desk.remote.take_key(number) is None
    assert await desk.remote.take_key(number, kind="repeater") is not None
    assert await desk.remote.take_key(number, kind="repeater") is None
    with pytest.raises(ActionNotAllowed):
        await desk.remote.helper_key((await invited(desk, await desk.call("13700000000"))).session)


# Who helps


async def test_one_engineer_helps_at_a_time(desk: Desk) -> None:
    guest = await agreed(desk)
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    assert Counter(await actions(desk, guest.ticket))["remote.claimed"] == 1
    with pytest.raises(ActionNotAllowed, match="somebody else"):
        await desk.remote.claim(guest.session, user="li", engineer="李娜")
    assert not await desk.remote.release(guest.session, user="li")
    assert await desk.remote.release(guest.session, user="wang")
    claimed = await desk.remote.claim(guest.session, user="li", engineer="李娜")
    assert (claimed.user, claimed.engineer) == ("li", "李娜")


async def test_who_sees_the_screen_cannot_be_released(desk: Desk) -> None:
    guest = await active(desk)
    assert not await desk.remote.release(guest.session, user="wang")
    await desk.remote.end(guest.session, Ending.DONE, "user:wang")
    with pytest.raises(ActionNotAllowed):
        await desk.remote.claim(guest.session, user="wang", engineer="王伟")


async def test_the_code_that_a_user_reads_out_claims_their_session_once(desk: Desk) -> None:
    guest = await agreed(desk)
    peeked = await desk.remote.peek_code(guest.code, user="wang")
    assert peeked is not None
    assert peeked.user == ""
    claimed = await desk.remote.claim_code(guest.code, user="wang", engineer="王伟")
    assert claimed is not None
    assert (claimed.id, claimed.user) == (guest.session, "wang")
    assert await desk.remote.claim_code(guest.code, user="wang", engineer="王伟") is None


async def test_who_guesses_codes_as_an_engineer_is_locked_out(desk: Desk) -> None:
    guest = await agreed(desk)
    for _ in range(MOST_WRONG):
        assert await desk.remote.peek_code(wrong(guest.code), user="wang") is None
    assert await desk.remote.claim_code(guest.code, user="wang", engineer="王伟") is None
    assert await desk.remote.claim_code(guest.code, user="li", engineer="李娜") is not None


async def test_a_code_read_out_is_over_after_ten_minutes_too(desk: Desk) -> None:
    guest = await agreed(desk)
    desk.clock.advance(timedelta(minutes=10))
    assert await desk.remote.claim_code(guest.code, user="wang", engineer="王伟") is None


async def test_the_page_names_who_will_help(desk: Desk) -> None:
    invitation = await invited(desk)
    shown = await desk.remote.shown(invitation.code, PEER)
    assert shown is not None
    assert shown.engineer == ""
    await desk.tickets.take(invitation.ticket, "wang", how="web")
    shown = await desk.remote.shown(invitation.code, PEER)
    assert shown is not None
    assert shown.engineer == "wang"  # their name in this desk file
    await desk.remote.claim(invitation.session, user="li", engineer="李娜")
    shown = await desk.remote.shown(invitation.code, PEER)
    assert shown is not None
    assert shown.engineer == "李娜"


# Legs


async def test_no_leg_opens_before_the_user_agreed_or_after_the_end(desk: Desk) -> None:
    invitation = await invited(desk)
    await desk.remote.claim(invitation.session, user="wang", engineer="王伟")
    with pytest.raises(ActionNotAllowed, match="cannot show"):
        await desk.remote.open_leg(invitation.session, consent())
    assert await rows(desk, remote_consents) == []
    guest = await active(desk, ticket=await desk.call(AT_SZ))
    await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    with pytest.raises(ActionNotAllowed, match="cannot show"):
        await desk.remote.open_leg(guest.session, consent())
    with pytest.raises(NotFound):
        await desk.remote.open_leg(10**6, consent())


@pytest.mark.parametrize(
    "said",
    [
        consent("li", "李娜"),
        consent(""),
        consent(purpose=Purpose.LOOK),
        consent(kind=Kind.HAND_OVER),
        LOOK,
        consent(kind=Kind.RIGHTS),
        consent(kind=Kind.FILE),
    ],
    ids=["not claimed", "nobody", "look by consent", "hand-over first", "look first", "rights",
         "file"],
)  # fmt: skip
async def test_a_leg_is_opened_by_the_right_question_to_the_right_person_only(
    desk: Desk, said: Any
) -> None:
    guest = await agreed(desk)
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    with pytest.raises(ActionNotAllowed):
        await desk.remote.open_leg(guest.session, said)
    assert await rows(desk, remote_legs) == []
    assert (await present(desk, guest.session)).state is State.AGREED


async def test_a_no_is_kept_and_opens_nothing(desk: Desk) -> None:
    guest = await agreed(desk)
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    assert await desk.remote.open_leg(guest.session, consent(yes=False)) is None
    # Whoever unticks the view itself has said no.
    without = consent(rights=frozenset({Right.CONTROL}))
    assert await desk.remote.open_leg(guest.session, without) is None
    session = await present(desk, guest.session)
    assert (session.state, session.legs, session.started_at) == (State.AGREED, (), None)
    kept = [each for each in await rows(desk, remote_consents) if each["kind"] == "consent"]
    assert [each["yes"] for each in kept] == [False, False]
    assert (await actions(desk, guest.ticket))[-2:] == ["remote.declined"] * 2


async def test_a_leg_has_the_yes_that_opened_it(desk: Desk) -> None:
    guest = await active(desk)
    assert guest.leg is not None
    kept = {each["id"]: each for each in await rows(desk, remote_consents)}
    said = kept[guest.leg.consent]
    assert (said["kind"], said["yes"], said["user_name"], said["engineer"]) == (
        "consent", True, "wang", "王伟",
    )  # fmt: skip
    session = await present(desk, guest.session)
    [leg] = session.open_legs
    assert leg == guest.leg
    assert may_pass(session.state, leg, Right.CONTROL)


async def test_a_second_engineer_needs_a_hand_over(desk: Desk) -> None:
    guest = await active(desk)
    with pytest.raises(ActionNotAllowed):
        await desk.remote.open_leg(guest.session, consent())
    handed = consent("li", "李娜", kind=Kind.HAND_OVER)
    assert await desk.remote.open_leg(guest.session, replace(handed, yes=False)) is None
    [leg] = (await present(desk, guest.session)).open_legs
    assert leg.user == "wang"
    assert await desk.remote.open_leg(guest.session, handed) is not None
    session = await present(desk, guest.session)
    assert [each.user for each in session.open_legs] == ["li"]
    assert (session.user, session.engineer) == ("li", "李娜")
    assert session.legs[0].leg.ending is Ending.HANDED_OVER
    # What was counted comes after it; how the leg ended stays.
    assert await desk.remote.close_leg(guest.session, 1, Ending.DONE, Counts(keys=5), RECORDING)
    session = await present(desk, guest.session)
    assert (session.legs[0].leg.ending, session.legs[0].counts.keys) == (Ending.HANDED_OVER, 5)
    assert "remote.handed_over" in await actions(desk, guest.ticket)


async def test_a_look_only_views_beside_who_helps(desk: Desk) -> None:
    guest = await active(desk)
    began = (await present(desk, guest.session)).since
    desk.clock.advance(timedelta(minutes=1))
    leg = await desk.remote.open_leg(guest.session, replace(LOOK, rights=EVERYTHING))
    assert leg is not None
    assert leg.rights == {Right.VIEW}
    session = await present(desk, guest.session)
    assert session.since == began  # it has been under way as long as before
    assert [each.user for each in session.open_legs] == ["wang", "sun"]
    assert session.user == "wang"
    for said in (None, consent("sun", "孙明", kind=Kind.RIGHTS)):  # not even with a yes
        kept = await desk.remote.change_rights(guest.session, 2, EVERYTHING, REQUESTER, said)
        assert kept.rights == {Right.VIEW}
    assert (await present(desk, guest.session)).open_legs[1].rights == {Right.VIEW}


async def test_a_bare_browser_only_shows(desk: Desk) -> None:
    guest = await active(desk, Mode.VIEW)
    assert guest.leg is not None
    assert guest.leg.rights == {Right.VIEW}


async def test_more_rights_need_the_users_yes_and_fewer_do_not(desk: Desk) -> None:
    guest = await active(desk)
    less = frozenset({Right.VIEW})
    assert (await desk.remote.change_rights(guest.session, 1, less, REQUESTER)).rights == less
    with pytest.raises(ActionNotAllowed, match="not allowed that"):
        await desk.remote.change_rights(guest.session, 1, EVERYTHING, "user:wang")
    no = consent(kind=Kind.RIGHTS, yes=False)
    others = (consent(), consent("li", "李娜", kind=Kind.RIGHTS))  # of another question, or person
    for said in (no, *others):
        with pytest.raises(ActionNotAllowed):
            await desk.remote.change_rights(guest.session, 1, EVERYTHING, "user:wang", said)
    await desk.remote.declined(guest.session, no)
    session = await present(desk, guest.session)
    assert session.open_legs[0].rights == less
    leg = await desk.remote.change_rights(
        guest.session, 1, EVERYTHING, REQUESTER, consent(kind=Kind.RIGHTS)
    )
    assert leg.rights == EVERYTHING
    [stored] = (await present(desk, guest.session)).open_legs
    assert stored == leg
    kept = {each["id"]: each for each in await rows(desk, remote_consents)}
    assert kept[leg.consent]["kind"] == "rights"
    assert [each["yes"] for each in kept.values() if each["kind"] == "rights"] == [False, True]
    told = [each for each in await entries(desk, guest.ticket) if each.action == "remote.rights"]
    assert [each.body["rights"] for each in told] == [
        ["view"], ["clipboard", "control", "view"],
    ]  # fmt: skip


async def test_rights_of_a_leg_that_is_over_cannot_be_changed(desk: Desk) -> None:
    guest = await active(desk)
    await desk.remote.freeze(guest.session)
    for number in (1, 2):
        with pytest.raises(ActionNotAllowed, match="is over"):
            await desk.remote.change_rights(guest.session, number, frozenset(), REQUESTER)


async def test_a_leg_is_settled_once(desk: Desk) -> None:
    guest = await active(desk)
    assert await desk.remote.close_leg(guest.session, 1, Ending.STOPPED, Counts(keys=1))
    assert not await desk.remote.close_leg(guest.session, 1, Ending.DONE, Counts(keys=2))
    [record] = (await present(desk, guest.session)).legs
    assert (record.leg.ending, record.counts.keys) == (Ending.STOPPED, 1)
    assert Counter(await actions(desk, guest.ticket))["remote.left"] == 1
    with pytest.raises(NotFound):
        await desk.remote.close_leg(guest.session, 2, Ending.DONE, Counts())


# Interrupted, over


async def test_a_lost_connection_ends_every_leg_and_only_a_new_yes_goes_on(desk: Desk) -> None:
    guest = await active(desk)
    assert await desk.remote.open_leg(guest.session, LOOK) is not None
    assert await desk.remote.freeze(guest.session)
    assert not await desk.remote.freeze(guest.session)
    session = await present(desk, guest.session)
    assert (session.state, session.open_legs) == (State.FROZEN, ())
    assert {each.leg.ending for each in session.legs} == {Ending.LOST}
    assert not any(may_pass(session.state, each.leg, Right.VIEW) for each in session.legs)
    with pytest.raises(ActionNotAllowed):
        await desk.remote.open_leg(guest.session, LOOK)
    leg = await desk.remote.open_leg(guest.session, consent())
    assert leg is not None
    assert leg.number == 3
    await desk.remote.close_leg(guest.session, 3, Ending.DONE, Counts())
    with pytest.raises(ActionNotAllowed):  # there is nothing to watch
        await desk.remote.open_leg(guest.session, LOOK)
    assert (await present(desk, guest.session)).state is State.ACTIVE
    assert (await actions(desk, guest.ticket))[-3:] == [
        "remote.frozen", "remote.resumed", "remote.left",
    ]  # fmt: skip


async def test_a_restart_freezes_what_was_under_way_and_names_what_is_not_settled(
    desk: Desk,
) -> None:
    guest = await active(desk)
    waiting = await agreed(desk, ticket=await desk.call(AT_SZ))
    desk.restart()
    assert await desk.remote.settle() == ((guest.session, 1),)
    assert (await present(desk, guest.session)).state is State.FROZEN
    assert (await present(desk, waiting.session)).state is State.AGREED
    await desk.remote.close_leg(guest.session, 1, Ending.LOST, Counts(), RECORDING, "cut off")
    assert await desk.remote.settle() == ()
    [record] = (await present(desk, guest.session)).legs
    assert (record.recording, record.note) == (RECORDING, "cut off")


@pytest.mark.parametrize(
    ("until", "minutes", "ending"),
    [("agreed", 30, Ending.EXPIRED), ("frozen", 10, Ending.LOST), ("active", 121, Ending.TOO_LONG)],
)
async def test_who_is_not_come_for_is_not_waited_for_for_ever(
    desk: Desk, until: str, minutes: int, ending: Ending
) -> None:
    guest = await (agreed(desk) if until == "agreed" else active(desk))
    if until == "frozen":
        await desk.remote.freeze(guest.session)
    await desk.fast_forward(timedelta(minutes=minutes) - timedelta(seconds=1))
    assert (await present(desk, guest.session)).state.value == until
    await desk.fast_forward(timedelta(seconds=1))
    session = await present(desk, guest.session)
    assert (session.state, session.ending, session.open_legs) == (State.ENDED, ending, ())
    assert (await actions(desk, guest.ticket))[-1] == "remote.ended"
    await desk.check()


async def test_going_on_counts_the_time_anew_but_not_the_whole(desk: Desk) -> None:
    guest = await active(desk)
    for _ in range(14):  # 9 minutes each, frozen again and again
        await desk.remote.freeze(guest.session)
        await desk.fast_forward(timedelta(minutes=8))
        if (await present(desk, guest.session)).state is State.ENDED:
            break
        await desk.when(desk.remote.open_leg(guest.session, consent()))
        await desk.fast_forward(timedelta(minutes=1))
    session = await present(desk, guest.session)
    assert session.started_at is not None
    assert session.ended_at is None or session.ending is Ending.TOO_LONG
    await desk.fast_forward(timedelta(minutes=30))
    session = await present(desk, guest.session)
    assert session.ended_at is not None
    assert session.started_at is not None
    assert session.ended_at - session.started_at <= timedelta(minutes=131)


async def test_lengths_are_those_of_the_settings(database: Database, clock: FakeClock) -> None:
    settings = Settings(remote=RemoteSettings(code_s=60, wait_s=120, frozen_s=30))
    desk = Desk(database, clock, settings=settings)
    await desk.load()
    assert (await invited(desk)).expires_at == clock.now() + timedelta(seconds=60)
    guest = await active(desk, ticket=await desk.call(AT_SZ))
    await desk.remote.freeze(guest.session)
    await desk.fast_forward(timedelta(seconds=30))
    assert (await present(desk, guest.session)).state is State.ENDED


async def test_it_can_be_switched_off(database: Database, clock: FakeClock) -> None:
    desk = Desk(database, clock, settings=Settings(remote=RemoteSettings(enabled=False)))
    await desk.load()
    with pytest.raises(ActionNotAllowed, match="switched off"):
        await invited(desk)


@pytest.mark.parametrize("how", [Action.CANCEL, Action.CLOSE])
async def test_with_its_ticket_a_session_is_over(desk: Desk, how: Action) -> None:
    guest = await active(desk)
    await desk.when(desk.tickets.take(guest.ticket, "wang", how="web"))
    if how is Action.CLOSE:
        await desk.when(desk.tickets.act(guest.ticket, Action.RESOLVE, actor="user:wang"))
        assert (await present(desk, guest.session)).state is State.ACTIVE
    await desk.when(desk.tickets.act(guest.ticket, how, actor="user:wang"))
    session = await present(desk, guest.session)
    assert (session.state, session.ending, session.open_legs) == (
        State.ENDED, Ending.CLOSED, (),
    )  # fmt: skip
    with pytest.raises(ActionNotAllowed):
        await invited(desk, guest.ticket)
    await desk.check()


async def test_of_a_ticket_that_is_over_a_code_opens_nothing_at_once(desk: Desk) -> None:
    invitation = await invited(desk)
    await desk.tickets.take(invitation.ticket, "wang", how="web")
    await desk.tickets.act(invitation.ticket, Action.CANCEL, actor="user:wang")
    assert (await present(desk, invitation.session)).state is State.INVITED  # nobody looked yet
    assert await desk.remote.shown(invitation.code, PEER) is None
    assert await desk.remote.agree(invitation.code, PEER, answer()) is None
    assert not await desk.remote.refuse(invitation.code, PEER, answer())
    await desk.drain()
    assert (await present(desk, invitation.session)).ending is Ending.CLOSED


async def test_who_is_helped_does_not_notice_that_tickets_become_one(desk: Desk) -> None:
    guest = await active(desk)
    other = await desk.call(AT_SZ)
    await desk.when(desk.tickets.merge(guest.ticket, other, actor="user:wang"))
    session = await present(desk, guest.session)
    assert (session.state, session.ticket) == (State.ACTIVE, other)
    await desk.when(desk.remote.end(guest.session, Ending.DONE, "user:wang"))
    assert (await actions(desk, other))[-1] == "remote.ended"
    await desk.check()


async def test_an_end_is_told_once_and_an_invitation_nobody_used_not_at_all(desk: Desk) -> None:
    guest = await active(desk)
    assert await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    assert not await desk.remote.end(guest.session, Ending.DONE, "user:wang")
    assert Counter(await actions(desk, guest.ticket))["remote.ended"] == 1
    invitation = await invited(desk, await desk.call(AT_SZ))
    await desk.remote.end(invitation.session, Ending.DONE, "user:wang")
    assert "remote.ended" not in await actions(desk, invitation.ticket)


async def test_whoever_lives_of_a_session_is_woken_after_each_change(
    database: Database, clock: FakeClock
) -> None:
    raised: list[Topic] = []
    remote = RemoteSessions(database, clock, Keys(database, clock).signing, raised.append)
    desk = Desk(database, clock)
    await desk.load()
    desk.remote = remote
    guest = await active(desk)
    blob = Blob(sha256="b" * 64, size_bytes=1, media_type="text/plain", name="a.txt")
    for change in (
        remote.say(guest.session, REQUESTER, "您好"),
        remote.offer_file(guest.session, sender="user:wang", blob=blob),
        remote.answer_file(guest.session, 1, by=REQUESTER, yes=True),
        remote.change_rights(guest.session, 1, frozenset({Right.VIEW}), REQUESTER),
        remote.close_leg(guest.session, 1, Ending.DONE, Counts()),
        remote.end(guest.session, Ending.DONE, "user:wang"),
    ):
        raised.clear()
        await change
        assert Topic.REMOTE in raised


# Chat and files


async def test_chat_is_kept_in_order_without_what_cannot_be(desk: Desk) -> None:
    guest = await agreed(desk)
    await desk.remote.say(guest.session, REQUESTER, "  打不开\x00了 ")
    await desk.remote.say(guest.session, "user:wang", "x" * 5000)
    assert await desk.remote.say(guest.session, "user:wang", " \n ") is None
    first, second = await desk.remote.chat(guest.session)
    assert (first.who, first.text) == (REQUESTER, "打不开了")
    assert len(second.text) == 2000
    await desk.remote.end(guest.session, Ending.STOPPED, REQUESTER)
    with pytest.raises(ActionNotAllowed):
        await desk.remote.say(guest.session, REQUESTER, "?")
    invitation = await invited(desk, await desk.call(AT_SZ))
    with pytest.raises(ActionNotAllowed):
        await desk.remote.say(invitation.session, "user:wang", "?")


async def test_a_file_is_taken_by_the_other_side_only_and_once(desk: Desk) -> None:
    guest = await active(desk)
    blob = Blob(sha256="b" * 64, size_bytes=7, media_type="text/plain", name="fix\n.txt")
    offered = await desk.remote.offer_file(guest.session, sender="user:wang", blob=blob)
    assert (offered.number, offered.state, offered.blob.name) == (1, FileState.OFFERED, "fix .txt")
    with pytest.raises(ActionNotAllowed):
        await desk.remote.answer_file(guest.session, 1, by="user:li", yes=True)
    said = consent(kind=Kind.FILE)
    taken = await desk.remote.answer_file(guest.session, 1, by=REQUESTER, yes=True, consent=said)
    assert taken.state is FileState.ACCEPTED
    with pytest.raises(ActionNotAllowed):
        await desk.remote.answer_file(guest.session, 1, by=REQUESTER, yes=False)
    assert await desk.remote.file(guest.session, 1) == taken
    assert await desk.remote.file(guest.session, 2) is None
    with pytest.raises(NotFound):
        await desk.remote.answer_file(guest.session, 2, by=REQUESTER, yes=True)
    kept = [each for each in await rows(desk, remote_consents) if each["kind"] == "file"]
    assert [each["yes"] for each in kept] == [True]
    [told] = [each for each in await entries(desk, guest.ticket) if each.action == "remote.file"]
    assert (told.actor, told.body["accepted"], told.body["sha256"]) == (
        REQUESTER, True, "b" * 64,
    )  # fmt: skip


async def test_a_session_takes_only_so_many_files(desk: Desk) -> None:
    guest = await active(desk)
    blob = Blob(sha256="b" * 64, size_bytes=7, media_type="text/plain", name="a.txt")
    for _ in range(MOST_FILES):
        await desk.remote.offer_file(guest.session, sender=REQUESTER, blob=blob)
    with pytest.raises(ActionNotAllowed, match="too many"):
        await desk.remote.offer_file(guest.session, sender=REQUESTER, blob=blob)


# What was


async def test_each_look_at_a_recording_is_in_the_journal(desk: Desk) -> None:
    guest = await active(desk)
    await desk.remote.close_leg(guest.session, 1, Ending.DONE, Counts(), RECORDING)
    await desk.remote.replayed(guest.session, 1, "user:amy")
    await desk.remote.replayed(guest.session, 1, "user:amy")
    told = [e for e in await entries(desk, guest.ticket) if e.action == "remote.replayed"]
    assert [(each.actor, each.body["leg"]) for each in told] == [("user:amy", 1)] * 2
    await desk.check()  # the chain holds


async def test_pages_of_sessions_have_the_newest_first_and_only_what_may_be_seen(
    desk: Desk,
) -> None:
    first = await agreed(desk)
    second = await invited(desk, await desk.call(AT_SZ))
    third = await invited(desk, first.ticket)
    found, more = await desk.remote.page(Filters(), None, 2)
    assert [each.id for each in found] == [third.session, second.session]
    assert more
    found, more = await desk.remote.page(Filters(), found[-1].id, 2)
    assert [each.id for each in found] == [first.session]
    assert not more
    for filters, expected in (
        (Filters(ticket=first.ticket), {first.session, third.session}),
        (Filters(state=State.ENDED), {first.session}),
        (Filters(sites={"sz"}), {second.session}),
    ):
        found, _ = await desk.remote.page(filters, None, 50)
        assert {each.id for each in found} == expected
    assert [each.id for each in await desk.remote.of_ticket(first.ticket)] == [
        first.session, third.session,
    ]  # fmt: skip
    assert {each.id for each in await desk.remote.live()} == {second.session, third.session}


async def test_what_lives_is_found_without_reading_what_was(desk: Desk) -> None:
    """However many sessions there were, the indexes lead to those of a code, cookie or ticket."""
    if desk.database.dialect != "sqlite":
        pytest.skip("PostgreSQL reads a small table as a whole")
    await agreed(desk)
    async with desk.database.reading() as connection:
        for condition in ("code_hash = x'00'", "share_hash = x'00'", "claim_hash = x'00'",
                          "ticket_id = 1 AND state <> 'ended'", "state <> 'ended'"):  # fmt: skip
            plan = (
                await connection.execute(
                    text(f"EXPLAIN QUERY PLAN SELECT * FROM remote_sessions WHERE {condition}")
                )
            ).all()
            assert any("USING INDEX" in str(row) or "USING COVERING" in str(row) for row in plan), (
                condition,
                plan,
            )


async def test_the_media_of_an_invitation_are_those_of_contacts(desk: Desk) -> None:
    ticket = await desk.call(AT_GZ)
    made = await desk.remote.invite(
        ticket, actor="user:wang", language="zh", medium=Medium.TEXT.value
    )
    assert (await present(desk, made.session)).medium == "text"
    [told] = await entries(desk, ticket)
    assert told.body["medium"] == "text"
