"""The paths of MAIL and RCPT, and which recipients are ours (pure)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PATH_BYTES: Final = 512  # RFC 5321 section 4.5.3.1.3: 256; forwarders (SRS, BATV) send more

_PATH: Final = re.compile(
    rb"<(?P<route>@[^:>]*:)?(?P<address>"
    rb'(?:"(?:[^"\\\r\n\x00]|\\[^\r\n\x00])*"|[^\x00-\x20\x7f<>"]*)'  # local part, or all of it
    rb'(?:@[^\x00-\x20\x7f<>"@]*)?)>(?P<parameters>(?: +[^ ]+)*) *'
)
_PARAMETER: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?")
_DOMAIN: Final = re.compile(
    r"[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*\.?|\[[^\[\]]+\]"
)


class Refused(Exception):
    """A command is answered with `args[0]`."""

    @property
    def reply(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class MailPath:
    """A reverse-path or forward-path: `address` is "" for <>; parameters in upper case."""

    address: str
    parameters: Mapping[str, str]
    is_ascii: bool


class Mailboxes:
    """Which recipients are ours: mailboxes, and plus-addresses of them, in any case of letters."""

    def __init__(self, mailboxes: tuple[str, ...]) -> None:
        self._local_parts: dict[str, set[str]] = {}
        for mailbox in mailboxes:
            local, _, domain = mailbox.lower().rpartition("@")
            self._local_parts.setdefault(domain, set()).add(local)

    def refusal(self, address: str) -> str:
        """Return the reply to a recipient that is not ours, "" if it is."""
        local, at, domain = address.rpartition("@")
        if not at or not local:
            return "550 5.1.1 No such mailbox"
        known = self._local_parts.get(_ascii_domain(domain))
        if known is None:
            return "554 5.7.1 Relay access denied"
        return "" if _unquoted(local).partition("+")[0] in known else "550 5.1.1 No such mailbox"


def read_path(keyword: bytes, argument: bytes) -> MailPath:
    """Return what follows MAIL or RCPT (RFC 5321 section 4.1.2).

    Raises:
        Refused: it is none that we take: no path, a source route, or longer than any real one.
    """
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(f"501 5.5.4 Say {keyword.decode()}<address>")
    bad = "553 5.1.7 Bad sender address" if keyword == b"FROM:" else "553 5.1.3 Bad address"
    given = argument[len(keyword) :].lstrip()
    if given and not given.startswith(b"<"):  # against the RFC, but harmless
        bare, space, parameters = given.partition(b" ")
        given = b"<" + bare + b">" + space + parameters
    found = _PATH.fullmatch(given)
    if found is None or found["route"] or len(found["address"]) > PATH_BYTES:
        raise Refused(bad)
    try:
        address = found["address"].decode()
    except UnicodeDecodeError:
        raise Refused(bad) from None
    local, at, domain = address.rpartition("@")
    if at and (not local or _DOMAIN.fullmatch(domain) is None):
        raise Refused(bad)
    return MailPath(
        address=address,
        parameters=_parameters(found["parameters"]),
        is_ascii=found["address"].isascii(),
    )


def _parameters(given: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for each in given.split():
        found = _PARAMETER.fullmatch(each)
        if found is None or found[1].decode().upper() in values:
            raise Refused("501 5.5.4 Bad parameter")
        values[found[1].decode().upper()] = (found[2] or b"").decode("ascii", "replace")
    return values


def _ascii_domain(domain: str) -> str:
    domain = domain.lower().rstrip(".")
    if domain.isascii():
        return domain
    try:
        return domain.encode("idna").decode()
    except UnicodeError:
        return domain


def _unquoted(local: str) -> str:
    local = local.lower()
    if len(local) >= 2 and local[0] == local[-1] == '"':
        return re.sub(r"\\(.)", r"\1", local[1:-1])
    return local
