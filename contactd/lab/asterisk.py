"""One Asterisk in a chroot: its own mounts, folders and ports, ended with us whatever happens.

The root (`scripts/asterisk-root.sh`) is shared by all instances and never written to while they
run. Each instance has a folder inside it that mirrors the PBX's own paths (`etc/asterisk`,
`var/log/asterisk`, …) and is bind-mounted over them in a private mount namespace: the configuration
needs no change of paths, nothing stays mounted, and what the PBX calls `/var/spool/asterisk/x` is
`files_root / "var/spool/asterisk/x"` here.

The process we start *becomes* Asterisk (setpriv, unshare, sh and chroot each exec the next), so its
pid is Asterisk's: it can be killed, frozen and awaited like any child, and the kernel kills it when
the thread that started it ends (PR_SET_PDEATHSIG), also when that was by SIGKILL.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from contactd.errors import ContactdError

BOOT_S: Final = 30.0  # 2 s are usual; a loaded machine may need more
STOP_S: Final = 5.0  # SIGTERM is "core stop now" to `asterisk -f`
BUILD_SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "asterisk-root.sh"

_PRIVATE: Final = (
    "etc/asterisk",
    "run/asterisk",
    "var/cache/asterisk",
    "var/lib/asterisk",
    "var/log/asterisk",
    "var/spool/asterisk",
)
# Asterisk does not make these itself and then drops what it should have written there.
_FOLDERS: Final = (
    "var/log/asterisk/cdr-csv",
    "var/log/asterisk/cdr-custom",
    "var/log/asterisk/cel-custom",
    "var/spool/asterisk/monitor",
    "var/spool/asterisk/outgoing",
    "var/spool/asterisk/recording",
    "var/spool/asterisk/tmp",
    "var/spool/asterisk/voicemail",
)
_SOUNDS: Final = "usr/share/asterisk/sounds"

# $1 root, $2 instance folder, $3 sounds or empty; the rest are folders to put over the root's own.
_SCRIPT: Final = """
ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)" # a call takes about fifteen
root=$1 own=$2 sounds=$3
shift 3
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for file in etc/hosts etc/resolv.conf etc/nsswitch.conf "$@"; do
  mount --bind "$own/$file" "$root/$file"
done
[ -z "$sounds" ] || mount --bind -o ro "$sounds" "$root/usr/share/asterisk/sounds"
exec chroot "$root" asterisk -fn -C /etc/asterisk/asterisk.conf
"""


class LabError(ContactdError):
    """The laboratory cannot do what was asked; the text says why and what to do."""


def asterisk_root() -> Path:
    """Return the folder that `scripts/asterisk-root.sh` built; never builds it.

    Raises:
        LabError: not root, or the folder is not there; the text names the remedy.
    """
    if os.geteuid() != 0:
        raise LabError(
            "the lab needs root (chroot, private mounts): run as root, or use the compose file, "
            "which runs the same Asterisk in a container (docs/operations.md)"
        )
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("CONTACTD_CACHE") or home / "contactd")
    recipe = hashlib.sha256(BUILD_SCRIPT.read_bytes()).hexdigest()[:12]
    root = cache / f"asterisk-{recipe}"
    if not (root / ".contactd-complete").exists():
        raise LabError(f"no Asterisk root at {root}: run scripts/asterisk-root.sh (once, a minute)")
    return root


# -- addresses and ports ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place in the lab that no other instance has: address, ports, and what they stand for.

    `spare` are ports kept free for what talks to this instance (FastAGI, HTTP, …).
    """

    number: int
    root: Path = field(repr=False)
    host: str
    sip: int
    ami: int
    rtp: tuple[int, int]
    spare: tuple[int, ...]


@contextmanager
def claim_seat(*, last_octet: int) -> Iterator[Seat]:
    """Hold the first free seat; its loopback address ends in `last_octet`.

    The claim is a lock of the kernel's, so that it ends with this process however it ends; what
    a dead process left in its instance folders is removed by the next one on the same seat.
    """
    root = asterisk_root()
    folder = root / "srv" / "contactd-lab"
    (folder / "seats").mkdir(parents=True, exist_ok=True)
    for number in range(2000):
        lock = os.open(folder / "seats" / str(number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seat = _seat(root, number, last_octet)
            if seat is not None:
                for stale in folder.glob(f"{number}.*"):
                    shutil.rmtree(stale, ignore_errors=True)
                yield seat
                return
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
    raise LabError("2,000 instances of the lab are running: end some of them")


def _seat(root: Path, number: int, last_octet: int) -> Seat | None:
    """Return seat `number`, or None if something else listens on too many of its ports."""
    # Twenty blocks of 1,000 ports below the ephemeral range (32768 on Linux), then the next /24.
    host = f"127.0.{number // 20}.{last_octet}"
    base = 10_000 + number % 20 * 1_000
    ports = [port for port in range(base, base + 100) if _is_free(host, port)][:12]
    if len(ports) < 12:
        return None
    rtp = (base + 100, base + 999)  # even..odd, 450 streams: 225 calls of two legs
    return Seat(
        number=number,
        root=root,
        host=host,
        sip=ports[0],
        ami=ports[1],
        rtp=rtp,
        spare=tuple(ports[2:]),
    )


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:  # a port in TIME_WAIT is free, as it is for Asterisk
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


# -- configuration ---------------------------------------------------------------------------


def configuration(folder: Path, edits: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the `*.conf` files of `folder`, with lines replaced: file -> {old line: new line}.

    Raises:
        LabError: a file or line is missing or there twice; the lab and the configuration differ.
    """
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.conf"))}
    if not files:
        raise LabError(f"no configuration in {folder}")
    for name, lines in edits.items():
        if name not in files:
            raise LabError(f"{folder / name} is missing, and the lab wants to change it")
        text = files[name].splitlines()
        for old, new in lines.items():
            places = [index for index, line in enumerate(text) if line.rstrip() == old]
            if len(places) != 1:
                raise LabError(f"{folder / name}: the line {old!r} is there {len(places)} times")
            text[places[0]] = new
        files[name] = "\n".join(text) + "\n"
    return files


# -- the instance ----------------------------------------------------------------------------


class Asterisk:
    """One running instance. Use `async with Asterisk.start(…) as pbx`."""

    def __init__(self, *, name: str, seat: Seat, sounds: Path | None, ami_secret: str) -> None:
        self.name = name
        self.seat = seat
        self.ami_secret = ami_secret
        self.boot_s = 0.0  # how long the last start took
        self.files_root = (
            seat.root / "srv" / "contactd-lab" / f"{seat.number}.{name}.{secrets.token_hex(3)}"
        )
        self._sounds = sounds
        self._process: subprocess.Popen[bytes] | None = None
        self._last_second = 0

    @classmethod
    @asynccontextmanager
    async def start(  # noqa: PLR0913 - each is a fact about the instance
        cls,
        *,
        name: str,
        files: Mapping[str, str],
        seat: Seat,
        sounds: Path | None = None,
        ami_secret: str = "",
        keep: bool = False,
    ) -> AsyncIterator[Self]:
        """Run Asterisk with the configuration `files` (name -> text); yield when it has booted.

        `sounds` is shown to it, read-only, as its sounds folder. `keep` leaves the instance's
        folder behind (renamed `kept.…`), to look into after a failure.

        Raises:
            LabError: it did not come up; the text ends with its log.
        """
        if sounds is not None and not sounds.is_dir():
            raise LabError(f"no sounds at {sounds}: make them with scripts/prompts.py")
        instance = cls(name=name, seat=seat, sounds=sounds, ami_secret=ami_secret)
        try:
            instance._lay_out(files)
            await instance.boot()
            yield instance
        finally:
            try:
                # A proper end takes 0.8 s and writes records; without the folder, for nobody.
                await (instance.stop() if keep else instance.kill())
            finally:  # also when we are cancelled a second time
                instance._clear_up(keep=keep)

    # where things are

    @property
    def host(self) -> str:
        return self.seat.host

    @property
    def sip_port(self) -> int:
        return self.seat.sip

    @property
    def ami_port(self) -> int:
        return self.seat.ami

    def path(self, inside: str) -> Path:
        """Return where the file is here that the PBX calls `inside`, e.g. /var/log/asterisk/x."""
        folder = inside.lstrip("/")
        if folder.startswith("var/run/"):
            folder = folder.removeprefix("var/")  # a symbolic link in the root
        return self.files_root / folder

    @property
    def cel_path(self) -> Path:
        return self.path("/var/log/asterisk/cel-custom/cel.csv")

    @property
    def queue_log_path(self) -> Path:
        return self.path("/var/log/asterisk/queue_log")

    # life

    @property
    def pid(self) -> int:
        """Asterisk's own pid.

        Raises:
            LabError: it is not running.
        """
        if self._process is None or self._process.poll() is not None:
            raise LabError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def boot(self) -> None:
        """Start it in its folder, with its ports; return when it says that it is fully booted."""
        if self.running:
            raise LabError(f"{self.name} is running already")
        # A uniqueid is <second>.<number since the start>: two lives within one second would give
        # the same id to two calls. A PBX that loads everything takes longer to come up again.
        while int(time.time()) == self._last_second:
            await asyncio.sleep(0.02)
        began = time.monotonic()
        control = self.path("/run/asterisk/asterisk.ctl")
        control.unlink(missing_ok=True)  # of a killed one: its being there must mean "listens"
        root, own = str(self.seat.root), str(self.files_root)
        sounds = "" if self._sounds is None else str(self._sounds.resolve())
        script = ["sh", "-eu", "-c", _SCRIPT, "asterisk-lab", root, own, sounds, *_PRIVATE]
        with (self.files_root / "console").open("ab") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", *script],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,  # Ctrl-C is for us; we end it in our own time
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TERM": "dumb"},
            )
        try:
            async with asyncio.timeout(BOOT_S):
                while not (control.exists() and await self._booted()):
                    if not self.running:
                        raise LabError(f"{self.name} ended while it started\n{self.logs()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise LabError(f"{self.name} was not up after {BOOT_S:.0f} s\n{self.logs()}") from None
        self.boot_s = time.monotonic() - began

    async def _booted(self) -> bool:
        # It returns at once with the word from the moment the control socket listens, or waits.
        try:
            return "fully booted" in await self.cli("core waitfullybooted", timeout_s=BOOT_S)
        except LabError:
            return False

    async def stop(self) -> None:
        """End it (SIGTERM, then SIGKILL); calls in progress are hung up properly."""
        if not self.running:
            return
        self.signal(signal.SIGCONT)  # a frozen one could not hear us
        self.signal(signal.SIGTERM)
        try:
            await self._ended(STOP_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """kill -9: nothing is hung up, nothing is written; the folders stay as they are."""
        if self.running:
            self.signal(signal.SIGKILL)
            await self._ended(STOP_S)

    async def restart(self) -> None:
        """Start it again in the same folders with the same ports, ending it first if it runs."""
        await self.stop()
        await self.boot()

    def signal(self, number: signal.Signals) -> None:
        """Send `number` to Asterisk itself, e.g. SIGSTOP and SIGCONT."""
        os.kill(self.pid, number)

    async def _ended(self, within_s: float) -> None:
        assert self._process is not None
        async with asyncio.timeout(within_s):
            while self._process.poll() is None:
                await asyncio.sleep(0.01)
        self._last_second = int(time.time())

    # looking inside

    async def cli(self, command: str, *, timeout_s: float = 10.0) -> str:
        """Return what `asterisk -rx command` prints.

        Raises:
            LabError: Asterisk is not running, or did not answer within `timeout_s`.
        """
        target = ["nsenter", "--target", str(self.pid), "--mount", "--root", "--wd"]
        process = await asyncio.create_subprocess_exec(
            *target,
            "asterisk",
            "-rx",
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            raise LabError(f"{self.name} did not answer {command!r} in {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise LabError(f"{self.name}: {command!r} failed: {text.strip()}")
        return text

    def logs(self, lines: int = 60) -> str:
        """Return the last lines of each of the instance's logs, for the text of a failure."""
        folder = self.path("/var/log/asterisk")
        parts = []
        for log in (self.files_root / "console", folder / "messages.log", folder / "messages"):
            with suppress(FileNotFoundError):
                text = log.read_text(encoding="utf-8", errors="replace").splitlines()
                if log.name == "console":  # lines with a time are in the log as well
                    text = [line for line in text if not line.startswith("[")]
                parts.append("\n".join((f"--- {self.name}: {log.name}", *text[-lines:])))
        return "\n".join(parts)

    # the instance's folder

    def _lay_out(self, files: Mapping[str, str]) -> None:
        root, own = self.seat.root, self.files_root
        for folder in (*_PRIVATE, *_FOLDERS):
            (own / folder).mkdir(parents=True, exist_ok=True)
        for folder in (*_PRIVATE, _SOUNDS):
            (root / folder).mkdir(parents=True, exist_ok=True)  # what is mounted over
        for name, text in files.items():
            (own / "etc" / "asterisk" / name).write_text(text, encoding="utf-8")
        # Each call looks up the machine's own name; unknown there, it waits 5 s for a DNS server.
        own_name = socket.gethostname()
        (own / "etc" / "hosts").write_text(f"127.0.0.1 localhost {own_name}\n", encoding="utf-8")
        (own / "etc" / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="utf-8")
        (own / "etc" / "nsswitch.conf").write_text("hosts: files\n", encoding="utf-8")
        for name in ("hosts", "resolv.conf", "nsswitch.conf"):
            (root / "etc" / name).touch()

    def _clear_up(self, *, keep: bool) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if keep:
            # Not under its own name: the next one on this seat removes what it finds there.
            self.files_root.rename(self.files_root.with_name(f"kept.{self.files_root.name}"))
            return
        shutil.rmtree(self.files_root, ignore_errors=True)
