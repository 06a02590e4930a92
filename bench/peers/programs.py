"""What the peers have in common: how they are installed, run, asked and ended."""

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from contactd.lab.asterisk import LabError

SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "bench-peers.sh"
HOST: Final = "127.0.0.1"
DOMAIN: Final = "desk.example"
MAILBOX: Final = f"it@{DOMAIN}"
STOP_S: Final = 10.0


def installed(peer: str) -> Path:
    """Return the folder of `peer`, installing it first if need be (minutes, once).

    Raises:
        LabError: it cannot be installed here; the script has said why.
    """
    done = subprocess.run([SCRIPT, peer], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{peer} is not there: scripts/bench-peers.sh {peer} installs it (as root)")
    return Path(done.stdout.strip().splitlines()[-1])


async def run(
    *command: str, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end.

    Raises:
        LabError: it ended with another code than 0; the text is the end of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    said, _ = await process.communicate(given)
    if process.returncode != 0:
        text = said.decode(errors="replace").strip()[-500:]
        raise LabError(f"{' '.join(command)} ended with {process.returncode}: {text}")


async def greeting(port: int, *, ask: bytes = b"", wanted: bytes = b"220") -> bool:
    """Say whether a server answers there with `wanted`; SMTP's speaks without being asked."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(ask)
        return (await reader.readline()).startswith(wanted)
    except OSError:
        return False
    finally:
        writer.close()


async def ended(process: asyncio.subprocess.Process) -> None:
    """End a child: SIGTERM, and SIGKILL if it takes too long."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
    await process.wait()
