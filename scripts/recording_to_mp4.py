# ruff: noqa: INP001 - a script, not a package
"""Turn a recording of remote help (FBS) into an MP4 that any player shows.

A TigerVNC viewer on an X server of its own is served the recording as if it were the user's
desktop, and ffmpeg films it. Red and blue are exchanged where the user's VNC server did not send
"Tight" (all that contactd starts do). `scripts/recording-to-mp4.sh` is how it is called.
"""

import argparse
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from contactd.remote import fbs

NEEDED: Final = ("Xvfb", "xtigervncviewer", "ffmpeg")
FRAMES: Final = 12  # a second
PATIENCE_S: Final = 20.0
SETTLE_S: Final = 0.5  # for the viewer to draw what it got


def main() -> int:
    parser = argparse.ArgumentParser(prog="recording-to-mp4.sh", description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("film", type=Path)
    parser.add_argument("--speed", type=float, default=1.0, help="play so many times as fast")
    wanted = parser.parse_args()
    if missing := [each for each in NEEDED if shutil.which(each) is None]:
        sys.stderr.write(f"not installed: {', '.join(missing)}\n")
        return os.EX_UNAVAILABLE
    try:
        make(wanted.recording, wanted.film, wanted.speed)
    except (OSError, fbs.NoRecording, subprocess.SubprocessError) as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_DATAERR
    return os.EX_OK


def make(recording: Path, film: Path, speed: float) -> None:
    """Film `recording`.

    Raises:
        NoRecording: it is none, or has no picture.
        OSError: it cannot be read, or a program did not start.
    """
    with recording.open("rb") as file, ExitStack() as opened:
        blocks = fbs.read(file)
        opening = [each.data for _, each in zip(range(3), blocks, strict=False)]
        if len(opening) < 3 or len(opening[2]) < 4:
            raise fbs.NoRecording("nothing was shown")
        width, height = struct.unpack(">HH", opening[2][:4])
        home = opened.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        display = opened.enter_context(_screen(width, height))
        surroundings = os.environ | {"DISPLAY": display, "HOME": home}
        viewer = opened.enter_context(_viewer(width, height, surroundings))
        viewer.sendall(b"".join(opening))
        viewer.setblocking(True)
        begun = _first(viewer, blocks)
        time.sleep(SETTLE_S)
        with _camera(width, height, film, display, speed):
            _play(viewer, begun, blocks, speed)
            time.sleep(SETTLE_S)


def _first(viewer: socket.socket, blocks: Iterator[fbs.Block]) -> float:
    """Show the first picture; return when the rest is counted from."""
    first = next(blocks, None)
    if first is not None:
        viewer.sendall(first.data)
    return first.at_ms / 1000 if first is not None else 0.0


def _play(viewer: socket.socket, begun: float, blocks: Iterator[fbs.Block], speed: float) -> None:
    start = time.monotonic()
    for block in blocks:
        due = start + (block.at_ms / 1000 - begun) / speed
        time.sleep(max(0.0, due - time.monotonic()))
        viewer.sendall(block.data)
        _ignored(viewer)


def _ignored(viewer: socket.socket) -> None:
    """Throw away what the viewer asks for: it gets what was recorded."""
    try:
        while viewer.recv(65536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return


@contextmanager
def _running(*command: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own words
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _screen(width: int, height: int) -> Iterator[str]:
    """Run an X server that nobody else reaches; yield its name."""
    ours, theirs = os.pipe()
    size = f"{width}x{height}x24"
    command = ("Xvfb", "-displayfd", str(theirs), "-screen", "0", size, "-nolisten", "tcp")
    with _running(*command, pass_fds=[theirs]), os.fdopen(ours) as told:
        os.close(theirs)
        number = told.readline().strip()
        if not number:
            raise OSError("Xvfb did not start")
        yield f":{number}"


@contextmanager
def _viewer(width: int, height: int, surroundings: dict[str, str]) -> Iterator[socket.socket]:
    """Run a viewer; yield the connection that it takes for its server's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        port = listening.getsockname()[1]
        command = (
            "xtigervncviewer", f"127.0.0.1::{port}", "-ViewOnly", "-RemoteResize=0",
            "-AlertOnFatalError=0", "-SecurityTypes=None", "-AutoSelect=0", "-FullColor=1",
            "-MenuKey=", "-FullScreen",
        )  # fmt: skip
        with _running(*command, env=surroundings), listening.accept()[0] as viewer:
            yield viewer


@contextmanager
def _camera(width: int, height: int, film: Path, display: str, speed: float) -> Iterator[None]:
    command = [
        "ffmpeg", "-loglevel", "error", "-y", "-f", "x11grab", "-draw_mouse", "0",
        "-framerate", str(FRAMES), "-video_size", f"{width}x{height}", "-i", display,
        "-vf", f"setpts={speed}*PTS,pad=ceil(iw/2)*2:ceil(ih/2)*2", "-r", str(FRAMES),
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p",
        "-movflags", "+faststart", str(film),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own words
    try:
        yield
    finally:
        process.communicate(b"q", timeout=10 * PATIENCE_S)
    if process.returncode != 0:
        raise OSError("ffmpeg made no film")


if __name__ == "__main__":
    sys.exit(main())
