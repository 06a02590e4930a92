"""`python -m bench.texts_contract DIR`: the gateway to Twilio against Twilio's own documents.

DIR has `twilio_api_v2010.json` (Twilio's OpenAPI document) and `signature_vectors.json`, if any.
Prism answers as the document says, and says whether our requests are right by it: first with the
document's examples, then with random values of the right types. The tests' own Twilio must show
what the document shows. Exit code: 0, or 1 if anything does not fit.
"""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from bench.peers.programs import greeting, run
from contactd import log
from contactd.clock import SystemClock
from contactd.errors import ContactdError
from contactd.lab.ports import free_port
from contactd.settings import TwilioSettings
from contactd.sms import twilio_api
from contactd.sms.gateway import Found, Incoming
from contactd.sms.twilio import TwilioGateway
from contactd.sms.twilio_signing import Forged, verified
from tests.fakes.sms import FakeInbox, handed, outgoing
from tests.fakes.sms_twilio import ACCOUNT, PUBLIC, SENDER, TOKEN, FakeTwilio

DOCUMENT: Final = "twilio_api_v2010.json"
VECTORS: Final = "signature_vectors.json"
RECIPE: Final = Path(__file__).parent / "prism"
FOLDER: Final = Path(__file__).parents[1] / "build" / "prism"
STARTS_S: Final = 60.0
ROUNDS: Final = 100  # with random values
SHOWN: Final = 10

Lines = list[str]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.texts_contract", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder: Path = parser.parse_args(argv).folder
    if not (folder / DOCUMENT).is_file():
        sys.stderr.write(f"texts-contract: there is no {DOCUMENT} in {folder}\n")
        return os.EX_NOINPUT
    log.configure(level="ERROR", json=False)
    wrong = asyncio.run(_run(folder))
    for line in wrong[:SHOWN]:
        print(f"  wrong: {line}")
    return 1 if wrong else os.EX_OK


async def _run(folder: Path) -> Lines:
    document = folder / DOCUMENT
    await _install()
    wrong = [*_signatures(folder / VECTORS), *_shape(document)]
    wrong += await _contract(document, "examples", 1)
    wrong += await _contract(document, "random values", ROUNDS, "--dynamic")
    return wrong


async def _install() -> None:
    """Install Prism below build/, unless this very one is there."""
    names = ("package.json", "package-lock.json")
    recipe = hashlib.sha256(b"".join((RECIPE / name).read_bytes() for name in names)).hexdigest()
    stamp = FOLDER / ".recipe"
    if stamp.is_file() and stamp.read_text() == recipe:
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in names:
        shutil.copy(RECIPE / name, FOLDER)
    await run("npm", "--prefix", str(FOLDER), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    stamp.write_text(recipe)


# Prism


@asynccontextmanager
async def _prism(document: Path, lines: Lines, *options: str) -> AsyncIterator[str]:
    """Start Prism; what it says is added to `lines`."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        FOLDER / "node_modules" / ".bin" / "prism", "mock", "-h", "127.0.0.1", "-p", str(port),
        *options, str(document), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read(process.stdout, lines))
        try:
            async with asyncio.timeout(STARTS_S):
                while not await greeting(port, ask=b"GET / HTTP/1.0\r\n\r\n", wanted=b"HTTP"):
                    await asyncio.sleep(0.2)
            lines.clear()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


async def _read(stream: asyncio.StreamReader, lines: Lines) -> None:
    async for line in stream:
        lines.append(line.decode(errors="replace").rstrip())


async def _contract(document: Path, title: str, rounds: int, *options: str) -> Lines:
    """Do everything the gateway can, `rounds` times; return what does not fit."""
    said: Lines = []
    results: Counter[str] = Counter()
    wrong: Lines = []
    async with _prism(document, said, *options) as url:
        given = {"account_sid": ACCOUNT, "auth_token": TOKEN, "api_url": url, "timeout_s": 30}
        clock = SystemClock()
        for sender in (SENDER, "MG" + "0b" * 16):
            settings = TwilioSettings.model_validate({**given, "sender": sender})
            gateway = TwilioGateway(settings, FakeInbox(), clock, PUBLIC)
            async with gateway.running():
                for _ in range(rounds):
                    for name, act in _acts(gateway, clock).items():
                        results[await _outcome(name, act, wrong)] += 1
    requests = sum("Request received" in line for line in said)
    violations = [line for line in said if "did not pass the validation rules" in line]
    print(f"{title}: {requests} requests, {len(violations)} not as the document says")
    for result, count in sorted(results.items()):
        print(f"  {count:5} {result}")
    return wrong + violations


def _acts(
    gateway: TwilioGateway, clock: SystemClock
) -> Mapping[str, Callable[[], Awaitable[object]]]:
    text, now = outgoing("您好，工单26112000017已收到 😀", ref="n-1-7"), clock.now()
    return {
        "submit": lambda: gateway.submit(text),
        "find by id": lambda: gateway.find(handed(text, "twilio", now, "SM" + "0" * 32)),
        "find in the list": lambda: gateway.find(handed(text, "twilio", now)),
        "listed": lambda: gateway.listed(now - timedelta(days=1), now),
    }


async def _outcome(name: str, act: Callable[[], Awaitable[object]], wrong: Lines) -> str:
    """Return what an act came to: only the failures that the protocol names are right."""
    pages = twilio_api.MOST_PAGES
    twilio_api.MOST_PAGES = 3  # type: ignore[misc]  # the document's page always has a next one
    try:
        came = await act()
    except ContactdError as failure:
        return f"{name}: {type(failure).__name__}: {failure}"
    except Exception as error:  # that is the question
        wrong.append(f"{name}: {error!r}")
        return f"{name}: {type(error).__name__}"
    finally:
        twilio_api.MOST_PAGES = pages  # type: ignore[misc]
    match came:
        case Found():
            return f"{name}: {came.trace}"
        case str():
            return f"{name}: an id"
        case [*texts] if all(isinstance(each, Incoming) for each in texts):
            return f"{name}: texts"
        case _:
            wrong.append(f"{name}: {came!r}")
            return f"{name}: something else"


# Without Prism


def _signatures(path: Path) -> Lines:
    """Try the published signatures, and each once more with a changed token."""
    if not path.is_file():
        print(f"signatures: there is no {path.name}")
        return []
    told: Any = json.loads(path.read_text())
    form = "application/x-www-form-urlencoded"
    cases = []
    for each in (*told["vectors"], told["duplicate_vector"]):
        pairs = [(name, value) for name, value in each.get("pairs") or told["params"].items()]
        cases.append((each["url"], form, urlencode(pairs).encode(), each))
    body = told["body_vector"]
    cases.append((body["url"], "application/json", body["body"].encode(), body))
    wrong = []
    for url, kind, content, each in cases:
        for token, expected in ((told["token"], each["valid"]), (f"{told['token']}x", False)):
            try:
                verified(token, url, kind, content, each["sig"])
                came = True
            except Forged:
                came = False
            if came is not expected:
                wrong.append(f"signature of {url}: {each.get('why', kind)}")
    print(f"signatures: {len(cases)} published, {len(wrong)} wrong")
    return wrong


def _shape(document: Path) -> Lines:
    """Compare what the tests' Twilio shows of a text with the document's schema."""
    schemas = json.loads(document.read_text())["components"]["schemas"]
    properties: Mapping[str, Any] = schemas["api.v2010.account.message"]["properties"]
    twilio = FakeTwilio(clock=SystemClock())
    wrong = []
    for direction in ("inbound", "outbound-api"):
        record = twilio.keep(direction, SENDER, SENDER, "x")
        wrong += [f"the fake has or lacks {name}" for name in properties.keys() ^ record.keys()]
        for name, schema in properties.items():
            schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            if not _fits(record.get(name), schema):
                wrong.append(f"the fake's {name} is {record.get(name)!r}")
    print(f"the tests' Twilio: {len(properties)} properties, {len(wrong)} wrong")
    return wrong


_TYPES: Final[Mapping[str, type]] = {"string": str, "object": dict, "integer": int}


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    if value is None:
        return bool(schema.get("nullable"))
    if "enum" in schema and value not in schema["enum"]:
        return False
    return isinstance(value, _TYPES.get(schema.get("type", ""), object))


if __name__ == "__main__":
    sys.exit(main())
