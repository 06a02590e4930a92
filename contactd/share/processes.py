"""Programs that the helper starts: they never outlive it, whatever ends it."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from socket import socket
from typing import IO, Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_KEPT: Final = (
    "DISPLAY", "XAUTHORITY", "HOME", "PATH", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
    "LANG", "LC_ALL", "LC_CTYPE",
)  # fmt: skip


def start(
    command: Sequence[str],
    *,
    stdin: int | IO[bytes] | socket = subprocess.DEVNULL,
    stdout: int | IO[bytes] | socket = subprocess.DEVNULL,
    outlives: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; the kernel kills it when we die.

    `outlives`: it sees by itself that we are gone.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(  # noqa: S603 - the name is ours, none of it comes from elsewhere
        command, stdin=_fd(stdin), stdout=_fd(stdout), stderr=subprocess.DEVNULL,
        env=_environment(), start_new_session=True,
        preexec_fn=None if outlives else _dies_with(os.getpid()),
    )  # fmt: skip


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it and what it has started; it is gone when this returns."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _fd(end: int | IO[bytes] | socket) -> int:
    return end if isinstance(end, int) else end.fileno()


def _environment() -> Mapping[str, str]:
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def _dies_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)  # before the fork: nothing is loaded after it

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return prepare
