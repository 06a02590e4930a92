"""Request Tracker 5 of Debian: its own web server, SQLite, and `rt-mailgate` for each mail.

The programs are in a root of their own (`scripts/bench-peers.sh rt`); an instance is one folder in
it. Everybody may create tickets in the queue General; the rest is as RT comes: it composes a
confirmation, which is thrown away instead of being sent. Mail comes in as an MTA would hand it
over: one `rt-mailgate` a mail, which posts it to the server and ends with 0 when the ticket is
committed.
"""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.programs import DOMAIN, HOST, MAILBOX, ended, greeting, installed, run
from contactd.lab.asterisk import LabError
from contactd.lab.ports import free_port

WORKERS: Final = 4  # two mails at a time keep two cores busy; some spare for its web pages
START_S: Final = 60.0

_SITE: Final = """\
Set($rtname, '{domain}');
Set($Organization, '{domain}');
Set($CorrespondAddress, '{mailbox}');
Set($CommentAddress, 'comment@{domain}');
Set($WebDomain, '{host}');
Set($WebPort, {port});
Set($WebBaseURL, 'http://{host}:{port}');
Set($WebPath, '');
Set($Timezone, 'UTC');
Set($DatabaseType, 'SQLite');
Set($DatabaseName, '{folder}/rt.sqlite');
Set($LogToSyslog, undef);
Set($LogToSTDERR, 'error');
Set($MailCommand, 'testfile');
1;
"""
_BEGINNING: Final = """\
@Users = map {{ {{ Name => $_, EmailAddress => $_ }} }} qw({people});
@ACL = map {{
    {{ GroupDomain => 'SystemInternal', GroupType => 'Everyone', Queue => 'General', Right => $_ }}
}} qw(SeeQueue CreateTicket ReplyToTicket);
1;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTracker:
    """A running RT. `folder` is its folder as seen from outside its root."""

    root: Path
    folder: Path
    port: int

    async def deliver(self, raw: bytes) -> None:
        """Hand one mail over; its ticket is committed when this returns.

        Raises:
            LabError: it was refused, now or for good.
        """
        await self._run(
            *("rt-mailgate-5", "--queue", "General", "--action", "correspond"),
            *("--url", f"http://{HOST}:{self.port}/"),
            given=raw,
        )

    def tickets(self) -> int:
        with closing(sqlite3.connect(self.folder / "rt.sqlite", timeout=30)) as database:
            (number,) = database.execute("SELECT count(*) FROM Tickets").fetchone()
            return int(number)

    async def prepare(self, people: Iterable[str]) -> None:
        """Write its configuration, and make its database with people of these addresses."""
        inside = self._inside
        values = {"domain": DOMAIN, "mailbox": MAILBOX, "host": HOST, "port": self.port}
        (self.folder / "site.d").mkdir()
        (self.folder / "RT_SiteConfig.pm").write_text(
            _SITE.format(folder=inside, **values), encoding="utf-8"
        )
        beginning = _BEGINNING.format(people=" ".join(people))
        (self.folder / "beginning.pl").write_text(beginning, encoding="utf-8")
        await self._run("rt-setup-database-5", "--action", "init", "--skip-create")
        await self._run(
            *("rt-setup-database-5", "--action", "insert", "--skip-create"),
            *("--datafile", f"{inside}/beginning.pl"),
        )

    async def start(self) -> asyncio.subprocess.Process:
        with (self.folder / "server.log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "TERM", "chroot", str(self.root)),
                *("/usr/share/request-tracker5/libexec/rt-server", "--host", HOST),
                *("--port", str(self.port), "--max-workers", str(WORKERS)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    @property
    def _inside(self) -> str:
        return f"/{self.folder.relative_to(self.root)}"

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "RT_SITE_CONFIG": f"{self._inside}/RT_SiteConfig.pm",
            "RT_SITE_CONFIG_DIR": f"{self._inside}/site.d",
        }

    async def _run(self, *command: str, given: bytes = b"") -> None:
        chrooted = ("chroot", str(self.root), *command)
        await run(*chrooted, given=given, environment=self._environment)


@asynccontextmanager
async def running(people: Iterable[str]) -> AsyncIterator[RequestTracker]:
    """Run an RT that knows `people` by their addresses and has no tickets inside the block.

    Raises:
        LabError: it is not installed and cannot be, or it does not start.
    """
    root = installed("rt")
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root / "srv"))
    tracker = RequestTracker(root=root, folder=folder, port=free_port())
    try:
        await tracker.prepare(people)
        process = await tracker.start()
        try:
            await _answers(tracker, process)
            yield tracker
        finally:
            await ended(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _answers(tracker: RequestTracker, process: asyncio.subprocess.Process) -> None:
    log = tracker.folder / "server.log"
    try:
        async with asyncio.timeout(START_S):
            while not await greeting(tracker.port, ask=b"GET / HTTP/1.0\r\n\r\n", wanted=b"HTTP/"):
                if process.returncode is not None:
                    raise LabError(f"RT ended at its start: {log.read_text()[-500:]}")
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise LabError(f"RT does not answer: {log.read_text()[-500:]}") from None
