"""The helper's end of its windows: a process that shows things, on two pipes."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

_READ: Final = 65536
_MOST: Final = 1 << 20  # bytes that wait for a window that does not read


class Gone(Exception):
    """The windows are closed, or broken: nothing may be shared without them."""


class Panel:
    """Tells the windows what to show and hears what the user does there. Never waits."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise Gone
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._in = b""
        self._out = b""

    def fileno(self) -> int:
        return self._stdout.fileno()

    @property
    def writes(self) -> int | None:
        """Return the pipe that something waits to be written to."""
        return self._stdin.fileno() if self._out else None

    def tell(self, what: str, **more: Any) -> None:
        """Show something.

        Raises:
            Gone: there is nobody to show it.
        """
        self._out += json.dumps({"tell": what, **more}).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        try:
            self._out = self._out[os.write(self._stdin.fileno(), self._out) :]
        except BlockingIOError:
            if len(self._out) > _MOST:
                raise Gone from None
        except OSError:
            raise Gone from None

    def heard(self) -> Iterator[Mapping[str, Any]]:
        """Yield what the user has done since.

        Raises:
            Gone: they have closed it all, or it broke.
        """
        try:
            data = os.read(self._stdout.fileno(), _READ)
        except BlockingIOError:
            return
        if not data:
            raise Gone
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def close(self) -> None:
        """Let it go: it closes by itself, after its last words."""
        self._stdin.close()
        self._stdout.close()
