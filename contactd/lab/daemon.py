"""contactd itself as a child process: started, killed, frozen, asked over HTTP."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

READY_WITHIN_S: Final = 60.0  # 2 s are usual; a machine may stand still for twenty


class Daemon:
    """One `contactd serve -c FILE`; its log, over all its lives, is `log`.

    The child dies with its parent (PR_SET_PDEATHSIG), whatever becomes of the parent.
    """

    def __init__(self, *, config: Path, log: Path, url: str) -> None:
        self.config = config
        self.log = log
        self.url = url
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("contactd is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, *, wait: bool = True) -> None:
        """Start it and, unless told otherwise, wait until `/readyz` says so.

        Raises:
            RuntimeError: it ended, or was not ready in time; the text is the end of its log.
        """
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "contactd"),
                *("serve", "-c", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            await self.ready()

    async def ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Wait until `/readyz` answers 200. Raises RuntimeError with the end of the log."""
        try:
            async with asyncio.timeout(within_s), aiohttp.ClientSession() as http:
                while True:
                    if not self.running:
                        raise RuntimeError(f"contactd ended at its start:\n{self.tail()}")
                    if await _status(http, f"{self.url}/readyz") == 200:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise RuntimeError(
                f"contactd is not ready after {within_s} s:\n{self.tail()}"
            ) from error

    async def stop(self, within_s: float = 15) -> int:
        """Ask it to end (SIGTERM) and return its exit code; kill it if it does not in time."""
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), within_s)
            except TimeoutError:
                process.kill()
        return await process.wait()

    async def kill(self) -> None:
        """End it with SIGKILL: no clean-up of any kind."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections (the kernel does) and never answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    async def get(self, path: str, *, token: str = "") -> Any:
        """Return the JSON (or text) that a GET of `path` answers. Raises on a status over 299."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(raise_for_status=True) as http,
            http.get(self.url + path, headers=headers) as answer,
        ):
            text = await answer.text()
            return json.loads(text) if "json" in answer.content_type else text

    async def post(self, path: str, body: Mapping[str, Any], *, token: str) -> Any:
        """Return the JSON that a POST of `body` answers. Raises on a status over 299."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(raise_for_status=True) as http,
            http.post(self.url + path, headers=headers, json=body) as answer,
        ):
            return await answer.json()

    async def run(self, *arguments: str, said: str = "") -> str:
        """Run another command of contactd with the same configuration; return what it prints.

        `said` is what it reads from its standard input.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "contactd", *arguments, "-c", str(self.config)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(said.encode())
        if process.returncode != 0:
            raise RuntimeError(f"contactd {' '.join(arguments)}: {err.decode(errors='replace')}")
        return out.decode()

    def tail(self, lines: int = 40) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    try:
        async with http.get(url) as answer:
            return answer.status
    except aiohttp.ClientError:
        return 0


def toml(document: Mapping[str, Mapping[str, Any] | list[Mapping[str, Any]]]) -> str:
    """Write sections as TOML: a list of tables as `[[name]]`, a table in a section inline."""
    lines: list[str] = []
    for name, section in document.items():
        for table in section if isinstance(section, list) else [section]:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{" + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + "}"


@asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[Daemon]:
    """Run `daemon` inside the block."""
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()
