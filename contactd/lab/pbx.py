"""The lab's PBX: `etc/asterisk/` as it is, but for addresses, ports, the secret and its globals."""

import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contactd.lab.asterisk import Asterisk, LabError, Seat, claim_seat, configuration
from contactd.lab.gsm import Gsm
from contactd.lab.network import PublicNetwork

CONFIGURATION: Final = Path(__file__).parents[2] / "etc" / "asterisk"

_GLOBALS: Final = "contactd_globals.conf"
_TIERS: Final = "queuerules.conf"
_GSM_FILE: Final = "contactd_gsm.conf"
_GSM: Final = f"#include {_GSM_FILE}"


def pbx_configuration(  # noqa: PLR0913 - each is a fact about the lab
    seat: Seat,
    *,
    network: Seat,
    ami_secret: str,
    options: Mapping[str, str],
    tiers_s: Sequence[int] | None = None,
    gsm: Seat | None = None,
) -> dict[str, str]:
    """Return the files of `etc/asterisk/`, fitted to a place in the lab.

    `options` are globals of `contactd_globals.conf`; `tiers_s` the seconds of waiting after which
    each line of `queuerules.conf` applies. On `gsm` is a GSM gateway, if there is one.

    Raises:
        LabError: a line that has to change is not there (or twice).
    """
    files = configuration(
        CONFIGURATION,
        {
            "pjsip.conf": {
                "bind=127.0.0.1:5060": f"bind={seat.host}:{seat.sip}",
                "contact=sip:127.0.0.2:5060": f"contact=sip:{network.host}:{network.sip}",
                "match=127.0.0.2": f"match={network.host}",
            },
            "manager.conf": {
                "bindaddr=127.0.0.1": f"bindaddr={seat.host}",
                "port=5038": f"port={seat.ami}",
                "secret=change-me": f"secret={ami_secret}",
            },
            "rtp.conf": {
                "rtpstart=10000": f"rtpstart={seat.rtp[0]}",
                "rtpend=20000": f"rtpend={seat.rtp[1]}",
            },
        },
    )
    for name, value in options.items():
        files[_GLOBALS] = _replace_once(files, _GLOBALS, rf"^{name}=.*$", f"{name}={value}")
    if gsm is not None:
        files["pjsip.conf"] = _replace_once(files, "pjsip.conf", f"^;{_GSM}$", _GSM)
        for name in ("contact=sip:", "match="):
            pattern = rf"^{name}127\.0\.0\.3(:5060)?$"
            address = f"{gsm.host}:{gsm.sip}" if name.endswith(":") else gsm.host
            files[_GSM_FILE] = _replace_once(files, _GSM_FILE, pattern, f"{name}{address}")
    if tiers_s is not None:
        files[_TIERS] = _with_tiers(files[_TIERS], tiers_s)
    return files


def _replace_once(files: Mapping[str, str], name: str, pattern: str, new: str) -> str:
    text, count = re.subn(pattern, lambda _: new, files.get(name, ""), flags=re.MULTILINE)
    if count != 1:
        raise LabError(f"{CONFIGURATION / name}: {pattern} is there {count} times, wanted once")
    return text


def _with_tiers(text: str, tiers_s: Sequence[int]) -> str:
    times = iter(tiers_s)
    text, count = re.subn(
        r"^(penaltychange => )\d+(?=,)",
        lambda found: f"{found[1]}{next(times, 0)}",
        text,
        flags=re.MULTILINE,
    )
    if count != len(tiers_s):
        raise LabError(f"{CONFIGURATION / _TIERS} has {count} tiers, not {len(tiers_s)}")
    return text


@asynccontextmanager
async def pbx(  # noqa: PLR0913 - each is a fact about the instance
    *,
    seat: Seat,
    network: Seat,
    sounds: Path | None = None,
    agi: str = "",
    options: Mapping[str, str] | None = None,
    tiers_s: Sequence[int] | None = None,
    gsm: Seat | None = None,
    keep: bool = False,
) -> AsyncIterator[Asterisk]:
    """Run the PBX on `seat`, with its trunk to the public network on `network`.

    `sounds` is the folder that `scripts/prompts.py` made. `agi` is where contactd listens
    (host:port); without it a free port of the seat's is meant (`spare[0]`). `options`, `tiers_s`
    and `gsm` as in `pbx_configuration`.
    """
    secret = secrets.token_hex(12)
    files = pbx_configuration(
        seat,
        network=network,
        ami_secret=secret,
        options={"CONTACTD_AGI": agi or f"{seat.host}:{seat.spare[0]}", **(options or {})},
        tiers_s=tiers_s,
        gsm=gsm,
    )
    async with Asterisk.start(
        name="pbx", files=files, seat=seat, sounds=sounds, ami_secret=secret, keep=keep
    ) as asterisk:
        yield asterisk


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A PBX and the public network around it."""

    pbx: Asterisk
    network: PublicNetwork
    gsm: Gsm | None = None

    @property
    def agi_port(self) -> int:
        """Where the PBX expects contactd's FastAGI (on `pbx.host`), unless told otherwise."""
        return self.pbx.seat.spare[0]

    @property
    def http_port(self) -> int:
        """A free port for contactd's web server."""
        return self.pbx.seat.spare[1]

    def logs(self) -> str:
        known = [self.pbx, self.network.asterisk, *([self.gsm.asterisk] if self.gsm else [])]
        return "\n".join(asterisk.logs() for asterisk in known)


@asynccontextmanager
async def open_lab(  # noqa: PLR0913 - each is a fact about the lab
    *,
    sounds: Path | None = None,
    agi: str = "",
    options: Mapping[str, str] | None = None,
    tiers_s: Sequence[int] | None = None,
    default_script: str = "n",
    with_gsm: bool = False,
    keep: bool = False,
) -> AsyncIterator[Lab]:
    """Run both, and a GSM gateway if it is wanted; any number of labs can be open at once."""
    async with AsyncExitStack() as stack:
        here = stack.enter_context(claim_seat(last_octet=1))
        there = stack.enter_context(claim_seat(last_octet=2))
        beside = stack.enter_context(claim_seat(last_octet=3)) if with_gsm else None
        network = await stack.enter_async_context(
            PublicNetwork.start(seat=there, pbx=here, default_script=default_script, keep=keep)
        )
        exchange = await stack.enter_async_context(
            pbx(
                seat=here,
                network=there,
                sounds=sounds,
                agi=agi,
                options=options,
                tiers_s=tiers_s,
                gsm=beside,
                keep=keep,
            )
        )
        gsm = None
        if beside is not None:
            gsm = await stack.enter_async_context(Gsm.start(seat=beside, pbx=here, keep=keep))
        yield Lab(pbx=exchange, network=network, gsm=gsm)
