"""The dialplan by itself: odd answers of contactd, and an INVITE of a stranger."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from contactd.lab.desk import sounds_folder
from contactd.lab.pbx import Lab, open_lab
from tests.fakes.waiting import WITHIN_S

pytestmark = pytest.mark.real

DID = "4008001234"
PLAYED = re.compile(r"Playing '([^']+)\.\w+'")


@asynccontextmanager
async def answering(lab: Lab, progress: Sequence[str]) -> AsyncIterator[list[dict[str, str]]]:
    """Stand for contactd; the block is given the heads of the questions. `progress` is said."""
    asked: list[dict[str, str]] = []
    answers = {"arrive": "ok,,zh,desk,0,0,,,0", "progress": f"ok,found,{'&'.join(progress)}"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\n\n")).decode().split("\n")
        asked.append(dict(line.split(": ", 1) for line in lines if ": " in line))
        answer = answers[asked[-1]["agi_network_script"]]
        writer.write(f'SET VARIABLE CONTACTD "{answer}"\n'.encode())
        await reader.readline()
        writer.close()

    async with await asyncio.start_server(answer, lab.pbx.host, lab.agi_port):
        yield asked


@pytest.mark.parametrize(
    ("engineer", "said"), [("wang", "contactd/person-wang"), ("nobody", "contactd/an-engineer")]
)
async def test_an_engineer_is_named_if_the_name_is_there_and_the_rest_is_said_too(
    engineer: str, said: str
) -> None:
    before, after = ["contactd/engineer-is"], ["contactd/promise-none"]
    async with (
        open_lab(sounds=sounds_folder(), options={"RECORD": "no", "MENU_WAIT": "1"}) as lab,
        answering(lab, [*before, f"contactd/person-{engineer}", *after]),
    ):
        await lab.pbx.cli("logger add channel heard verbose(3)")
        call = await lab.network.call(caller="13912345678", did=DID, script="w5.6-d2-w8-h")
        await call.ended(WITHIN_S)
        heard = lab.pbx.path("/var/log/asterisk/heard").read_text(encoding="utf-8")
    played = PLAYED.findall(heard)
    assert played[played.index("contactd/engineer-is") :][:3] == [*before, said, *after]


async def test_a_forwarding_number_with_a_quote_breaks_no_expression() -> None:
    async with open_lab(options={"GREETING": "no"}) as lab, answering(lab, []) as asked:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as carrier:
            carrier.bind((lab.network.asterisk.host, 0))
            carrier.sendto(forwarded("12%2234"), (lab.pbx.host, lab.pbx.seat.sip))
        async with asyncio.timeout(WITHIN_S):
            while not asked:
                await asyncio.sleep(0.05)
        log = lab.pbx.path("/var/log/asterisk/messages").read_text(encoding="utf-8")
    assert asked[0]["agi_rdnis"] == "1234"
    assert "syntax error" not in log


def forwarded(number: str) -> bytes:
    """Return an INVITE that was forwarded from `number`, without a body."""
    lines = (
        f"INVITE sip:{DID}@pbx SIP/2.0",
        "Via: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK-1",
        "Max-Forwards: 70",
        "From: <sip:13912345678@carrier>;tag=1",
        f"To: <sip:{DID}@pbx>",
        "Call-ID: forwarded",
        "CSeq: 1 INVITE",
        "Contact: <sip:13912345678@127.0.0.1>",
        f"Diversion: <sip:{number}@carrier>;reason=unconditional",
        "Content-Length: 0",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
