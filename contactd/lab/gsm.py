"""The lab's GSM gateway: another Asterisk. It brings texts from the air, and takes those for it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from contactd.lab.asterisk import Asterisk, Seat, configuration
from contactd.lab.network import Manager

CONFIGURATION: Final = Path(__file__).with_name("gsm")
OWN_NUMBER: Final = "106581234"
LONGEST: Final = 2700  # bytes of a text from the air: four pieces

_PIECE: Final = 900  # a line of AMI has 1,024 bytes
_SENT: Final = "/var/spool/asterisk/sent"
# Asterisk logs an error for each it does not find, which hides those that matter.
_EMPTY: Final = ("acl", "ccss", "cel", "features", "indications", "pjproject", "udptl")


class Gsm:
    """A GSM gateway with one SIM. Use `async with Gsm.start(…) as gsm`."""

    def __init__(self, asterisk: Asterisk, manager: Manager) -> None:
        self.asterisk = asterisk
        self._manager = manager

    @classmethod
    @asynccontextmanager
    async def start(cls, *, seat: Seat, pbx: Seat, keep: bool = False) -> AsyncIterator[Self]:
        """Run it on `seat`, for the PBX on `pbx` (which may be dead)."""
        files = gsm_configuration(seat, pbx)
        async with Asterisk.start(name="gsm", files=files, seat=seat, keep=keep) as asterisk:
            manager = Manager(lambda event: None, lambda: None)
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: manager, seat.host, seat.ami)
            try:
                await manager.action(("Action", "Login"), ("Username", "lab"), ("Secret", "lab"))
                yield cls(asterisk, manager)
            finally:
                manager.close()

    async def bring(self, sender: str, text: str, *, to: str = OWN_NUMBER) -> None:
        """Let a text come from the air, and hand it to the PBX; of its answer nobody hears.

        Raises:
            ValueError: it is longer than the gateway can hold.
        """
        pieces = _pieces(text.encode())
        await self._manager.action(
            ("Action", "Originate"),
            ("Channel", f"Local/{to}@bring/n"),
            ("Context", "bring"),
            ("Exten", "nobody"),
            ("Priority", "1"),
            ("Async", "true"),
            ("Variable", f"SENDER={sender}"),
            *(("Variable", f"TEXT{n}={piece}") for n, piece in enumerate(pieces, start=1)),
        )

    def sent(self) -> Sequence[tuple[str, bytes]]:
        """Return number and words of each text that the PBX gave us, in order."""
        path = self.asterisk.path(_SENT)
        lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
        texts = []
        for line in lines:
            number, _, words = line.partition(" ")
            texts.append((base64.b64decode(number).decode(), base64.b64decode(words)))
        return texts


def _pieces(text: bytes) -> list[str]:
    if len(text) > LONGEST:
        raise ValueError(f"a text of more than {LONGEST} bytes")
    encoded = base64.b64encode(text).decode()
    return [encoded[start : start + _PIECE] for start in range(0, len(encoded), _PIECE)]


def gsm_configuration(seat: Seat, pbx: Seat) -> dict[str, str]:
    """Return the gateway's files for its place in the lab."""
    files = configuration(
        CONFIGURATION,
        {
            "pjsip.conf": {
                "bind = 127.0.0.3:5060": f"bind = {seat.host}:{seat.sip}",
                "contact = sip:127.0.0.1:5060": f"contact = sip:{pbx.host}:{pbx.sip}",
                "match = 127.0.0.1": f"match = {pbx.host}",
            },
            "manager.conf": {
                "bindaddr = 127.0.0.3": f"bindaddr = {seat.host}",
                "port = 5038": f"port = {seat.ami}",
            },
        },
    )
    return {f"{name}.conf": "" for name in _EMPTY} | files
