"""The lock screen, as desktops tell of it on D-Bus: locked means that the user is not there."""

import os
import shutil
import subprocess
from collections.abc import Collection
from typing import Final

from contactd.share import processes

_INTERFACES: Final = (
    "org.freedesktop.ScreenSaver",
    "org.gnome.ScreenSaver",
    "org.cinnamon.ScreenSaver",
    "org.mate.ScreenSaver",
    "org.xfce.ScreenSaver",
)
# Of the session's bus: ActiveChanged(true); of the system's: logind's Lock.
_RULES: Final = {
    "--session": [
        f"type='signal',interface='{each}',member='ActiveChanged'" for each in _INTERFACES
    ],
    "--system": ["type='signal',interface='org.freedesktop.login1.Session',member='Lock'"],
}
_READ: Final = 4096
_LOCKS: Final = (b"   boolean true", b"interface=org.freedesktop.login1.Session; member=Lock")


class LockWatch:
    """Watches for the lock screen, where there is a D-Bus; elsewhere the X screen saver tells."""

    def __init__(self) -> None:
        self._monitors: list[subprocess.Popen[bytes]] = []
        program = shutil.which("dbus-monitor")
        for bus, rules in _RULES.items():
            if program is None or (bus == "--session" and not _has_session_bus()):
                continue
            try:
                started = processes.start([program, bus, *rules], stdout=subprocess.PIPE)
            except OSError:
                continue
            self._monitors.append(started)
            os.set_blocking(_fd(started), False)

    def filenos(self) -> Collection[int]:
        return [_fd(each) for each in self._monitors]

    def is_locked(self) -> bool:
        """Tell whether the screen was locked since; never wait."""
        told = [self._tells(each) for each in list(self._monitors)]
        return any(told)

    def _tells(self, monitor: subprocess.Popen[bytes]) -> bool:
        try:
            data = os.read(_fd(monitor), _READ)
        except BlockingIOError:
            return False
        if not data:  # no bus, or it has ended
            self._monitors.remove(monitor)
            processes.kill(monitor)
            _close(monitor)
        return any(each in data for each in _LOCKS)

    def close(self) -> None:
        for monitor in self._monitors:
            processes.kill(monitor)
            _close(monitor)
        self._monitors.clear()


def _has_session_bus() -> bool:
    return bool(os.environ.get("DBUS_SESSION_BUS_ADDRESS"))


def _fd(monitor: subprocess.Popen[bytes]) -> int:
    if monitor.stdout is None:  # each is started with one
        raise ValueError(monitor)
    return monitor.stdout.fileno()


def _close(monitor: subprocess.Popen[bytes]) -> None:
    if monitor.stdout is not None:
        monitor.stdout.close()
