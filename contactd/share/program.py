"""contactd-share, started by the user: reads its invitation and shares the screen, once."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

from contactd.share import processes
from contactd.share.panel import Panel
from contactd.share.platform import Unsuitable
from contactd.share.relay import Relay
from contactd.share.words import say

WINDOWS: Final = "--windows"
_FIELDS: Final = ("url", "key", "language", "service", "ticket")


def main() -> None:
    """Run the helper, or the process of its windows; exit 0 if it ended as the user wished."""
    if sys.argv[1:] == [WINDOWS]:
        from contactd.share import window

        window.main()
        return
    invitation = _invitation()
    language = invitation.get("language", os.environ.get("LANG", "")[:2])
    if not invitation:
        sys.exit(say(language, "no_invitation"))
    if find_spec("tkinter") is None or find_spec("_tkinter") is None:
        sys.exit(say(language, "no_window"))
    try:
        from contactd.share.x11 import X11

        desktop = X11()
    except Unsuitable as unsuitable:
        sys.exit(say(language, unsuitable.key))
    sys.exit(Relay(invitation=invitation, desktop=desktop, panel=Panel(_windows())).run())


def _windows() -> subprocess.Popen[bytes]:
    return processes.start(
        [sys.executable, str(Path(sys.argv[0]).resolve()), WINDOWS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, outlives=True,
    )  # fmt: skip


def _invitation() -> dict[str, Any]:
    """Return what the service put into this file; nothing if it is broken."""
    try:
        with ZipFile(sys.argv[0]) as archive:
            found = json.loads(archive.read("invitation.json"))
    except (OSError, BadZipFile, KeyError, ValueError):
        return {}
    is_whole = isinstance(found, dict) and all(isinstance(found.get(each), str) for each in _FIELDS)
    return found if is_whole else {}


# Ctrl+C in the terminal is a stop like any other; Python's own way would leave a traceback.
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
