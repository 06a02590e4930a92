"""One desk a module: the real Asterisk, the real daemon, phones and callers.

A module says in `SETUP` what its desk is like. Its tests share it and run in its event loop
(`LOOP`); after each of them every call is ended.
"""

from collections.abc import AsyncIterator, Generator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.fakes.waiting import WITHIN_S
from tests.real.desk import Desk, Setup, desk

expect.set_options(timeout=WITHIN_S * 1000)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="open_desk")
async def _open_desk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Desk]:
    setup: Setup = request.module.SETUP
    async with desk(setup, tmp_path_factory.mktemp("desk")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module", name="desk")
async def _desk(open_desk: Desk) -> AsyncIterator[Desk]:
    yield open_desk
    await open_desk.all_quiet()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of everybody when a story fails."""
    report = yield
    found = getattr(item, "funcargs", {}).get("open_desk")
    if report.failed and isinstance(found, Desk):
        report.sections.append(("logs of the desk", found.logs()))
    return report
