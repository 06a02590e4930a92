"""A board that shows what it is told, with a busy afternoon to begin with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contactd.errors import TemporaryFailure
from contactd.routing.oncall import Why
from contactd.service import Health, HealthState
from contactd.tickets.contact import Medium
from contactd.tickets.priority import Priority
from contactd.tickets.states import State
from contactd.web.board import (
    BoardDuty,
    BoardLedger,
    BoardSite,
    BoardSnapshot,
    BoardTicket,
    BoardTickets,
    CallStage,
    LiveCall,
)

SITES = (
    BoardSite(key="gz", name_zh="广州珠江新城", name_en="Guangzhou"),
    BoardSite(key="sz", name_zh="深圳", name_en="Shenzhen"),
    BoardSite(key="zh", name_zh="珠海", name_en="Zhuhai"),
    BoardSite(key="fs", name_zh="佛山", name_en="Foshan"),
    BoardSite(key="zq", name_zh="肇庆", name_en="Zhaoqing"),
)
HOSTILE_NAME = '<script>alert(1)</script>"\'张三 "; DROP'


class FakeBoard:
    """`snapshot` is what is shown next; `down`: the database is away; `asked` counts."""

    def __init__(self, snapshot: BoardSnapshot | None = None) -> None:
        self.shown = snapshot or busy()
        self.down = False
        self.asked = 0
        self.health = list(HEALTH)

    async def snapshot(self) -> BoardSnapshot:
        self.asked += 1
        if self.down:
            raise TemporaryFailure("the database does not answer")
        return self.shown

    def show(self, **changes: Any) -> None:
        self.shown = replace(self.shown, **changes)


HEALTH = (
    Health(component="database", state=HealthState.UP),
    Health(component="outbox", state=HealthState.UP, figures={"lag_s": 0.0}),
    Health(
        component="pbx:pbx2",
        state=HealthState.DEGRADED,
        detail="no answer from 192.0.2.7:5038 for 24 s; trying again. Is the PBX running?",
    ),
    Health(component="pbx:pbx1", state=HealthState.UP),
    Health(component="agi", state=HealthState.UP),
    Health(component="records:pbx1", state=HealthState.UP),
    Health(component="roster:pbx1", state=HealthState.UP),
    Health(component="ledger", state=HealthState.UP),
    Health(component="http", state=HealthState.UP),
    Health(component="live", state=HealthState.UP),
)


def call(number: int = 1, **changes: Any) -> LiveCall:
    now = datetime.now(UTC)
    base = LiveCall(
        call_id=f"pbx1-1795318490.{number}",
        stage=CallStage.RINGING,
        since=now,
        arrived_at=now,
        caller="+8613912345678",
        ticket=f"26112000{number:02d}7",
    )
    return replace(base, **changes)


def busy() -> BoardSnapshot:
    now = datetime.now(UTC)
    today = now.date()

    def ago(**how_long: float) -> datetime:
        return now - timedelta(**how_long)

    calls = (
        call(1, stage=CallStage.TALKING, since=ago(minutes=7, seconds=12), name="陈静",
             arrived_at=ago(minutes=8), site="gz", engineer="王伟"),
        call(2, stage=CallStage.OFFERED, since=ago(seconds=9), arrived_at=ago(seconds=41),
             caller="+862088881234", site="gz", engineer="李娜"),
        call(3, stage=CallStage.QUEUED, since=ago(minutes=1, seconds=33),
             arrived_at=ago(minutes=1, seconds=50), caller="+8613800138000", name=HOSTILE_NAME,
             site="sz"),
        call(4, stage=CallStage.GREETING, since=ago(seconds=4), arrived_at=ago(seconds=5),
             caller=""),
        call(5, stage=CallStage.RINGING, caller="+4930901820", name="Jürgen Müller", ticket=""),
    )  # fmt: skip
    crew = {
        "gz": ("王伟", "李娜"), "sz": ("黄强", "李娜"), "zh": ("周敏", "李娜"),
        "fs": ("吴磊", "李娜"), "zq": ("郑洁", "李娜"),
    }  # fmt: skip
    until = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=3)
    duties, coming = [], []
    for key, (first, second) in crew.items():
        if key == "zq":
            duties.append(_duty(key, 9, "floor", Why.FLOOR, now, until))
        else:
            why = Why.OVERRIDE if key == "fs" else Why.SHIFT
            duties.append(_duty(key, 1, first, why, now, until))
        duties.append(_duty(key, 2, second, Why.SHIFT, now, until + timedelta(hours=21)))
        coming.append(_duty(key, 1, "赵云鹏", Why.SHIFT, until, until + timedelta(hours=8)))
    latest = tuple(
        BoardTicket(
            number=f"2611200{40 - n:03d}{n % 10}", opened_at=ago(minutes=6 + 17 * n),
            caller=("+8613912345678", "+862088881234", "", "chenjing@example.cn")[n % 4],
            site=("gz", "sz", "", "fs", "zq")[n % 5], state=tuple(State)[n % 5],
            priority=tuple(Priority)[(n * 3 + 2) % 4],
            engineer=("王伟", "李娜", "", "黄强")[n % 4],
        )
        for n in range(10)
    )  # fmt: skip
    ledger = tuple(
        BoardLedger(
            day=today - timedelta(days=n), medium=Medium.CALL, source="pbx1",
            outside=48 + 7 * n % 5, contacts=48 + 7 * n % 5 - (2 if n == 3 else 0),
            missing=2 if n == 3 else 0, extra=0, repaired=(3, 0, 0, 1, 0, 0, 12)[n],
        )
        for n in range(7)
    )  # fmt: skip
    tickets = BoardTickets(
        states={
            State.NEW: 4, State.IN_PROGRESS: 9, State.PENDING: 3, State.RESOLVED: 12,
            State.CLOSED: 8, State.CANCELLED: 1,
        },
        priorities={Priority.P1: 1, Priority.P2: 2, Priority.P3: 28, Priority.P4: 6},
        intake={Medium.CALL: 48, Medium.MAIL: 17, Medium.TEXT: 5, Medium.WEB: 9},
        latest=latest,
    )  # fmt: skip
    return BoardSnapshot(
        at=now, sites=SITES, calls=calls, duties=tuple(duties), next_duties=tuple(coming),
        tickets=tickets, ledger=ledger,
    )  # fmt: skip


def quiet() -> BoardSnapshot:
    return BoardSnapshot(at=datetime.now(UTC))


def _duty(
    site: str, tier: int, engineer: str, why: Why, since: datetime, until: datetime
) -> BoardDuty:
    return BoardDuty(site=site, tier=tier, engineer=engineer, why=why, since=since, until=until)
