"""A service desk that has been at work for two years: so many tickets, the same every time.

Each ticket has two contacts, six journal entries whose hashes are right, two clocks and its row of
the search index. The rows go into the tables as they are (COPY, executemany), not through the
program, which would take a day.
"""

import asyncio
import hashlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg

from contactd.clock import SystemClock
from contactd.routing.clocks import Metric
from contactd.store import finding, search
from contactd.store.accounts import Accounts
from contactd.store.engine import Database, migrate
from contactd.store.schema import metadata
from contactd.tickets.journal import Draft, chain, instant_text
from contactd.tickets.numbers import ticket_number
from contactd.tickets.people import Role
from tests.fakes.postgres import PostgresServer

ENDS: Final = datetime(2026, 11, 1, tzinfo=UTC)
EVERY: Final = timedelta(seconds=63)
SITES: Final = 12
ENGINEERS: Final = 60
PEOPLE: Final = 100_000  # a tenth of the tickets, at most
OPEN: Final = 4_000  # of a million; the newest, and a few that nobody closed
BATCH: Final = 5_000
PEN: Final = 0x5EED


def _words(text: str) -> list[str]:
    return text.split(" ")


THINGS: Final = _words(
    "打印机 网络 电脑 显示器 邮箱 账号 密码 服务器 键盘 鼠标 无线 投影仪 扫描仪 VPN OA系统 ERP"
    " Excel Outlook 会议室 电话 硬盘 内存 门禁 考勤机 printer laptop switch"
)
TROUBLES: Final = _words(
    "无法打开 不能打印 连接不上 提示错误 很慢 卡死 蓝屏 没有反应 登录失败 断断续续 需要更换"
    " 请协助处理 频繁掉线 缺纸 卡纸 自动重启 打不开附件 需要安装"
)
PLACES: Final = _words("三楼 财务部 人事部 仓库 前台 研发中心 车间 天河分公司 五楼会议室 二号楼")
MORE: Final = _words(
    "今天早上开始出现这个问题 已经重启过了还是不行 麻烦尽快安排工程师过来看一下"
    " 同事的电脑都正常 昨天下班前还好好的 急用谢谢 换了一根网线也没有用 文件在共享盘里面找不到了"
)
ENGLISH: Final = (
    "Please have a look before noon.", "The error code is 0x80070035.", "Screenshot attached.",
    "It worked yesterday.", "Quarterly report is due today.",
)  # fmt: skip
DONE: Final = _words("更换硒鼓后正常 重装驱动 重置密码 已更换网线 清理缓存后恢复 联系运营商处理")
FAMILY: Final = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹"
GIVEN: Final = "伟芳娜敏静丽强磊军洋勇艳杰涛明超秀霞平刚桂英华建国志鹏婷雪玲宇欣佳琳浩"
SUPPLIERS: Final = [chr(0x4E00 + n * 3) + chr(0x5000 + (n * 37) % 6000) for n in range(4_000)]

Row = tuple[Any, ...]
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "tickets": (
        "id", "number", "requester_id", "site", "state", "impact", "urgency", "priority",
        "priority_reason", "title", "assignee_id", "opened_at", "acknowledged_at", "closed_at",
        "last_contact_at", "updated_at", "journal_seq", "journal_hash", "category", "system",
    ),
    "contacts": (
        "id", "ticket_id", "person_id", "medium", "external_id", "direction", "source",
        "received_at", "from_value", "from_name", "to_value", "outcome", "text", "call_final",
        "filed_at",
    ),
    "journal": (
        "ticket_id", "seq", "at", "actor", "action", "state", "body", "prev_hash", "hash",
    ),
    "clocks": (
        "ticket_id", "metric", "entry", "state", "goal_s", "started_at", "due_at", "provisional",
        "stopped_at", "breached_at", "segments",
    ),
    "search_texts": ("ticket_id", "body", "terms", "journal_seq", "seen_at"),
}  # fmt: skip


def recipe() -> str:
    """Return what changes when the same program would fill something else."""
    migrations = Path(search.__file__).parent / "migrations" / "versions"
    files = [Path(__file__), Path(search.__file__), Path(finding.__file__)]
    digest = hashlib.sha256()
    for path in [*files, *sorted(migrations.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


# What there is


def people(count: int) -> list[tuple[str, str, str, bool]]:
    """Return name, number, mail and whether they are very important, of so many requesters."""
    pen = random.Random(PEN)
    return [
        (
            pen.choice(FAMILY) + pen.choice(GIVEN) + pen.choice(GIVEN),
            f"+861{pen.randrange(30, 100)}{n * 7919 % 100_000_000:08}",
            f"user{n}@example.com" if n % 2 else "",
            n % 100 == 0,
        )
        for n in range(count)
    ]


def desk(count: int) -> dict[str, list[Row]]:
    """Return the rows of sites, people and their addresses."""
    created = ENDS - timedelta(days=1_000)
    sites = [
        (
            f"s{n:02}",
            f"第{n + 1}分公司",
            f"Branch {n + 1}",
            "Asia/Shanghai",
            f"s{n:02}",
            "+8613800019999",
        )
        for n in range(SITES)
    ]
    rows: list[Row] = [
        (n + 1, f"e{n:02}", f"工程师{n:02}", "engineer", False, created) for n in range(ENGINEERS)
    ]
    known: list[Row] = []
    for n, (name, number, mail, vip) in enumerate(people(_requesters(count))):
        person = ENGINEERS + 1 + n
        rows.append((person, None, name, "requester", vip, created))
        known.append(("phone", number, person, 0))
        if mail:
            known.append(("mail", mail, person, 1))
    return {"sites": sites, "people": rows, "addresses": known}


def _requesters(count: int) -> int:
    return max(100, min(PEOPLE, count // 10))


def batches(count: int) -> Iterator[dict[str, list[Row]]]:
    """Yield the rows of tickets, some thousands at a time, and of what belongs to them."""
    crowd = people(_requesters(count))
    start = ENDS - count * EVERY
    days: dict[str, int] = {}
    for first in range(1, count + 1, BATCH):
        found: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        for number in range(first, min(first + BATCH, count + 1)):
            _ticket(found, number, count, start + number * EVERY, crowd, days)
        yield found


def _ticket(
    found: dict[str, list[Row]], ident: int, count: int, at: datetime, crowd: Sequence[Any],
    days: dict[str, int],
) -> None:  # fmt: skip
    pen = random.Random(ident)
    day = f"{at:%y%m%d}"
    days[day] = days.get(day, 0) + 1
    number = ticket_number(at.date(), days[day])
    who = pen.randrange(len(crowd))
    name, phone, mail, vip = crowd[who]
    is_open = count - ident < OPEN * count // 1_000_000 + 30 or ident % 5_003 == 0
    state = pen.choice(("new", "in_progress", "in_progress", "pending", "resolved"))
    state = state if is_open else ("cancelled" if ident % 37 == 0 else "closed")
    site = None if pen.random() < 0.02 else f"s{min(int(pen.expovariate(0.4)), SITES - 1):02}"
    engineer = None if state == "new" else pen.randrange(ENGINEERS) + 1
    priority = pen.choices(("P1", "P2", "P3", "P4"), (1, 9, 60, 30))[0]
    title = pen.choice(PLACES) + pen.choice(THINGS) + pen.choice(TROUBLES)
    said = [
        f"{title}，{pen.choice(MORE)}。{pen.choice(MORE)}。",
        f"{pen.choice(THINGS)}{pen.choice(TROUBLES)}，{pen.choice(MORE)}。{pen.choice(ENGLISH)}",
    ]
    note = f"{pen.choice(DONE)}，{pen.choice(THINGS)}由{pen.choice(SUPPLIERS)}公司处理"
    media = [pen.choices(("call", "mail", "text", "web"), (50, 30, 15, 5))[0] for _ in said]
    category = pen.choice(("hardware", "software", "network", "account", "other", ""))
    updated = at + timedelta(minutes=200)
    last_hash = _journal(found, ident, number, at, state, engineer, note)
    closed = updated if state in ("closed", "cancelled") else None
    found["tickets"].append(
        (
            ident, number, ENGINEERS + 1 + who, site, state, 3, 2, priority, "person, medium",
            title, engineer, at, at + timedelta(minutes=9) if engineer else None, closed,
            at + timedelta(minutes=30), updated, 6, last_hash, category, "",
        )
    )  # fmt: skip
    for place, (text, medium) in enumerate(zip(said, media, strict=True)):
        source = mail if medium == "mail" and mail else phone
        came = at + timedelta(minutes=30 * place)
        found["contacts"].append(
            (
                2 * ident + place - 1, ident, ENGINEERS + 1 + who, medium, f"b-{ident:07}-{place}",
                "in", "live", came, source, name, "4008001234", "received",
                "" if medium == "call" else text, True, came,
            )
        )  # fmt: skip
    _clocks(found, ident, at, is_open=is_open, spread=pen.randrange(-600, 6_000))
    body = "\n".join(dict.fromkeys([
        number, title, name, phone, *([mail] if mail else []),
        *(text for text, medium in zip(said, media, strict=True) if medium != "call"), note,
    ]))  # fmt: skip
    facets = search.facets_of(
        {
            "id": ident, "site": site, "state": state, "priority": priority, "category": category,
            "team": "", "engineer": f"e{engineer - 1:02}" if engineer else "", "opened_at": at,
            "vip": vip,
        },
        media,
    )  # fmt: skip
    found["search_texts"].append((ident, body, finding.terms(body) | facets, 6, updated))


def _journal(
    found: dict[str, list[Row]], ident: int, number: str, at: datetime, state: str,
    engineer: int | None, note: str,
) -> str:  # fmt: skip
    who = f"engineer:e{(engineer or 1) - 1:02}"
    opened = {
        "contact": f"b-{ident:07}-0", "received_at": instant_text(at), "priority": "P3",
        "reason": "person, medium", "contract": "none.1", "calendar": "always",
    }  # fmt: skip
    later = {"contact": f"b-{ident:07}-1", "received_at": instant_text(at + timedelta(minutes=30))}
    told = [
        (0, "requester", "opened", "new", opened),
        (1, "system", "comment", "new", {"note": "自动分配"}),
        (9, who, "comment", state, {"note": "已联系用户"}),
        (30, "requester", "contact.added", state, later),
        (60, who, "updated", state, {"note": note}),
        (200, who, "comment", state, {"note": "用户确认"}),
    ]
    drafts = [
        Draft(
            at=at + timedelta(minutes=minutes), actor=actor, action=action, state=after, body=body
        )
        for minutes, actor, action, after, body in told
    ]
    entries = chain(number, drafts, seq=0, prev_hash="")
    found["journal"] += [
        (
            ident, each.seq, each.at, each.actor, each.action, each.state,
            json.dumps(each.body, ensure_ascii=False), each.prev_hash, each.hash,
        )
        for each in entries
    ]  # fmt: skip
    return entries[-1].hash


def _clocks(
    found: dict[str, list[Row]], ident: int, at: datetime, *, is_open: bool, spread: int
) -> None:
    for metric, goal in ((Metric.ANSWER, 900), (Metric.RESOLUTION, 28_800)):
        runs = is_open and metric is Metric.RESOLUTION
        due = (
            datetime.now(UTC) + timedelta(minutes=spread) if runs else at + timedelta(seconds=goal)
        )
        breached = due if ident % 20 == 0 and not runs else None
        found["clocks"].append(
            (
                ident, metric.value, 1, "running" if runs else "stopped", goal, at, due, False,
                None if runs else at + timedelta(minutes=9), breached, "[]",
            )
        )  # fmt: skip


# Where it goes


def folder(count: int) -> Path:
    """Return where a desk of so many tickets is kept, for the next run."""
    # PostgreSQL does not run as root, and nobody else may look into root's home.
    cache = Path(tempfile.gettempdir()) if os.geteuid() == 0 else Path.home() / ".cache"
    path = cache / "contactd" / f"bench-million-{recipe()}-{count}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def sqlite_path(count: int) -> Path:
    return folder(count) / "sqlite" / "data" / "contactd.sqlite3"


def fill_sqlite(count: int) -> Path:
    """Fill a database unless it is there from before; return its path."""
    path = sqlite_path(count)
    done = path.with_suffix(".done")
    if done.exists():
        return path
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    migrate(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -300000"
        )
        triggers = base.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'journal'"
        ).fetchall()
        for name, _ in triggers:
            base.execute(f"DROP TRIGGER {name}")
        base.execute("BEGIN")
        tables = desk(count)
        for name, columns in DESK_COLUMNS.items():
            _insert(base, name, columns, tables[name])
        for rows in batches(count):
            for name, columns in COLUMNS.items():
                _insert(base, name, columns, rows[name])
        base.execute("COMMIT")
        for _, sql in triggers:
            base.execute(sql)
        base.execute("PRAGMA journal_mode = WAL")
    done.touch()
    return path


DESK_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "sites": ("key", "name_zh", "name_en", "zone", "queue", "floor"),
    "people": ("id", "key", "name", "role", "vip", "created_at"),
    "addresses": ("kind", "value", "person_id", "rank"),
}


def _insert(
    base: sqlite3.Connection, name: str, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    marks = ", ".join("?" * len(columns))
    base.executemany(
        f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})",
        [tuple(map(_sqlite_value, row)) for row in rows],
    )


def _sqlite_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant_text(value)
    return " ".join(sorted(value)) if isinstance(value, set) else value


async def fill_postgresql(server: PostgresServer, count: int) -> str:
    """Fill a database of the server unless it is there from before; return its URL."""
    name = f"million_{count}"
    if name in server.psql("postgres", "SELECT datname FROM pg_database").split():
        return server.url(name)
    url = server.create(f"{name}_new")
    await asyncio.to_thread(migrate, url)
    base = await asyncpg.connect(url)
    try:
        await base.execute("SET synchronous_commit = off; SET maintenance_work_mem = '400MB'")
        await base.execute("DROP INDEX ix_search_texts_terms")
        await base.execute("ALTER TABLE search_texts ALTER terms TYPE text")
        tables = desk(count)
        for table, columns in DESK_COLUMNS.items():
            await base.copy_records_to_table(table, records=tables[table], columns=columns)
        for rows in batches(count):
            rows["search_texts"] = [
                (*row[:2], " ".join(f"'{term}'" for term in row[2]), *row[3:])
                for row in rows["search_texts"]
            ]
            for table, columns in COLUMNS.items():
                await base.copy_records_to_table(table, records=rows[table], columns=columns)
        await base.execute(
            "ALTER TABLE search_texts ALTER terms TYPE tsvector USING terms::tsvector",
            timeout=3_600,
        )
        await base.execute(
            "CREATE INDEX ix_search_texts_terms ON search_texts USING gin (terms)"
            " WITH (fastupdate = off)",
            timeout=3_600,
        )
        for made in metadata.sorted_tables:
            if "id" in made.c and made.name in {*COLUMNS, *DESK_COLUMNS}:
                await base.execute(
                    f"SELECT setval(s, (SELECT max(id) FROM {made.name}))"
                    f" FROM pg_get_serial_sequence('{made.name}', 'id') s WHERE s IS NOT NULL"
                )
        await base.execute("VACUUM ANALYZE", timeout=3_600)
    finally:
        await base.close()
    server.psql("postgres", f'ALTER DATABASE "{name}_new" RENAME TO "{name}"')
    return server.url(name)


async def prepared(url: str, count: int) -> str:
    """Say that the search index is up to date; return the secret of a token."""
    database = Database(url)
    async with database.running():
        place = json.dumps({"at": (ENDS + timedelta(days=1)).isoformat(), "last": count})
        async with database.writing() as connection:
            moved = {"source": search.SOURCE, "position": place, "now": datetime.now(UTC)}
            await connection.execute(search._MOVE, moved)
        return await Accounts(database, SystemClock()).create_token(
            f"bench-{os.getpid()}-{datetime.now(UTC):%H%M%S%f}", Role.ADMIN
        )


def nth(count: int, ident: int) -> str:
    """Return the number of the ticket that is number `ident` of all."""
    start = ENDS - count * EVERY
    at = start + ident * EVERY
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    first = max(1, -(-(midnight - start) // EVERY))
    return ticket_number(at.date(), ident - first + 1)
