"""Who a mail is really from: SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 7489).

It waits for name servers of strangers and reckons with what they and the mail say, so it runs in a
process of its own, many mails at a time (`serve_verdicts`; `mail.workers` starts it). dkimpy is
used for the signature only: on hostile mails its regular expressions are quadratic in the body and
its reading of the header in its lines, and both are done here in one go.
"""

import base64
import hashlib
import ipaddress
import logging
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import dkim  # type: ignore[import-untyped]
import dns.exception
import dns.resolver
from dkim.crypto import parse_public_key  # type: ignore[import-untyped]
from dkim.util import parse_tag_value  # type: ignore[import-untyped]
from publicsuffixlist import PublicSuffixList

from contactd.errors import PermanentFailure, TemporaryFailure
from contactd.mail.parsed import Origin, Verdict
from contactd.mail.spf_check import Resolve, spf_result
from contactd.mail.worker import (
    CHUNK,
    Judged,
    Judgement,
    Orders,
    adapter,
    limit_process,
    read_frame,
    unsure,
    write_frame,
)

QUESTIONS_SHARE: Final = 0.8  # of the time for a verdict; then it is asked what is amiss
DNS_PORT: Final = 53
AT_ONCE: Final = 32  # mails; nearly all of that time is waiting
HEADER_LIMIT: Final = 1 << 20  # bytes
FIELDS_LIMIT: Final = 1_000
SIGNATURES_LIMIT: Final = 5  # that are looked at, from the top
SIGNATURE_LIMIT: Final = 4_096  # bytes; large ones of large providers have 1,500
SIGNED_FIELDS_LIMIT: Final = 200
KEY_LIMIT: Final = 2_048  # bytes of a record; a key of 8,192 bits has 1,400
KEY_BITS: Final = range(1_024, 8_193)  # RFC 8301 section 3.2
EXPONENT_LIMIT: Final = 1 << 33

_PROBE_SHARE: Final = 0.15
_TRY_S: Final = 2.0  # then the question is sent again
_STACK_BYTES: Final = 2 << 20
_CACHED: Final = 10_000  # answers, each as long as its TTL says
_FIELD: Final = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_POLICIES: Final = frozenset({"none", "quarantine", "reject"})
# The best of several signatures counts (RFC 6376 section 6.1), then what may still become good.
_RANK: Final = ("pass", "temperror", "fail", "permerror", "neutral")


# The mail


@dataclass(frozen=True, slots=True)
class Source:
    """A mail as its header block (without the empty line) and its body, piece by piece."""

    header: bytes
    body: Callable[[], Iterator[bytes]] = field(repr=False)

    @classmethod
    def of_bytes(cls, raw: bytes) -> "Source":
        header, start = _split(raw)
        return cls(header, lambda: iter([raw[start:]]))

    @classmethod
    def of_file(cls, path: Path, offset: int, length: int) -> "Source":
        """Raises OSError."""
        with path.open("rb") as source:
            source.seek(offset)
            header, start = _split(source.read(min(length, HEADER_LIMIT)))
        return cls(header, lambda: _pieces(path, offset + start, length - start))


def _split(beginning: bytes) -> tuple[bytes, int]:
    """Return the header block, and where the body begins."""
    if none := re.match(rb"\r?\n", beginning):
        return b"", none.end()
    end = re.search(rb"\n\r?\n", beginning)
    if end is None:
        return beginning, len(beginning)
    return beginning[: end.start() + 1], end.end()


def _pieces(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as source:
        source.seek(offset)
        while length > 0 and (piece := source.read(min(CHUNK, length))):
            length -= len(piece)
            yield piece


def header_fields(header: bytes) -> list[list[bytes]]:
    """Return names and values as dkimpy has them: lines end in CRLF, folds are kept.

    Raises:
        PermanentFailure: there is something else between them, or there are too many.
    """
    found: list[tuple[bytes, list[bytes]]] = []
    for line in header.replace(b"\r\n", b"\n").split(b"\n"):
        if line[:1] in {b" ", b"\t"} and found:
            found[-1][1].append(line + b"\r\n")
        elif match := _FIELD.match(line):
            found.append((match[1], [line[match.end() :] + b"\r\n"]))
        elif line:
            raise PermanentFailure("a line of the header is no field")
    if len(found) > FIELDS_LIMIT:
        raise PermanentFailure("too many header fields")
    return [[name, b"".join(lines)] for name, lines in found]


def body_hash(pieces: Iterator[bytes], *, relaxed: bool) -> bytes:
    """Return the SHA-256 of a body in canonical form (RFC 6376 section 3.4.3 and 3.4.4)."""
    digest = hashlib.sha256()
    ends, is_empty = 0, True  # line ends that nothing has followed yet
    for lines in _whole_lines(pieces):
        text = lines.replace(b"\r\n", b"\n")
        if relaxed:
            text = _single_blanks(text).replace(b" \n", b"\n")
        rest = text.rstrip(b"\n")
        if rest:
            _hash_ends(digest, ends)
            digest.update(rest.replace(b"\n", b"\r\n"))
            ends, is_empty = 0, False
        ends += len(text) - len(rest)
    if not (relaxed and is_empty):
        digest.update(b"\r\n")
    return digest.digest()


def _single_blanks(text: bytes) -> bytes:
    text = text.replace(b"\t", b" ")
    while b"  " in text:  # each time half as many: 20 times faster than a regular expression
        text = text.replace(b"  ", b" ")
    return text


def _hash_ends(digest: Any, ends: int) -> None:
    for start in range(0, ends, CHUNK):
        digest.update(b"\r\n" * min(CHUNK, ends - start))


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Return the pieces cut at line ends; one is added to the last line if it has none."""
    open_: list[bytes] = []
    for piece in pieces:
        cut = piece.rfind(b"\n") + 1
        if not cut:
            open_.append(piece)
            continue
        yield b"".join([*open_, piece[:cut]])
        open_ = [piece[cut:]]
    if last := b"".join(open_):
        yield last + b"\n"


# DKIM


def dkim_result(source: Source, resolve: Resolve) -> tuple[str, tuple[str, ...]]:
    """Return the result and the domains of the signatures that are good."""
    if b"dkim-signature" not in source.header.lower():
        return "none", ()
    try:
        fields = header_fields(source.header)
    except PermanentFailure:
        return "permerror", ()
    count = sum(name.lower() == b"dkim-signature" for name, _ in fields)
    if not count:
        return "none", ()
    body = _Body(source)
    results: list[str] = []
    domains: list[str] = []
    for number in range(min(count, SIGNATURES_LIMIT)):
        result, domain = _checked(_Signature(fields, number, body, resolve))
        results.append(result)
        if result == "pass" and domain not in domains:
            domains.append(domain)
    return min(results, key=_RANK.index), tuple(domains)


class _Body:
    """The hashes of a body, each reckoned once for all signatures."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[bool, bytes] = {}

    def digest(self, *, relaxed: bool) -> bytes:
        if relaxed not in self._known:
            self._known[relaxed] = body_hash(self._source.body(), relaxed=relaxed)
        return self._known[relaxed]


@dataclass(frozen=True, slots=True)
class _Signature:
    fields: list[list[bytes]]
    number: int
    body: _Body
    resolve: Resolve


def _checked(signature: _Signature) -> tuple[str, str]:
    """Return the result of one signature, and whose it is."""
    try:
        return _check(signature)
    except TemporaryFailure:
        return "temperror", ""
    except Exception:
        return "permerror", ""


def _check(signature: _Signature) -> tuple[str, str]:
    """Check one signature.

    Raises:
        TemporaryFailure: its key cannot be had now.
        Exception: it is malformed.
    """
    verifier = dkim.DKIM(minkey=KEY_BITS.start, logger=_silent())
    verifier.headers, verifier.body = [[*each] for each in signature.fields], b""
    own = [value for name, value in signature.fields if name.lower() == b"dkim-signature"]
    if len(own[signature.number]) > SIGNATURE_LIMIT:
        return "permerror", ""
    tags, signed, lines = verifier.verify_headerprep(signature.number)
    # RFC 6376 section 5.4: From must be signed. RFC 8301 section 3.1: SHA-1 proves nothing.
    if b"from" not in signed or len(signed) > SIGNED_FIELDS_LIMIT or tags[b"a"] == b"rsa-sha1":
        return "permerror", ""
    # Ed25519 needs a library that is not here. l= lets strangers add text (section 8.2).
    if tags[b"a"] != b"rsa-sha256" or b"l" in tags:
        return "neutral", ""
    domain = tags[b"d"].decode("ascii").lower()
    key = _key(tags[b"s"].decode("ascii"), domain, signature.resolve)
    relaxed = tags.get(b"c", b"").partition(b"/")[2].strip() == b"relaxed"
    expected = base64.b64decode(b"".join(tags.pop(b"bh").split()))
    if signature.body.digest(relaxed=relaxed) != expected:
        return "fail", domain
    is_good = verifier.verify_sig(tags, signed, lines[signature.number], lambda *_, **__: key)
    return ("pass" if is_good else "fail"), domain


def _key(selector: str, domain: str, resolve: Resolve) -> bytes:
    """Return the key record, if it can be reckoned with in reasonable time.

    Raises:
        PermanentFailure: there is none, or it is of no use.
        TemporaryFailure: nobody can say now.
    """
    records = resolve(f"{selector}._domainkey.{domain}", "TXT")
    if not records or len(records[0]) > KEY_LIMIT:
        raise PermanentFailure("no key")
    key = parse_public_key(base64.b64decode(parse_tag_value(records[0])[b"p"]))
    if key["modulus"].bit_length() not in KEY_BITS or key["publicExponent"] > EXPONENT_LIMIT:
        raise PermanentFailure("a key of no use")
    return records[0]


@cache
def _silent() -> logging.Logger:
    """Return a logger that says nothing: dkimpy logs what stands in mails."""
    logger = logging.getLogger("contactd.dkim")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)
    return logger


# DMARC


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A DMARC record; `asked` is "" without one."""

    asked: str = ""
    strict_dkim: bool = False
    strict_spf: bool = False


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()  # its own copy: nothing is fetched


def organization(domain: str) -> str:
    """Return the organizational domain (RFC 7489 section 3.2); the domain itself if it is none."""
    return _suffixes().privatesuffix(domain) or domain


def domain_of(address: str) -> str:
    """Return the domain of an address, lower-case and as DNS has it; "" if it has none."""
    domain = address.rpartition("@")[2].strip().rstrip(".").lower()
    try:
        return domain.encode("ascii" if domain.isascii() else "idna").decode()
    except UnicodeError:
        return ""


def policy_of(domain: str, resolve: Resolve) -> Policy:
    """Find the policy of a domain, or of its organization (RFC 7489 section 6.6.3).

    Raises:
        TemporaryFailure: nobody can say now.
    """
    parent = organization(domain)
    for name in dict.fromkeys([domain, parent]):
        records = [
            record.decode("ascii", "replace")
            for record in resolve(f"_dmarc.{name}", "TXT")
            if re.match(rb"v[ \t]*=[ \t]*DMARC1[ \t]*(;|$)", record)
        ]
        if len(records) == 1:
            return _policy(records[0], is_own=name == domain)
        if records:  # several are none (step 5)
            return Policy()
    return Policy()


def _policy(record: str, *, is_own: bool) -> Policy:
    pairs = [term.partition("=") for term in record.split(";")]
    tags = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
    asked = tags.get("p", "")
    if not is_own:
        asked = tags.get("sp", asked)
    if asked not in _POLICIES:
        asked = "none" if tags.get("rua") else ""  # step 6
    return Policy(
        asked=asked, strict_dkim=tags.get("adkim") == "s", strict_spf=tags.get("aspf") == "s"
    )


def _aligns(domain: str, author: str, *, strict: bool) -> bool:
    if strict:
        return domain == author
    return organization(domain) == organization(author)


# All three


def judge(source: Source, origin: Origin, author: str, resolve: Resolve) -> Verdict:
    """Return what there is to say of a mail. `author` is the address that it shows as its sender.

    The address is given, not read here: what is shown and what is judged can never differ.
    """
    spf, spf_domain = _spf(origin, resolve)
    signed, domains = dkim_result(source, resolve)
    from_domain = domain_of(author)
    policy = _policy_or_none(from_domain, resolve)
    strict_spf, strict_dkim = (policy.strict_spf, policy.strict_dkim) if policy else (False, False)
    by_spf = spf == "pass" and _aligns(spf_domain, from_domain, strict=strict_spf)
    by_dkim = any(_aligns(each, from_domain, strict=strict_dkim) for each in domains)
    aligned = bool(from_domain) and (by_spf or by_dkim)
    return Verdict(
        spf=spf,
        dkim=signed,
        dkim_domains=domains,
        dmarc=_dmarc(policy, aligned=aligned, unsure="temperror" in {spf, signed}),
        policy=policy.asked if policy else "",
        from_domain=from_domain,
        aligned=aligned,
    )


def _policy_or_none(domain: str, resolve: Resolve) -> Policy | None:
    """Return the policy; None: nobody can say now."""
    try:
        return policy_of(domain, resolve) if domain else Policy()
    except TemporaryFailure:
        return None


def _dmarc(policy: Policy | None, *, aligned: bool, unsure: bool) -> str:
    if policy is None:
        return "temperror"
    if not policy.asked:
        return "none"
    if aligned:
        return "pass"
    return "temperror" if unsure else "fail"


def _spf(origin: Origin, resolve: Resolve) -> tuple[str, str]:
    """Return the result, and the domain it is about; a relay of ours is nobody's sender."""
    try:
        if ipaddress.ip_address(origin.peer).is_loopback:
            return "none", ""
    except ValueError:  # a socket in the file system
        return "none", ""
    domain = domain_of(origin.reverse_path or origin.helo)
    return spf_result(origin.peer, origin.helo, origin.reverse_path, resolve), domain


# DNS


class Nameserver:
    """Asks `address`: 192.0.2.1, 192.0.2.1:5353, 2001:db8::1, [::1]:53, or "system" (whom this
    machine asks). What was answered is remembered as long as it says.

    Raises:
        ValueError: it is no address.
    """

    def __init__(self, address: str) -> None:
        self._resolver = dns.resolver.Resolver(configure=address == "system")
        if address != "system":
            host, port = _host_and_port(address)
            self._resolver.nameservers = [host]
            self._resolver.port = port
        self._resolver.cache = dns.resolver.LRUCache(_CACHED)
        self._resolver.timeout = _TRY_S

    def within(self, verdict_s: float) -> "Questions":
        return Questions(self._resolver, verdict_s)


def _host_and_port(address: str) -> tuple[str, int]:
    with suppress(ValueError):
        return str(ipaddress.ip_address(address)), DNS_PORT
    found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::(\d+))?|([0-9.]+):(\d+)", address)
    if found is None:
        raise ValueError(f"{address!r} is not an IP address, with or without a port")
    host = str(ipaddress.ip_address(found[1] or found[3]))
    return host, int(found[2] or found[4] or DNS_PORT)


class Questions:
    """The questions of one mail, which share a deadline: a `Resolve`."""

    def __init__(self, resolver: dns.resolver.Resolver, verdict_s: float) -> None:
        self._resolver = resolver
        self._probe_s = verdict_s * _PROBE_SHARE
        self._until = time.monotonic() + verdict_s * QUESTIONS_SHARE
        self.is_answered = False
        self.is_unanswered = False

    def __call__(self, name: str, kind: str) -> Sequence[bytes]:
        """Return the data of the records `name` has of this kind.

        Raises:
            TemporaryFailure: there is no answer in time, or it is that of a broken server.
        """
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TemporaryFailure("no time is left for DNS")
        try:
            answer = self._resolver.resolve(
                f"{name.rstrip('.')}.", kind, lifetime=left_s, raise_on_no_answer=False
            )
        except dns.exception.Timeout:
            self.is_unanswered = True
            raise TemporaryFailure("no answer from DNS") from None
        except dns.resolver.NXDOMAIN:
            self.is_answered = True
            return ()
        except dns.resolver.NoNameservers as failure:
            # Each with its response, if there was one: a closed port gives none.
            is_there = any(error[-1] is not None for error in failure.kwargs["errors"])
            self.is_answered |= is_there
            self.is_unanswered |= not is_there
            raise TemporaryFailure("DNS is broken there") from None
        except (dns.exception.DNSException, UnicodeError):
            return ()  # it is no name that DNS could have
        self.is_answered = True
        return [_data(kind, record) for record in answer.rrset or ()]

    def is_reachable(self) -> bool:
        """Say whether the name server is there; asks it what it knows if nothing has shown it."""
        if self.is_answered or not self.is_unanswered:
            return True
        self._until = time.monotonic() + self._probe_s
        with suppress(TemporaryFailure):
            self("", "NS")
        return self.is_answered


def _data(kind: str, record: Any) -> bytes:
    """Return one record's data in the form of `Resolve`."""
    if kind == "TXT":
        return b"".join(record.strings)
    text: str = record.to_text()
    return text.rstrip(".").encode("ascii", "replace")


# The process


def serve_verdicts() -> int:
    """Judge mails until there is nobody who asks, many at a time; answers come in any order."""
    source = sys.stdin.buffer
    orders: Orders = adapter(Orders).validate_json(read_frame(source))
    limit_process(orders)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    nameserver = Nameserver(orders.nameserver)
    _suffixes()
    threading.stack_size(_STACK_BYTES)
    turn = threading.Lock()
    write_frame(sys.stdout.buffer, b"")

    def work(content: bytes) -> None:
        told = adapter(Judged).dump_json(
            judged(adapter(Judgement).validate_json(content), nameserver.within(orders.verdict_s))
        )
        with turn:
            write_frame(sys.stdout.buffer, told)

    workers = ThreadPoolExecutor(AT_ONCE)
    try:
        while True:
            workers.submit(work, read_frame(source))
    except EOFError:
        os._exit(os.EX_OK)  # threads may be waiting for answers that nobody wants any more


def judged(wanted: Judgement, questions: Questions) -> Judged:
    """Judge one mail; what goes wrong on the way is a temporary error of all three."""
    try:
        source = Source.of_file(Path(wanted.path), wanted.offset, wanted.length)
        verdict = judge(source, wanted.origin, wanted.author, questions)
    except Exception:
        verdict = unsure(wanted.author)
    return Judged(number=wanted.number, verdict=verdict, is_reachable=questions.is_reachable())
