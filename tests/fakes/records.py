"""Writes what Asterisk writes: the rows of cel.csv and the lines of queue_log, call by call.

The shapes are those of `transcripts/cel-22-calls.csv`; a test reads both.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

EPOCH = 1795140000.0  # 2026-11-20T02:00:00Z, where the fake clock starts
DID = "4008001234"


def csv_bytes(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


@dataclass(kw_only=True)
class Channel:
    name: str
    uniqueid: str
    linkedid: str
    context: str
    exten: str
    number: str = ""
    cid_name: str = ""


@dataclass
class Recorder:
    """One PBX; `now` (epoch seconds) goes on as things happen."""

    pbx: str = "pbx1"
    now: float = EPOCH
    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _channels: int = 0
    _bridges: int = 0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def channel(self, name: str, *, context: str, exten: str, linkedid: str = "") -> Channel:
        """Create a channel; `name` without the number that makes it unique."""
        uniqueid = f"{self.pbx}-{int(self.now)}.{self._channels}"
        name = name.replace("#", f"{self._channels:08x}")
        self._channels += 1
        return Channel(
            name=name,
            uniqueid=uniqueid,
            linkedid=linkedid or uniqueid,
            context=context,
            exten=exten,
        )

    def row(self, event: str, on: Channel, *, user: str = "", app: str = "", peer: str = "",
            extra: Mapping[str, object] | None = None) -> None:  # fmt: skip
        self.now += 0.000_1
        self.rows.append([
            f"{self.now:.6f}", event, user, on.uniqueid, on.linkedid, on.name, on.context,
            on.exten, on.number, on.cid_name, "", "", "", app, "", peer,
            json.dumps(extra) if extra else "",
        ])  # fmt: skip

    def user(self, name: str, on: Channel, text: str) -> None:
        self.row("USER_DEFINED", on, user=name, app="CELGenUserEvent", extra={"extra": text})

    def queue(self, call: Channel, event: str, *values: object, agent: str = "NONE",
              queue: str = "gz") -> None:  # fmt: skip
        parts = [int(self.now), call.uniqueid, queue, agent, event, *values]
        self.lines.append("|".join(map(str, parts)))

    def restarted(self) -> None:
        self.lines.append(f"{int(self.now)}|NONE|NONE|NONE|QUEUESTART|")
        self._channels = 0

    def enter(self, bridge: str, on: Channel, *, peers: str = "") -> None:
        self.row("BRIDGE_ENTER", on, peer=peers, extra={"bridge_id": bridge})

    def leave(self, bridge: str, on: Channel) -> None:
        self.row("BRIDGE_EXIT", on, extra={"bridge_id": bridge})

    def bridge(self, *channels: Channel) -> str:
        self._bridges += 1
        bridge = f"bridge-{self._bridges}"
        there: list[str] = []
        for one in channels:
            self.enter(bridge, one, peers=",".join(there))
            there.append(one.name)
        return bridge

    def hang_up(self, *channels: Channel, cause: int = 16) -> None:
        for one in channels:
            self.row("HANGUP", one, extra={"hangupcause": cause, "hangupsource": ""})
            self.row("CHAN_END", one)
            if one.linkedid == one.uniqueid:
                self.row("LINKEDID_END", one)

    # A call, step by step

    def arrive(self, caller: str = "13912345678", name: str = "zhang san") -> Channel:
        call = self.channel("PJSIP/trunk-#", context="hotline", exten=DID)
        call.number, call.cid_name = caller, name
        self.row("CHAN_START", call)
        self.user("HOTLINE", call, DID)
        call.context, call.exten = "contactd-hotline", "s"
        self.row("ANSWER", call)
        return call

    def stage(self, call: Channel, stage: str) -> None:
        call.context = f"contactd-{stage}"
        self.user("STAGE", call, stage)

    def join_queue(self, call: Channel, queue: str = "gz") -> None:
        self.stage(call, "queue")
        self.row("APP_START", call, app="Queue")
        self.queue(call, "ENTERQUEUE", "", call.number, 1, queue=queue)

    def ring(self, call: Channel, number: str = "13800000001") -> tuple[Channel, Channel, Channel]:
        """Ring an engineer through a Local channel: its two halves and the phone."""
        base = f"Local/{number}@engineer-zh-#"
        one = self.channel(base, context="engineer-zh", exten=number, linkedid=call.linkedid)
        two = self.channel(base, context="engineer-zh", exten=number, linkedid=call.linkedid)
        two.name, one.name = one.name + ";2", one.name + ";1"
        phone = self.channel("PJSIP/trunk-#", context="hotline", exten="s", linkedid=call.linkedid)
        for leg in (one, two, phone):
            self.row("CHAN_START", leg)
        phone.number, phone.exten = number, ""
        return one, two, phone

    def offer(self, call: Channel, answer: str, *, engineer: str = "wang",
              number: str = "13800000001") -> tuple[Channel, Channel, Channel]:  # fmt: skip
        """Ring an engineer, who picks up and answers TAKEN, PASSED or NOKEY (or not at all: "")."""
        legs = self.ring(call, number)
        self.wait(2)
        if answer:
            self.row("ANSWER", legs[2])
            self.user(answer, legs[2], f"{call.uniqueid}|{engineer}")
        if answer != "TAKEN":
            self.hang_up(*legs)
            self.queue(call, "RINGNOANSWER", 2000, agent=engineer)
        return legs

    def connect(self, call: Channel, legs: tuple[Channel, Channel, Channel],
                engineer: str = "wang") -> tuple[str, str]:  # fmt: skip
        """Bridge the caller with the engineer; return the two bridges."""
        one, two, phone = legs
        inner = self.bridge(phone, two)
        outer = self.bridge(one, call)
        self.queue(call, "CONNECT", 2, one.uniqueid, 2, agent=engineer)
        return outer, inner

    def hang_up_talk(self, call: Channel, legs: tuple[Channel, Channel, Channel],
                     bridges: tuple[str, str], engineer: str = "wang") -> None:  # fmt: skip
        one, two, phone = legs
        outer, inner = bridges
        self.leave(inner, phone)
        self.leave(inner, two)
        self.hang_up(two, phone)
        self.leave(outer, one)
        self.hang_up(one)
        self.leave(outer, call)
        self.hang_up(call)
        self.queue(call, "COMPLETEAGENT", 2, 60, 1, agent=engineer)

    # Whole calls; each returns the caller's channel

    def greeting_only(self, seconds: float = 1.0) -> Channel:
        call = self.arrive()
        self.stage(call, "greeting")
        self.wait(seconds)
        self.hang_up(call)
        return call

    def in_menu(self, keys: str = "") -> Channel:
        call = self.arrive()
        self.stage(call, "greeting")
        self.wait(4)
        self.stage(call, "menu")
        for key in keys:
            self.user("KEY", call, key)
        self.wait(4)
        self.hang_up(call)
        return call

    def in_queue(self) -> Channel:
        call = self.arrive()
        self.join_queue(call)
        self.offer(call, "")
        self.wait(3)
        self.hang_up(call)
        self.queue(call, "ABANDON", 1, 1, 5)
        return call

    def answered(self, *, seconds: float = 60.0, engineer: str = "wang") -> Channel:
        call = self.arrive()
        self.stage(call, "greeting")
        self.user("RECORDING", call, f"/spool/{call.uniqueid}.wav")
        self.join_queue(call)
        legs = self.offer(call, "TAKEN", engineer=engineer)
        bridges = self.connect(call, legs, engineer)
        self.wait(seconds)
        self.hang_up_talk(call, legs, bridges, engineer)
        return call

    def to_voicemail(self, *, message: bool = True) -> Channel:
        call = self.arrive()
        self.join_queue(call)
        self.offer(call, "PASSED")
        self.offer(call, "NOKEY", engineer="li", number="13800000002")
        self.wait(30)
        self.queue(call, "EXITWITHTIMEOUT", 1, 1, 34)
        self.stage(call, "voicemail")
        self.wait(10)
        if message:
            self.user("VOICEMAIL", call, f"/spool/voicemail/{call.uniqueid}.wav")
        self.hang_up(call)
        return call

    def transferred(self, *, to: str = "13800000003") -> Channel:
        """The engineer keys ## and a number: a blind transfer out of the caller's bridge."""
        call = self.arrive()
        self.join_queue(call)
        legs = self.offer(call, "TAKEN")
        outer, inner = self.connect(call, legs)
        self.wait(12)
        one, two, phone = legs
        self.row("BLINDTRANSFER", one, extra={"extension": to})
        self.leave(outer, one)
        self.hang_up(one)
        self.leave(outer, call)
        call.context, call.exten = "contactd-transfer", to
        self.leave(inner, two)
        self.leave(inner, phone)
        self.hang_up(phone, two)
        self.queue(call, "BLINDTRANSFER", to, "contactd-transfer", 2, 12, 1, agent="wang")
        other = self.channel("PJSIP/trunk-#", context="hotline", exten="s", linkedid=call.linkedid)
        self.row("CHAN_START", other)
        other.number, other.exten = to, ""
        self.wait(1)
        self.row("ANSWER", other)
        bridge = self.bridge(other, call)
        self.wait(30)
        self.leave(bridge, other)
        self.leave(bridge, call)
        self.hang_up(other, call)
        return call

    def transferred_with_talk(self) -> Channel:
        """A desk phone rings a colleague and joins the two: the caller's own bridge stays.

        The caller's channel comes under the colleague call's linkedid, as Asterisk merges them.
        """
        call = self.arrive()
        self.join_queue(call)
        legs = self.offer(call, "TAKEN")
        outer, inner = self.connect(call, legs)
        one, two, phone = legs
        self.wait(10)
        second = self.channel("PJSIP/1001-#", context="phones", exten="1002")
        self.row("CHAN_START", second)
        colleague = self.channel(
            "PJSIP/1002-#", context="phones", exten="", linkedid=second.linkedid
        )
        self.row("CHAN_START", colleague)
        colleague.number = "1002"
        self.row("ANSWER", colleague)
        talk = self.bridge(colleague, second)
        self.wait(5)
        self.row("ATTENDEDTRANSFER", phone, extra={"channel2_name": second.name})
        for channel in (call, one, two):
            channel.linkedid = second.linkedid
        self.leave(inner, two)
        self.enter(talk, two, peers=f"{colleague.name},{second.name}")
        self.leave(inner, phone)
        self.hang_up(phone)
        self.leave(talk, second)
        self.row("HANGUP", second)
        self.row("CHAN_END", second)
        self.wait(20)
        self.leave(talk, colleague)
        self.leave(talk, two)
        self.leave(outer, one)
        self.leave(outer, call)
        self.hang_up(colleague, two, one, call)
        self.row("LINKEDID_END", call)
        self.queue(call, "ATTENDEDTRANSFER", "1002", 2, 15, 1, agent="wang")
        return call

    def lost(self) -> Channel:
        """The PBX dies while the caller talks, and starts again."""
        call = self.arrive()
        self.join_queue(call)
        legs = self.offer(call, "TAKEN")
        self.connect(call, legs)
        self.wait(20)
        self.restarted()
        self.wait(1)
        return call

    def lost_after_a_message(self) -> Channel:
        """The PBX dies right after a caller has left a message, and starts again."""
        call = self.arrive()
        self.stage(call, "voicemail")
        self.wait(10)
        self.user("VOICEMAIL", call, f"/spool/voicemail/{call.uniqueid}.wav")
        self.wait(1)
        self.restarted()
        self.wait(1)
        return call

    @property
    def cel(self) -> bytes:
        return csv_bytes(self.rows)

    @property
    def queue_log(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode()
