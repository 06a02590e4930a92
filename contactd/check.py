"""`contactd check`: tries every component and says what works, what does not, and what to do."""

import asyncio
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

import redis.asyncio
from redis.exceptions import RedisError

from contactd import log as logging
from contactd.clock import SystemClock
from contactd.errors import ConfigurationError, ContactdError, TemporaryFailure
from contactd.mail.outgoing import Mails
from contactd.routing import rota
from contactd.routing.plan import Holidays, Plan
from contactd.service import HealthState
from contactd.settings import PbxSettings, Settings, SmtpSettings
from contactd.sms.gateway import Incoming, Part, Report
from contactd.sms.gateways import GATEWAYS, Site
from contactd.store import duty
from contactd.store.deskversions import DeskVersions, read_source
from contactd.store.engine import REVISION, Database
from contactd.telephony.ami import Ami, ami_settings
from contactd.telephony.ledger import hotline_calls
from contactd.web.pages import version_of_static

ENOUGH_BYTES: Final = 1 << 30  # recordings take 1 MB a minute
PROBE_S: Final = 8.0
LOOK_S: Final = 0.05


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    component: str
    verdict: Verdict
    detail: str


async def check(settings: Settings) -> int:
    """Print a table of every component; return 0, or EX_UNAVAILABLE if one does not work."""
    logging.configure(level="CRITICAL", json=False)  # the table says it all
    print("configuration: read, complete\n")
    findings: list[Finding] = []
    for component, probe in _probes(settings).items():
        try:
            async with asyncio.timeout(PROBE_S):
                found = await probe()
        except TimeoutError:
            found = [_failed(component, f"no answer within {PROBE_S:.0f} s")]
        for finding in found:
            findings.append(finding)
            print(f"  {finding.component:22} {finding.verdict:8} {finding.detail}", flush=True)
    failed = sum(finding.verdict is Verdict.FAILED for finding in findings)
    warned = sum(finding.verdict is Verdict.WARNING for finding in findings)
    print(f"\n{len(findings) - failed - warned} ok, {warned} warnings, {failed} failed")
    return os.EX_UNAVAILABLE if failed else os.EX_OK


Probe = Callable[[], Awaitable[Sequence[Finding]]]


def _probes(settings: Settings) -> Mapping[str, Probe]:
    """Return the probes by the component that is named if they do not come back."""
    probes: dict[str, Probe] = {
        "data_dir": partial(asyncio.to_thread, _data_dir, settings.service.data_dir),
        "database": partial(_database, settings),
        "rota": partial(_rota, settings),
        "pages": _pages,
        "listeners": partial(_listeners, settings),
        "redis": partial(_redis, settings.redis.url.get_secret_value()),
        "mail": partial(_mail, settings),
        "smtp": partial(_smtp, settings.smtp),
        "texts": partial(_texts, settings),
    }
    for pbx in settings.pbx:
        probes[f"pbx {pbx.name}"] = partial(_pbx, pbx, settings)
    return probes if settings.pbx else probes | {"pbx": _no_pbx}


async def _no_pbx() -> Sequence[Finding]:
    return [_failed("pbx", "none is configured: add a section [[pbx]]")]


async def _pages() -> Sequence[Finding]:
    try:
        version_of_static()
    except ContactdError as error:
        return [_failed("pages", str(error))]
    return [_ok("pages", "scripts and styles are there")]


async def _listeners(settings: Settings) -> Sequence[Finding]:
    return [
        _listener("http", settings.http.host, settings.http.port),
        _listener("agi", settings.agi.host, settings.agi.port),
    ]


def _data_dir(folder: Path) -> Sequence[Finding]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = "give it to contactd's user"
        return [_failed("data_dir", f"{folder.absolute()}: {error.strerror}: {remedy}")]
    detail = f"{folder.absolute()}, {free / (1 << 30):.1f} GiB free"
    if free < ENOUGH_BYTES:
        return [_warning("data_dir", f"{detail}: recordings take 1 MB a minute")]
    return [_ok("data_dir", detail)]


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database_url)
    async with database.running():
        yield database


async def _database(settings: Settings) -> Sequence[Finding]:
    try:
        async with _connected(settings) as database:
            return [_ok("database", f"{database.dialect}, revision {REVISION}")]
    except ContactdError as error:
        if settings.database.migrate_on_start and "revision" in str(error):
            return [_warning("database", f"{error}; `contactd serve` does it at its start")]
        return [_failed("database", f"{error}: see database.url; is it running, may we use it?")]


async def _rota(settings: Settings) -> Sequence[Finding]:
    try:
        found, holidays = await _loaded_plan(settings)
    except ContactdError as error:
        return [_failed("rota", line) for line in str(error).splitlines()]
    if not found.sites:
        return [_failed("rota", "none is loaded: contactd load FILE, or set database.desk_file")]
    now = SystemClock().now().replace(second=0, microsecond=0)
    wrong = rota.problems(found.rota(holidays), now, now + duty.HORIZON)
    summary = f"{len(found.sites)} sites, {len(found.engineers)} engineers"
    return [_ok("rota", summary), *(_warning("rota", str(problem)) for problem in wrong)]


async def _loaded_plan(settings: Settings) -> tuple[Plan, Holidays]:
    """Return what the next start would have: the file, if it says something new."""
    path = settings.database.desk_file
    source = read_source(path) if path is not None else None
    try:
        async with _connected(settings) as database:
            is_known = source and await DeskVersions(database, SystemClock()).knows(source)
            if source is None or is_known:
                async with database.reading() as connection:
                    plan = await duty.plan(connection) or Plan()
                    return plan, await duty.holiday_data(connection)
    except ContactdError:
        if source is None:
            raise
    return source.desk.plan(), source.desk.holiday_data()


def _listener(name: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return _warning(
                f"listener {name}",
                f"{host}:{port}: {error.strerror}; fine if contactd is running, else another"
                f" program has it: change {name}.port",
            )
    return _ok(f"listener {name}", f"{host}:{port} is free")


async def _redis(url: str) -> Sequence[Finding]:
    if not url:
        return [_ok("redis", "none configured: fine for one contactd")]
    client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3)
    try:
        async with client:
            await client.ping()
    except (RedisError, OSError) as error:
        remedy = "start it or see redis.url; till then other processes learn of news by polling"
        return [_warning("redis", f"{error}: {remedy}")]
    return [_ok("redis", "answers")]


async def _mail(settings: Settings) -> Sequence[Finding]:
    """Log in at the smart host; a mail that cannot go now waits, so this is a warning."""
    if not settings.mail.host:
        return [_ok("mail", "no smart host configured: we send no mail")]
    try:
        hurried = settings.mail.model_copy(update={"timeout_s": PROBE_S / 2})
        await Mails(hurried, service=settings.service.name, clock=SystemClock()).probe()
    except ContactdError as error:
        return [_warning("mail", f"{error}: see section mail; till then mails wait")]
    return [_ok("mail", f"{settings.mail.host}:{settings.mail.port} takes our mail")]


async def _smtp(smtp: SmtpSettings) -> Sequence[Finding]:
    """Try to listen for mail, and with the certificate."""
    if not smtp.mailboxes:
        return [_ok("smtp", "no mailboxes configured: no mail is taken")]
    found = [_listener("smtp", smtp.host, smtp.port)]
    if smtp.certificate_file is None or smtp.key_file is None:
        detail = "without certificate_file mail comes unencrypted: see section smtp"
        return [*found, _warning("smtp", detail)]
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(smtp.certificate_file, smtp.key_file)
    except OSError as error:  # also what is no certificate: SSLError
        remedy = "smtp.certificate_file and smtp.key_file must be PEM and belong together"
        return [*found, _failed("smtp", f"{error}: {remedy}")]
    return [*found, _ok("smtp", f"takes mail for {len(smtp.mailboxes)} mailboxes, with STARTTLS")]


class _NoInbox:
    """Whatever comes in while we only try is brought again to the daemon."""

    async def received(self, gateway: str, text: Incoming) -> None:
        raise TemporaryFailure("this is only a check")

    async def received_part(self, gateway: str, part: Part) -> None:
        raise TemporaryFailure("this is only a check")

    async def reported(self, gateway: str, report: Report) -> None:
        raise TemporaryFailure("this is only a check")


async def _texts(settings: Settings) -> Sequence[Finding]:
    """Build each gateway and ask its provider something; texts that cannot go now wait."""
    if not settings.sms.gateways:
        return [_ok("texts", "no gateway configured: there are no texts")]

    def not_here(_name: str) -> NoReturn:
        raise TemporaryFailure("this is only a check")

    found = []
    for name in settings.sms.gateways:
        site = Site(
            settings=settings, inbox=_NoInbox(), clock=SystemClock(), pbx_texts=not_here,
            bookmark=not_here,
        )  # fmt: skip
        found.append(await (_gsm(settings) if name == "sip" else _gateway(name, site)))
    return found


async def _gateway(name: str, site: Site) -> Finding:
    component = f"texts {name}"
    try:
        gateway = GATEWAYS[name](site)
        (health,) = gateway.health()
        async with gateway.running():
            now = SystemClock().now()
            if await gateway.listed(now - timedelta(minutes=1), now) is not None:
                return _ok(component, "its provider answers")
            for _ in range(int(PROBE_S / 2 / LOOK_S)):
                (health,) = gateway.health()
                if health.state is HealthState.UP:
                    return _ok(component, health.detail or "its provider answers")
                await asyncio.sleep(LOOK_S)
            return _warning(component, f"{health.detail}: see section sms; till then texts wait")
    except ConfigurationError as error:
        return _failed(component, str(error))
    except ContactdError as error:
        return _warning(component, f"{error}: see section sms; till then texts wait")


async def _gsm(settings: Settings) -> Finding:
    """Look where the PBX writes texts; whether the PBX answers is another finding."""
    sip = settings.sms.sip
    if sip.pbx not in {pbx.name for pbx in settings.pbx}:
        return _failed("texts sip", f"sms.sip.pbx: there is no PBX {sip.pbx!r}")
    if sip.inbox is not None and not os.access(sip.inbox.parent, os.R_OK | os.X_OK):
        return _warning("texts sip", f"{sip.inbox.parent} cannot be read: see 3.9; texts wait")
    return _ok("texts sip", f"by PBX {sip.pbx}")


async def _pbx(pbx: PbxSettings, settings: Settings) -> Sequence[Finding]:
    return [
        *await _manager(pbx, settings),
        _file(pbx, "cel_path", pbx.cel_path),
        _file(pbx, "queue_log_path", pbx.queue_log_path),
        await _records(pbx, settings),
    ]


async def _manager(pbx: PbxSettings, settings: Settings) -> Sequence[Finding]:
    """Log in, and look for the queues that the sites need."""
    name = f"pbx {pbx.name}"
    logged_in = asyncio.Event()

    async def on_connected(ami: Ami) -> None:
        logged_in.set()

    ami = Ami(ami_settings(pbx), on_event=lambda event: None, on_connected=on_connected)
    async with ami.running():
        try:
            await asyncio.wait_for(logged_in.wait(), PROBE_S / 2)
            queues = {event.get("Queue", "") for event in await ami.list("QueueStatus")}
        except TimeoutError:
            return [_failed(name, ami.last_error)]
        except ContactdError as error:
            return [_failed(name, str(error))]
    findings = [_ok(name, f"Asterisk {ami.version} at {pbx.host}:{pbx.port}")]
    try:
        sites = (await _loaded_plan(settings))[0].sites
    except ContactdError:
        sites = ()  # said above
    wanted = {settings.hotline.default_queue, *(site.queue for site in sites)}
    missing = sorted(wanted - queues)
    if missing:
        remedy = "add them to contactd_queues.conf, then `asterisk -rx 'queue reload all'`"
        findings.append(_failed(f"{name} queues", f"missing: {', '.join(missing)}: {remedy}"))
    else:
        findings.append(_ok(f"{name} queues", ", ".join(sorted(wanted))))
    return findings


def _file(pbx: PbxSettings, setting: str, path: Path) -> Finding:
    name = f"{pbx.name} {setting.removesuffix('_path')}"
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        return _warning(
            name, f"{path} is not there: no call yet, or see pbx.{setting} and cel_custom.conf"
        )
    except OSError as error:
        return _failed(name, f"{path}: {error.strerror}: put contactd's user into asterisk's group")
    return _ok(name, str(path))


async def _records(pbx: PbxSettings, settings: Settings) -> Finding:
    name = f"{pbx.name} records"
    if not pbx.files_root.is_dir():
        remedy = "mount the PBX's file system there, or see pbx.files_root"
        return _failed(name, f"files_root {pbx.files_root} is not a folder: {remedy}")
    zone = settings.service.zone
    try:
        calls = await hotline_calls(
            pbx.cel_path,
            day=SystemClock().now().astimezone(ZoneInfo(zone)).date(),
            zone=zone,
            hotline_contexts=pbx.hotline_contexts,
        )
    except ContactdError as error:
        return _failed(name, str(error))
    return _ok(name, f"{len(calls)} hotline calls today")


def _ok(component: str, detail: str) -> Finding:
    return Finding(component=component, verdict=Verdict.OK, detail=detail)


def _warning(component: str, detail: str) -> Finding:
    return Finding(component=component, verdict=Verdict.WARNING, detail=detail)


def _failed(component: str, detail: str) -> Finding:
    return Finding(component=component, verdict=Verdict.FAILED, detail=detail)
