"""texts_memory_…: what each gateway for texts adds to the idle daemon's memory.

VmRSS once it has stopped moving, as `memory` has it, of a daemon that was started again on a
database that it had: with the gateway, beside the same one without. Their providers are out of
reach: Twilio's library and Aliyun's SDK are loaded at the start, not with the first text. `sip` is
not among them: it has no library, and needs a PBX.
"""

import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.daemon import settled
from bench.figures import Figure
from bench.peers.programs import HOST
from bench.peers.smsc import OURS, PASSWORD, SYSTEM_ID
from bench.texts import configured, twilio
from contactd.lab.daemon import running
from contactd.lab.ports import free_port

ROUNDS: Final = 3
TEMPLATES: Final = '[received.zh]\ncode = "SMS_1"\nparams.ticket = "{ticket}"\n'
GATEWAYS: Final = ("twilio", "smpp", "aliyun")


async def measure() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="bench-texts-"))
    found: dict[str, list[float]] = {name: [] for name in ("", *GATEWAYS)}
    (folder / "templates.toml").write_text(TEMPLATES, encoding="utf-8")
    try:
        async with running(configured(folder)):
            pass  # from now on there is a database
        for _ in range(ROUNDS):
            for name, megabytes in found.items():
                async with running(configured(folder, name, _settings(name, folder))) as daemon:
                    megabytes.append(await settled(daemon.pid))
                print(f"  texts_memory {name or 'none'}: {megabytes[-1]:.1f} MB", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(
            name=f"texts_memory_{name}",
            what=f"resident memory of the idle daemon with the gateway {name}; bare: without",
            unit="MB",
            ours=median(found[name]),
            bare=median(found[""]),
        )
        for name in GATEWAYS
    ]


def _settings(gateway: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a gateway whose provider is out of reach."""
    match gateway:
        case "twilio":
            return twilio()
        case "smpp":
            return {
                "host": HOST, "port": free_port(), "system_id": SYSTEM_ID, "password": PASSWORD,
                "sender": OURS,
            }  # fmt: skip
        case "aliyun":
            return {
                "access_key_id": "LTAI", "access_key_secret": "secret", "sign_name": "广州服务台",
                "endpoint": f"{HOST}:{free_port()}", "protocol": "http",
                "templates_file": str(folder / "templates.toml"),
            }  # fmt: skip
        case _:
            return {}
