"""`python -m bench.corpus [--direct] [-v] DIR`: every set of mails below DIR through contactd.

Each mail goes over SMTP to the real listener, into its spool and through the parser processes;
`--direct` calls the parser alone. What comes out is compared with what the set says is right.
Exit code: 0, or 1 if a set misses its target or a mail was lost.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from bench.corpus import direct, flufl, generic, mime4j, php, replies, sisimai, spf_suite, wire
from bench.corpus.marks import (
    Case,
    Judged,
    MailSet,
    Mark,
    Passage,
    Rate,
    SetReader,
    is_met,
    share,
    tally,
)
from bench.corpus.words import as_sent
from contactd import log

# The first that recognises a folder reads it; a folder with a SOURCE file is one set.
READERS: Final[tuple[SetReader, ...]] = (
    mime4j.SET,
    php.SET,
    replies.SET,
    sisimai.SET,
    flufl.SET,
    spf_suite.SET,
)
SOURCE: Final = "SOURCE"  # says where a set comes from
EVERY_MAIL: Final = 1_000_000
WORST_FIRST: Final[Mapping[Mark, int]] = {Mark.WRONG: 1, Mark.NEAR: 2, Mark.OK: 3}


class Way(Protocol):
    """How mails get to the parser."""

    async def run(self, cases: Sequence[Case]) -> tuple[list[Judged], Passage]: ...


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    folders = [
        (folder, reader)
        for folder, reader in sets_below(arguments.folder)
        if arguments.only in str(folder.name)
    ]
    if not folders:
        sys.stderr.write(f"corpus: no mails below {arguments.folder}\n")
        return os.EX_NOINPUT
    return 1 if asyncio.run(_run(folders, arguments)) else os.EX_OK


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.corpus", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--only", default="", metavar="SET", help="part of a set's folder name")
    parser.add_argument("--direct", action="store_true", help="without SMTP, in this process")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="differences of a set")
    parser.add_argument("-v", dest="show", action="store_const", const=EVERY_MAIL)
    return parser.parse_args(argv)


def sets_below(top: Path) -> Iterator[tuple[Path, SetReader]]:
    """Yield the sets below `top`, or `top` itself; what no reader knows is read as mails."""
    reader = next((one for one in READERS if one.recognises(top)), None)
    if reader is not None:
        yield top, reader
    elif not (top / SOURCE).is_file() and _holds_sets(top):
        for folder in sorted(path for path in top.iterdir() if path.is_dir()):
            yield from sets_below(folder)
    elif generic.SET.recognises(top):
        yield top, generic.SET


def _holds_sets(top: Path) -> bool:
    """Tell a folder of sets from one of mails: such a one may have folders, too (cur, new)."""
    folders = [path for path in top.rglob("*") if path.is_dir()]
    return any(
        (folder / SOURCE).is_file() or any(one.recognises(folder) for one in READERS)
        for folder in folders
    )


async def _run(folders: Sequence[tuple[Path, SetReader]], arguments: argparse.Namespace) -> int:
    """Return how many targets were missed and how many sets lost a mail."""
    failures = 0
    print(_HEADING)
    async with _way(is_direct=arguments.direct) as way:
        for folder, reader in folders:
            mails = reader.read(folder)
            began = time.monotonic()
            judged, passage = await way.run(mails.cases)
            judged += mails.judged
            _show(mails, judged, passage, time.monotonic() - began)
            _differences(judged, arguments.show)
            failures += sum(not is_met(rate, judged) for rate in mails.rates)
            failures += not passage.is_complete
    return failures


@asynccontextmanager
async def _way(*, is_direct: bool) -> AsyncIterator[Way]:
    if is_direct:
        yield direct.Direct()
        return
    with tempfile.TemporaryDirectory(prefix="contactd-corpus-") as folder:
        async with wire.opened(Path(folder)) as opened:
            yield opened


_HEADING: Final = (
    f"{'set':<22}{'mails':>6}{'ok':>6}{'near':>6}{'wrong':>6}{'refused':>9}{'lost':>6}{'s':>8}"
)


def _show(mails: MailSet, judged: Sequence[Judged], passage: Passage, seconds: float) -> None:
    marks = tally(judged)
    print(
        f"{mails.name:<22}{len(judged):>6}{marks[Mark.OK]:>6}{marks[Mark.NEAR]:>6}"
        f"{marks[Mark.WRONG]:>6}{marks['refused']:>9}{marks['lost']:>6}{seconds:>8.1f}"
    )
    for rate in mails.rates:
        if rate.least is not None or share(rate, judged)[1]:
            print(_line(rate, judged))
    for remark in (*_remarks(mails, passage), mails.remark):
        if remark:
            print(f"    ({remark})")
    sys.stdout.flush()


def _line(rate: Rate, judged: Sequence[Judged]) -> str:
    held, of = share(rate, judged)
    figure = f"{held}/{of}" if of else "–"
    least = "" if rate.least is None else f"  at least {rate.least:.1%}"
    missed = "" if is_met(rate, judged) else "  MISSED"
    return f"    {rate.what:<27}{figure:>10}{held / of if of else 0:>8.1%}{least}{missed}"


def _remarks(mails: MailSet, passage: Passage) -> Iterator[str]:
    repaired = sum(as_sent(case.raw) != case.raw for case in mails.cases)
    if repaired:
        yield f"line ends were made CRLF in {repaired}: SMTP has no others"
    begun = sum(case.raw.startswith(b"From ") for case in mails.cases)
    if begun:
        yield f"{begun} begin with mbox's From line, and were sent with it"
    if mails.cases:
        yield str(passage) if passage.is_complete else f"{passage}: NOT COMPLETE"


def _differences(judged: Sequence[Judged], most: int) -> None:
    differing = [one for one in judged if one.judgement is None or one.judgement.reasons]
    differing.sort(key=lambda one: WORST_FIRST[one.judgement.mark] if one.judgement else 0)
    for one in differing[:most]:
        if one.judgement is None:
            print(
                f"  {'refused' if one.refused else 'lost':<7} {one.name}: {one.refused or one.lost}"
            )
        else:
            print(f"  {one.judgement.mark:<7} {one.name}: {'; '.join(one.judgement.reasons)}")


if __name__ == "__main__":
    log.configure(level="ERROR", json=False)
    sys.exit(main())
