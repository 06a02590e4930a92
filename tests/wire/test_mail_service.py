"""Mail end to end: the real daemon takes it by SMTP and answers through a real SMTP server."""

import asyncio
import re
import smtplib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import make_msgid
from html import unescape
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from contactd.lab.daemon import Daemon, toml
from contactd.lab.ports import free_port
from tests.fakes import config
from tests.fakes.rota import desk_document
from tests.fakes.smart_host import SmartHost, smart_host
from tests.fakes.waiting import eventually

SUPPORT: Final = "support@desk.example.cn"
ZHANG, WANG, STRANGER = "zhang@x.cn", "wang@x.cn", "stranger@y.cn"
PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


@dataclass(slots=True, kw_only=True)
class Desk:
    """The daemon, the world's mailboxes behind its smart host, and what its API says."""

    daemon: Daemon
    host: SmartHost
    port: int
    token: str = ""
    read: set[int] = field(default_factory=set)

    async def send(self, raw: bytes | EmailMessage, sender: str = ZHANG, to: str = SUPPORT) -> None:
        content = raw if isinstance(raw, bytes) else raw.as_bytes()
        content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

        def deliver() -> None:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as smtp:
                smtp.sendmail(sender, [to], content)

        await asyncio.to_thread(deliver)

    async def received(self, recipient: str, about: str) -> EmailMessage:
        """Return the next mail to somebody of one kind, as its Message-ID says."""

        async def found() -> list[int]:
            return [
                place
                for place, envelope in enumerate(self.host.taken)
                if place not in self.read
                and recipient in envelope.rcpt_tos
                and str(self.host.mails()[place]["Message-ID"]).startswith(f"<{about}-")
            ]

        place = (await eventually(found))[0]
        self.read.add(place)
        return self.host.mails()[place]

    def told(self, recipient: str) -> list[str]:
        """Return the subjects of what somebody was sent."""
        mails = zip(self.host.taken, self.host.mails(), strict=True)
        return [str(mail["Subject"]) for to, mail in mails if recipient in to.rcpt_tos]

    async def api(self, path: str) -> Any:
        return await self.daemon.get(f"/api/v1{path}", token=self.token)

    async def ticket(self, number: str) -> Any:
        return await self.api(f"/tickets/{number}")

    async def contacts(self, count: int) -> list[Any]:
        """Return all mails, the latest first, once there are so many."""
        found: list[Any] = []

        async def are_there() -> bool:
            found[:] = (await self.api("/contacts?medium=mail"))["items"]
            return len(found) >= count

        await eventually(are_there)
        assert len(found) == count
        return found

    async def act(self, number: str, action: str, **body: Any) -> None:
        path = f"/api/v1/tickets/{number}/actions/{action}"
        await self.daemon.post(path, body, token=self.token)

    async def state(self, number: str) -> str:
        return str((await self.ticket(number))["state"])


@asynccontextmanager
async def desk(folder: Path, **smtp: Any) -> AsyncIterator[Desk]:
    sections = config.document(folder)
    document = desk_document()
    document["engineers"][0] |= {"mails": [WANG], "page": ["mail"]}
    document["people"].append({"key": "zhang", "name": "张三", "site": "gz", "mails": [ZHANG]})
    (folder / "desk.toml").write_text(toml(document), encoding="utf-8")
    async with smart_host() as host:
        sections["mail"] = {
            "host": "127.0.0.1", "port": host.port, "security": "none", "sender": SUPPORT,
        }  # fmt: skip
        sections["smtp"] = {"mailboxes": [SUPPORT], "port": free_port(), **smtp}
        sections["http"]["public_url"] = f"http://127.0.0.1:{sections['http']['port']}"
        daemon = config.daemon(folder, sections)
        await daemon.start()
        try:
            token = await daemon.run("token", "create", "--name", "test", "--role", "admin")
            yield Desk(
                daemon=daemon,
                host=host,
                port=int(sections["smtp"]["port"]),
                token=token.strip().splitlines()[-1],
            )
        finally:
            await daemon.stop()


def written(subject: str, text: str = "打印机不动了", **headers: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = f"张三 <{ZHANG}>"
    mail["To"] = SUPPORT
    mail["Subject"] = subject
    mail["Message-ID"] = make_msgid(domain="x.cn")
    for name, value in headers.items():
        del mail[name.replace("_", "-")]
        mail[name.replace("_", "-")] = value
    mail.set_content(text)
    return mail


def answer(to: EmailMessage, text: str, sender: str) -> EmailMessage:
    return written(
        f"Re: {to['Subject']}", text, From=sender, To=str(to["Reply-To"]),
        In_Reply_To=str(to["Message-ID"]),
    )  # fmt: skip


def address(header: str) -> str:
    return header.rpartition("<")[2].rstrip(">")


def number_in(mail: EmailMessage) -> str:
    found = re.search(r"\[(\d{11,})\]", str(mail["Subject"]))
    assert found is not None
    return found[1]


def links(mail: EmailMessage) -> list[str]:
    part = mail.get_body(["html"])
    assert part is not None
    found = re.findall(r'href="(http[^"]+/m/[^"]+)"', part.get_content())
    return [unescape(each) for each in found]


async def click(link: str, button: str, note: str = "") -> str:
    """Open a link as a browser does, press a button of its page, and return what it says then."""
    async with aiohttp.ClientSession() as browser:
        async with browser.get(link) as page:
            assert page.status == 200, await page.text()
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(link))
        form = {"do": button, "note": note}
        async with browser.post(link, data=form, headers={"Origin": origin}) as page:
            assert page.status == 200, await page.text()
            return await page.text()


async def test_a_mail_has_its_ticket_within_a_second_and_a_life_by_mail(tmp_path: Path) -> None:
    """Confirmed, threaded, taken, solved by link, reopened by "not solved", closed by a reply."""
    async with desk(tmp_path) as here:
        first = written("打印机 HP 401 不动")
        await here.send(first)
        (contact,) = await here.contacts(1)
        number = contact["ticket"]
        ticket = await here.ticket(number)
        waited = datetime.fromisoformat(ticket["opened_at"]) - datetime.fromisoformat(
            contact["received_at"]
        )
        assert waited.total_seconds() == 0, "the ticket is as old as the mail"
        confirmation = await here.received(ZHANG, "received")
        assert confirmation["In-Reply-To"] == first["Message-ID"]
        assert confirmation["Auto-Submitted"] == "auto-replied"
        page = await here.received(WANG, "page")

        # The reply goes to the signed address and joins, whatever its subject says.
        more = answer(confirmation, "补充：屏幕显示 49 错误", ZHANG)
        del more["Subject"]
        more["Subject"] = "还有"
        await here.send(more, to=address(str(confirmation["Reply-To"])))
        assert {each["ticket"] for each in await here.contacts(2)} == {number}

        # The engineer takes it from the mail; a scanner that opens the link takes nothing.
        (take, *_) = links(page)
        async with aiohttp.ClientSession() as scanner, scanner.get(take) as opened:
            assert opened.status == 200
        assert await here.state(number) == "new"
        await click(take, "1")
        assert await here.state(number) == "in_progress"

        await here.act(number, "resolve")
        question = await here.received(ZHANG, "solved")
        await click(links(question)[-1], "2", "还是卡纸")
        assert await here.state(number) == "in_progress"
        assert "还是卡纸" in str((await here.ticket(number))["journal"])

        await here.act(number, "resolve")
        again = await here.received(ZHANG, "solved")
        solved = answer(again, "解决\n\n> 您的工单已处理完毕\n", ZHANG)
        await here.send(solved, to=address(str(again["Reply-To"])))

        async def is_closed() -> bool:
            return await here.state(number) == "closed"

        await eventually(is_closed)
        book = await here.daemon.run("ledger")
        assert "mail: 3 accepted by SMTP, 3 contacts" in book
        assert "Traceback" not in here.daemon.tail(10_000)


async def test_a_mail_is_a_ticket_within_a_second(tmp_path: Path) -> None:
    """One of three is enough, as the machine has other work; `make bench` has the figures."""
    async with desk(tmp_path) as here:
        waited: list[float] = []
        for count in range(1, 4):
            began = datetime.now(UTC)
            sender = f"someone{count}@y.cn"
            await here.send(written(f"第{count}封", From=sender), sender=sender)
            newest = (await here.contacts(count))[0]
            journal = (await here.ticket(newest["ticket"]))["journal"]
            filed = datetime.fromisoformat(journal[0]["at"]) - began
            waited.append(filed.total_seconds())
        assert min(waited) < 1


async def test_pictures_and_large_files_come_back_as_they_were(tmp_path: Path) -> None:
    large = bytes(range(256)) * 80_000  # 20 MB
    mail = written("截图")
    mail.add_alternative('<p>错误：<img src="cid:shot@x"></p><script>1</script>', subtype="html")
    html = mail.get_payload()[1]  # type: ignore[index]
    html.add_related(PIXEL, "image", "png", cid="<shot@x>", filename="屏幕.png")  # type: ignore[union-attr]
    mail.add_attachment(large, maintype="application", subtype="zip", filename="日志.zip")
    async with desk(tmp_path) as here:
        await here.send(mail)
        (contact,) = await here.contacts(1)
        files = {each["kind"]: each for each in contact["attachments"]}
        assert {kind: each["name"] for kind, each in files.items()} == {
            "raw": "message.eml", "inline": "屏幕.png", "attachment": "日志.zip",
        }  # fmt: skip
        headers = {"Authorization": f"Bearer {here.token}"}
        async with aiohttp.ClientSession(here.daemon.url, headers=headers) as api:
            for kind, content in (("inline", PIXEL), ("attachment", large)):
                async with api.get(files[kind]["url"]) as answer:
                    assert await answer.read() == content
            async with api.get(f"/desk/mails/{contact['id']}") as shown:
                page = await shown.text()
        assert f'src="{files["inline"]["url"]}"' in page
        assert "<script>" not in page


async def test_every_charset_of_the_coast_is_read(tmp_path: Path) -> None:
    def coded(subject: bytes, body: bytes, *headers: bytes) -> bytes:
        head = b"From: <%s>\r\nTo: <%s>\r\nSubject: " % (STRANGER.encode(), SUPPORT.encode())
        return head + subject + b"\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body

    def word(charset: str, text: str) -> bytes:
        return b"=?%s?B?%s?=" % (charset.encode(), b64encode(text.encode(charset)))

    plain = b"Content-Type: text/plain; charset="
    texts = {
        "网络中断": "广州分行网络中断",
        "印表機故障": "印表機無法列印",
        "电脑蓝屏无法启动": "蓝屏了，请尽快处理",
        "プリンター": "動きません",
        "错误 5": "hello",
    }
    gb, big5, gbk, jis, utf7 = texts
    mails = [
        coded(gb.encode("gb18030"), texts[gb].encode("gb18030"), plain + b"gb2312"),
        coded(word("big5", big5), texts[big5].encode("big5"), plain + b"Big5"),
        coded(gbk.encode("gbk"), texts[gbk].encode("gbk")),
        coded(word("iso-2022-jp", jis), texts[jis].encode("iso-2022-jp"), plain + b"ISO-2022-JP"),
        coded(word("utf-7", utf7), b"hello"),
    ]
    async with desk(tmp_path) as here:
        for raw in mails:
            await here.send(raw, sender=STRANGER)
        found = await here.contacts(len(mails))
        read = {each["mail"]["subject"]: each["text"].strip() for each in found}
    assert read == texts


async def test_an_engineer_works_by_mail_but_a_name_in_from_is_no_proof(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.send(written("打印机"))
        page = await here.received(WANG, "page")
        number = number_in(page)
        forged = written(f"Re: [{number}]", "接单", From=WANG)
        await here.send(forged, sender=STRANGER)
        await here.contacts(2)
        assert await here.state(number) == "new"
        reply_to = address(str(page["Reply-To"]))
        await here.send(answer(page, "接单\n\n-- \n王伟\n", WANG), sender=WANG, to=reply_to)

        async def is_taken() -> bool:
            return (await here.ticket(number))["assignee"] is not None

        await eventually(is_taken)
        assert (await here.ticket(number))["assignee"]["key"] == "wang"
        await here.send(answer(page, "已解决", WANG), sender=WANG, to=reply_to)

        async def is_resolved() -> bool:
            return await here.state(number) == "resolved"

        await eventually(is_resolved)


async def test_a_stranger_with_a_number_in_the_subject_gets_a_ticket_of_their_own(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as here:
        await here.send(written("打印机"))
        (first,) = await here.contacts(1)
        mail = written(f"Re: [{first['ticket']}] 打印机", "OK", From=STRANGER)
        await here.send(mail, sender=STRANGER)
        found = await here.contacts(2)
        assert len({each["ticket"] for each in found}) == 2


async def test_two_machines_that_answer_each_mail_stop_after_one_confirmation(
    tmp_path: Path,
) -> None:
    """A requester's autoresponder without any of the headers answers each mail of ours."""
    async with desk(tmp_path) as here:
        await here.send(written("打印机"))
        confirmation = await here.received(ZHANG, "received")
        for round_ in range(3):
            reply = answer(confirmation, f"我不在办公室 {round_}", ZHANG)
            await here.send(reply, to=address(str(confirmation["Reply-To"])))
        vacation = answer(confirmation, "自动回复", ZHANG)
        vacation["Auto-Submitted"] = "auto-replied"
        await here.send(vacation, sender="", to=address(str(confirmation["Reply-To"])))
        found = await here.contacts(5)
        assert len({each["ticket"] for each in found}) == 1
        await asyncio.sleep(2)  # whatever would be sent in answer is sent by now
        assert len(here.told(ZHANG)) == 1


async def test_a_mail_from_nobody_is_a_machines_and_is_not_answered(tmp_path: Path) -> None:
    """The reverse-path <> is in the envelope alone (RFC 5321 section 4.5.5)."""
    async with desk(tmp_path) as here:
        await here.send(written("打印机"), sender="")
        (contact,) = await here.contacts(1)
        assert contact["mail"]["writer"] == "auto"
        await here.received(WANG, "page")
        assert here.told(ZHANG) == []


async def test_a_bounce_of_our_mail_marks_the_message_and_wakes_nobody(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.send(written("打印机"))
        confirmation = await here.received(ZHANG, "received")
        assert number_in(confirmation)
        back_to = next(each.mail_from for each in here.host.taken if ZHANG in each.rcpt_tos)
        assert back_to is not None
        assert back_to != SUPPORT
        bounce = (
            b"From: MAILER-DAEMON@x.cn\r\nTo: <" + back_to.encode() + b">\r\n"
            b"Subject: Undelivered Mail Returned to Sender\r\n"
            b"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
            b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
            b"--b\r\n\r\nI could not deliver your mail.\r\n"
            b"--b\r\nContent-Type: message/delivery-status\r\n\r\n"
            b"Reporting-MTA: dns; x.cn\r\n\r\nFinal-Recipient: rfc822; " + ZHANG.encode() + b"\r\n"
            b"Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
            b"--b--\r\n"
        )
        await here.send(bounce, sender="", to=back_to)
        newest, first = await here.contacts(2)
        assert newest["ticket"] == first["ticket"]
        assert newest["mail"]["writer"] == "bounce"

        async def is_marked() -> bool:
            messages = (await here.ticket(first["ticket"]))["messages"]
            return any(
                each["recipient"] == "requester" and each["state"] == "failed" for each in messages
            )

        await eventually(is_marked)
