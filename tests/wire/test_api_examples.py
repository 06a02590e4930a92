"""The examples of docs/api.md, as somebody would type them: real curl against a real daemon."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from contactd.lab.ports import free_port
from tests.fakes import config
from tests.fakes.waiting import until

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(sh|json|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "=== end of block"
# What is the same whenever it is run; of everything else the kind is compared.
LITERAL = frozenset(
    {
        "type", "status", "detail", "errors", "state", "category", "medium", "media_type", "kind",
        "event", "text", "size_bytes", "attempts", "opened", "joined", "action", "metric",
        "missing", "fields", "seq", "words", "error",
    }
)  # fmt: skip

pytestmark = pytest.mark.timeout(180)


def blocks(name: str) -> list[tuple[str, str]]:
    return [(kind, body) for kind, body in BLOCK.findall((DOCS / name).read_text("utf-8"))]


def test_both_languages_have_the_same_examples() -> None:
    assert blocks("api.md") == blocks("api.zh.md")
    assert len(blocks("api.md")) > 25


async def test_every_example_does_what_it_says(tmp_path: Path) -> None:
    came: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        came.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response(status=204)

    app, port = web.Application(), free_port()
    app.router.add_post("/contactd", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()

    sections = config.document(tmp_path) | {"pbx": [], "webhooks": {"networks": ["127.0.0.0/8"]}}
    daemon = config.daemon(tmp_path, sections)
    await daemon.start()
    try:
        said = await daemon.run("token", "create", "--name", "oa", "--role", "admin")
        token = said.strip().splitlines()[-1]
        answers = await _run(
            tmp_path,
            {
                "URL": daemon.url, "TOKEN": token,
                "RECEIVER": f"http://127.0.0.1:{port}/contactd",
            },
        )  # fmt: skip
        found = blocks("api.md")
        shells = [n for n, (kind, _) in enumerate(found) if kind == "sh"]
        told, different = 0, list[str]()
        for answer, n in zip(answers, shells, strict=True):
            kind, shown = found[n + 1] if n + 1 < len(found) else ("", "")
            if kind == "json":
                different += _differences(json.loads(shown), json.loads(answer), f"block {n}")
                told += 1
        assert different == []
        assert told >= 10
        report = {"from": "wangwu@example.com", "text": "Screen is black"}
        await daemon.post("/api/v1/tickets", report, token=token)
        await until(lambda: any(json.loads(body)["type"] == "ticket.opened" for _, body in came))
        await _check_deliveries(came, json.loads((tmp_path / "webhook.json").read_text()))
    finally:
        await daemon.stop()
        await runner.cleanup()


async def _run(folder: Path, variables: dict[str, str]) -> list[str]:
    """Run all shell blocks in one shell; return what each of them prints."""
    script = "".join(
        f"{body}\nprintf '\\n%s\\n' '{MARK}'\n" for kind, body in blocks("api.md") if kind == "sh"
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=folder, env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, out.decode()[-2000:] + err.decode()
    return out.decode().split(MARK)[:-1]


def _differences(shown: Any, given: Any, where: str) -> Iterator[str]:
    """Compare an answer with the one on the page, which may leave names out."""
    if type(given) is not type(shown) and shown is not None:
        yield f"{where}: {given!r}"
    elif isinstance(shown, dict | list):
        parts, there = (
            dict(enumerate(each)) if isinstance(each, list) else each for each in (shown, given)
        )
        for name, value in parts.items():
            if name in there:
                yield from _differences(value, there[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}: not there"
    elif given != shown and (set(where.split(".")) & LITERAL or shown is None):
        yield f"{where}: {given!r}, not {shown!r}"


async def _check_deliveries(came: list[tuple[dict[str, str], bytes]], hook: Any) -> None:
    """Check with the code on the page that what arrived was ours, and nothing else is."""
    (code,) = (body for kind, body in blocks("api.md") if kind == "python")
    page: dict[str, Any] = {}
    exec(compile(code, "docs/api.md", "exec"), page)
    is_genuine = page["is_genuine"]
    assert came
    for headers, body in came:
        assert json.loads(body)["type"] in ("webhook.test", "ticket.opened")
        assert is_genuine(hook["secret"], headers, body)
        assert not is_genuine(hook["secret"], headers, body + b" ")
        assert not is_genuine(hook["secret"], headers | {"webhook-timestamp": "1"}, body)
