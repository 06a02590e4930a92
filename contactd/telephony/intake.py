"""Files each call once, however many messengers bring it: AMI, FastAGI, the PBX's records."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from contactd.errors import TemporaryFailure
from contactd.tickets.contact import Contact, Filed

REMEMBERED = 2_000  # calls; only saves work, the database is what makes twice harmless


class Intake:
    """Single flight: who comes second waits for the first one's commit and gets its answer."""

    def __init__(self, receive: Callable[[Contact], Awaitable[Filed]]) -> None:
        self._receive = receive
        self._filed: OrderedDict[str, Filed] = OrderedDict()
        self._in_flight: dict[str, asyncio.Future[Filed]] = {}

    async def file(self, contact: Contact) -> Filed:
        """Return where the call of `contact` was filed, filing it if nobody has yet.

        Raises:
            TemporaryFailure: nothing was stored.
        """
        call_id = contact.external_id
        if (filed := self._filed.get(call_id)) is not None:
            return filed
        if (flight := self._in_flight.get(call_id)) is not None:
            return await asyncio.shield(flight)
        flight = self._in_flight[call_id] = asyncio.get_running_loop().create_future()
        try:
            filed = await self._receive(contact)
        except BaseException as error:
            # Who waits was not cancelled himself.
            gone = TemporaryFailure("who was filing the call was cancelled")
            flight.set_exception(gone if isinstance(error, asyncio.CancelledError) else error)
            flight.exception()  # read: nobody need be waiting
            raise
        else:
            flight.set_result(filed)
            self.remember(call_id, filed)
            return filed
        finally:
            del self._in_flight[call_id]

    def remember(self, call_id: str, filed: Filed) -> None:
        """Note where a call is filed (again), e.g. after it was separated from an older ticket."""
        self._filed[call_id] = filed
        self._filed.move_to_end(call_id)
        while len(self._filed) > REMEMBERED:
            self._filed.popitem(last=False)
