"""The gateway `log`, whose provider is a file."""

import json
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from contactd.settings import LogSettings
from contactd.sms.gateway import SmsGateway
from contactd.sms.log import LogGateway
from tests.fakes.clock import FakeClock
from tests.fakes.sms import FakeInbox, Fault, Provider


@dataclass(slots=True, kw_only=True)
class LogProvider:
    gateway: SmsGateway
    path: Path
    inbox: FakeInbox = field(default_factory=FakeInbox)
    able: Collection[str] = frozenset({"find", "words"})

    def fail(self, fault: Fault) -> None:
        raise NotImplementedError

    async def sent(self) -> Sequence[tuple[str, str]]:
        if not self.path.exists():
            return []
        lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return [(line["address"], line["text"]) for line in lines]

    async def bring(self, sender: str, text: str, external_id: str = "") -> bool:
        raise NotImplementedError

    async def report(self, message_id: str, ref: str, *, delivered: bool) -> bool:
        raise NotImplementedError

    def long_ago(self) -> datetime:
        return FakeClock().now() - timedelta(hours=1)

    def today(self) -> tuple[datetime, datetime]:
        raise NotImplementedError


@asynccontextmanager
async def log_provider() -> AsyncIterator[Provider]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        gateway = LogGateway(LogSettings(file=path), FakeClock())
        async with gateway.running():
            yield LogProvider(gateway=gateway, path=path)
