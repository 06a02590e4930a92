"""Brings the recordings of ended calls from the PBX's spool into contactd's own keeping."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from contactd.clock import Clock
from contactd.errors import TemporaryFailure
from contactd.log import get_logger
from contactd.tickets.contact import Blob, Contact
from contactd.tickets.events import CallEnded

log = get_logger()

GIVE_UP_AFTER: Final = timedelta(hours=24)  # a file that is not there by then will not come
WAV_HEADER_BYTES: Final = 44  # a RIFF file without one sample


class Attachments(Protocol):
    async def attach(self, contact_id: int, kind: str, blob: Blob) -> None:
        """Name the file on the contact; harmless twice."""
        ...


class Recordings:
    """The handler of `CallEnded` that keeps the call's recording and voicemail."""

    def __init__(
        self,
        *,
        attachments: Attachments,
        put: Callable[[Path, str], Awaitable[Blob]],  # file, media type
        roots: Mapping[str, Path],
        clock: Clock,
    ) -> None:
        self._attachments = attachments
        self._put = put
        self._roots = roots  # PBX -> where its file system is seen from here
        self._clock = clock

    async def keep(self, event: CallEnded, contact: Contact) -> None:
        """Copy what the call left and name it on the contact.

        Raises:
            TemporaryFailure: a file is not there yet (Asterisk closes it after the hang-up), or
                cannot be read.
        """
        call = contact.call
        if call is None:
            return
        # Asterisk opens the recording with the call but writes only while somebody talks.
        recording = call.recording if call.answered_at is not None else ""
        late = [
            kind
            for kind, name in (("recording", recording), ("voicemail", call.voicemail))
            if name and not await self._keep_one(event.contact_id, kind, contact, name)
        ]
        if late:
            what = " and ".join(late)
            raise TemporaryFailure(
                f"the {what} of contact {event.contact_id} is not on the PBX yet"
            )

    async def _keep_one(self, contact_id: int, kind: str, contact: Contact, name: str) -> bool:
        """Keep the file `name`; return False if it is still to come."""
        assert contact.call is not None  # noqa: S101 - the caller has looked
        root = self._roots.get(contact.call.pbx)
        try:  # the file system may be far away, and slow
            path, complete = await asyncio.to_thread(_look, root, name)
        except OSError as error:
            raise TemporaryFailure(
                f"cannot look at {name}: {error.strerror}; contactd reads it as a member of the"
                " group of Asterisk's files: see operations.md, 3.9"
            ) from error
        if path is None:
            log.warning("recording.refused", contact=contact_id, kind=kind)
            return True
        if not complete:
            ended = contact.call.ended_at or contact.received_at
            if self._clock.now() - ended > GIVE_UP_AFTER:
                log.warning("recording.missing", contact=contact_id, kind=kind)
                return True
            return False
        await self._attachments.attach(contact_id, kind, await self._put(path, "audio/wav"))
        log.info("recording.kept", contact=contact_id, kind=kind)
        return True


def _look(root: Path | None, name: str) -> tuple[Path | None, bool]:
    """Return where the PBX's file is seen from here, and whether it is complete."""
    path = _inside(root, name) if root is not None else None
    return path, path is not None and _is_complete(path)


def _inside(root: Path, name: str) -> Path | None:
    """Return the PBX's file `name` as seen from here; None if it would lie outside `root`."""
    path = (root / name.lstrip("/")).resolve()
    return path if path.is_relative_to(root.resolve()) else None


def _is_complete(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > WAV_HEADER_BYTES
