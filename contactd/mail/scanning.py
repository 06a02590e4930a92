"""What the optional scanners say of a mail, as a contact keeps it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from contactd.mail.scanners import Clamd, Mail, Rspamd
from contactd.service import Health
from contactd.settings import SmtpSettings

VIRUS = "virus"
SPAM = "spam"


class Scanning:
    """Asks those that are configured, side by side."""

    def __init__(self, settings: SmtpSettings) -> None:
        timeout = timedelta(seconds=settings.scan_timeout_s)
        self._clamd = Clamd(settings.clamd, timeout=timeout) if settings.clamd else None
        self._rspamd = (
            Rspamd(
                settings.rspamd,
                timeout=timeout,
                password=settings.rspamd_password.get_secret_value(),
            )
            if settings.rspamd
            else None
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            if self._rspamd is not None:
                await opened.enter_async_context(self._rspamd.running())
            yield

    def health(self) -> list[Health]:
        scanners = (self._clamd, self._rspamd)
        return [item for each in scanners if each is not None for item in each.health()]

    async def checks(self, mail: Mail) -> dict[str, str]:
        """Return `virus` and `spam`, as far as somebody is asked: clean, unscanned, or what it is.

        Never raises: mail is taken unscanned.
        """
        found = await asyncio.gather(self._virus(mail), self._spam(mail))
        return {name: said for name, said in zip((VIRUS, SPAM), found, strict=True) if said}

    async def _virus(self, mail: Mail) -> str:
        if self._clamd is None:
            return ""
        found = await self._clamd.scan(mail)
        return found.name or found.state.value

    async def _spam(self, mail: Mail) -> str:
        if self._rspamd is None:
            return ""
        return (await self._rspamd.scan(mail)).state.value
