"""SPF (RFC 7208) by pyspf, with every question of it put to a resolver of ours.

What a stranger's records can make of it is bounded: ten look-ups (section 4.6.4), two without an
answer, and the resolver's own deadline.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any, Final

import spf  # type: ignore[import-untyped]

from contactd.errors import TemporaryFailure

# Name and type in, the records' data out: TXT as its strings joined, MX as "10 name", A and AAAA
# as addresses, PTR as a name. None is (); TemporaryFailure: nobody can say now.
Resolve = Callable[[str, str], Sequence[bytes]]

RECORD_LIMIT: Final = 16 << 10  # bytes of one SPF record; real ones fit into a packet
_NAME_LIMIT: Final = 253  # RFC 1035 section 2.3.4, as text


def spf_result(peer: str, helo: str, sender: str, resolve: Resolve) -> str:
    """Return none, neutral, pass, fail, softfail, temperror or permerror (RFC 7208 section 2.6).

    `sender` is the reverse-path; "" (a bounce) is judged by the HELO name (section 2.4).
    """
    try:
        query = _Query(peer, helo, sender, resolve)
        result: str = query.check()[0]
    except TemporaryFailure:
        return "temperror"
    except Exception:
        return "permerror"
    return result


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's evaluation; only where its answers come from is ours."""

    def __init__(self, peer: str, helo: str, sender: str, resolve: Resolve) -> None:
        local, at, domain = sender.rpartition("@")  # pyspf takes the first @, which may be quoted
        sender = f"{local.replace('@', '_')}{at}{domain}"
        super().__init__(i=str(ipaddress.ip_address(peer)), s=sender, h=helo)
        self._resolve = resolve

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> list[Any]:
        """Return the records' data in pyspf's forms, and count what has none.

        Raises:
            PermError: more than two names had no records.
            TempError: nobody can say now.
        """
        del cnames  # the resolver follows them
        name = name.removesuffix(".").lower()
        if not _is_name(name):
            return []
        if (name, qtype) not in self.cache:
            try:
                self.cache[name, qtype] = [
                    _form(qtype, each) for each in self._resolve(name, qtype)
                ]
            except TemporaryFailure as failure:
                raise spf.TempError(str(failure)) from failure
        found: list[Any] = self.cache[name, qtype]
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("too many names without records")
        return list(found)


def _is_name(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= _NAME_LIMIT and all(0 < len(label) < 64 for label in labels)


def _form(qtype: str, record: bytes) -> Any:
    if qtype == "TXT":
        return (record[:RECORD_LIMIT],)
    text = record.decode("ascii", "replace")
    if qtype != "MX":
        return text
    preference, _, name = text.partition(" ")
    return int(preference), name.removesuffix(".")
