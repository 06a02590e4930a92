"""The ledger's other book for mail: what the listeners accepted, by the spool's own records."""

import asyncio
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from contactd.mail.spool import SpoolReader

SPOOL: Final = "spool"
ACCEPTED: Final = "accepted"
# A mail is filed within a second; a thousand that come at once, or after an outage, take a while.
YOUNG: Final = timedelta(minutes=5)


class Filed(Protocol):
    async def received_at(self, external_id: str) -> datetime | None:
        """Return when the contact with this id was filed first; None if it never was."""
        ...


def spool_reader(data_dir: Path, *, day_of: Callable[[datetime], date]) -> SpoolReader:
    """Return the reader of an installation's spool; `day_of` is the ledger's."""
    folder = data_dir / "mail"
    return SpoolReader(folder / SPOOL, folder / ACCEPTED, day_of=day_of)


def id_of(name: str, digest: str) -> str:
    """Return the external id of a mail that the intake called `name` took."""
    return f"{name}-{digest}"


def id_of_its_own(external_id: str, receipt_id: str) -> str:
    """Return the id of a mail that says the same as an older one and is none of its repetitions."""
    return f"{external_id}-{receipt_id}"


async def accepted(spool: SpoolReader, name: str, filed: Filed, day: date) -> dict[str, datetime]:
    """Return what was taken on a day, by external id, and when.

    Raises:
        OSError: the books cannot be read.
        TemporaryFailure: the database is away.
    """
    found: dict[str, datetime] = {}
    for entry in await asyncio.to_thread(lambda: list(spool.accepted(day))):
        external_id = id_of(name, entry.digest)
        if external_id in found:  # a repetition, or the same again later
            later = id_of_its_own(external_id, entry.id)
            if await filed.received_at(later) is None:
                continue
            external_id = later
        found[external_id] = entry.received_at
    return found
