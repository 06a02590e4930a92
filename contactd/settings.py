"""Every setting, typed, with its unit, default and reason.

Sources, later wins: the TOML file, files in the secrets folder, the environment. A secret
`pbx_secret` can be written into the TOML file, be a file `<secrets>/…`, or come from
`CONTACTD_…`. All errors are reported at once, each with its key, before any socket opens.
"""

import os
import re
import tomllib
from datetime import time
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from contactd.errors import ConfigurationError

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _known_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is not a time zone of the IANA database, e.g. Asia/Shanghai")
    return value


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].strip()


def _readable(path: Path) -> Path:
    try:
        secret = _first_line(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if not secret:  # a mount that failed: never go on as if nothing had been asked for
        raise ValueError(f"the first line of {path} is empty")
    return path


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network, e.g. 10.0.0.0/8 or 192.0.2.25") from error


# The roles are those of tickets.people.Role that people have.
GivenRole = Annotated[
    str, Field(pattern="^.+=(desk|engineer|supervisor|manager|quality|operations|admin)$")
]
SecretFile = Annotated[Path, AfterValidator(_readable)]


def _secret_from(path: Path | None, value: SecretStr) -> SecretStr:
    """Return the first line of the file at `path`, if one is named, else `value`."""
    return value if path is None else SecretStr(_first_line(path))


class Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class ServiceSettings(Section):
    name: str = Field("contactd", description="shown on pages and in spoken texts' place")
    zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        "Asia/Shanghai", description="time zone of ticket numbers, the ledger's day and pages"
    )
    language: str = Field("zh", pattern="^(zh|en)$", description="language when nobody chose one")
    data_dir: Path = Field(Path("var"), description="database, recordings; absolute or from here")
    drain_s: Seconds = Field(10, description="how long a stop waits for what is in hand")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_json: bool = Field(True, description="JSON lines; false: text for a terminal")


class DatabaseSettings(Section):
    url: SecretStr = Field(
        SecretStr(""),
        description="postgresql://user:password@host/name; empty: SQLite in data_dir",
    )
    url_file: SecretFile | None = Field(None, description="file whose first line is the url")
    migrate_on_start: bool = Field(True, description="bring the schema up to date at start")
    desk_file: Path | None = Field(
        None, description="desk.toml, loaded at start if it changed; `load` does it by hand"
    )

    @model_validator(mode="after")
    def _read_file(self) -> "DatabaseSettings":
        secret = _secret_from(self.url_file, self.url)
        object.__setattr__(self, "url", secret)
        return self


class RedisSettings(Section):
    url: SecretStr = Field(
        SecretStr(""),
        description="redis://host:6379/0; empty: none needed (one process)",
    )


class HttpSettings(Section):
    host: str = Field("127.0.0.1", description="put a TLS proxy in front to serve others")
    port: Port = Field(8080)
    public_url: str = Field("", description="how browsers reach it, e.g. https://desk.example.cn")
    public_status: bool = Field(False, description="show the status page without login")
    metrics_token: SecretStr = Field(SecretStr(""), description="if set, /metrics asks for it")
    proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        ("127.0.0.0/8", "::1/128"),
        description="networks of our own proxies, whose X-Forwarded-For is believed",
    )
    max_connections: int = Field(500, ge=10, le=100_000, description="the next one is closed")
    max_streams: int = Field(100, ge=1, le=10_000, description="open live pages at a time")
    max_body_bytes: int = Field(1 << 20, ge=1024)
    read_timeout_s: Seconds = Field(10, description="a request's head and body must be in by then")
    idle_timeout_s: Seconds = Field(30, description="a kept-open connection may be silent so long")


class OidcSettings(Section):
    issuer: str = Field("", description="OpenID Connect provider; empty: passwords only")
    client_id: str = Field("contactd")
    client_secret: SecretStr = Field(SecretStr(""), description="empty: a public client")
    client_secret_file: SecretFile | None = Field(None, description="file whose first line it is")
    label: str = Field("", max_length=40, description="on the button of the log-in page")
    scopes: tuple[str, ...] = Field(("openid", "profile", "email"))
    name_claim: str = Field("preferred_username", description="becomes the user's name")
    role_claim: str = Field("groups", description="groups or roles; dots lead into objects")
    roles: tuple[GivenRole, ...] = Field((), description="value of role_claim=role here")
    sites_claim: str = Field("", description="keys of sites, * for all; empty: everybody sees all")
    engineer_claim: str = Field("", description="key of the desk file's engineer; empty: nobody")
    timeout_s: Seconds = Field(10, description="for each thing the provider is asked")
    ca_file: Path | None = Field(None, description="trust these certificates instead")

    @model_validator(mode="after")
    def _complete(self) -> "OidcSettings":
        secret = _secret_from(self.client_secret_file, self.client_secret)
        object.__setattr__(self, "client_secret", secret)
        if not self.issuer:
            return self
        address = urlsplit(self.issuer)
        if address.scheme != "https" and address.hostname not in _LOOPBACK:
            raise ValueError("issuer must be an https address")
        if not self.roles:
            raise ValueError("roles must be given: nobody could log in by the provider")
        return self


class PortalSettings(Section):
    enabled: bool = Field(True, description="/help: requesters report faults and see their tickets")
    hotline: str = Field("", max_length=40, description="number to call, shown on each page")
    hours_zh: str = Field("7×24 小时", max_length=80, description="when somebody answers it")
    hours_en: str = Field("24 hours a day, 7 days a week", max_length=80)
    code_minutes: int = Field(10, ge=2, le=60, description="how long a code can be used")
    session_minutes: int = Field(120, ge=5, le=1440, description="then another code is needed")
    link_days: int = Field(30, ge=1, le=365, description="how long a link to a ticket works")
    max_upload_bytes: int = Field(20 << 20, ge=1 << 16, description="all files of one report")
    max_files: int = Field(10, ge=0, le=100, description="files of one report")
    reports_per_client: int = Field(60, ge=1, description="an hour; an office shares an address")
    reports_per_person: int = Field(10, ge=1, description="an hour, by number or mail address")
    codes_per_client: int = Field(30, ge=1, description="asked for, and tried, in an hour")
    codes_per_person: int = Field(5, ge=1, description="an hour, by number or mail address")
    client_header: str = Field(
        "", pattern="^[A-Za-z0-9-]{0,40}$",
        description="in which the proxy in front names its client, e.g. X-Forwarded-For",
    )  # fmt: skip


class ApiSettings(Section):
    requests_per_minute: int = Field(1200, ge=1, description="of one token; more are answered 429")
    max_upload_bytes: int = Field(20 << 20, ge=1 << 16, description="one file")


class WebhookSettings(Section):
    networks: tuple[str, ...] = Field(
        (), description="of one's own, to which webhooks may go, also without TLS: 10.2.0.0/16"
    )

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ip_network(each)
        return value


class RemoteSettings(Section):
    enabled: bool = Field(True, description="remote help that only the user can start")
    code_s: float = Field(600, ge=60, le=600, description="how long an invitation opens the page")
    wait_s: Seconds = Field(1800, description="a user who agreed waits so long for an engineer")
    frozen_s: Seconds = Field(600, description="a lost connection waits so long for the user")
    idle_s: Seconds = Field(900, description="nobody did anything: the session ends")
    total_s: Seconds = Field(7200, description="longest session, from the first look on")
    max_sessions: int = Field(40, ge=1, le=1000, description="at a time; further ones must wait")
    bytes_per_second: int = Field(4_000_000, ge=100_000, description="of one session, at most")
    max_recording_bytes: int = Field(2_000_000_000, ge=1 << 20, description="then the leg ends")
    max_file_bytes: int = Field(20_000_000, ge=1, description="one file that is handed over")
    hotkey: str = Field(
        "ctrl+alt+q", pattern=r"^((ctrl|alt|shift|super)\+){2,4}[a-z0-9]$",
        description="stops at once, on the user's keyboard",
    )  # fmt: skip
    stun: tuple[Annotated[str, Field(pattern="^stuns?:.+")], ...] = Field(
        (), description="servers for view only, e.g. stun:turn.example.cn:3478"
    )
    turn: tuple[Annotated[str, Field(pattern="^turns?:.+")], ...] = Field(
        (), description="relays for view only, e.g. turn:turn.example.cn:3478?transport=tcp"
    )
    turn_secret: SecretStr = Field(SecretStr(""), description="coturn's static-auth-secret")
    turn_secret_file: SecretFile | None = Field(None, description="file whose first line it is")
    repeater_host: str = Field("127.0.0.1", description="where VNC servers of users call in")
    repeater_port: int = Field(
        0, ge=0, le=65535, description="0: no; 5500 is customary. Its ID travels in clear"
    )

    @model_validator(mode="after")
    def _complete(self) -> "RemoteSettings":
        secret = _secret_from(self.turn_secret_file, self.turn_secret)
        if self.turn and not secret.get_secret_value():
            raise ValueError("turn_secret must be given with turn")
        object.__setattr__(self, "turn_secret", secret)
        return self


class AgiSettings(Section):
    host: str = Field("127.0.0.1")
    port: Port = Field(4573)
    max_connections: int = Field(200, ge=1, le=10_000, description="the next one is closed at once")
    header_timeout_s: Seconds = Field(1, description="Asterisk sends its header at once")
    exchange_timeout_s: Seconds = Field(3, description="the dialplan has given up after 1 s")


class PbxSettings(Section):
    name: str = Field("pbx1", pattern="^[a-z0-9][a-z0-9_-]{0,15}$", description="its systemname")
    host: str = Field("127.0.0.1", description="address of the manager interface (AMI)")
    port: Port = Field(5038)
    username: str = Field("contactd")
    secret: SecretStr = Field(SecretStr(""), description="password in manager.conf")
    secret_file: SecretFile | None = Field(None, description="file whose first line is the secret")
    cel_path: Path = Field(Path("/var/log/asterisk/cel-custom/cel.csv"))
    queue_log_path: Path = Field(Path("/var/log/asterisk/queue_log"))
    files_root: Path = Field(
        Path("/"), description="where the PBX's file system is seen from here (recordings)"
    )
    hotline_contexts: tuple[str, ...] = Field(("hotline",), description="dialplan contexts of DIDs")
    ping_interval_s: Seconds = Field(5, description="how often the link is tried")
    liveness_s: Seconds = Field(15, description="silence after which the link counts as dead")
    reconnect_max_s: Seconds = Field(10, description="longest pause between two tries")
    write_roster: bool = Field(True, description="keep the queues' members equal to the rota")
    page_channels: int = Field(4, ge=1, le=1000, description="calls to people at a time")

    @model_validator(mode="after")
    def _read_file(self) -> "PbxSettings":
        secret = _secret_from(self.secret_file, self.secret)
        if not secret.get_secret_value():
            raise ValueError("secret or secret_file must be given (the password in manager.conf)")
        object.__setattr__(self, "secret", secret)
        return self


class HotlineSettings(Section):
    replay_interval_s: Seconds = Field(60, description="how often the PBX's records are read")
    roster_interval_s: Seconds = Field(60, description="how often queue members are compared")
    ledger_interval_s: Seconds = Field(60, description="how often today's ledger is balanced")
    page_ring_s: Seconds = Field(30, description="how long a page rings one person")
    redial_within_s: Seconds = Field(
        120, description="who hung up may call again for so long before somebody is paged"
    )
    default_queue: str = Field("desk", description="queue of callers whose site is not known")
    sounds_dir: Path | None = Field(
        None, description="folder of the prompts' sound files, to listen to them on the pages"
    )
    calls_per_hour: int = Field(
        30, ge=0, le=1000, description="one person may make so many by a click; 0: nobody may"
    )
    call_prefixes: tuple[str, ...] = Field(
        (), description="abroad that may be called by a click: beginnings like +852"
    )


class TicketSettings(Section):
    join_within_s: float = Field(
        4 * 3600, ge=0, le=30 * 86_400,
        description="a caller who calls again within this time joins the open ticket; 0: never",
    )  # fmt: skip
    answer_within_s: Seconds = Field(30 * 60, description="contract: answered within 30 min")
    remote_within_s: Seconds = Field(2 * 3600, description="contract: remote help within 2 h")


class MailSettings(Section):
    host: str = Field("", description="smart host that takes our mail; empty: we send none")
    port: Port = Field(587, description="587 with starttls (RFC 6409), 465 with tls (RFC 8314)")
    security: str = Field("starttls", pattern="^(starttls|tls|none)$")
    ca_file: Path | None = Field(
        None, description="trust these certificates instead of the system's"
    )
    username: str = Field("", description="empty: no login")
    password: SecretStr = Field(SecretStr(""))
    password_file: SecretFile | None = Field(None, description="file whose first line it is")
    sender: str = Field(
        "", pattern=r"^([A-Za-z0-9_.!#$%&'*+/=?^`{|}~-]+@[A-Za-z0-9.-]+)?$",
        description="address in From and in the envelope",
    )  # fmt: skip
    timeout_s: Seconds = Field(20, description="for the connection, and for each half of a mail")
    letters_file: Path | None = Field(None, description="words of mails: etc/letters.toml")
    dkim_domain: str = Field("", description="sign our mail for this domain; empty: we do not")
    dkim_selector: str = Field("", description="<selector>._domainkey.<domain> has the key")
    dkim_key_file: Path | None = Field(None, description="RSA (PEM) or Ed25519 (base64)")

    @model_validator(mode="after")
    def _complete(self) -> "MailSettings":
        signs = (self.dkim_domain, self.dkim_selector, self.dkim_key_file)
        if any(signs) and not all(signs):
            raise ValueError("dkim_domain, dkim_selector and dkim_key_file belong together")
        secret = _secret_from(self.password_file, self.password)
        if self.host and not self.sender:
            raise ValueError("sender must be given: the address that our mail comes from")
        if self.username and self.security == "none" and self.host not in _LOOPBACK:
            raise ValueError("security = none would send the password in clear: use starttls")
        object.__setattr__(self, "password", secret)
        return self


_MAILBOX = r"^[A-Za-z0-9_.!#$%&'*/=?^`{|}~-]+@[A-Za-z0-9.-]+$"


class SubmitterSettings(Section):
    name: str = Field(min_length=1, max_length=80)
    password: SecretStr = Field(SecretStr(""))
    password_file: SecretFile | None = Field(None, description="file whose first line it is")

    @model_validator(mode="after")
    def _read_file(self) -> "SubmitterSettings":
        secret = _secret_from(self.password_file, self.password)
        if not secret.get_secret_value():
            raise ValueError("password or password_file must be given")
        object.__setattr__(self, "password", secret)
        return self


class SmtpSettings(Section):
    mailboxes: tuple[Annotated[str, Field(pattern=_MAILBOX)], ...] = Field(
        (), description="addresses whose mail becomes tickets; empty: no mail is taken"
    )
    name: str = Field(
        "mail", pattern="^[a-z0-9]{1,16}$",
        description="of this machine's intake, in the ledger; each process needs its own",
    )  # fmt: skip
    hostname: str = Field("", description="in the greeting; empty: this machine's name")
    host: str = Field("127.0.0.1", description="where SMTP is listened on")
    port: Port = Field(8025)
    lmtp_socket: Path | None = Field(
        None, description="also take LMTP here, from a Postfix in front (RFC 2033)"
    )
    processes: int = Field(
        1, ge=1, le=16, description="that take mail; more than one shares a port"
    )
    certificate_file: Path | None = Field(None, description="chain for STARTTLS; read again if new")
    key_file: Path | None = Field(None, description="its key")
    require_tls: bool = Field(False, description="refuse mail without STARTTLS")
    submitters: tuple[SubmitterSettings, ...] = Field(
        (), description="programs that may log in (AUTH), with TLS only; people do not"
    )
    nameserver: str = Field(
        "", pattern=r"^(system|[0-9a-fA-F.:\[\]]+)?$",
        description="DNS server for SPF, DKIM and DMARC, or system; empty: nothing is checked",
    )  # fmt: skip
    relays: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="networks of our own mail servers in front: their SPF says nothing"
    )
    clamd: str = Field("", description="HOST:PORT or socket of clamd; empty: no virus scanner")
    rspamd: str = Field("", description="URL of rspamd's normal worker; empty: no spam filter")
    rspamd_password: SecretStr = Field(SecretStr(""))
    rspamd_password_file: SecretFile | None = Field(None, description="file whose first line it is")
    scan_timeout_s: Seconds = Field(10, description="then a mail counts as unscanned")
    max_message_bytes: int = Field(36 << 20, ge=1 << 16, le=1 << 30, description="RFC 1870 SIZE")
    max_recipients: int = Field(100, ge=1, le=1000, description="of one mail (RFC 5321: 100)")
    max_connections: int = Field(500, ge=1, le=10_000)
    max_per_address: int = Field(50, ge=1, le=10_000, description="connections of one address")
    max_in_flight_bytes: int = Field(256 << 20, ge=1 << 20, description="of mails being received")
    command_timeout_s: Seconds = Field(60, description="for the next command, or the next data")
    transaction_timeout_s: Seconds = Field(600, description="for one whole mail")
    parsers: int = Field(2, ge=1, le=16, description="processes that read mails")
    parse_timeout_s: Seconds = Field(20, description="then a mail is kept unread, as it came")
    parse_memory_bytes: int = Field(768 << 20, ge=128 << 20, description="of one such process")

    @model_validator(mode="after")
    def _complete(self) -> "SmtpSettings":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together")
        if (self.require_tls or self.submitters) and self.certificate_file is None:
            raise ValueError("require_tls and submitters need certificate_file and key_file")
        secret = _secret_from(self.rspamd_password_file, self.rspamd_password)
        object.__setattr__(self, "rspamd_password", secret)
        return self


class GatewaySettings(Section):
    """What every gateway for texts has."""

    countries: tuple[str, ...] = Field(
        (), description="numbers that it serves, by their beginning, e.g. +86; empty: every one"
    )
    rate_per_s: float = Field(10, gt=0, le=10_000, description="texts handed over per second")
    signature: str = Field(
        "", max_length=20, description='in front of every text, e.g. 【Example】; "": nothing'
    )
    price: float = Field(0, ge=0, description="of one segment; shown before a text is sent")
    currency: str = Field("CNY", pattern="^[A-Z]{3}$")
    timeout_s: float = Field(10, gt=0, le=30, description="for the provider's answer")


class LogSettings(GatewaySettings):
    file: Path | None = Field(None, description="texts are written here, with numbers; for trials")
    show: bool = Field(False, description="texts are shown on standard error, with numbers")


class TwilioSettings(GatewaySettings):
    account_sid: str = Field("", pattern="^(AC[0-9a-fA-F]{32})?$")
    auth_token: SecretStr = SecretStr("")
    auth_token_file: SecretFile | None = None
    sender: str = Field("", description="our number in E.164, or a messaging service (MG…)")
    api_url: str = Field("https://api.twilio.com", description="another one for trials")
    media_hosts: tuple[str, ...] = Field(
        ("api.twilio.com", "media.twiliocdn.com", "mms.twiliocdn.com"),
        description="where media may be fetched from",
    )
    most_media_bytes: int = Field(10 << 20, ge=1, description="of one file of a text")

    @model_validator(mode="after")
    def _complete(self) -> "TwilioSettings":
        secret = _secret_from(self.auth_token_file, self.auth_token)
        object.__setattr__(self, "auth_token", secret)
        return self


class SmppSettings(GatewaySettings):
    host: str = ""
    port: Port = 2775
    tls: bool = False
    ca_file: Path | None = Field(None, description="certificates to trust; empty: the system's")
    system_id: str = Field("", max_length=15)
    password: SecretStr = SecretStr("")
    password_file: SecretFile | None = None
    system_type: str = Field("", max_length=12)
    sender: str = Field("", max_length=20, description="our number or name")
    window: int = Field(10, ge=1, le=1000, description="texts that wait for an answer at once")
    enquire_every_s: Seconds = Field(30, description="the link is asked whether it lives")
    default_alphabet: str = Field(
        "gsm", pattern="^(gsm|latin-1)$", description="what data_coding 0 is there; the rest: UCS-2"
    )
    receipt_ids: str = Field(
        "same", pattern="^(same|decimal)$", description="decimal: answers have ids in hexadecimal"
    )

    @model_validator(mode="after")
    def _complete(self) -> "SmppSettings":
        object.__setattr__(self, "password", _secret_from(self.password_file, self.password))
        return self


class AliyunSettings(GatewaySettings):
    access_key_id: str = ""
    access_key_secret: SecretStr = SecretStr("")
    access_key_secret_file: SecretFile | None = None
    sign_name: str = Field("", description="the reviewed signature, without its brackets")
    endpoint: str = Field("dysmsapi.aliyuncs.com", description="another one for trials")
    protocol: str = Field("https", pattern="^https?$")
    templates_file: Path | None = Field(None, description="which template for which message")
    path_secret: SecretStr = Field(
        SecretStr(""), description="in the path of its callbacks, 20 signs or more; empty: none"
    )
    path_secret_file: SecretFile | None = None
    allowed: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="networks that its callbacks may come from; empty: none may"
    )
    proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="networks of our own proxies, whose X-Forwarded-For is believed"
    )

    @model_validator(mode="after")
    def _complete(self) -> "AliyunSettings":
        for name in ("access_key_secret", "path_secret"):
            secret = _secret_from(getattr(self, f"{name}_file"), getattr(self, name))
            object.__setattr__(self, name, secret)
        path = self.path_secret.get_secret_value()
        if path and not re.fullmatch(r"[A-Za-z0-9_-]{20,100}", path):
            raise ValueError("path_secret must be 20 to 100 letters, digits, - and _")
        return self


class SipSettings(GatewaySettings):
    pbx: str = Field("", description="the name of the PBX that has the GSM gateway")
    destination: str = Field(
        "pjsip:PJSIP/{number}@gsm",
        description="MessageSend's To; {number}, or without its +: {digits}, is filled in",
    )
    sender: str = Field(
        "", description="MessageSend's From, e.g. sip:contactd@example.com; empty: the PBX's own"
    )
    inbox: Path | None = Field(
        Path("/var/spool/asterisk/contactd-texts"),
        description="where the dialplan writes texts, without the date at the end of each file",
    )
    look_every_s: Seconds = Field(1, description="how often it is looked for new texts")


class SmsSettings(Section):
    gateways: tuple[str, ...] = Field(
        (), description="who sends texts, in order: twilio, smpp, aliyun, sip, log; empty: nobody"
    )
    most_per_hour: int = Field(30, ge=1, description="texts to one number; pages wait, too")
    quiet_from: time = Field(time(21), description="no reminders, surveys or news from then on")
    quiet_until: time = Field(time(8), description="local time of the requester's site")
    log: LogSettings = LogSettings()
    twilio: TwilioSettings = TwilioSettings()
    smpp: SmppSettings = SmppSettings()
    aliyun: AliyunSettings = AliyunSettings()
    sip: SipSettings = SipSettings()

    @field_validator("gateways")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in ("log", "twilio", "smpp", "aliyun", "sip")]
        if unknown or len(set(value)) != len(value):
            raise ValueError("each of log, twilio, smpp, aliyun, sip at most once")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "SmsSettings":
        needed = {"smpp": ("host", "system_id", "sender"), "sip": ("pbx", "inbox")}
        missing = [
            f"{name}.{key}"
            for name in self.gateways
            for key in needed.get(name, ())
            if not getattr(getattr(self, name), key)
        ]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given")
        return self


class Settings(BaseSettings):
    """The whole configuration. Environment: `CONTACTD_HTTP__PORT=8081`."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="CONTACTD_", env_nested_delimiter="__"
    )

    service: ServiceSettings = ServiceSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    http: HttpSettings = HttpSettings()
    oidc: OidcSettings = OidcSettings()
    portal: PortalSettings = PortalSettings()
    api: ApiSettings = ApiSettings()
    webhooks: WebhookSettings = WebhookSettings()
    remote: RemoteSettings = RemoteSettings()
    agi: AgiSettings = AgiSettings()
    hotline: HotlineSettings = HotlineSettings()
    tickets: TicketSettings = TicketSettings()
    mail: MailSettings = MailSettings()
    smtp: SmtpSettings = SmtpSettings()
    sms: SmsSettings = SmsSettings()
    pbx: tuple[PbxSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = NestedSecretsSettingsSource(file_secret_settings, secrets_dir_missing="error")
        return env_settings, files, init_settings

    @field_validator("pbx")
    @classmethod
    def _names_differ(cls, value: tuple[PbxSettings, ...]) -> tuple[PbxSettings, ...]:
        names = [pbx.name for pbx in value]
        if len(set(names)) != len(names):
            raise ValueError("two PBXs have the same name")
        return value

    @property
    def database_url(self) -> str:
        """The database's URL with its password: never log it."""
        given = self.database.url.get_secret_value()
        return given or f"sqlite:///{(self.service.data_dir / 'contactd.sqlite3').absolute()}"


def load(path: Path) -> Settings:
    """Read the configuration file, the secrets folder and the environment.

    `CONTACTD_SECRETS_DIR` names a folder with one file a setting (`CONTACTD_DATABASE__URL`, …), as
    container platforms mount them.

    Raises:
        ConfigurationError: every error found, one a line, each with its key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    try:
        return Settings(_secrets_dir=os.environ.get("CONTACTD_SECRETS_DIR"), **document)
    except ValidationError as error:
        raise ConfigurationError("\n".join(map(_line, error.errors()))) from error
    except SettingsError as error:  # the secrets folder, or a list that is not JSON
        raise ConfigurationError(f"CONTACTD_…: {error}") from error


def _line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "(file)"
    message = {
        "extra_forbidden": "no such setting",
        "missing": "is missing",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{key}: {message}"
