"""Ports for what a test, a benchmark or the demo starts, and starts again, on 127.0.0.1."""

import socket
from itertools import cycle
from random import SystemRandom
from typing import Final

# Below Linux' ephemeral range (32768 on), above the lab's seats (10,000 to 29,999). A port that
# the kernel chooses (bind to 0) is not ours while what we started on it is down: any outgoing
# connection may be given it, and the server does not come up again.
FIRST: Final = 30_000
COUNT: Final = 2_768

# Walked, not drawn: two ports asked for one after the other are never the same one. Where the
# walk begins is drawn, for processes beside us walk as well.
_walk: Final = cycle(
    [
        FIRST + (start + step) % COUNT
        for start in [SystemRandom().randrange(COUNT)]
        for step in range(COUNT)
    ]
)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, and no client is given by itself.

    Raises:
        OSError: none of the 2,768 is free.
    """
    for _ in range(COUNT):
        port = next(_walk)
        with socket.socket() as probe:
            # What is in TIME_WAIT is free, as it is for a server that sets the same option.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of 127.0.0.1 from {FIRST} to {FIRST + COUNT - 1} is free")
