"""Reads a stranger's calendar in a process of its own, with limits of time and memory.

One line of a calendar can mean an event each second for ever, and the parser is plain Python: in
the daemon it would stop the event loop.
"""

import asyncio
import json
import os
import resource
import sys
from asyncio.subprocess import DEVNULL, PIPE
from datetime import datetime
from typing import Final

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.routing import ical
from contactd.routing.ical import Absence, Read

CPU_S: Final = 10
MEMORY_BYTES: Final = 1 << 30  # of addresses; a calendar of 5 MB takes 300 MB
_WAIT_S: Final = 60.0  # the machine may be busy, and the reader is at the lowest priority


async def read_absences(content: bytes, *, start: datetime, end: datetime, zone: str) -> Read:
    """Return what `ical.absences` finds.

    Raises:
        PermanentFailure: it is no calendar, or takes too much time or memory.
        TemporaryFailure: no process can be started.
    """
    window = [start.isoformat(), end.isoformat(), zone]
    arguments = ["-m", "contactd.calendar_reader", *window, str(CPU_S)]
    try:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
    except OSError as error:
        raise TemporaryFailure(f"cannot start a reader of calendars: {error.strerror}") from error
    try:
        async with asyncio.timeout(_WAIT_S):
            answer, _ = await reader.communicate(content)
    except TimeoutError:
        raise PermanentFailure("it takes too long to read") from None
    finally:
        if reader.returncode is None:
            reader.kill()
            await reader.wait()
    if reader.returncode == os.EX_DATAERR:
        raise PermanentFailure(answer.decode())
    if reader.returncode != os.EX_OK:  # killed by a limit, or the parser broke on it
        raise PermanentFailure(
            "it cannot be read: it takes too long, too much memory, or is broken"
        )
    return _read(answer)


def _read(answer: bytes) -> Read:
    told = json.loads(answer)
    return Read(
        absences=tuple(
            Absence(start=datetime.fromisoformat(start), end=datetime.fromisoformat(end))
            for start, end in told["absences"]
        ),
        complete=told["complete"],
    )


def main(start: str, end: str, zone: str, cpu_s: str) -> int:
    """Read a calendar from standard input, print what it says or what is wrong with it."""
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    content = sys.stdin.buffer.read()
    try:
        found = ical.absences(
            content,
            start=datetime.fromisoformat(start),
            end=datetime.fromisoformat(end),
            zone=zone,
        )
    except ValueError as error:
        sys.stdout.write(str(error))
        return os.EX_DATAERR
    told = [(each.start.isoformat(), each.end.isoformat()) for each in found.absences]
    sys.stdout.write(json.dumps({"absences": told, "complete": found.complete}))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
