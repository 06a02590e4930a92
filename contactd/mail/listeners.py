"""The service that has mail taken: starts the listener processes, watches them, adds them up.

The sockets are opened here, once, and the processes inherit them: connections that come while one
of them is being started again wait in the kernel instead of being refused.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any, Final

from contactd.errors import ConfigurationError
from contactd.log import get_logger
from contactd.mail.listener import DRAIN_S, certificate_of, open_doors, port_of
from contactd.mail.spool import make_folder
from contactd.metrics import PEERS_REFUSED
from contactd.service import Health, HealthState
from contactd.settings import SmtpSettings

log = get_logger()

READY_S: Final = 20.0  # a process imports for a second
FIRST_PAUSE_S: Final = 0.2  # before one that died is started again; doubled each time
LONGEST_PAUSE_S: Final = 10.0
HEALTHY_S: Final = 60.0  # one that lived so long starts with the first pause again
END_S: Final = DRAIN_S + 2
LINE_BYTES: Final = 1 << 16


@dataclass(slots=True, kw_only=True)
class _Child:
    """A listener process: of its predecessors in the same place only the totals are left."""

    number: int
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)  # what the metrics have of it
    deaths: int = 0


class Listener:
    """Has mail taken into the spool at `spool`; `on_kept` is called soon after some was.

    Raises:
        ConfigurationError: from `running`: an address or the certificate cannot be used.
    """

    def __init__(
        self,
        settings: SmtpSettings,
        spool: Path,
        *,
        on_kept: Callable[[], None] = lambda: None,
        log_level: str = "INFO",
        log_json: bool = True,
    ) -> None:
        self._settings = settings
        self._log = {"log_level": log_level, "log_json": log_json}
        self._spool = spool
        self._on_kept = on_kept
        self._children = [_Child(number=number) for number in range(settings.processes)]
        self._before: Counter[str] = Counter()  # totals of processes that are gone
        self._doors: dict[socket, bool] = {}
        self._port = 0
        self._failure = ""
        self._stopping = False

    @property
    def name(self) -> str:
        return "smtp"

    @property
    def port(self) -> int:
        """The TCP port; 0 before the start."""
        return self._port

    @property
    def pids(self) -> list[int]:
        """The processes that take mail now."""
        return [each.process.pid for each in self._children if each.ready and each.process]

    def health(self) -> list[Health]:
        alive = sum(each.ready for each in self._children)
        faults = list(filter(None, self._faults()))
        state = HealthState.DEGRADED if faults else HealthState.UP
        where = f"{self._settings.host}:{self.port or self._settings.port}"
        return [
            Health(
                component="smtp",
                state=state if alive else HealthState.DOWN,
                detail="; ".join(faults) or where,
                figures=self._totals(),
            )
        ]

    def _faults(self) -> list[str]:
        alive = sum(each.ready for each in self._children)
        found = []
        if alive < len(self._children):
            found.append(
                f"{alive} of {len(self._children)} listener processes take mail"
                f" ({self._failure or 'they are being started'}); see the log of contactd"
            )
        for key, remedy in _REMEDIES.items():
            said = {str(each.figures.get(key, "")) for each in self._children if each.ready}
            found += [f"{fault}: {remedy}" for fault in sorted(filter(None, said))]
        return found

    def _totals(self) -> dict[str, float]:
        totals = Counter(self._before)
        for each in self._children:
            totals.update(each.figures.get("totals", {}))
            for gauge in ("connections", "in_flight_bytes"):
                totals[gauge] += each.figures.get(gauge, 0)
        return {"processes": sum(each.ready for each in self._children), **totals}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take mail inside the block; leaving it finishes what is on its way.

        Raises:
            ConfigurationError: an address, the spool or the certificate cannot be used.
        """
        async with AsyncExitStack() as opened:
            self._doors = await asyncio.to_thread(self._open)
            self._port = port_of(self._doors)
            for door in self._doors:
                opened.callback(door.close)
            async with asyncio.TaskGroup() as tasks:
                first = asyncio.Event()
                watching = [
                    tasks.create_task(self._keep_alive(each, first), name=f"smtp-{each.number}")
                    for each in self._children
                ]
                await self._wait_for(first)
                try:
                    yield
                finally:
                    await self._stop()
                    for task in watching:
                        task.cancel()

    def _open(self) -> dict[socket, bool]:
        """Find out what is wrong with the configuration, and open the doors."""
        certificate_of(self._settings)
        try:
            make_folder(self._spool)
        except OSError as error:
            raise ConfigurationError(
                f"service.data_dir: cannot keep mail in {self._spool}: {error.strerror}"
            ) from error
        return open_doors(self._settings)

    async def _wait_for(self, ready: asyncio.Event) -> None:
        """Return when mail is taken; what is wrong later is for `health`."""
        try:
            async with asyncio.timeout(READY_S):
                await ready.wait()
        except TimeoutError:
            log.warning("smtp.not_ready", after_s=READY_S)

    async def _stop(self) -> None:
        self._stopping = True
        for door in self._doors:
            door.close()
        processes = [each.process for each in self._children if each.process is not None]
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                for process in processes:
                    await process.wait()
        except TimeoutError:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _keep_alive(self, child: _Child, first: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_S
        while not self._stopping:
            began = loop.time()
            try:
                await self._live(child, first)
            except OSError as error:  # it could not be started: no memory, no processes
                self._failure = f"cannot be started: {error.strerror}"
            self._bury(child)
            if self._stopping:
                return
            child.deaths += 1
            log.warning("smtp.listener_ended", number=child.number, reason=self._failure)
            pause = FIRST_PAUSE_S if loop.time() - began > HEALTHY_S else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _live(self, child: _Child, first: asyncio.Event) -> None:
        """Run a process and read what it says until it ends. Raises OSError."""
        process = child.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "contactd.mail.listener"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[door.fileno() for door in self._doors],
            limit=LINE_BYTES,
        )
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
            process.stdin.write(self._orders(child))
            async for line in process.stdout:
                self._hear(child, json.loads(line))
                if child.ready or self._failure:
                    first.set()
            code = await process.wait()
            self._failure = self._failure or f"ended with {code}"
        finally:
            if process.returncode is None:
                process.kill()

    def _orders(self, child: _Child) -> bytes:
        settings, share = self._settings, len(self._children)
        orders = (
            settings.model_dump(mode="json", exclude={"submitters"})
            | self._log
            | {
                "submitters": [
                    {"name": each.name, "password": each.password.get_secret_value()}
                    for each in settings.submitters
                ],
                "max_connections": -(-settings.max_connections // share),
                "max_in_flight_bytes": max(1 << 20, settings.max_in_flight_bytes // share),
                "spool": str(self._spool),
                "writer": f"{settings.name}.{child.number}",
                "doors": [
                    {"file": door.fileno(), "lmtp": lmtp} for door, lmtp in self._doors.items()
                ],
            }
        )
        return json.dumps(orders).encode() + b"\n"

    def _hear(self, child: _Child, said: Mapping[str, Any]) -> None:
        match said["event"]:
            case "ready":
                child.ready, self._failure = True, ""
                log.info("smtp.listener_started", number=child.number)
            case "failed":
                self._failure = said["reason"]
            case "figures":
                child.figures = said
                for reason, count in said["refused"].items():
                    PEERS_REFUSED.labels(listener="smtp", reason=reason).inc(
                        count - child.refused[reason]
                    )
                    child.refused[reason] = count
            case "kept":
                self._on_kept()
            case _:
                pass

    def _bury(self, child: _Child) -> None:
        self._before.update(child.figures.get("totals", {}))
        child.process, child.ready = None, False
        child.figures, child.refused = {}, Counter()


_REMEDIES: Final[Mapping[str, str]] = {
    "fault": "senders are told to try again; make room below service.data_dir",
    "certificate_fault": "the old one is used; see smtp.certificate_file and smtp.key_file",
}
