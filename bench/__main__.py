"""`python -m bench [--only NAME]`: measures, prints a table, keeps it in docs/performance.md.

NAME is a benchmark (`ring`, `filing`, `calls`, `ami`, `replay`, `memory`, `start`, `timers`,
`pages`, `rota`, `explain`, `mail_accept`, `mail_tickets`, `texts`, `viewers`, `tickets_million`,
`remote`) or one figure of it (`ring_p99`). Those that were not
measured now stay as they were. What this checkout has measured is in bench/out/latest.json, too.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import (
    calls,
    daemon,
    explain,
    hotline,
    mail_accept,
    mail_tickets,
    manager,
    pages,
    records,
    remote_cut,
    remote_relay,
    rota,
    texts,
    texts_memory,
    texts_smpp,
    tickets_million,
    timers,
    viewers,
)
from bench.figures import Figure, Judged, markdown, plain
from contactd.lab.asterisk import LabError

OUT: Final = Path(__file__).parent / "out" / "latest.json"
PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN: Final = "<!-- figures: written by `make bench` -->"
END: Final = "<!-- end of figures -->"

# Which figures one measurement yields, in the order of the table.
MEASUREMENTS: Final[Mapping[tuple[str, ...], Callable[[], Awaitable[Sequence[Figure]]]]] = {
    ("ring_p50", "ring_p99", "filing_p50", "filing_p99"): hotline.measure,
    ("calls",): calls.measure,
    ("ami",): manager.measure,
    ("replay",): records.measure,
    ("start", "start_new", "memory"): daemon.measure,
    (
        "timers_sqlite_p99",
        "timers_sqlite_idle",
        "timers_postgresql_p99",
        "timers_postgresql_idle",
    ): timers.measure,
    ("pages_p50", "pages_p99"): pages.measure,
    ("rota_year", "rota_60d"): rota.measure,
    ("explain", "explain_due"): explain.measure,
    ("mail_accept_new", "mail_accept_open", "mail_accept_large"): mail_accept.measure,
    (
        "mail_tickets_rt_p99",
        "mail_tickets_rt_rate",
        "mail_tickets_roundup_p99",
        "mail_tickets_roundup_rate",
        "mail_tickets_mailbox",
    ): mail_tickets.measure,
    ("texts_webhooks",): texts.webhooks,
    ("texts_smpp_in", "texts_smpp_out"): texts_smpp.measure,
    (
        "viewers_p50",
        "viewers_p99",
        "viewers_cpu",
        "viewers_memory",
        "viewers_bytes",
        "viewers_first_view",
    ): viewers.measure,
    tuple(f"texts_memory_{name}" for name in texts_memory.GATEWAYS): texts_memory.measure,
    tuple(
        f"tickets_million_{database}_{area}"
        for database in ("sqlite", "postgresql")
        for area in ("search", "list", "page")
    ): tickets_million.measure,
    (
        "remote_relay",
        "remote_relay_plain",
        "remote_sessions_p50",
        "remote_sessions_p99",
        "remote_memory",
        "remote_stopped_p95",
    ): remote_relay.measure,
    ("remote_cut_p95", "remote_told_p95"): remote_cut.measure,
}
ORDER: Final = [name for names in MEASUREMENTS for name in names]
_NAME: Final = re.compile(r"\| (\w+) \|.*")  # a row of the table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="one benchmark, or one figure")
    only = parser.parse_args(argv).only
    wanted = [name for name in ORDER if only is None or f"{name}_".startswith(f"{only}_")]
    if not wanted:
        parser.error(f"there is no {only}: {', '.join(ORDER)}")
    try:
        found = asyncio.run(_measure(wanted))
    except LabError as error:
        sys.stderr.write(f"bench: {error}\n")
        return os.EX_UNAVAILABLE
    print(plain(found))
    figures = _merged(found)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        json.dumps([one.as_json() for one in figures], ensure_ascii=False, indent=2) + "\n",
        encoding="utf-8",
    )
    _keep(found)
    return os.EX_OK


async def _measure(wanted: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    for names, measure in MEASUREMENTS.items():
        if not set(names) & set(wanted):
            continue
        began = time.monotonic()
        print(f"{', '.join(name for name in names if name in wanted)} …", flush=True)
        found += [one for one in await measure() if one.name in wanted]
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return found


def _merged(found: Sequence[Figure]) -> list[Figure]:
    """Return what was found now and, of the rest, what was found before."""
    figures = {one.name: one for one in _before()} | {one.name: one for one in found}
    return [figures[name] for name in ORDER if name in figures]


def _before() -> list[Figure]:
    try:
        rows = json.loads(OUT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [
        Figure(
            name=row["name"],
            what=row["what"],
            unit=row["unit"],
            ours=row["ours"],
            bare=row["bare"],
            judged=Judged(row["judged"]),
            target=row["target"],
        )
        for row in rows
    ]


def _keep(found: Sequence[Figure]) -> None:
    """Put figures into the page's table; its other rows, and what was written by hand, stay."""
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} has lost its marks: {BEGIN} … {END}")
    head, line, *new = markdown(found).splitlines()
    rows = {_NAME.sub(r"\1", row): row for row in [*old.splitlines(), *new] if _NAME.match(row)}
    table = "\n".join([head, line, *(rows[name] for name in ORDER if name in rows)])
    when = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python"
    told = f"\n{when} {platform.python_version()}.\n\n{table}\n"
    PAGE.write_text(f"{before}{BEGIN}\n{told}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
