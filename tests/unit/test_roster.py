"""Who should be a queue member, and the steps there."""

from collections.abc import Iterable
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from contactd.routing.oncall import Duty, Engineer, Site, Why
from contactd.telephony.roster import (
    Add,
    Member,
    Penalty,
    Remove,
    Step,
    difference,
    interface,
    present,
    wanted,
)

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
GZ = Site(key="gz", name_zh="广州", name_en="Guangzhou", zone="Asia/Shanghai", queue="gz",
          floor="+8613800000099")  # fmt: skip
SZ = Site(key="sz", name_zh="深圳", name_en="Shenzhen", zone="Asia/Shanghai", queue="sz",
          floor="+8613800000099", language="en")  # fmt: skip
FLOOR = "Local/8613800000099@engineer-zh/n"


def engineer(key: str, number: str = "", language: str = "zh") -> Engineer:
    return Engineer(key=key, name=key, number=number or f"+86138{key}", language=language)


WANG = engineer("wang", "+8613800000001")
LI = engineer("li", "+8613800000002")
TOM = engineer("tom", "1003", "en")


def duty(who: Engineer, tier: int = 1, site: str = "gz", why: Why = Why.SHIFT) -> Duty:
    return Duty(site=site, tier=tier, engineer=who, why=why, since=NOW, until=NOW)


def in_queue(members: Iterable[Member], queue: str) -> dict[str, int]:
    return {member.name: member.penalty for member in members if member.queue == queue}


def member(interface: str, name: str = "wang", penalty: int = 1, queue: str = "gz") -> Member:
    return Member(queue=queue, interface=interface, name=name, penalty=penalty)


def apply(have: Iterable[Member], steps: Iterable[Step]) -> list[set[Member]]:
    """Return what the PBX has after each step."""
    now = {(one.queue, one.interface): one for one in have}
    after = []
    for step in steps:
        match step:
            case Add(member=one):
                assert (one.queue, one.interface) not in now
                now[one.queue, one.interface] = one
            case Remove(queue=queue, interface=where):
                del now[queue, where]
            case Penalty(queue=queue, interface=where, penalty=penalty):
                name = now[queue, where].name
                now[queue, where] = member(where, name, penalty, queue)
        after.append(set(now.values()))
    return after


# Who


def test_interface_asks_in_the_engineers_language() -> None:
    assert interface(WANG) == "Local/8613800000001@engineer-zh/n"
    assert interface(TOM) == "Local/1003@engineer-en/n"


def test_penalty_is_the_rank_of_the_tier_among_those_on_duty() -> None:
    want = wanted([GZ], {"gz": [duty(WANG, 2), duty(LI, 3), duty(TOM, 2)]}, default_queue="desk")
    assert in_queue(want, "gz") == {"wang": 1, "tom": 1, "li": 2, "floor": 9}


def test_floor_is_always_a_member_and_last() -> None:
    floor = duty(engineer("floor", GZ.floor), 9, why=Why.FLOOR)
    several: list[dict[str, list[Duty]]] = [{}, {"gz": []}, {"gz": [floor]}]
    for duties in several:
        assert in_queue(wanted([GZ], duties, default_queue="desk"), "gz") == {"floor": 9}


def test_default_queue_has_everybody_with_their_best_penalty() -> None:
    duties = {"gz": [duty(WANG), duty(LI, 2)], "sz": [duty(LI, 1, "sz")]}
    want = wanted([GZ, SZ], duties, default_queue="desk")
    assert in_queue(want, "desk") == {"wang": 1, "li": 1, "floor": 9}
    assert in_queue(want, "sz") == {"li": 1, "floor": 9}


def test_engineer_who_is_the_floor_too_is_rung_in_their_tier() -> None:
    boss = engineer("boss", GZ.floor)
    want = wanted([GZ], {"gz": [duty(boss)]}, default_queue="desk")
    assert in_queue(want, "gz") == {"boss": 1}


def test_more_tiers_than_penalties_stay_before_the_floor() -> None:
    duties = [duty(engineer(f"e{n}", f"1{n:03}"), n) for n in range(1, 13)]
    want = wanted([GZ], {"gz": duties}, default_queue="desk")
    assert max(p for name, p in in_queue(want, "gz").items() if name != "floor") == 8


# The way there


def test_present_members_are_read_from_queue_status() -> None:
    found = present(
        [
            {"Event": "QueueParams", "Queue": "gz"},
            {"Event": "QueueMember", "Queue": "gz", "Name": "wang", "Location": FLOOR,
             "Penalty": "2"},
            {"Event": "QueueMember", "Queue": "gz", "Name": "x", "Location": "PJSIP/1",
             "Penalty": "?"},
        ]
    )  # fmt: skip
    assert found == {member(FLOOR, "wang", 2), member("PJSIP/1", "x", -1)}


def test_equal_lists_need_no_step() -> None:
    want = wanted([GZ], {"gz": [duty(WANG)]}, default_queue="desk")
    assert difference(want, want) == []


def test_those_who_come_are_added_before_those_who_go_are_removed() -> None:
    old, new = member(interface(WANG)), member(interface(LI), "li")
    assert difference([new], [old]) == [
        Add(member=new),
        Remove(queue="gz", interface=interface(WANG)),
    ]


def test_changed_tier_moves_the_member_in_place() -> None:
    steps = difference([member(FLOOR, penalty=2)], [member(FLOOR, penalty=1)])
    assert steps == [Penalty(queue="gz", interface=FLOOR, penalty=2)]


def test_member_with_another_name_is_added_anew() -> None:
    other = member(interface(LI), "other")
    steps = difference([member(FLOOR, "li"), other], [member(FLOOR, "wang"), other])
    assert steps == [Remove(queue="gz", interface=FLOOR), Add(member=member(FLOOR, "li"))]


def test_member_with_another_name_who_is_alone_is_stood_in_for() -> None:
    have, want = [member(FLOOR, "wang")], [member(FLOOR, "li")]
    stations = apply(have, difference(want, have))
    assert all(stations)
    assert stations[-1] == set(want)


def test_members_and_queues_of_others_are_left_alone() -> None:
    others = [member("PJSIP/1001", "phone"), member("Local/5@sales/n"), member(FLOOR, queue="x")]
    assert difference([member(FLOOR)], [*others, member(FLOOR)]) == []


def test_steps_are_asterisks_actions() -> None:
    one = member(FLOOR, "floor", 9)
    assert Add(member=one).ami() == (
        "QueueAdd",
        {"Queue": "gz", "Interface": FLOOR, "MemberName": "floor", "Penalty": "9",
         "Paused": "false"},
    )  # fmt: skip
    assert Remove(queue="gz", interface=FLOOR).ami() == (
        "QueueRemove",
        {"Queue": "gz", "Interface": FLOOR},
    )
    assert Penalty(queue="gz", interface=FLOOR, penalty=2).ami() == (
        "QueuePenalty",
        {"Queue": "gz", "Interface": FLOOR, "Penalty": "2"},
    )


people = st.sampled_from([WANG, LI, TOM, engineer("boss", GZ.floor)])
rosters = st.lists(st.builds(duty, people, st.integers(1, 3))).map(
    lambda duties: wanted([GZ, SZ], {"gz": duties, "sz": duties[:1]}, default_queue="desk")
)


@given(rosters, rosters)
def test_steps_lead_there_and_no_queue_is_ever_empty(
    want: frozenset[Member], have: frozenset[Member]
) -> None:
    stations = apply(have, difference(want, have))
    for station in stations:
        assert {one.queue for one in station} == {"gz", "sz", "desk"}
    assert not stations or stations[-1] == set(want)
    if not stations:
        assert have == want
