"""A Postfix of the bench's own that takes every mail and keeps it in its hold queue.

Its configuration, queue and data folders are below one temporary folder; the system's Postfix, if
there is one, is neither read nor touched. What it does before its 250 is what it always
does: cleanup(8) writes a queue file, calls fsync, and moves it.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.programs import DOMAIN, HOST, ended, greeting, installed, run
from contactd.lab.asterisk import LabError
from contactd.lab.ports import free_port

MASTER: Final = "/usr/lib/postfix/sbin/master"  # where Debian has it
START_S: Final = 20.0

_MAIN: Final = """\
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log/mail.log
maillog_file_prefixes = {folder}
inet_interfaces = {host}
inet_protocols = ipv4
myhostname = postfix.{domain}
mydestination = {domain}
local_recipient_maps =
alias_maps =
# Names are not looked up by contactd either, and a name server would be measured with it.
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_recipient_restrictions = reject_unauth_destination, check_client_access static:HOLD
message_size_limit = 37748736
"""

# Debian's own master.cf without the services that nothing here asks for, and without chroot.
_MASTER: Final = """\
{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
defer unix - - n - 0 bounce
bounce unix - - n - 0 bounce
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postfix:
    """A running Postfix."""

    folder: Path
    port: int

    @property
    def _hold(self) -> Path:
        return self.folder / "queue" / "hold"

    def held(self) -> int:
        """Return how many mails are in the hold queue."""
        return sum(len(files) for _, _, files in os.walk(self._hold))

    def forget(self) -> None:
        """Remove the mails: nobody else looks at the hold queue."""
        for folder, _, files in os.walk(self._hold):
            for name in files:
                (Path(folder) / name).unlink()


@asynccontextmanager
async def running() -> AsyncIterator[Postfix]:
    """Run a Postfix on a temporary folder of its own inside the block.

    Raises:
        LabError: it is not installed and cannot be, or it does not start.
    """
    programs = installed("postfix")
    folder = Path(tempfile.mkdtemp(prefix="bench-postfix-"))
    try:
        port = free_port()
        _prepare(folder, port)
        # What `postfix start` does, but the master process stays our child: SIGTERM to it, also
        # by our own death, ends it and all of its process group (master(8)).
        await run(str(programs / "postfix"), "-c", str(folder / "etc"), "check")
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", MASTER, "-c", str(folder / "etc"), "-s"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await _greets(process, port, folder)
            yield Postfix(folder=folder, port=port)
        finally:
            await ended(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path, port: int) -> None:
    for name in ("etc", "queue", "data", "log"):
        (folder / name).mkdir()
    folder.chmod(0o755)  # its processes run as the user postfix
    subprocess.run(["chown", "postfix:", str(folder / "data")], check=True)
    values = {"folder": folder, "host": HOST, "port": port, "domain": DOMAIN}
    (folder / "etc" / "main.cf").write_text(_MAIN.format(**values), encoding="utf-8")
    (folder / "etc" / "master.cf").write_text(_MASTER.format(**values), encoding="utf-8")


async def _greets(process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
    try:
        async with asyncio.timeout(START_S):
            while not await greeting(port):
                if process.returncode is not None:
                    raise LabError(f"Postfix ended at its start: {_log(folder)}")
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise LabError(f"Postfix does not greet after {START_S:.0f} s: {_log(folder)}") from None


def _log(folder: Path) -> str:
    with suppress(OSError):
        lines = (folder / "log" / "mail.log").read_text(encoding="utf-8").splitlines()
        return " / ".join(lines[-5:])
    return "it wrote no log"
