"""A real PostgreSQL cluster of the tests' own, on a free port of 127.0.0.1."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from contactd.lab.ports import free_port

REMEDY: Final = "PostgreSQL is missing: `make setup`, or apt-get install postgresql"
START_S: Final = 30
# The machine does not lose its power during a test.
FAST: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise AssertionError(REMEDY)
    return path


def _as_owner() -> list[str]:
    """Return what goes before a command: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    # pdeathsig: a test run that is killed takes its server along.
    return [
        *("setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"),
        *("--pdeathsig", "INT", "--"),
    ]


class PostgresServer:
    """One cluster; start, stop and freeze it as a real server would be."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] = FAST) -> None:
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        if (folder / "data").exists():  # a cluster that was kept
            return
        subprocess.run(
            [
                *(*_as_owner(), _program("initdb"), "-D", str(folder / "data"), "-U", "contactd"),
                *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )

    def url(self, name: str) -> str:
        return f"postgresql://contactd@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "max_connections": "60",
            "log_min_messages": "fatal",
            **self._settings,
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        self._process = subprocess.Popen(
            [*_as_owner(), _program("postgres"), "-D", str(self._folder / "data"), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not start on port {self.port}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Tell whether it takes work; a socket that is open may still be starting up."""
        ready = subprocess.run(
            [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        )
        return ready.returncode == 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def create(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, to which nobody may be connected."""
        self.psql("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        self.psql("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')

    def psql(self, database: str, statement: str) -> str:
        done = subprocess.run(
            [_program("psql"), self.url(database), "-qAtX", "-v", "ON_ERROR_STOP=1"],
            input=statement,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def stop(self) -> None:
        """End it with all its connections (a fast shutdown); harmless when it has ended."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(START_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
            self._process = None


@contextlib.contextmanager
def postgres_server(*, settings: Mapping[str, str] = FAST) -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="contactd-pg-") as folder:
        server = PostgresServer(Path(folder), settings=settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
