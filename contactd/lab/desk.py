"""The whole desk on this machine: PBX, public network and contactd, with one desk file."""

import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

from contactd.lab.asterisk import Asterisk, LabError
from contactd.lab.daemon import Daemon, running, toml
from contactd.lab.network import PublicNetwork
from contactd.lab.pbx import Lab, open_lab

DESK_FILE: Final = Path(__file__).parents[2] / "etc" / "desk.toml"
PBX_NAME: Final = "pbx1"  # systemname in etc/asterisk/asterisk.conf
DID: Final = "4008001234"

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskLab:
    """A PBX, the public network around it, and contactd beside it."""

    lab: Lab
    daemon: Daemon
    folder: Path

    @property
    def pbx(self) -> Asterisk:
        return self.lab.pbx

    @property
    def network(self) -> PublicNetwork:
        return self.lab.network

    def logs(self) -> str:
        return f"--- contactd\n{self.daemon.tail()}\n{self.lab.logs()}"


def sounds_folder() -> Path:
    """Return the folder of the prompts that the set-up made.

    Raises:
        LabError: they are not there; the text names the remedy.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("CONTACTD_CACHE") or home / "contactd") / "sounds"
    if not (folder / "zh" / "contactd" / "welcome.wav").is_file():
        raise LabError(f"no prompts in {folder}: run scripts/setup.sh (or `make setup`)")
    return folder


def document(lab: Lab, folder: Path, *, desk_file: Path, database_url: str) -> dict[str, Any]:
    """Return the configuration of a contactd that belongs to `lab`."""
    host = lab.pbx.host
    inbox = str(lab.pbx.path("/var/spool/asterisk/contactd-texts"))
    return {
        "service": {"data_dir": str(folder / "data"), "log_json": False},
        "database": {"desk_file": str(desk_file), "url": database_url},
        "http": {"host": host, "port": lab.http_port, "public_status": True},
        "agi": {"host": host, "port": lab.agi_port},
        "hotline": {},
        "tickets": {},
        "smtp": {},
        "sms": {
            "gateways": [] if lab.gsm is None else ["sip"],
            "sip": {"pbx": PBX_NAME, "inbox": inbox, "sender": "sip:desk@example.cn"},
        },
        "pbx": [
            {
                "name": PBX_NAME,
                "host": host,
                "port": lab.pbx.ami_port,
                "secret": lab.pbx.ami_secret,
                "cel_path": str(lab.pbx.cel_path),
                "queue_log_path": str(lab.pbx.queue_log_path),
                "files_root": str(lab.pbx.files_root),
            }
        ],
    }


@asynccontextmanager
async def open_desk(  # noqa: PLR0913 - each is a fact about the lab
    *,
    desk_file: Path = DESK_FILE,
    options: Mapping[str, str] | None = None,
    tiers_s: Sequence[int] | None = None,
    default_script: str = "n",
    settings: Sections | None = None,
    database_url: str = "",
    with_gsm: bool = False,
    start: bool = True,
    keep: bool = False,
) -> AsyncIterator[DeskLab]:
    """Run all three inside the block; contactd is ready when it is entered (unless not `start`).

    `options` are globals of the dialplan, `tiers_s` the times of queuerules.conf, `settings` are
    laid over contactd's configuration, section by section; `pbx` applies to the one PBX. With a GSM
    gateway texts go through it. With `keep` the folder with data and logs is left behind.
    """
    folder = Path(tempfile.mkdtemp(prefix="contactd-lab-"))
    try:
        async with open_lab(
            sounds=sounds_folder(),
            options=options,
            tiers_s=tiers_s,
            default_script=default_script,
            with_gsm=with_gsm,
            keep=keep,
        ) as lab:
            written = document(lab, folder, desk_file=desk_file, database_url=database_url)
            for section, values in (settings or {}).items():
                (written["pbx"][0] if section == "pbx" else written[section]).update(values)
            config = folder / "contactd.toml"
            config.write_text(toml(written), encoding="utf-8")
            daemon = Daemon(
                config=config,
                log=folder / "contactd.log",
                url=f"http://{written['http']['host']}:{written['http']['port']}",
            )
            desk = DeskLab(lab=lab, daemon=daemon, folder=folder)
            if not start:
                try:
                    yield desk
                finally:
                    await daemon.stop()
                return
            async with running(daemon):
                yield desk
    finally:
        if not keep:
            rmtree(folder, ignore_errors=True)
