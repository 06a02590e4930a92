"""Telephony as one service: the FastAGI listener and every PBX."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from contactd.service import Health
from contactd.settings import AgiSettings
from contactd.telephony.agi import AgiListener
from contactd.telephony.ivr import Ivr
from contactd.telephony.pbx import Pbx


class Telephony:
    name = "telephony"

    def __init__(self, *, agi: AgiSettings, ivr: Ivr, pbxs: Sequence[Pbx]) -> None:
        self._listener = AgiListener(agi, ivr.handlers())
        self.pbxs: Mapping[str, Pbx] = {pbx.name: pbx for pbx in pbxs}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The listener opens last and closes first: it is what takes new work."""
        async with AsyncExitStack() as opened:
            for pbx in self.pbxs.values():
                await opened.enter_async_context(pbx.running())
            await opened.enter_async_context(self._listener.running())
            yield

    def health(self) -> list[Health]:
        return [
            *self._listener.health(),
            *(health for pbx in self.pbxs.values() for health in pbx.health()),
        ]
