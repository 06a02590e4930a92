"""The daemon's own composition (`app.build`) over SQLite, with only its database and pages open."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contactd import app
from contactd.clock import SystemClock
from contactd.core import policy
from contactd.httpd import Httpd
from contactd.settings import Settings
from contactd.store.desk import load_desk
from contactd.store.engine import Database
from contactd.tickets.service import TicketService
from tests.fakes import config
from tests.fakes.rota import small_desk

OPENED: Final = ("database", "live", "desk-live", "http")  # the others have peers that are not here


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    settings: Settings
    database: Database
    httpd: Httpd
    tickets: TicketService

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.httpd.port}"


@asynccontextmanager
async def built(
    folder: Path, database_url: str, **changes: Mapping[str, Any]
) -> AsyncIterator[Built]:
    """Run the pages of the real composition; `changes` add to sections of its configuration."""
    sections = config.document(folder, database_url=database_url)
    sections["http"] |= {"public_status": False}
    for name, values in changes.items():
        sections[name] = {**sections.get(name, {}), **values}
    settings = config.settings(folder, sections)
    services = {service.name: service for service in app.build(settings)}
    database, httpd = services["database"], services["http"]
    assert isinstance(database, Database)
    assert isinstance(httpd, Httpd)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(database.running())
        await load_desk(database, small_desk(), SystemClock())
        for name in OPENED[1:]:
            if name in services:
                await opened.enter_async_context(services[name].running())
        yield Built(
            settings=settings, database=database, httpd=httpd,
            tickets=TicketService(database.new_work, SystemClock(), policy(settings)),
        )  # fmt: skip
