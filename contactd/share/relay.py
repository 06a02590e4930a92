"""The helper's one loop: broker, VNC servers, desktop and windows, in one thread.

A stop goes in this order: nothing passes, the VNC socket is shut, the server is killed, what is
down is released, and only then the service is told. Each end of a connection is a cut.

The helper trusts the broker no more than it must: a leg opens only for an engineer to whom the
user said yes here, in our own window, and with no more rights than they gave.
"""

import json
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from contactd.remote.rfb import Filter, Rect
from contactd.share.legs import ServerGone, ShareLeg
from contactd.share.panel import Gone, Panel
from contactd.share.platform import Desktop, Unsuitable
from contactd.share.websocket import Connection, Failed, Message, Opcode, connect
from contactd.share.words import say
from contactd.tickets.remote import CLOSE_CODES, Ending, Purpose, Right

PATH: Final = "/s/connect"
VERSION: Final = 1
PING_S: Final = 2.0
SILENT_S: Final = 6.0  # since the last byte; then the broker is lost
ANSWER_S: Final = 120.0  # silence is a no
COUNT_S: Final = 1.0
RELEASE_AGAIN_S: Final = 0.1  # what a killed server had sent may still have been on its way
MOST_CLIPBOARD: Final = 4000  # characters: a frame of words has 16 KiB
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_VIEW: Final = frozenset({Right.VIEW})

Words = Mapping[str, Any]


class Forged(Exception):
    """The broker wants what the user did not allow, or speaks no sense."""


class Relay:
    """One session, from the first connection to its end."""

    def __init__(self, *, invitation: Mapping[str, Any], desktop: Desktop, panel: Panel) -> None:
        self._invitation = invitation
        self._desktop = desktop
        self._panel = panel
        self._language: str = invitation["language"]
        self._key: str = invitation["key"]
        self._hotkey = ""
        self._connection: Connection | None = None
        self._legs: dict[int, ShareLeg] = {}
        self._granted: dict[str, frozenset[Right]] = {}  # by engineer: a yes that opens one leg
        self._ask: dict[str, Any] | None = None
        self._bar: dict[str, Any] = {}
        self._areas: tuple[Rect, ...] = ()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._over = False
        self._selector = selectors.PollSelector()  # by number: a closed descriptor leaves nothing
        self._woken, self._wake = socket.socketpair()

    # The loop

    def run(self) -> int:
        """Share until it is over; return the program's exit code."""
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        for each in _SIGNALS:
            signal.signal(each, lambda *_: None)
        by = "crash"
        try:
            self._every(COUNT_S, self._count)
            self._every(PING_S, self._keep_alive)
            self._show("connecting")
            self._connect()
            while not self._over:
                self._turn()
        except Gone:
            by = "window"
            self._stop(by)
        finally:
            self._cut(self._legs.values())
            if not self._over:
                self._stop(by)
            self._close()
        return 0

    def _turn(self) -> None:
        ready = {key.fd: events for key, events in self._selected()}
        # The hot key first, and always: a request to the display may have read its event.
        self._look()
        if self._woken.fileno() in ready:
            self._woken.recv(64)
            self._stop("signal")
        self._hear_panel(ready)
        self._hear_broker()
        self._serve_legs(ready)
        self._ring()
        self._flush()

    def _selected(self) -> list[tuple[selectors.SelectorKey, int]]:
        wanted = self._wanted()
        for fd in [key.fd for key in self._selector.get_map().values()]:
            if fd not in wanted:
                self._selector.unregister(fd)
        for fd, events in wanted.items():
            if fd in self._selector.get_map():
                self._selector.modify(fd, events)
            else:
                self._selector.register(fd, events)
        due = min((at for at, _ in self._timers), default=time.monotonic() + 1)
        more = self._connection is not None and self._connection.has_more
        return self._selector.select(0 if more else max(0.0, due - time.monotonic()))

    def _wanted(self) -> dict[int, int]:
        wanted = dict.fromkeys(self._desktop.filenos(), selectors.EVENT_READ)
        wanted[self._woken.fileno()] = selectors.EVENT_READ
        wanted[self._panel.fileno()] = selectors.EVENT_READ
        if self._panel.writes is not None:
            wanted[self._panel.writes] = selectors.EVENT_WRITE
        broker = self._connection
        if broker is not None:
            writes = selectors.EVENT_WRITE if broker.wants_write else 0
            wanted[broker.fileno()] = selectors.EVENT_READ | writes
        for leg in self._legs.values():
            # A slow line to the broker holds the VNC server back, and nothing else.
            reads = selectors.EVENT_READ if broker is not None and broker.has_room else 0
            events = reads | (selectors.EVENT_WRITE if leg.waiting else 0)
            if events:
                wanted[leg.server.sock.fileno()] = events
        return wanted

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, act))

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self._after(seconds, again)

        self._after(seconds, again)

    def _ring(self) -> None:
        now = time.monotonic()
        due = [act for at, act in self._timers if at <= now]
        self._timers = [each for each in self._timers if each[0] > now]
        for act in due:
            act()

    # The broker

    def _connect(self) -> None:
        try:
            self._connection = connect(self._invitation["url"], PATH)
        except Failed as failed:
            text = say(self._language, "unreachable", reason=failed)
            self._show("lost" if self._hotkey else "failed", text=text)
            return
        self._tell(
            "hello", version=VERSION, key=self._key, platform=self._desktop.name,
            language=self._language, server=self._desktop.server_name,
        )  # fmt: skip
        self._connection.flush()

    def _tell(self, kind: str, /, **more: Any) -> None:
        if self._connection is not None:
            self._connection.tell({"type": kind, **more})

    def _flush(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.flush()
        except Failed:
            self._lost()

    def _keep_alive(self) -> None:
        if self._connection is None:
            return
        if time.monotonic() - self._connection.heard_at > SILENT_S:
            self._lost()
        else:
            self._connection.ping()

    def _hear_broker(self) -> None:
        broker = self._connection
        if broker is None:
            return
        try:
            for message in broker.receive():
                self._heard(message)
                if self._connection is not broker or self._over:
                    return
        except Failed:
            self._lost()
        except Forged:
            self._stop("crash", Ending.FORBIDDEN)

    def _heard(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            self._closed(message.code)
        elif message.opcode is Opcode.BINARY:
            self._passed(message.data)
        else:
            act, words = self._read(message.data)
            try:
                act(self, words)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise Forged from error

    def _read(self, data: bytes) -> tuple[Callable[["Relay", Words], None], Words]:
        try:
            words = json.loads(data)
            return _ACTS[words["type"]], words
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Forged from error

    def _passed(self, data: bytes) -> None:
        self._look()  # a flood of input does not hold up the hot key
        leg = self._legs.get(data[0]) if data else None
        if leg is None:
            return  # of a leg that is cut: it was on its way
        try:
            leg.take(data[1:])
        except ServerGone:
            self._server_gone(leg)

    def _closed(self, code: int) -> None:
        """The broker closed: the end, a refused key, or a restart."""
        if not self._hotkey:
            self._end("failed", text=say(self._language, "refused"))
        elif code in CLOSE_CODES.values() and code != CLOSE_CODES[Ending.LOST]:
            self._end("ended")
        else:
            self._lost()

    def _lost(self) -> None:
        """Share nothing; only the user's own click goes on from here."""
        self._cut(self._legs.values())
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._forget()
        if self._hotkey:
            self._show("lost")
        else:
            self._show("failed", text=say(self._language, "refused"))

    def _forget(self) -> None:
        """Nobody has a yes any more, and nothing is asked."""
        self._granted.clear()
        self._bar = {}
        if self._ask is not None:
            self._panel.tell("withdraw")
            self._ask = None

    # What the broker says

    def _welcome(self, words: Words) -> None:
        self._language = str(words["language"])
        self._key = str(words["resume"])
        try:
            self._desktop.watch_for(words["hotkey"])
        except Unsuitable as unsuitable:
            self._stop("crash")
            self._show("failed", text=say(self._language, unsuitable.key))
            return
        self._hotkey = str(words["hotkey"])
        self._show_state()

    def _asked(self, words: Words) -> None:
        ask = {
            "ask": int(words["ask"]), "kind": str(words["kind"]),
            "engineer": str(words["engineer"]),
            "rights": sorted(Right(each) for each in words.get("rights", ())),
            "file": words.get("file"),
        }  # fmt: skip
        self._ask = ask
        self._gate()
        for leg in self._legs.values():
            self._flush_leg(leg)
        # What the engineer holds down would repeat into the question.
        if self._legs:
            self._desktop.release_input()
        self._panel.tell("ask", **ask)
        self._after(ANSWER_S, lambda: self._silent(ask))

    def _silent(self, ask: dict[str, Any]) -> None:
        if self._ask is ask:
            self._panel.tell("withdraw")
            self._answered({"ask": ask["ask"], "yes": False})

    def _withdrawn(self, words: Words) -> None:
        if self._ask is not None and self._ask["ask"] == words["ask"]:
            self._panel.tell("withdraw")
            self._ask = None
            self._gate()

    def _open(self, words: Words) -> None:
        number, engineer = int(words["leg"]), str(words["engineer"])
        rights = frozenset(Right(each) for each in words["rights"])
        given = self._granted.pop(engineer, frozenset())
        if not 0 < number < 256 or number in self._legs or Right.VIEW not in rights & given:
            raise Forged
        if not rights <= given:
            raise Forged
        purpose = Purpose(words["purpose"])
        try:
            server = self._desktop.start_server(can_control=purpose is Purpose.HELP)
        except Unsuitable as unsuitable:
            self._tell("leg_ended", leg=number, reason="server")
            self._show("failed", text=say(self._language, unsuitable.key))
            return
        server.sock.setblocking(False)
        self._legs[number] = ShareLeg(
            number=number, engineer=engineer, purpose=purpose, rights=rights, server=server,
            filter=Filter(rights, typist=self._type),
        )  # fmt: skip
        self._tell("started", leg=number)
        self._gate()
        self._show_state()

    def _close_leg(self, words: Words) -> None:
        leg = self._legs.get(words["leg"])
        if leg is not None:
            self._cut([leg])
            self._show_state()

    def _rights_changed(self, words: Words) -> None:
        leg = self._legs.get(words["leg"])
        rights = frozenset(Right(each) for each in words["rights"])
        if leg is None:
            return
        given = leg.rights | self._granted.get(leg.engineer, frozenset())
        if not rights <= given:
            raise Forged
        self._granted.pop(leg.engineer, None)
        leg.rights = rights
        self._gate()
        self._show_state()

    def _bar_changed(self, words: Words) -> None:
        unread = int(words.get("unread", 0)) + int(self._bar.get("unread", 0))
        self._bar = {"unread": unread}
        self._show_state()

    def _clipboard(self, words: Words) -> None:
        if self._ask is None and self._shares_clipboard:
            self._panel.tell("clipboard", text=str(words["text"]))

    def _ended(self, _words: Words) -> None:
        self._end("ended")

    # The user

    def _look(self) -> None:
        """See whether the user has stopped."""
        for happened in self._desktop.happened():
            self._stop(happened.value)

    def _type(self, point: int) -> None:
        """Type a character for an engineer: thousands come in one frame, and a stop between."""
        self._look()
        if not self._over:
            self._desktop.type(point)

    def _hear_panel(self, ready: Collection[int]) -> None:
        if self._panel.writes is not None:
            self._panel.flush()
        if self._panel.fileno() in ready:
            for done in self._panel.heard():
                _DEEDS[done["do"]](self, done)

    def _stop_pressed(self, _done: Words) -> None:
        self._stop("button")

    def _resume(self, _done: Words) -> None:
        if self._connection is None and not self._over:
            self._show("connecting")
            self._connect()

    def _measured(self, done: Words) -> None:
        self._areas = tuple(
            Rect(x=x, y=y, width=width, height=height) for x, y, width, height in done["areas"]
        )
        self._gate()

    def _answered(self, done: Words) -> None:
        ask = self._ask
        if ask is None or ask["ask"] != done["ask"]:
            return
        self._ask = None
        is_yes = done["yes"] is True
        rights = frozenset(map(Right, done.get("rights", ()))) & frozenset(ask["rights"])
        if is_yes and ask["kind"] != "file":
            self._granted[ask["engineer"]] = rights
        self._tell("answer", ask=ask["ask"], yes=is_yes, rights=sorted(rights) if is_yes else [])
        self._gate()

    def _switched(self, done: Words) -> None:
        """Do what the user switched on the bar: taken at once, given when it is on record."""
        rights = frozenset(map(Right, done["rights"])) | _VIEW
        for leg in self._legs.values():
            if leg.purpose is Purpose.HELP:
                self._granted[leg.engineer] = rights
                leg.rights &= rights
        self._gate()
        self._tell("rights", rights=sorted(rights))

    def _copied(self, done: Words) -> None:
        text = done["text"]
        if self._ask is None and self._shares_clipboard and len(text) <= MOST_CLIPBOARD:
            self._tell("clipboard", text=text)

    @property
    def _shares_clipboard(self) -> bool:
        return any(Right.CLIPBOARD in leg.rights for leg in self._legs.values())

    # The windows

    def _show(self, kind: str, **more: Any) -> None:
        self._panel.tell(
            "show", show=kind, language=self._language, service=self._invitation["service"],
            ticket=self._invitation["ticket"], hotkey=self._hotkey, **more,
        )  # fmt: skip

    def _show_state(self) -> None:
        if not self._legs:
            self._show("waiting")
            return
        helping = [each for each in self._legs.values() if each.purpose is Purpose.HELP]
        looking = [each for each in self._legs.values() if each.purpose is Purpose.LOOK]
        rights = {right for each in helping for right in each.rights}
        self._show(
            "sharing", engineers=[each.engineer for each in helping or looking],
            lookers=[each.engineer for each in looking if helping], rights=sorted(rights),
            helping=bool(helping), unread=self._bar.get("unread", 0),
        )  # fmt: skip

    def _count(self) -> None:
        if self._legs:
            filters = [each.filter for each in self._legs.values()]
            self._panel.tell(
                "counts", keys=sum(each.keys for each in filters),
                clicks=sum(each.clicks for each in filters),
            )  # fmt: skip

    # The legs

    def _gate(self) -> None:
        for leg in self._legs.values():
            leg.gate(is_asked=self._ask is not None, keep_out=self._areas)

    def _serve_legs(self, ready: Mapping[int, int]) -> None:
        for leg in list(self._legs.values()):
            events = ready.get(leg.server.sock.fileno(), 0)
            try:
                if events & selectors.EVENT_WRITE:
                    leg.flush()
                if events & ~selectors.EVENT_WRITE and self._connection is not None:
                    shown = leg.read()
                    if shown:
                        self._connection.send(bytes((leg.number,)) + shown)
            except ServerGone:
                self._server_gone(leg)

    def _flush_leg(self, leg: ShareLeg) -> None:
        try:
            leg.flush()
        except ServerGone:
            self._server_gone(leg)

    def _server_gone(self, leg: ShareLeg) -> None:
        if leg.number in self._legs:
            self._cut([leg])
            self._tell("leg_ended", leg=leg.number, reason="server")
            self._show_state()

    def _cut(self, legs: Iterable[ShareLeg]) -> None:
        """Cut legs: the order is the promise to the user."""
        cut = list(legs)
        for leg in cut:
            leg.cut()
            del self._legs[leg.number]
        for leg in cut:
            leg.server.kill()
        if cut:
            self._desktop.release_input()
            self._after(RELEASE_AGAIN_S, self._desktop.release_input)
            if self._connection is not None and not self._legs:
                self._connection.drop_pictures()

    # The end

    def _stop(self, by: str, ending: Ending = Ending.STOPPED) -> None:
        """Cut, then tell the service why."""
        if self._over:
            return
        self._over = True
        self._cut(self._legs.values())
        if self._connection is not None:
            self._tell("stop", by=by)
            self._connection.close(CLOSE_CODES[ending])
            self._connection = None
        self._farewell("ended")

    def _end(self, kind: str, **more: Any) -> None:
        """The service says that it is over, or lets us not in."""
        self._over = True
        self._cut(self._legs.values())
        if self._connection is not None:
            self._connection.close(1000)
            self._connection = None
        self._farewell(kind, **more)

    def _farewell(self, kind: str, **more: Any) -> None:
        try:
            self._panel.tell("withdraw")
            self._show(kind, **more)
        except Gone:
            pass

    def _close(self) -> None:
        # What was on its way from a killed server is there by now: release once more.
        time.sleep(RELEASE_AGAIN_S)
        self._desktop.release_input()
        self._desktop.tidy()
        self._desktop.close()
        self._panel.close()
        self._selector.close()
        signal.set_wakeup_fd(-1)
        self._woken.close()
        self._wake.close()


_ACTS: Final[Mapping[str, Callable[[Relay, Words], None]]] = {
    "welcome": Relay._welcome,
    "ask": Relay._asked,
    "withdraw": Relay._withdrawn,
    "open": Relay._open,
    "close": Relay._close_leg,
    "rights": Relay._rights_changed,
    "bar": Relay._bar_changed,
    "clipboard": Relay._clipboard,
    "end": Relay._ended,
}
_DEEDS: Final[Mapping[str, Callable[[Relay, Words], None]]] = {
    "stop": Relay._stop_pressed,
    "answer": Relay._answered,
    "rights": Relay._switched,
    "resume": Relay._resume,
    "areas": Relay._measured,
    "clipboard": Relay._copied,
}
