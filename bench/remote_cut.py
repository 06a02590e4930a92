"""remote_cut: how soon it is over when the user presses the hot key, while an engineer types.

The real things: a desktop (Xvfb), the helper as it is downloaded, x11vnc, the broker. The engineer
types 250 keys a second; a window with the focus notes when each arrives. `remote_cut_p95` is from
the press of the hot key to the last key of the engineer that arrived after it (0: none did),
`remote_told_p95` to the close of the viewer's WebSocket. Bare: from a key that the user types to
its arrival in the same window. The hot key goes in by XTEST; a keyboard takes longer.
"""

import asyncio
import select
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from Xlib import X
from Xlib.display import Display

from bench.figures import Figure, Judged, percentile
from bench.remote_relay import FORK, serving
from bench.wire import BINARY, CLOSE, HOST, Wire, frame
from contactd.lab.asterisk import LabError
from tests.fakes.desktop import UserDesktop, running_desktop

ROUNDS: Final = 20
KEYS_A_SECOND: Final = 250
TYPED_S: Final = 1.0  # before the hot key
QUIET_S: Final = 0.5  # after the cut: whatever comes late is noticed
ENGINEERS, USERS = ord("a"), ord("b")  # keysyms
SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Seconds, of one press."""

    local: float
    told: float
    own: float  # a key of the user's own


async def measure(rounds: int = ROUNDS) -> list[Figure]:
    cuts = []
    with tempfile.TemporaryDirectory(prefix="bench-cut-") as folder:
        for number in range(rounds):
            async with running_desktop(Path(folder) / str(number)) as user:
                cuts.append(await _cut(user))
    own = percentile([each.own for each in cuts], 95)
    rows = (
        ("remote_cut_p95", "hot key pressed to the last key of an engineer who types 250 a second, "
         "95th percentile; bare: a key of the user's own to the window", "local", 5),
        ("remote_told_p95", "hot key pressed to the engineer's browser told", "told", 20),
    )  # fmt: skip
    return [
        Figure(
            name=name, what=what, unit="ms",
            ours=percentile([getattr(each, part) for each in cuts], 95) * 1000, bare=own * 1000,
            judged=Judged.OURS, target=target,
        )
        for name, what, part, target in rows
    ]  # fmt: skip


async def _cut(user: UserDesktop) -> Cut:
    with serving(1, records=True, join=False) as (_, [(port, known)]), _window(user) as arrived:
        page = Wire.opened(port, f"/desk/remote/{known['session']}/live", cookie=known["cookie"])
        page.say("hello", admission=known["desk"])
        user.helper(
            {"url": f"http://{HOST}:{port}", "key": known["key"], "language": "en",
             "service": "bench", "ticket": "26112300001"}
        )  # fmt: skip
        await user.answer(yes=True)
        page.told("state", state="active")
        where = f"/desk/remote/{known['session']}/screen"
        viewer = Wire.opened(port, where, cookie=known["cookie"])
        viewer.say("hello", admission=known["screen"])
        await asyncio.to_thread(_shake, viewer)
        pressed_own = time.perf_counter()
        user.press("b")
        await asyncio.sleep(0.3)
        pressed, closed = await _pressed(user, viewer)
        await asyncio.sleep(QUIET_S)
        keys = _noted(arrived)
        page.close()
    engineers = [at for key, at in keys if key == user.code("a")]
    if not any(pressed - TYPED_S < at < pressed for at in engineers):
        raise LabError("no key of the engineer arrived: there was nothing to cut")
    own = next(at for key, at in keys if key == user.code("b"))
    return Cut(
        local=max(0.0, max(engineers) - pressed), told=closed - pressed, own=own - pressed_own
    )


async def _pressed(user: UserDesktop, viewer: Wire) -> tuple[float, float]:
    """Press the hot key while the engineer types; return when, and when they were told."""
    ours, theirs = FORK.Pipe(duplex=False)
    engineer = FORK.Process(target=_type, args=(viewer, theirs), daemon=True)
    engineer.start()
    try:
        await asyncio.sleep(TYPED_S)
        pressed = time.perf_counter()
        user.press_hotkey()
        if not await asyncio.to_thread(ours.poll, SECONDS):
            raise LabError("the engineer was not told")
        return pressed, ours.recv()
    finally:
        engineer.kill()
        engineer.join()


def _type(viewer: Wire, tell: Connection) -> None:
    """Be the engineer: press and let go until the socket is closed; tell when it was."""
    keys = [struct.pack(">BBxxI", 4, is_down, ENGINEERS) for is_down in (1, 0)]
    message = frame(BINARY, keys[0]) + frame(BINARY, keys[1])
    due = time.perf_counter()
    while True:
        due += 1 / KEYS_A_SECOND
        while (left := due - time.perf_counter()) > 0:
            if select.select([viewer.sock], [], [], left)[0] and _is_closed(viewer):
                tell.send(time.perf_counter())
                return
        try:
            viewer.sock.sendall(message)
        except ConnectionError:
            tell.send(time.perf_counter())
            return


def _is_closed(viewer: Wire) -> bool:
    try:
        viewer.fill()
    except ConnectionError:
        return True
    closed = any(kind == CLOSE for kind, _ in viewer.waiting)
    viewer.waiting.clear()
    return closed


def _shake(viewer: Wire) -> None:
    """Be a viewer to a real VNC server, up to its first picture."""
    got = bytearray()

    def read(count: int) -> bytes:
        while len(got) < count:
            got.extend(viewer.bytes())
        found = bytes(got[:count])
        del got[:count]
        return found

    read(12)
    viewer.send(b"RFB 003.008\n")
    read(read(1)[0])
    viewer.send(b"\x01")
    read(4)
    viewer.send(b"\x01")
    read(int.from_bytes(read(24)[20:], "big"))
    viewer.send(struct.pack(">BxHi", 2, 1, 0))
    viewer.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 1024, 768))
    read(4)


# The window that notes keys


@contextmanager
def _window(user: UserDesktop) -> Iterator[Connection]:
    ours, theirs = FORK.Pipe()
    watcher = FORK.Process(target=_note, args=(user.name, theirs), daemon=True)
    watcher.start()
    try:
        ours.recv()
        yield ours
    finally:
        watcher.kill()
        watcher.join()


def _noted(arrived: Connection) -> list[tuple[int, float]]:
    arrived.send(None)
    found: list[tuple[int, float]] = arrived.recv()
    return found


def _note(name: str, asked: Connection) -> None:
    """Take the focus, and note the code and time of each key until somebody asks for them."""
    display = Display(name)
    root = display.screen().root
    window = root.create_window(
        0, 0, 200, 200, 0, X.CopyFromParent, event_mask=X.KeyPressMask | X.StructureNotifyMask
    )
    window.map()
    display.sync()
    while display.next_event().type != X.MapNotify:
        pass
    window.set_input_focus(X.RevertToParent, X.CurrentTime)
    display.sync()
    asked.send(None)
    keys: list[tuple[int, float]] = []
    while not asked.poll():
        if display.pending_events() or select.select([display, asked], [], [], 1)[0]:
            while display.pending_events():
                event = display.next_event()
                if event.type == X.KeyPress:
                    keys.append((event.detail, time.perf_counter()))
                elif event.type == X.FocusOut:
                    window.set_input_focus(X.RevertToParent, X.CurrentTime)
    asked.send(keys)
