"""The FastAGI listener: what Asterisk sends is answered, and everything is bounded."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from contactd.errors import ConfigurationError, PermanentFailure, TemporaryFailure
from contactd.metrics import AGI_REQUESTS, PEERS_REFUSED
from contactd.service import HealthState
from contactd.settings import AgiSettings
from contactd.telephony.agi import (
    HEADER_LIMIT,
    LINE_LIMIT,
    AgiListener,
    AgiRequest,
    Handler,
    Reason,
    Refused,
    answer_command,
    parse_request,
)
from tests.fakes.agi import RECORDED_ANSWER, Caller, header, recorded_header


async def arrive(request: AgiRequest) -> Sequence[str]:
    return ["ok", "2611220017", "zh", "gz", "10", "0", request.args[0], "", "0"]


@asynccontextmanager
async def listener(
    handlers: Mapping[str, Handler] | None = None, **limits: float
) -> AsyncIterator[AgiListener]:
    settings = AgiSettings.model_construct(host="127.0.0.1", port=0, **limits)  # type: ignore[arg-type]
    agi = AgiListener(settings, handlers if handlers is not None else {"arrive": arrive})
    async with agi.running():
        yield agi


def counted(script: str, outcome: str) -> float:
    return float(AGI_REQUESTS.labels(script=script, outcome=outcome)._value.get())


def refused(reason: Reason) -> float:
    return float(PEERS_REFUSED.labels(listener="agi", reason=reason)._value.get())


# Fault 1 of panoramisk


def test_plain_panoramisk_freezes_when_a_peer_connects_and_closes() -> None:
    program = """
        import asyncio, logging
        from panoramisk.fast_agi import Application
        async def main():
            application = Application(loop=asyncio.get_running_loop())
            server = await asyncio.start_server(application.handler, "127.0.0.1", 0)
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            print("closed", flush=True)
            await asyncio.sleep(0.2)
            print("alive", flush=True)
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with pytest.raises(subprocess.TimeoutExpired) as frozen:
        subprocess.run(command, capture_output=True, timeout=3, check=False)
    assert frozen.value.stdout == b"closed\n"


async def test_a_peer_that_connects_and_closes_costs_nothing() -> None:
    async with listener() as agi:
        before = refused(Reason.GONE)
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", agi.port)
            writer.close()
        assert (await Caller.ask(agi.port, header("arrive", "1"))).fields[0] == "ok"
        assert refused(Reason.GONE) == before + 10


# What Asterisk sends, and what it gets


async def test_the_recorded_question_is_answered_as_recorded() -> None:
    seen: list[AgiRequest] = []

    async def remember(request: AgiRequest) -> Sequence[str]:
        seen.append(request)
        return ["ok", "2611220017", "zh", "gz", "10", "0", "gz", "", "0"]

    async with listener({"arrive": remember}) as agi:
        before = counted("arrive", "ok")
        answer = await Caller.ask(agi.port, recorded_header())
        assert answer.command == RECORDED_ANSWER
        assert answer.closed
        assert counted("arrive", "ok") == before + 1
    (request,) = seen
    assert request.script == "arrive"
    assert request.args == ("4008001234",)
    assert request.headers["uniqueid"] == "contactd-7;2"
    assert request.headers["callerid"] == "13912345678"
    assert request.headers["calleridname"] == '张三 "; DROP'
    assert request.headers["extension"] == "4008001234"


async def test_a_header_that_comes_in_pieces_is_put_together() -> None:
    async with listener() as agi:
        caller = await Caller.connect(agi.port)
        for byte in header("arrive", "4008001234", calleridname="张三"):
            caller.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await caller.answer()).fields[0] == "ok"
        caller.writer.close()


@pytest.mark.parametrize(
    ("value", "spoken"),
    [
        ('a"b', "a b"),
        ("a,b", "a b"),
        ("a\\b", "a b"),
        ('a\r\n"200 result=1', "a 200 result=1"),
        ("张三", "张三"),
        ("half \ud800", "half"),
    ],
)
def test_values_cannot_leave_their_field(value: str, spoken: str) -> None:
    assert answer_command(["ok", value, ""]) == f'SET VARIABLE CONTACTD "ok,{spoken},"\n'.encode()


def test_an_answer_longer_than_asterisk_reads_is_refused() -> None:
    with pytest.raises(PermanentFailure):
        answer_command(["ok", "x" * 2000])


@pytest.mark.parametrize(
    ("failure", "first", "outcome"),
    [
        (TemporaryFailure("the database is away"), "retry", "retry"),
        (PermanentFailure("no such ticket"), "failed", "failed"),
        (KeyError("uniqueid"), "failed", "failed"),
    ],
)
async def test_a_handler_that_fails_is_told_to_the_dialplan(
    failure: Exception, first: str, outcome: str
) -> None:
    async def fail(_: AgiRequest) -> Sequence[str]:
        raise failure

    async with listener({"arrive": fail}) as agi:
        before = counted("arrive", outcome)
        assert (await Caller.ask(agi.port, header("arrive"))).fields == [first]
        assert counted("arrive", outcome) == before + 1


async def test_a_handler_that_waits_for_cancelled_work_is_a_retry() -> None:
    async def wait_for_somebody_who_was_cancelled(_: AgiRequest) -> Sequence[str]:
        gone: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        gone.cancel()
        return await gone

    async with listener({"arrive": wait_for_somebody_who_was_cancelled}) as agi:
        assert (await Caller.ask(agi.port, header("arrive"))).fields == ["retry"]


async def test_an_unknown_script_is_closed_and_counted_without_its_name() -> None:
    async with listener() as agi:
        before = counted("other", "unknown_script")
        answer = await Caller.ask(agi.port, header("../../etc/passwd"))
        assert (answer.command, answer.closed) == (b"", True)
        assert counted("other", "unknown_script") == before + 1


async def test_the_caller_may_hang_up_before_the_answer() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_: AgiRequest) -> Sequence[str]:
        asked.set()
        await go.wait()
        return ["ok"]

    before = counted("arrive", "gone")
    async with listener({"arrive": slow}) as agi:
        caller = await Caller.connect(agi.port)
        caller.writer.write(header("arrive"))
        await asked.wait()
        caller.writer.transport.abort()
        await asyncio.sleep(0.01)
        go.set()
    assert counted("arrive", "gone") == before + 1


async def test_a_hang_up_notice_before_the_reply_is_read_over() -> None:
    before = counted("arrive", "ok")
    async with listener() as agi:
        await Caller.ask(agi.port, header("arrive", "1"), reply=b"HANGUP\n200 result=1\n")
    assert counted("arrive", "ok") == before + 1


@pytest.mark.parametrize(
    "reply", [b"510 Invalid or unknown command\n", b"x\n" * 9, b"y" * 9000 + b"\n"]
)
async def test_an_answer_that_asterisk_does_not_take_is_counted(reply: bytes) -> None:
    before = counted("arrive", "rejected")
    async with listener() as agi:
        await Caller.ask(agi.port, header("arrive", "1"), reply=reply)
    assert counted("arrive", "rejected") == before + 1


# Bounds


@pytest.mark.parametrize(
    "lines",
    [
        header("arrive").replace(b"agi_threadid", b"agi_arg_1"),
        header("arrive").replace(b"agi_uniqueid: ", b"agi_uniqueid_x: "),
        header("arrive", calleridname="x\nagi_uniqueid: pbx1-1.1"),
        header("arrive", calleridname="x\nagi_arg_1: 1"),
        header("arrive", "1", calleridname="x\n\nagi_arg_1: 2"),
        header("arrive", calleridname="x\nSET VARIABLE"),
        header("arrive") [:-1] + b"agi_arg_2: 1\n\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\n",
        bytes(range(128, 256)) + b"\n\n",
    ],
)  # fmt: skip
async def test_what_is_not_a_fastagi_header_is_closed_without_an_answer(lines: bytes) -> None:
    async with listener() as agi:
        before = refused(Reason.MALFORMED)
        answer = await Caller.ask(agi.port, lines)
        assert (answer.command, answer.closed) == (b"", True)
        assert refused(Reason.MALFORMED) == before + 1


@pytest.mark.parametrize(
    "flood",
    [
        b"agi_x: " + b"y" * LINE_LIMIT + b"\n",
        b"agi_x: y\n" * 65,
        (b"agi_x: " + b"y" * 1000 + b"\n") * (HEADER_LIMIT // 1000 + 1),
    ],
    ids=["line", "lines", "bytes"],
)
async def test_a_header_without_bounds_is_cut(flood: bytes) -> None:
    async with listener() as agi:
        before = refused(Reason.OVERSIZED)
        assert (await Caller.ask(agi.port, flood)).closed
        assert refused(Reason.OVERSIZED) == before + 1


async def test_a_header_must_be_complete_in_time() -> None:
    async with listener(header_timeout_s=0.05) as agi:
        before = refused(Reason.SLOW)
        caller = await Caller.connect(agi.port)
        caller.writer.write(header("arrive")[:-1])
        assert (await caller.answer()).closed
        caller.writer.close()
        assert refused(Reason.SLOW) == before + 1


async def test_the_whole_exchange_must_be_over_in_time() -> None:
    cancelled = asyncio.Event()

    async def hang(_: AgiRequest) -> Sequence[str]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return []

    async with listener({"arrive": hang}, exchange_timeout_s=0.05) as agi:
        before = counted("arrive", "timeout")
        answer = await Caller.ask(agi.port, header("arrive"))
        assert (answer.command, answer.closed) == (b"", True)
        assert cancelled.is_set()
        assert counted("arrive", "timeout") == before + 1


async def test_a_peer_that_never_confirms_is_let_go() -> None:
    async with listener(exchange_timeout_s=0.05) as agi:
        before = counted("arrive", "timeout")
        caller = await Caller.connect(agi.port)
        caller.writer.write(header("arrive", "1"))
        assert (await caller.reader.readline()).startswith(b"SET VARIABLE")
        assert await caller.reader.read() == b""
        caller.writer.close()
        assert counted("arrive", "timeout") == before + 1


async def test_the_connection_beyond_the_limit_is_closed_at_once() -> None:
    busy, go = asyncio.Semaphore(0), asyncio.Event()

    async def wait(_: AgiRequest) -> Sequence[str]:
        busy.release()
        await go.wait()
        return ["ok"]

    async with listener({"arrive": wait}, max_connections=3) as agi, asyncio.TaskGroup() as tasks:
        callers = [tasks.create_task(Caller.ask(agi.port, header("arrive"))) for _ in range(3)]
        for _ in callers:
            await busy.acquire()
        before = refused(Reason.FULL)
        assert (await Caller.ask(agi.port, header("arrive"))).closed
        assert refused(Reason.FULL) == before + 1
        assert agi.health()[0].figures["connections"] == 3
        go.set()
    assert [caller.result().fields for caller in callers] == [["ok"]] * 3


async def test_who_connects_and_is_silent_makes_room_for_who_asks() -> None:
    async with listener(max_connections=3, header_timeout_s=30, exchange_timeout_s=30) as agi:
        before = refused(Reason.EVICTED)
        silent = [await Caller.connect(agi.port) for _ in range(3)]
        await asyncio.sleep(0.15)  # longer than Asterisk ever takes to ask
        assert (await Caller.ask(agi.port, header("arrive", "1"))).fields[0] == "ok"
        assert await silent[0].reader.read() == b""
        assert refused(Reason.EVICTED) == before + 1
        for caller in silent:
            caller.writer.close()


# Start and stop


async def test_stopping_answers_who_is_in_and_lets_nobody_else_in() -> None:
    asked, go, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(_: AgiRequest) -> Sequence[str]:
        asked.set()
        await go.wait()
        return ["ok"]

    async def serve() -> None:
        async with listener({"arrive": wait}) as agi:
            ports.append(agi.port)
            await stopping.wait()

    ports: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve())
        while not ports:
            await asyncio.sleep(0)
        caller = tasks.create_task(Caller.ask(ports[0], header("arrive")))
        await asked.wait()
        stopping.set()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", ports[0])
        go.set()
    assert caller.result().fields == ["ok"]


async def test_an_address_in_use_is_told() -> None:
    async with listener() as first:
        second = AgiListener(AgiSettings(host="127.0.0.1", port=first.port), {})
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            async with second.running():
                pass
        assert first.health()[0].state is HealthState.UP
        assert second.health()[0].state is HealthState.DOWN


def test_control_characters_do_not_reach_the_handler() -> None:
    lines = header("arrive", "a\rb", calleridname="x\x00y\x1bz").split(b"\n")[:-2]
    request = parse_request(lines)
    assert request.headers["calleridname"] == "x y z"
    assert request.args == ("a b",)


def test_an_empty_header_is_refused() -> None:
    with pytest.raises(Refused):
        parse_request([])
