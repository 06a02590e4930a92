"""Roundup of PyPI: its classic tracker on SQLite, and `roundup-mailgw` for each mail.

It is installed by `scripts/bench-peers.sh roundup`. A confirmation is composed and appended to a
file instead of being sent. Mail comes in as an MTA would hand it over: one `roundup-mailgw` a mail,
which ends with 0 when the issue is committed. A mailbox file is its other way, for mails that may
wait for the next run of cron: one process for all of them.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.peers.programs import DOMAIN, MAILBOX, installed, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Roundup:
    """A tracker in `home`, with the programs in `programs`."""

    programs: Path
    home: Path

    async def deliver(self, raw: bytes) -> None:
        """Hand one mail over; its issue is committed when this returns.

        Raises:
            LabError: it was refused, now or for good.
        """
        await self._run("roundup-mailgw", str(self.home), given=raw.replace(b"\r\n", b"\n"))

    async def deliver_mailbox(self, mails: Iterable[bytes]) -> None:
        """Hand over many as a mailbox file. Raises LabError as `deliver` does."""
        path = self.home / "mailbox"
        path.write_bytes(
            b"".join(
                b"From someone@example.org Sun Nov 22 10:00:00 2026\n"
                + raw.replace(b"\r\n", b"\n").replace(b"\nFrom ", b"\n>From ")
                + b"\n"
                for raw in mails
            )
        )
        await self._run("roundup-mailgw", str(self.home), "mailbox", str(path))

    def tickets(self) -> int:
        with closing(sqlite3.connect(self.home / "db" / "db", timeout=30)) as database:
            (number,) = database.execute("SELECT count(*) FROM _issue").fetchone()
            return int(number)

    async def prepare(self, people: Iterable[str]) -> None:
        """Make the tracker, and its database with people of these addresses."""
        user, _, _ = MAILBOX.partition("@")
        options = {
            "tracker_web": "http://127.0.0.1/",
            "tracker_email": user,
            "admin_email": f"admin@{DOMAIN}",
            "mail_domain": DOMAIN,
            "mail_host": "localhost",
            "mail_debug": str(self.home / "sent.mbox"),
            "messages_to_author": "new",  # the confirmation
        }
        written = ",".join(f"{key}={value}" for key, value in options.items())
        admin = ("roundup-admin", "-i", str(self.home))
        await self._run(*admin, "install", "classic", "sqlite", written)
        await self._run(*admin, "initialise", "not-used-here")
        users = [f"create user username={one} address={one} roles=User" for one in people]
        await self._run(*admin, given="\n".join((*users, "commit", "")).encode())

    async def _run(self, program: str, *arguments: str, given: bytes = b"") -> None:
        await run(str(self.programs / program), *arguments, given=given)


async def tracker(folder: Path, people: Iterable[str]) -> Roundup:
    """Return a tracker below `folder` that knows `people` by their addresses and has no issues.

    Raises:
        LabError: Roundup is not installed and cannot be.
    """
    made = Roundup(programs=installed("roundup") / "bin", home=folder / "tracker")
    await made.prepare(people)
    return made
