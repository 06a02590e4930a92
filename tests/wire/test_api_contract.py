"""The API keeps to its document: schemathesis asks the daemon what the document allows, and more.

`CONTACTD_CONTRACT_EXAMPLES` says how many requests each end point gets beside the systematic ones;
nightly it is some hundreds, with another `CONTACTD_CONTRACT_SEED` each time.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contactd.lab.daemon import Daemon
from tests.fakes import config

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("CONTACTD_CONTRACT_EXAMPLES", "3"))
# A document cannot say that an engineer must exist, or that a ticket is closed: the API may refuse
# what is right as far as it goes.
SKIPPED = "positive_data_acceptance"
# A body may be so wrong that it is not even read: 413 is a refusal, too.
SETTINGS = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429]
"""

pytestmark = pytest.mark.timeout(300 + 60 * EXAMPLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    daemon: Daemon
    token: str
    known: dict[str, Any]  # parts of paths
    named: dict[str, Any]  # what bodies name


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A daemon that can write texts, with a ticket, a file and a webhook."""
    sections = config.document(tmp_path)
    sections |= {
        "pbx": [],
        "api": {"requests_per_minute": 1_000_000},
        "webhooks": {"networks": ["127.0.0.0/8"]},
        "sms": {"gateways": ["log"]},
    }
    sections["http"] |= {"public_url": "https://desk.example.cn"}
    daemon = config.daemon(tmp_path, sections)
    await daemon.start()
    try:
        said = await daemon.run("token", "create", "--name", "test", "--role", "admin")
        token = said.strip().splitlines()[-1]
        opened = await daemon.post(
            "/api/v1/tickets", {"from": "13800138000", "text": "打印机卡纸"}, token=token
        )
        hook = await daemon.post(
            "/api/v1/webhooks", {"name": "nobody", "url": "http://127.0.0.1:9/"}, token=token
        )
        user = {"name": "li", "password": "correct horse", "role": "desk"}
        await daemon.post("/api/v1/users", user, token=token)
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            url = f"{daemon.url}{opened['url']}/attachments?name=a.txt"
            headers = {"Authorization": f"Bearer {token}"}
            async with http.post(url, data=b"hello", headers=headers) as answer:
                uploaded = await answer.json()
        invited = await daemon.post(
            f"{opened['url']}/remote-sessions", {"medium": "text"}, token=token
        )
        ticket = await daemon.get(opened["url"], token=token)
        oncall = await daemon.get("/api/v1/oncall", token=token)
        yield Served(
            daemon=daemon,
            token=token,
            known={
                "number": opened["ticket"], "contact": opened["contact_id"], "user": "li",
                "attachment": uploaded["attachment"]["id"], "webhook": hook["id"], "version": 1,
                "person": ticket["requester"]["id"], "session": invited["session"],
            },
            named={
                "engineer": oncall["now"][0]["engineer"]["key"], "sites": [], "site": "gz",
                "person": ticket["requester"]["id"], "url": "http://127.0.0.1:9/",
            },
        )  # fmt: skip
    finally:
        await daemon.stop()


async def test_every_answer_is_in_the_document_and_what_is_wrong_is_refused(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS, encoding="utf-8")
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.fakes.contract_hooks",
        "PYTHONPATH": str(ROOT),
        "CONTRACT_KNOWN": json.dumps(served.known),
        "CONTRACT_NAMED": json.dumps(served.named),
    }
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "st"), "run",
        f"{served.daemon.url}/api/v1/openapi.json",
        "--header", f"Authorization: Bearer {served.token}",
        "--phases", "examples,coverage,fuzzing",
        "--max-examples", str(EXAMPLES),
        "--checks", "all", "--exclude-checks", SKIPPED,
        "--request-timeout", "20",
        "--no-shrink", "--continue-on-failure", "--warnings", "off", "--no-color",
        "--seed", os.environ.get("CONTACTD_CONTRACT_SEED", "20261123"),
        cwd=tmp_path, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    report = "\n".join(line[:300] for line in said.decode(errors="replace").splitlines() if line)
    assert process.returncode == 0, report[-12_000:]
    log = served.daemon.log.read_text(errors="replace")
    assert "request.failed" not in log
    assert served.token not in log
