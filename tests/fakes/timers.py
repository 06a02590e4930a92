"""A process with a relay of its own: `python -m tests.fakes.timers URL NAME AHEAD_S DIES_AFTER`.

Its handler notes each timer in the table `fired`, with the process's name, in a transaction of its
own: what a crash leaves undone can be seen. It says `ready`, and ends when its input ends. Its
clock is `AHEAD_S` seconds ahead, so that leases of processes that died are over. With `DIES_AFTER`
it is killed once it has noted so many timers, before it can settle the last of them (0: never).
"""

import asyncio
import os
import signal
import sys
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from contactd import log
from contactd.clock import SystemClock
from contactd.signals import Signals
from contactd.store.engine import Database
from contactd.store.outbox import Relay
from contactd.tickets.events import TicketDue

TABLE: Final = "CREATE TABLE fired (ticket_id bigint NOT NULL, process text NOT NULL)"
_FIRED: Final = text("INSERT INTO fired VALUES (:ticket, :process)")


class _Ahead:
    def __init__(self, by: timedelta) -> None:
        self._by = by
        self._clock = SystemClock()

    def now(self) -> datetime:
        return self._clock.now() + self._by


async def main(url: str, name: str, ahead_s: str, dies_after: str) -> None:
    log.configure(level="ERROR")
    clock = _Ahead(timedelta(seconds=float(ahead_s)))
    database = Database(url, clock=clock)
    noted = 0

    async def fired(event: TicketDue) -> None:
        nonlocal noted
        async with database.writing() as connection:
            await connection.execute(_FIRED, {"ticket": event.ticket_id, "process": name})
        noted += 1
        if noted == int(dies_after):
            os.kill(os.getpid(), signal.SIGKILL)

    async with database.running(), Relay(database, {TicketDue: fired}, clock, Signals()).running():
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
