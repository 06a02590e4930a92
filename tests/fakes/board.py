"""A board that shows what it is told, with a busy afternoon to begin with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contactd.errors import TemporaryFailure
from contactd.routing.clocks import Metric
from contactd.routing.oncall import Why
from contactd.service import Health, HealthState
from contactd.store.boardviews import (
    Age,
    Attained,
    BreachedCount,
    Figures,
    IntakeCount,
    Marks,
    OpenCount,
    QueueDay,
    Risk,
    StateCount,
)
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
    BoardSite(key="gz", name_zh="广州珠江新城", name_en="Guangzhou", queue="gz"),
    BoardSite(key="sz", name_zh="深圳", name_en="Shenzhen", queue="sz"),
    BoardSite(key="zh", name_zh="珠海", name_en="Zhuhai", queue="west"),
    BoardSite(key="fs", name_zh="佛山", name_en="Foshan", queue="west"),
    BoardSite(key="zq", name_zh="肇庆", name_en="Zhaoqing", queue="west"),
)
SHAPE = (1, 0, 0, 0, 0, 1, 2, 6, 14, 12, 9, 7, 4, 5, 10, 9, 8, 6, 3, 2, 2, 1, 1, 0)  # of a day
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
             caller="+862088881234", site="gz", engineer="李娜", queue="gz"),
        call(3, stage=CallStage.QUEUED, since=ago(minutes=1, seconds=33),
             arrived_at=ago(minutes=1, seconds=50), caller="+8613800138000", name=HOSTILE_NAME,
             site="sz", queue="sz"),
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
        counts=tuple(
            StateCount(site=("gz", "sz")[n % 2], state=state, priority=Priority.P3, count=count)
            for n, (state, count) in enumerate(STATES.items())
        ),
        open=tuple(
            OpenCount(site="gz", priority=priority, age=Age(n), count=count)
            for priority, row in OPEN.items() for n, count in enumerate(row) if count
        ),
        intake=intake(now, 1), latest=latest,
    )  # fmt: skip
    return BoardSnapshot(
        at=now, sites=SITES, calls=calls, duties=tuple(duties), next_duties=tuple(coming),
        tickets=tickets, ledger=ledger, risks=risks(now),
        breached=(BreachedCount(site="gz", count=3), BreachedCount(site="sz", count=1)),
        usual=intake(now.replace(hour=15), 1.2), figures=FIGURES,
    )  # fmt: skip


STATES = {
    State.NEW: 4, State.IN_PROGRESS: 9, State.PENDING: 3, State.RESOLVED: 12, State.CLOSED: 8,
    State.CANCELLED: 1,
}  # fmt: skip
OPEN = {
    Priority.P1: (1, 0, 0, 0, 0), Priority.P2: (2, 1, 0, 0, 0), Priority.P3: (9, 7, 3, 1, 2),
    Priority.P4: (1, 2, 2, 0, 0),
}  # fmt: skip
FIGURES = Figures(
    queues=(
        QueueDay(queue="gz", calls=31, abandoned=2, average=timedelta(seconds=14),
                 p90=timedelta(seconds=41)),
        QueueDay(queue="sz", calls=9, abandoned=1, average=timedelta(seconds=22),
                 p90=timedelta(minutes=1, seconds=7)),
    ),
    attained=(
        Attained(site="gz", metric=Metric.ANSWER, kept=412, missed=9),
        Attained(site="sz", metric=Metric.ANSWER, kept=120, missed=4),
        Attained(site="gz", metric=Metric.ARRIVAL, kept=61, missed=6),
        Attained(site="gz", metric=Metric.REMOTE, kept=88, missed=1),
        Attained(site="sz", metric=Metric.RESOLUTION, kept=501, missed=21),
    ),
    marks=(Marks(site="gz", satisfied=96, marks=101), Marks(site="sz", satisfied=40, marks=41)),
)  # fmt: skip


def risks(now: datetime) -> tuple[Risk, ...]:
    """Three broken promises, one that is about to be, and later ones."""
    due = (-134, -61, -3, 0.7, 11, 24, 38, 55, 90, 130, 200)  # minutes
    return tuple(
        Risk(
            ticket=f"2611200{n:03d}{n % 10}", site=("gz", "sz", "", "fs")[n % 4],
            priority=tuple(Priority)[(n + 1) % 4], metric=tuple(Metric)[n % len(Metric)],
            due_at=now + timedelta(minutes=minutes), engineer=("王伟", "", "黄强")[n % 3],
        )
        for n, minutes in enumerate(due)
    )  # fmt: skip


def intake(until: datetime, by: float) -> tuple[IntakeCount, ...]:
    """Contacts of every hour up to `until`, in Shanghai."""
    share = {Medium.CALL: 0.5, Medium.MAIL: 0.25, Medium.TEXT: 0.1, Medium.WEB: 0.15}
    last = (until.astimezone(UTC) + timedelta(hours=8)).hour
    return tuple(
        IntakeCount(site="gz", medium=medium, hour=hour, count=round(many * part * by, 2)
                    if by != 1 else round(many * part))
        for medium, part in share.items() for hour, many in enumerate(SHAPE) if hour <= last
    )  # fmt: skip


def quiet() -> BoardSnapshot:
    return BoardSnapshot(at=datetime.now(UTC))


def _duty(
    site: str, tier: int, engineer: str, why: Why, since: datetime, until: datetime
) -> BoardDuty:
    return BoardDuty(site=site, tier=tier, engineer=engineer, why=why, since=since, until=until)
