"""The VNC server of one leg: started on the user's yes, on no port, killed at the end."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contactd.share import processes
from contactd.share.platform import Unsuitable

READY_S: Final = 5.0
# x11vnc 0.9.16. No shared memory, or a kill leaves 42 segments behind; no file of the user's, no
# command, nothing from afar, no file transfer; auto-repeat is left alone, as a kill would leave it
# off; the clipboard goes through the helper.
_X11VNC: Final = (
    "-inetd", "-quiet", "-noshm", "-norc", "-noremote", "-nocmds", "-noultraext", "-nopw",
    "-clear_keys", "-nosel", "-repeat", "-novncconnect", "-nolookup", "-nobell", "-xrandr",
    "resize",
)  # fmt: skip
_TIGERVNC: Final = (
    "-rfbport", "-1", "-rfbunixmode", "0600", "-SecurityTypes", "None", "-AcceptSetDesktopSize=0",
    "-UseSHM=0",
)  # fmt: skip
# Since 1.15 it carries the clipboard, too; 1.12 does not start with words that it does not know.
_NO_CLIPBOARD: Final = ("AcceptCutText", "SendCutText", "SetPrimary", "SendPrimary")
HELP_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Running:
    """A VNC server that runs."""

    sock: socket.socket
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.sock.close()
        processes.kill(self.process)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A VNC server that is installed."""

    name: str
    start_with: Callable[[str, bool], Running]
    program: str

    def start(self, *, can_control: bool) -> Running:
        """Start it.

        Raises:
            Unsuitable: it does not start.
        """
        try:
            return self.start_with(self.program, can_control)
        except OSError:
            raise Unsuitable("no_server") from None


def find_server() -> Found:
    """Return the best VNC server here: x11vnc types Chinese, TigerVNC 1.12 does not.

    Raises:
        Unsuitable: none is installed.
    """
    for program, start_with in _KNOWN.items():
        path = shutil.which(program)
        if path is not None:
            return Found(name=program, start_with=start_with, program=path)
    raise Unsuitable("no_server")


def _x11vnc(program: str, can_control: bool) -> Running:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [program, *_X11VNC, *([] if can_control else ["-viewonly"])]
        process = processes.start(command, stdin=theirs, stdout=theirs)
    return Running(sock=ours, process=process)


def _tigervnc(program: str, can_control: bool) -> Running:
    with tempfile.TemporaryDirectory(prefix="contactd-share-") as folder:
        path = Path(folder) / "s"
        command = [program, *_TIGERVNC, *_no_clipboard(program), "-rfbunixpath", str(path)]
        if not can_control:
            command += ["-AcceptKeyEvents=0", "-AcceptPointerEvents=0"]
        process = processes.start(command)
        try:
            sock = _connected(path, process)
        except OSError:
            processes.kill(process)
            raise
    return Running(sock=sock, process=process)


def _no_clipboard(program: str) -> list[str]:
    """Return what keeps this version from the clipboard."""
    try:
        told = subprocess.run([program, "-h"], capture_output=True, timeout=HELP_S, check=False)  # noqa: S603 - a program that we found
    except subprocess.TimeoutExpired:
        raise OSError("the VNC server does not answer") from None
    known = told.stdout + told.stderr
    return [f"-{each}=0" for each in _NO_CLIPBOARD if each.encode() in known]


def _connected(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    until = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until:
        try:
            sock.connect(str(path))
        except OSError:
            time.sleep(0.02)
        else:
            return sock
    sock.close()
    raise OSError("the VNC server does not start")


_KNOWN: Final = {"x11vnc": _x11vnc, "X0tigervnc": _tigervnc}
