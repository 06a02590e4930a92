"""A configuration file of a contactd on free ports, with a desk and a PBX that may be absent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contactd.lab.daemon import Daemon, toml
from contactd.lab.ports import free_port
from contactd.settings import Settings, load
from tests.fakes.pbx import SECRET, USERNAME
from tests.fakes.rota import EVERY_SITE, desk_document


def document(
    folder: Path,
    *,
    pbx_port: int = 0,
    database_url: str = "",
    sites: Sequence[str] = EVERY_SITE,
) -> dict[str, Any]:
    """Return the sections; without `pbx_port` nobody listens where the PBX should be.

    `folder` holds everything: data, the desk file, the PBX's records (a folder `pbx`).
    """
    desk_file = folder / "desk.toml"
    desk_file.write_text(toml(desk_document(sites=sites)), encoding="utf-8")
    files = folder / "pbx"
    files.mkdir(exist_ok=True)
    return {
        "service": {"data_dir": str(folder / "data"), "log_json": False},
        "database": {"desk_file": str(desk_file), "url": database_url},
        "http": {"host": "127.0.0.1", "port": free_port(), "public_status": True},
        "agi": {"host": "127.0.0.1", "port": free_port()},
        "pbx": [
            {
                "name": "pbx1", "host": "127.0.0.1", "port": pbx_port or free_port(),
                "username": USERNAME, "secret": SECRET, "cel_path": str(files / "cel.csv"),
                "queue_log_path": str(files / "queue_log"), "files_root": str(files),
            }
        ],
    }  # fmt: skip


def write(folder: Path, sections: Mapping[str, Any]) -> Path:
    path = folder / "contactd.toml"
    path.write_text(toml(sections), encoding="utf-8")
    return path


def settings(folder: Path, sections: Mapping[str, Any]) -> Settings:
    return load(write(folder, sections))


def daemon(folder: Path, sections: Mapping[str, Any]) -> Daemon:
    return Daemon(
        config=write(folder, sections),
        log=folder / "contactd.log",
        url=f"http://127.0.0.1:{sections['http']['port']}",
    )
