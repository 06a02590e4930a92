"""The ledger's other book for mail: what the listeners accepted, by the spool's own records."""

import asyncio
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from contactd.mail.spool import SpoolReader

SPOOL: Final = "spool"
ACCEPTED: Final = "accepted"
# A mail is filed within a second; a thousand that come at once, or after an outage, take a while.
YOUNG: Final = timedelta(minutes=5)


def spool_reader(data_dir: Path, *, day_of: Callable[[datetime], date]) -> SpoolReader:
    """Return the reader of an installation's spool; `day_of` is the ledger's."""
    folder = data_dir / "mail"
    return SpoolReader(folder / SPOOL, folder / ACCEPTED, day_of=day_of)


def id_of(name: str, digest: str) -> str:
    """Return the external id of a mail that the intake called `name` took."""
    return f"{name}-{digest}"


async def accepted(spool: SpoolReader, name: str, day: date) -> dict[str, datetime]:
    """Return what was taken on a day, by external id, and when; a repetition counts once.

    Raises:
        OSError: the books cannot be read.
    """
    found: dict[str, datetime] = {}
    for entry in await asyncio.to_thread(lambda: list(spool.accepted(day))):
        found.setdefault(id_of(name, entry.digest), entry.received_at)
    return found
