"""A process that takes mail: `python -m contactd.mail.listener`, started by `mail.listeners`.

Its standard input is one line of JSON (`Orders`), then nothing; its end means: stop. Its standard
output is a line of JSON for each thing the daemon should know (see `Teller`).
"""

import asyncio
import errno
import gc
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from contactd import log as logging
from contactd.clock import SystemClock
from contactd.errors import ConfigurationError
from contactd.log import get_logger
from contactd.mail.certificate import Certificate
from contactd.mail.session import Intake, SmtpSession
from contactd.mail.spool import Spool
from contactd.settings import SmtpSettings

log = get_logger()

DRAIN_S: Final = 5.0  # for mails that are on their way when we stop
FIGURES_S: Final = 1.0
KEPT_S: Final = 0.005  # the daemon is woken at most so often
TAKEN_S: Final = 1.0  # a predecessor that is ending gives its address up by then
BACKLOG: Final = 512  # connections that the kernel holds for us
UNREAD_BYTES: Final = 1 << 16  # of what we tell a daemon that does not listen
EX_CONFIG: Final = 78  # sysexits.h


class Door(BaseModel):
    """A listening socket that the process was given, by the number of its file."""

    model_config = ConfigDict(frozen=True)

    file: int
    lmtp: bool


class Orders(SmtpSettings):
    """What a listener has to do: the settings, with the passwords in them, and the following."""

    port: int = Field(8025, ge=0, le=65535)  # 0: any
    spool: Path
    writer: str = ""  # tells the writers of the spool apart; empty: the intake's name
    doors: tuple[Door, ...] = ()  # none: it opens its own
    log_level: str = "INFO"
    log_json: bool = True


class Teller:
    """Tells the daemon: `ready`, `figures` when they changed, `kept` as a wake-up."""

    def __init__(self, output: asyncio.WriteTransport) -> None:
        self._output = output
        self._last: Mapping[str, Any] = {}
        self._next_kept = 0.0
        self._kept_is_due = False

    def tell(self, event: str, **values: Any) -> None:
        """Write a line, unless the daemon has not read those before."""
        output = self._output
        if not output.is_closing() and output.get_write_buffer_size() < UNREAD_BYTES:
            output.write(json.dumps({"event": event} | values).encode() + b"\n")

    def tell_figures(self, figures: Mapping[str, Any]) -> None:
        if figures != self._last:
            self._last = figures
            self.tell("figures", **figures)

    def tell_kept(self) -> None:
        """Wake the daemon up now, or when it may be woken again."""
        loop = asyncio.get_running_loop()
        if self._kept_is_due:
            return
        self._kept_is_due = True
        loop.call_at(max(self._next_kept, loop.time()), self._wake)

    def _wake(self) -> None:
        self._kept_is_due = False
        self._next_kept = asyncio.get_running_loop().time() + KEPT_S
        self.tell("kept")


def figures(intake: Intake) -> dict[str, Any]:
    """Return what the daemon adds up, as JSON has it."""
    counts = intake.counts
    certificate = intake.certificate
    return {
        "connections": intake.connections,
        "in_flight_bytes": intake.in_flight,
        "fault": intake.fault,
        "certificate_fault": certificate.fault if certificate is not None else "",
        "totals": {
            "accepted": counts.connections,
            "kept": counts.kept,
            "kept_bytes": counts.kept_bytes,
            "deferred": counts.deferred,
            "declined": counts.declined,
            "recipients_refused": counts.recipients_refused,
        },
        "refused": {reason.value: count for reason, count in counts.refused.items()},
    }


def certificate_of(settings: SmtpSettings) -> Certificate | None:
    """Return what STARTTLS needs, None without it. Raises ConfigurationError."""
    if settings.certificate_file is None or settings.key_file is None:
        return None
    return Certificate(settings.certificate_file, settings.key_file)


def open_doors(settings: SmtpSettings) -> dict[socket.socket, bool]:
    """Return bound sockets for SMTP and, value True, LMTP. Blocks.

    Raises:
        ConfigurationError: an address cannot be used.
    """
    where = f"smtp.host, smtp.port: cannot listen on {settings.host}:{settings.port}"
    doors: dict[socket.socket, bool] = {}
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            doors[_bound(family, address)] = False
        if settings.lmtp_socket is not None:
            where = f"smtp.lmtp_socket: cannot listen on {settings.lmtp_socket}"
            _make_way(settings.lmtp_socket)
            doors[_bound(socket.AF_UNIX, str(settings.lmtp_socket))] = True
            # Its folder says who may: Postfix runs as somebody else.
            settings.lmtp_socket.chmod(0o666)
    except OSError as error:
        for door in doors:
            door.close()
        raise ConfigurationError(f"{where}: {error.strerror}") from error
    return doors


def _bound(family: int, address: Any) -> socket.socket:
    """Return a listening socket. Raises OSError."""
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind(door, address)
        door.listen(BACKLOG)
        door.setblocking(False)
    except OSError:
        door.close()
        raise
    return door


def _bind(door: socket.socket, address: Any) -> None:
    """Bind; wait for an address that a predecessor is just giving up. Raises OSError."""
    until = time.monotonic() + TAKEN_S
    while True:
        try:
            door.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _make_way(path: Path) -> None:
    """Remove the socket that another process has left; one that still answers is in use."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass


def port_of(doors: Mapping[socket.socket, bool]) -> int:
    """Return the port that SMTP is listened on."""
    return next((int(door.getsockname()[1]) for door, lmtp in doors.items() if not lmtp), 0)


@asynccontextmanager
async def listening(intake: Intake, doors: Mapping[socket.socket, bool]) -> AsyncIterator[None]:
    """Take mail from the listening sockets (value: it is LMTP) inside the block.

    Leaving it takes no more connections, and gives mails that are on their way `DRAIN_S`.
    """
    loop = asyncio.get_running_loop()
    servers = []
    for door, lmtp in doors.items():
        # asyncio accepts as many connections at a time as the backlog is long: of several
        # processes one would take them all.
        serve = partial(SmtpSession, intake, lmtp=lmtp)
        servers.append(await loop.create_server(serve, sock=door, backlog=4))
        door.listen(BACKLOG)
    watch = min(0.5, intake.settings.command_timeout_s / 4)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(intake.watch(watch), name="smtp-watch")
        try:
            yield
        finally:
            for server in servers:
                server.close()
            await intake.stop(DRAIN_S)
            watching.cancel()


async def work(orders: Orders) -> int:
    """Do what a listener does until standard input ends or SIGTERM comes; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # of a terminal: the daemon has it, too
    await _watch_input(stop)
    teller = Teller(await _standard_output())
    try:
        await _serve(orders, teller, stop)
    except ConfigurationError as error:
        teller.tell("failed", reason=str(error))
        return EX_CONFIG
    return 0


async def _serve(orders: Orders, teller: Teller, stop: asyncio.Event) -> None:
    """Take mail until `stop`. Raises ConfigurationError."""
    clock = SystemClock()
    certificate = certificate_of(orders)
    spool = Spool(orders.spool, name=orders.writer or orders.name, clock=clock)
    hostname = orders.hostname or socket.gethostname()
    intake = Intake(orders, spool, clock=clock, hostname=hostname, certificate=certificate)
    intake.on_kept = teller.tell_kept
    doors = {socket.socket(fileno=door.file): door.lmtp for door in orders.doors}
    doors = doors or await asyncio.to_thread(open_doors, orders)
    async with spool.running(), listening(intake, doors):
        gc.freeze()  # what was made until now is not looked through again
        teller.tell("ready", port=port_of(doors))
        while not stop.is_set():
            teller.tell_figures(figures(intake))
            try:
                async with asyncio.timeout(FIGURES_S):
                    await stop.wait()
            except TimeoutError:
                pass
    teller.tell_figures(figures(intake))


class _End(asyncio.Protocol):
    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()


async def _watch_input(stop: asyncio.Event) -> None:
    await asyncio.get_running_loop().connect_read_pipe(lambda: _End(stop), sys.stdin.buffer)


async def _standard_output() -> asyncio.WriteTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    return transport


def main() -> int:
    orders = Orders.model_validate_json(sys.stdin.buffer.readline())
    logging.configure(level=orders.log_level, json=orders.log_json)
    return asyncio.run(work(orders))


if __name__ == "__main__":
    sys.exit(main())
