"""Desks for the benchmarks: so many sites, each with one engineer on duty and one caller."""

from pathlib import Path
from typing import Final

from contactd.lab.asterisk import Asterisk

FLOOR: Final = "13800019999"


def engineer(site: int) -> str:
    """Return the mobile number of the site's engineer."""
    return f"138000{site:05}"


def caller(site: int) -> str:
    """Return the mobile number of somebody who works at the site."""
    return f"139000{site:05}"


def key(site: int) -> str:
    return f"s{site:03}"


def desk_file(path: Path, sites: int) -> Path:
    """Write a desk file for `sites` sites with one person on duty day and night; return `path`."""
    tables = []
    for site in range(sites):
        tables += [
            f'[[sites]]\nkey = "{key(site)}"\nname_zh = "{key(site)}"\nname_en = "{key(site)}"\n'
            f'floor = "{FLOOR}"',
            f'[[engineers]]\nkey = "e{site:03}"\nname = "E{site:03}"\nnumber = "{engineer(site)}"',
            f'[[people]]\nkey = "p{site:03}"\nname = "P{site:03}"\nsite = "{key(site)}"\n'
            f'numbers = ["{caller(site)}"]',
            f'[[shifts]]\nsite = "{key(site)}"\ntier = 1\nengineer = "e{site:03}"\n'
            'start = "00:00"\nend = "00:00"',
        ]
    path.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    return path


def queues(sites: int) -> str:
    """Return what is added to contactd_queues.conf: each site's queue, as the others are."""
    return "".join(f"\n[{key(site)}](contactd)\n" for site in range(sites))


def append(pbx: Asterisk, file: str, text: str) -> None:
    """Add to one of the PBX's configuration files; it counts from its next start."""
    path = pbx.path(f"/etc/asterisk/{file}")
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{text}", encoding="utf-8")
