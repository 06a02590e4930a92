"""The whole daemon as a child process, its people signed in with Chromium, the world around it.

Mail comes and goes by SMTP, texts by a Twilio that forgets nothing; there is no PBX. For stories
with calls see `tests.real.desk`.
"""

import asyncio
import smtplib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from playwright.async_api import Browser, BrowserContext, Page
from yarl import URL

from contactd.clock import SystemClock
from contactd.lab.daemon import Daemon, toml
from contactd.lab.ports import free_port
from contactd.sms.twilio import INBOUND
from tests.fakes import config
from tests.fakes.rota import desk_document
from tests.fakes.smart_host import SmartHost, smart_host
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

SUPPORT: Final = "support@desk.example.cn"
PUBLIC: Final = "https://desk.example.cn"
PASSWORD: Final = "correct horse battery"
ZHANG_NUMBER, ZHANG_MAIL = "+8613900000077", "zhang@x.cn"
WANG_NUMBER: Final = "+8613800000001"
# Who signs in: the name, and what `contactd user add` is told.
USERS: Final[Mapping[str, tuple[str, ...]]] = {
    "ling": ("--role", "desk"),
    "wang": ("--role", "engineer", "--engineer", "wang"),
    "tan": ("--role", "supervisor"),
    "root": ("--role", "admin"),
    "ops": ("--role", "operations"),
}


@dataclass(slots=True, kw_only=True)
class Workbench:
    daemon: Daemon
    host: SmartHost
    twilio: FakeTwilio
    http: aiohttp.ClientSession
    smtp_port: int
    public: str = PUBLIC
    token: str = ""
    contexts: dict[tuple[str, int], BrowserContext] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.daemon.url

    # The world outside

    async def mail(
        self, subject: str, words: str, *, sender: str = ZHANG_MAIL, answers: str = ""
    ) -> str:
        """Let somebody write to the support mailbox; return the Message-ID."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, SUPPORT, subject
        message["Message-ID"] = make_msgid(domain="x.cn")
        if answers:
            message["In-Reply-To"] = answers
        message.set_content(words)

        def deliver() -> None:
            with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=20) as smtp:
                smtp.send_message(message, from_addr=sender, to_addrs=[SUPPORT])

        await asyncio.to_thread(deliver)
        return str(message["Message-ID"])

    async def text(self, words: str, *, sender: str = ZHANG_NUMBER, name: str) -> None:
        """Let somebody send a text; `name` tells it from others."""
        sid = sid_of(name)
        self.twilio.keep("inbound", sender, SENDER, words, sid=sid)
        fields = inbound(sid, sender, words)
        headers = {
            "X-Twilio-Signature": signature(self.public + INBOUND, fields, TOKEN),
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        }
        body = urlencode(fields).encode()
        url = URL(self.url + INBOUND, encoded=True)
        async with self.http.post(url, data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()

    def mails_to(self, recipient: str) -> list[EmailMessage]:
        taken = zip(self.host.taken, self.host.mails(), strict=True)
        return [mail for envelope, mail in taken if recipient in envelope.rcpt_tos]

    def texts_to(self, number: str) -> list[str]:
        return [
            each["body"]
            for each in self.twilio.messages
            if each["to"] == number and each["direction"] != "inbound"
        ]

    # What contactd has made of it

    async def api(self, path: str) -> Any:
        return await self.daemon.get(f"/api/v1{path}", token=self.token)

    async def act(self, number: str, action: str, **body: Any) -> None:
        path = f"/api/v1/tickets/{number}/actions/{action}"
        await self.daemon.post(path, body, token=self.token)

    async def ticket_of(self, medium: str) -> str:
        """Return the ticket of the newest contact of a medium, once there is one."""
        found: list[Any] = []

        async def is_there() -> bool:
            found[:] = (await self.api(f"/contacts?medium={medium}"))["items"]
            return bool(found)

        await eventually(is_there)
        return str(found[0]["ticket"])

    # People at their desks

    async def page(
        self, chromium: Browser, who: str, path: str = "/desk", *, width: int = 1440,
        language: str = "zh-CN",
    ) -> Page:  # fmt: skip
        """Open a page as somebody who signs in if they have not yet; "": as anybody."""
        context = self.contexts.get((who, width))
        if context is None:
            context = await chromium.new_context(
                viewport={"width": width, "height": 900 if width > 600 else 780}, locale=language
            )
            self.contexts[who, width] = context
            if who:
                await self._sign_in(context, who)
        page = await context.new_page()
        await page.goto(f"{self.url}{path}")
        return page

    async def _sign_in(self, context: BrowserContext, who: str) -> None:
        page = await context.new_page()
        await page.goto(f"{self.url}/login")
        await page.locator("input[name=name]").fill(who)
        await page.locator("input[name=password]").fill(PASSWORD)
        await page.locator("main form button").first.click()
        await page.wait_for_url(lambda url: "/login" not in url)
        await page.close()


@asynccontextmanager
async def workbench(folder: Path, **sections: Any) -> AsyncIterator[Workbench]:
    """Run it; `sections` replace those of the configuration, `http` adds to it."""
    document = desk_document()
    document["engineers"][0] |= {"mails": ["wang@x.cn"], "page": ["text"]}
    zhang = {"key": "zhang", "name": "张三", "site": "gz", "department": "财务部"}
    document["people"].append({**zhang, "numbers": [ZHANG_NUMBER], "mails": [ZHANG_MAIL]})
    twilio = FakeTwilio(clock=SystemClock())
    async with (
        smart_host() as host,
        serving(twilio.app()) as api_url,
        aiohttp.ClientSession() as http,
    ):
        given = config.document(folder)
        (folder / "desk.toml").write_text(toml(document), encoding="utf-8")
        given["pbx"] = []
        given["http"]["public_url"] = PUBLIC
        given["mail"] = {
            "host": "127.0.0.1", "port": host.port, "security": "none", "sender": SUPPORT,
        }  # fmt: skip
        given["smtp"] = {"mailboxes": [SUPPORT], "port": free_port()}
        given["sms"] = {
            "gateways": ["twilio"], "most_per_hour": 1000,
            "quiet_from": "04:00", "quiet_until": "04:00",  # never
            "twilio": {
                "account_sid": ACCOUNT, "auth_token": TOKEN, "sender": SENDER, "api_url": api_url,
            },
        }  # fmt: skip
        given["http"] |= sections.pop("http", {})
        given |= sections
        daemon = config.daemon(folder, given)
        await daemon.start()
        found = Workbench(
            daemon=daemon, host=host, twilio=twilio, http=http, smtp_port=given["smtp"]["port"],
            public=given["http"]["public_url"],
        )  # fmt: skip
        try:
            token = await daemon.run("token", "create", "--name", "test", "--role", "admin")
            found.token = token.strip().splitlines()[-1]
            for name, options in USERS.items():
                await daemon.run("user", "add", "--name", name, *options, said=f"{PASSWORD}\n")
            yield found
        finally:
            for context in found.contexts.values():
                await context.close()
            twilio.end()
            await daemon.stop()
