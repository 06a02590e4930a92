"""The clients of `peers/smsc.py` that are measured by themselves, each a program of its own.

`python -m bench.peers.esme smpplib-in|smpplib-out|contactd-out PORT TEXTS WINDOW`: smpplib takes
texts and acknowledges them, and does nothing else with them; or hands over texts, `WINDOW` of them
unanswered at most, as `SmppGateway.submit` does for as many who wait for it.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from smpplib.client import Client
from smpplib.exceptions import ConnectionError as LinkLost

from bench.peers.smsc import HOST, OURS, PASSWORD, SYSTEM_ID, TEXT
from contactd import log
from contactd.clock import SystemClock
from contactd.routing.notify import Notification, Reason
from contactd.service import HealthState
from contactd.settings import SmppSettings
from contactd.sms.gateway import Outgoing
from contactd.sms.smpp import SmppGateway
from contactd.tickets.contact import Medium

NUMBER: Final = "+8613800000001"
BINDS_S: Final = 10.0


def smpplib_in(port: int, number: int, _window: int) -> None:
    heard = 0

    def take(**_pdu: Any) -> None:
        nonlocal heard
        heard += 1

    client = _bound(port)
    client.set_message_received_handler(take)
    while heard < number:
        client.read_once()
    client.disconnect()


def smpplib_out(port: int, number: int, window: int) -> None:
    client = _bound(port)
    client.set_message_sent_handler(lambda **_pdu: None)
    for each in range(number):
        if each >= window:
            client.read_once()
        client.send_message(
            source_addr_ton=0, source_addr_npi=0, source_addr=OURS, dest_addr_ton=1,
            dest_addr_npi=1, destination_addr=NUMBER[1:], data_coding=8, registered_delivery=1,
            short_message=TEXT.format(each).encode("utf-16-be"),
        )  # fmt: skip
    for _ in range(min(window, number)):
        client.read_once()
    client.disconnect()


def _bound(port: int) -> Client:
    logging.disable()
    client = Client(HOST, port, allow_unknown_opt_params=True)
    client.connect()
    client.bind_transceiver(system_id=SYSTEM_ID, password=PASSWORD)
    return client


def contactd_out(port: int, number: int, window: int) -> None:
    log.configure(level="WARNING", json=False)
    asyncio.run(_contactd_out(port, number, window))


async def _contactd_out(port: int, number: int, window: int) -> None:
    given = {"host": HOST, "port": port, "system_id": SYSTEM_ID, "password": PASSWORD,
             "sender": OURS, "window": window}  # fmt: skip
    gateway = SmppGateway(SmppSettings.model_validate(given), _Nothing(), SystemClock())
    left, ids = _texts(number), set[str]()

    async def submit() -> None:
        for text in left:
            ids.add(await gateway.submit(text))

    async with gateway.running():
        async with asyncio.timeout(BINDS_S):
            while gateway.health()[0].state is not HealthState.UP:
                await asyncio.sleep(0.01)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(window):
                tasks.create_task(submit())
    if len(ids) != number:
        raise SystemExit(f"{number} texts, {len(ids)} ids")


def _texts(number: int) -> Iterator[Outgoing]:
    for each in range(number):
        notification = Notification(
            ref=f"n-{each}", ticket="26112000017", recipient="requester", name="王伟",
            medium=Medium.TEXT, address=NUMBER, language="zh", reason=Reason.RECEIVED, facts={},
        )  # fmt: skip
        yield Outgoing(number=NUMBER, text=TEXT.format(each), notification=notification)


class _Nothing:
    """An `Inbox` to which nothing comes."""

    async def received(self, gateway: str, text: Any) -> None:
        raise AssertionError

    async def received_part(self, gateway: str, part: Any) -> None:
        raise AssertionError

    async def reported(self, gateway: str, report: Any) -> None:
        raise AssertionError


PROGRAMS: Final[Mapping[str, Callable[[int, int, int], None]]] = {
    "smpplib-in": smpplib_in,
    "smpplib-out": smpplib_out,
    "contactd-out": contactd_out,
}

if __name__ == "__main__":
    try:
        PROGRAMS[sys.argv[1]](*(int(each) for each in sys.argv[2:]))
    except LinkLost:
        raise SystemExit("the SMSC has left") from None
