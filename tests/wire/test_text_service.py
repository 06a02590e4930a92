"""Texts end to end: the real daemon, called and answered by a Twilio that forgets nothing."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest
from yarl import URL

from contactd.clock import SystemClock
from contactd.lab.daemon import Daemon, toml
from contactd.sms.twilio import INBOUND, STATUS
from tests.fakes import config
from tests.fakes.rota import desk_document
from tests.fakes.sms_twilio import (
    ACCOUNT,
    SENDER,
    TOKEN,
    FakeTwilio,
    inbound,
    serving,
    sid_of,
    signature,
)
from tests.fakes.waiting import eventually

PUBLIC: Final = "https://desk.example.cn"
ZHANG, WANG, STRANGER = "+8613900000077", "+8613800000001", "+8613900000088"
ROUNDS: Final = 8
SENDERS: Final = 4


@dataclass(slots=True, kw_only=True)
class Desk:
    daemon: Daemon
    twilio: FakeTwilio
    http: aiohttp.ClientSession
    token: str = ""

    async def call(self, path: str, fields: list[tuple[str, str]], sign: str = TOKEN) -> int:
        """Call the daemon as Twilio does; return the status."""
        headers = {
            "X-Twilio-Signature": signature(PUBLIC + path, fields, sign),
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        }
        url = URL(self.daemon.url + path, encoded=True)
        body = urlencode(fields).encode()
        async with self.http.post(url, data=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def write(self, sender: str, words: str, name: str) -> int:
        sid = sid_of(name)
        if not any(each["sid"] == sid for each in self.twilio.messages):
            self.twilio.keep("inbound", sender, SENDER, words, sid=sid)
        return await self.call(INBOUND, inbound(sid, sender, words))

    def told(self, number: str) -> list[str]:
        """Return what somebody was sent."""
        return [
            each["body"]
            for each in self.twilio.messages
            if each["to"] == number and each["direction"] != "inbound"
        ]

    async def hears(self, number: str, words: str) -> str:
        """Return a text to a number that has these words, once it is there."""
        found: list[str] = []

        async def is_there() -> bool:
            found[:] = [each for each in self.told(number) if words in each]
            return bool(found)

        await eventually(is_there)
        return found[0]

    async def api(self, path: str) -> Any:
        return await self.daemon.get(f"/api/v1{path}", token=self.token)

    async def state(self, number: str) -> str:
        return str((await self.api(f"/tickets/{number}"))["state"])


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    sections = config.document(folder)
    document = desk_document()
    document["engineers"][0] |= {"page": ["text"]}
    document["people"].append({"key": "zhang", "name": "张三", "site": "gz", "numbers": [ZHANG]})
    (folder / "desk.toml").write_text(toml(document), encoding="utf-8")
    twilio = FakeTwilio(clock=SystemClock())
    async with serving(twilio.app()) as api_url, aiohttp.ClientSession() as http:
        sections["sms"] = {
            "gateways": ["twilio"],
            "most_per_hour": 1000,
            "quiet_from": "04:00",
            "quiet_until": "04:00",  # never
            "twilio": {
                "account_sid": ACCOUNT, "auth_token": TOKEN, "sender": SENDER, "api_url": api_url,
            },
        }  # fmt: skip
        sections["http"]["public_url"] = PUBLIC
        daemon = config.daemon(folder, sections)
        await daemon.start()
        try:
            token = await daemon.run("token", "create", "--name", "test", "--role", "admin")
            yield Desk(
                daemon=daemon, twilio=twilio, http=http, token=token.strip().splitlines()[-1]
            )
        finally:
            twilio.end()
            await daemon.stop()


async def test_a_text_becomes_a_ticket_and_goes_its_whole_way_by_text(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        assert await here.write(ZHANG, "三楼打印机坏了", "first") == 200
        confirmed = await here.hears(ZHANG, "已收到您的报修")
        (contact,) = (await here.api("/contacts?medium=text"))["items"]
        number = contact["ticket"]
        assert number in confirmed
        assert contact["external_id"] == f"twilio-{sid_of('first')}"
        assert number in await here.hears(WANG, "新工单")
        assert await here.write(ZHANG, f"还有{number}的扫描仪", "more") == 200
        assert await here.write(ZHANG, "进度", "how") == 200
        await here.hears(ZHANG, "您的报修")
        assert await here.write(WANG, f"1 {number}", "take") == 200

        async def in_progress() -> bool:
            return await here.state(number) == "in_progress"

        await eventually(in_progress)
        await here.hears(ZHANG, "已接手")
        assert await here.write(WANG, f"解决 {number}", "done") == 200
        await here.hears(ZHANG, "已处理完毕")
        contacts = (await here.api("/contacts?medium=text"))["items"]
        assert {each["ticket"] for each in contacts} == {number}
        assert await here.write(ZHANG, "解决", "ok") == 200

        async def closed() -> bool:
            return await here.state(number) == "closed"

        await eventually(closed)


async def test_a_forged_call_stores_nothing_and_the_same_text_is_one_contact(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        fields = inbound(sid_of("x"), STRANGER, "打印机坏了")
        assert await here.call(INBOUND, fields, sign="wrong") == 403
        assert (await here.api("/contacts?medium=text"))["items"] == []
        assert [await here.write(STRANGER, "打印机坏了", "x") for _ in range(5)] == [200] * 5
        assert len((await here.api("/contacts?medium=text"))["items"]) == 1


async def test_who_wants_no_texts_gets_none_and_no_ticket_stays_open(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        assert await here.write(STRANGER, "退订", "stop") == 200

        async def is_over() -> bool:
            items = (await here.api("/contacts?medium=text"))["items"]
            return bool(items) and await here.state(items[0]["ticket"]) == "cancelled"

        await eventually(is_over)
        assert await here.write(STRANGER, "打印机坏了", "real") == 200
        await here.hears(WANG, "新工单")
        assert here.told(STRANGER) == []
        assert await here.write(STRANGER, "恢复", "start") == 200
        assert await here.write(STRANGER, "进度", "how") == 200
        await here.hears(STRANGER, "您的报修")


async def test_what_twilio_says_later_of_a_text_stands_on_the_ticket(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.write(ZHANG, "三楼打印机坏了", "first")
        await here.hears(ZHANG, "已收到您的报修")
        form = next(each for each in here.twilio.forms if each["To"] == ZHANG)
        sent = next(each for each in here.twilio.messages if each["to"] == ZHANG)
        path = URL(form["StatusCallback"], encoded=True).raw_path_qs
        assert path.startswith(STATUS)
        fields = [("MessageSid", sent["sid"]), ("MessageStatus", "delivered")]
        assert await here.call(path, fields) == 200
        number = (await here.api("/contacts?medium=text"))["items"][0]["ticket"]

        async def is_delivered() -> bool:
            messages = (await here.api(f"/tickets/{number}"))["messages"]
            return any(
                each["reason"] == "received" and each["state"] == "delivered" for each in messages
            )

        await eventually(is_delivered)


async def keep_writing(here: Desk, who: int, stop: asyncio.Event, taken: set[str]) -> None:
    """Write one text after the other; what was not acknowledged comes again, as Twilio does once,
    or is in its list only.
    """
    count = 0
    while not stop.is_set():
        count += 1
        name = f"{who}.{count}"
        for _ in range(2):
            with suppress(aiohttp.ClientError, OSError):
                if await here.write(f"+86139000001{who:02}", f"文字{name}", name) == 200:
                    taken.add(f"twilio-{sid_of(name)}")
                    break
        await asyncio.sleep(0.1)


@pytest.mark.timeout(300)
async def test_what_was_acknowledged_is_a_contact_once_however_often_it_is_killed(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("CONTACTD_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CONTACTD_CHAOS_SEED={seed}")  # noqa: T201 - to run it again
    chance, taken, stop = random.Random(seed), set[str](), asyncio.Event()
    async with desk(tmp_path) as here:
        async with asyncio.TaskGroup() as writers:
            for number in range(SENDERS):
                writers.create_task(keep_writing(here, number, stop, taken))
            for _ in range(ROUNDS):
                await asyncio.sleep(chance.uniform(0.1, 0.8))
                await here.daemon.kill()
                await here.daemon.start()
            stop.set()
        assert len(taken) > ROUNDS
        came = {
            f"twilio-{each['sid']}"
            for each in here.twilio.messages
            if each["direction"] == "inbound"
        }
        found = await filed(here)
        assert taken <= found.keys() <= came
        assert set(found.values()) == {1}


async def filed(here: Desk) -> Counter[str]:
    """Return how many contacts there are of each text."""
    found: Counter[str] = Counter()
    cursor = ""
    while True:
        page = await here.api(f"/contacts?medium=text&limit=200{cursor}")
        found.update(each["external_id"] for each in page["items"])
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"
