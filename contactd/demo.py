"""`contactd demo`: a PBX, a public network, contactd, three calls and a mail, on this machine."""

import asyncio
import os
import signal
import smtplib
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Any, Final, TypeVar

from contactd.errors import ContactdError
from contactd.lab.asterisk import LabError
from contactd.lab.desk import DESK_FILE, DID, DeskLab, open_desk
from contactd.lab.network import Leg
from contactd.lab.ports import free_port
from contactd.routing import deskfile

T = TypeVar("T")

PAGE_PORT: Final = 8080
MAIL_PORT: Final = 8025
MAILBOX: Final = "support@demo.example"
NEXT_CALL_S: Final = 30.0

# Times of the zh prompts: the notice takes 4 s and cannot be skipped, the greeting with the ticket
# number ends at 14 s; the offer's first words are over after 5 s, then comes the ticket number.
ENGINEER: Final = "w2-a-w11-d1-w8-h"
AWAY: Final = "b"  # somebody speaks on it
CALLER: Final = "w15-d1-w120-h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One caller, and what has to become of the call."""

    title: str
    caller: str
    name: str
    script: str
    outcome: str


STORIES: Final = (
    Story(
        title="an engineer takes it",
        caller="13912340001",
        name="陈晨",
        script=CALLER,
        outcome="answered",
    ),
    Story(
        title="the caller gives up in the queue",
        caller="02088880002",
        name="",
        script="w6-d0-w12-h",
        outcome="abandoned_queue",
    ),
    Story(
        title="nobody answers, a message is left",
        caller="13912340003",
        name="刘洋",
        script="w6-d0-w26-p6-h",
        outcome="voicemail",
    ),
)


class DemoFailed(ContactdError):
    """What was shown is not what had to happen."""


def main(*, check: bool, keep: bool) -> int:
    """Run the demo; with `check` assert what happened and end. Return the exit code."""
    try:
        asyncio.run(_demo(check=check, keep=keep))
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C, SIGTERM
        _say("stopped: everything that was started has been ended")
        return os.EX_OK if not check else 130
    except (LabError, DemoFailed) as error:
        print(f"demo: {error}", file=sys.stderr)
        return os.EX_SOFTWARE if isinstance(error, DemoFailed) else os.EX_UNAVAILABLE
    return os.EX_OK


_BEGAN: Final = time.monotonic()


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:5.1f} s] {text}", flush=True)


async def _demo(*, check: bool, keep: bool) -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    _say("starting a PBX, the public network and contactd")
    port = {"host": "127.0.0.1", "port": PAGE_PORT} if _is_free(PAGE_PORT) else {}
    smtp_port = MAIL_PORT if _is_free(MAIL_PORT) else free_port()
    settings = {"http": port, "smtp": {"mailboxes": [MAILBOX], "port": smtp_port}}
    async with open_desk(options={"QUEUE_WAIT": "14"}, settings=settings, keep=keep) as desk:
        _say(f"ready; the status page is {desk.daemon.url}/")
        for line in await _three_calls(desk):
            print(line)
        _say(await _a_mail(desk, smtp_port))
        if keep:
            _say(f"kept: {desk.folder} and {desk.pbx.files_root}")
        if check:
            _say("demo-check: the three calls and the mail are tickets as they should be")
            return
        print(
            f"\n  Status page   {desk.daemon.url}/   (?lang=en, ?lang=zh)\n"
            f"  Live calls    one more every {NEXT_CALL_S:.0f} s, watch the page\n"
            f"  From afar     ssh -L {PAGE_PORT}:{desk.daemon.url.removeprefix('http://')} HOST\n"
            f"  Mail          to {MAILBOX}, by SMTP at 127.0.0.1:{smtp_port}\n"
            "  Ctrl-C        ends all of it\n",
            flush=True,
        )
        await _go_on(desk)


async def _three_calls(desk: DeskLab) -> list[str]:
    token = (await desk.daemon.run("token", "create", "--name", "demo", "--role", "admin")).strip()
    phones = _tier_one()
    await _everybody(desk, phones, ENGINEER)
    calls: list[Leg] = []
    for story in STORIES:
        calls.append(
            await desk.network.call(
                caller=story.caller, name=story.name, did=DID, script=story.script
            )
        )
        _say(f"{story.caller} calls {DID}: {story.title}")
        if story is STORIES[0]:
            ring = await _ring(desk, phones, after=0)
            _say(f"the engineer's phone {ring.number} rings; 1 takes the call")
            await _until(lambda: _is_talking(desk, token), 40, "the engineer takes the call")
            _say("they talk")
            # Whoever is on duty at this hour: a second one must not take the third caller.
            await _everybody(desk, phones, AWAY)
    for call, story in zip(calls, STORIES, strict=True):
        await call.ended(90)
        _say(f"{story.caller} is gone")
    await _everybody(desk, phones, ENGINEER)
    rings = len(desk.network.rings)

    async def complete() -> list[dict[str, Any]] | None:
        found = await _contacts(desk, token)
        done = [one for one in found if one["call"]["final"]]
        return done if len(done) == len(STORIES) else None

    contacts = await _until(complete, 30, "the PBX's records of the three calls are read")
    _say("the records of the PBX confirm them; now somebody is rung about the voicemail")
    page = await _ring(desk, phones, after=rings)
    _say(f"the engineer's phone {page.number} rings about the message; 1 takes the ticket")

    async def taken() -> bool:
        tickets = await desk.daemon.get("/api/v1/tickets", token=token)
        voicemail = next(one for one in contacts if one["outcome"] == "voicemail")
        return any(
            ticket["number"] == voicemail["ticket"] and ticket["assignee"]
            for ticket in tickets["items"]
        )

    await _until(taken, 60, "the engineer takes the ticket of the voicemail")
    _say("taken")
    return await _report(desk, token)


async def _a_mail(desk: DeskLab, port: int) -> str:
    """Send a mail and say which ticket it has become.

    Raises:
        DemoFailed: it has become none.
    """
    mail = EmailMessage()
    mail["From"], mail["To"] = "赵敏 <zhao.min@customer.example>", MAILBOX
    mail["Subject"] = "打印机卡纸"
    mail["Message-ID"] = make_msgid(domain="customer.example")
    mail.set_content("二楼的打印机又卡纸了，请派人来看看。")

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
            smtp.send_message(mail)

    await asyncio.to_thread(send)
    name = f"demo-{int(time.time())}"
    token = (await desk.daemon.run("token", "create", "--name", name, "--role", "admin")).strip()

    async def filed() -> dict[str, Any] | None:
        found = await desk.daemon.get("/api/v1/contacts?medium=mail", token=token)
        return next(iter(found["items"]), None)

    contact = await _until(filed, 20, "the mail becomes a ticket")
    if contact["mail"]["subject"] != mail["Subject"]:
        raise DemoFailed(f"the mail is called {contact['mail']['subject']!r}")
    return f"a mail to {MAILBOX} is ticket {contact['ticket']}"


def _tier_one() -> list[str]:
    """Return the phones of everybody who is ever in tier 1, as the carrier dials them."""
    desk, now = deskfile.read(DESK_FILE), datetime.now(UTC)
    duties = desk.plan().resolved(desk.holiday_data(), now, now + timedelta(days=60))
    first = {span.engineer for span in duties.spans if span.tier == 1}
    return [
        engineer.number.removeprefix("+86")
        for engineer in duties.engineers
        if engineer.key in first
    ]


async def _everybody(desk: DeskLab, phones: list[str], script: str) -> None:
    """Say what the engineers' phones do from now on."""
    for number in phones:
        await desk.network.phone(number, script)


async def _ring(desk: DeskLab, phones: list[str], *, after: int) -> Leg:
    """Return the first ring of one of `phones` after the `after` first rings of all."""

    async def ring() -> Leg | None:
        return next((one for one in desk.network.rings[after:] if one.number in phones), None)

    return await _until(ring, 60, "an engineer's phone rings")


async def _is_talking(desk: DeskLab, token: str) -> bool:
    contacts = await _contacts(desk, token)
    return any(contact["outcome"] == "answered" for contact in contacts)


async def _contacts(desk: DeskLab, token: str) -> list[dict[str, Any]]:
    page = await desk.daemon.get("/api/v1/contacts?medium=call", token=token)
    items: list[dict[str, Any]] = page["items"]
    return items


async def _until(look: Callable[[], Awaitable[T | None]], within_s: float, what: str) -> T:
    """Return the first true thing that `look` brings.

    Raises:
        DemoFailed: it did not come within `within_s` seconds.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not (found := await look()):
                await asyncio.sleep(0.1)
            return found
    raise DemoFailed(f"this did not happen within {within_s:.0f} s: {what}")


async def _report(desk: DeskLab, token: str) -> list[str]:
    """Return what became of each call, and check it against its story.

    Raises:
        DemoFailed: a ticket is missing, or not what it should be.
    """
    contacts = {one["from"].removeprefix("+86"): one for one in await _contacts(desk, token)}
    lines = ["", "  ticket        caller         what became of it       waited  talked  by"]
    for story in STORIES:
        contact = contacts.get(story.caller) or contacts.get(story.caller.removeprefix("0"))
        if contact is None:
            raise DemoFailed(f"the call of {story.caller} has no contact")
        if contact["outcome"] != story.outcome:
            raise DemoFailed(
                f"the call of {story.caller} is {contact['outcome']}, not {story.outcome}"
            )
        ticket = await desk.daemon.get(f"/api/v1/tickets/{contact['ticket']}", token=token)
        call = contact["call"]
        lines.append(
            f"  {contact['ticket']:12}  {story.caller:13}  {contact['outcome']:22}"
            f"  {_seconds(call['waited_s']):>6}  {_seconds(call['talked_s']):>6}"
            f"  {ticket['assignee']['key'] if ticket['assignee'] else '-'}"
        )
        for attachment in contact["attachments"]:
            lines.append(f"{'':31}{attachment['kind']}: {desk.daemon.url}{attachment['url']}")
    days = (await desk.daemon.get("/api/v1/ledger", token=token))["items"]
    day = next(each for each in days if each["medium"] == "call")
    lines.append(
        f"\n  ledger {day['day']}: {day['outside']} calls in the PBX's CEL,"
        f" {day['contacts']} contacts: {'balanced' if day['balanced'] else 'DIFFERENCE'}"
    )
    if not day["balanced"] or day["outside"] != len(STORIES):
        raise DemoFailed(f"the ledger does not balance: {day}")
    return lines


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


async def _go_on(desk: DeskLab) -> None:
    """Place one more call now and then, so that the page has something to show."""
    number = 0
    while True:
        await asyncio.sleep(NEXT_CALL_S)
        story = STORIES[number % len(STORIES)]
        number += 1
        caller = f"1391234{1000 + number % 9000:04}"
        await desk.network.call(caller=caller, name=story.name, did=DID, script=story.script)
        _say(f"{caller} calls {DID}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
