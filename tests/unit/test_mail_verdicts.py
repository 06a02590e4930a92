"""SPF, DKIM and DMARC against zones of the test's own; hostile signatures cost little time."""

import base64
import hashlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import pytest

from contactd.errors import PermanentFailure
from contactd.mail import verdicts
from contactd.mail.parsed import Origin, Verdict
from contactd.mail.spf_check import spf_result
from contactd.mail.verdicts import Source, body_hash, dkim_result, domain_of, header_fields, judge
from tests.fakes.dns import Zone, ZoneFile

PEER = "198.51.100.7"
MAIL = (
    b"From: Li <li@example.cn>\r\nTo: desk@desk.example\r\nSubject: printer\r\n"
    b"Message-ID: <m1@example.cn>\r\n\r\nIt does  not print. \r\n\r\n\r\n"
)
Sign = Callable[..., bytes]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """Return a private key (PEM) and its public half as it stands in DNS."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    command = ["openssl", "genrsa", "-traditional", "-out", str(path), "1024"]
    subprocess.run(command, check=True, capture_output=True)
    public = ["openssl", "rsa", "-in", str(path), "-pubout", "-outform", "DER"]
    told = subprocess.run(public, check=True, capture_output=True).stdout
    return path.read_bytes(), f"v=DKIM1; k=rsa; p={base64.b64encode(told).decode()}"


@pytest.fixture
def sign(key: tuple[bytes, str]) -> Sign:
    def signed(raw: bytes = MAIL, domain: bytes = b"example.cn", **options: Any) -> bytes:
        options.setdefault("canonicalize", (b"relaxed", b"relaxed"))
        made: bytes = dkim.sign(raw, b"s1", domain, key[0], **options)
        return made + raw

    return signed


@pytest.fixture
def zone(key: tuple[bytes, str]) -> Zone:
    return {
        "example.cn": {"TXT": [f"v=spf1 ip4:{PEER} -all"]},
        "mail.example.cn": {"TXT": ["v=spf1 ip4:198.51.100.8 ~all"]},
        "s1._domainkey.example.cn": {"TXT": [key[1]]},
        "s1._domainkey.news.example.cn": {"TXT": [key[1]]},
        "s1._domainkey.other.example": {"TXT": [key[1]]},
        "_dmarc.example.cn": {"TXT": ["v=DMARC1; p=reject; sp=quarantine"]},
    }


def verdict(
    raw: bytes, zone: Zone, *, away: set[str] | None = None, author: str = "li@example.cn",
    reverse_path: str = "li@example.cn", peer: str = PEER,
) -> Verdict:  # fmt: skip
    origin = Origin(peer=peer, helo="mail.example.cn", reverse_path=reverse_path)
    return judge(Source.of_bytes(raw), origin, author, ZoneFile(zone, away or set()))


# SPF


SPF: list[tuple[str, str, str, str]] = [
    ("a@example.cn", PEER, "h.example", "pass"),
    ("a@example.cn", "192.0.2.1", "h.example", "fail"),
    ("a@example.cn", f"::ffff:{PEER}", "h.example", "pass"),
    ("a@mail.example.cn", "192.0.2.1", "h.example", "softfail"),
    ("a@nowhere.example", PEER, "h.example", "none"),
    ("a@twice.example", PEER, "h.example", "permerror"),
    ("a@loop.example", PEER, "h.example", "permerror"),
    ("a@away.example", PEER, "h.example", "temperror"),
    ("a@voids.example", PEER, "h.example", "permerror"),
    ("a@mx.example", PEER, "h.example", "pass"),
    ("a@ptr.example", PEER, "h.example", "pass"),
    ("a@six.example", "2001:db8::7", "h.example", "pass"),
    ("", PEER, "example.cn", "pass"),  # a bounce: by HELO
    ("", PEER, "[198.51.100.7]", "none"),
    ('"a@example.cn"@nowhere.example', PEER, "h.example", "none"),
    ("a@" + "x" * 300 + ".example", PEER, "h.example", "none"),
    ("a@b..example", PEER, "h.example", "none"),
    ("no-at-sign", PEER, "h.example", "none"),
    ("a@例子.cn", PEER, "h.example", "none"),
]
SPF_ZONE: Zone = {
    "twice.example": {"TXT": ["v=spf1 +all", "v=spf1 -all"]},
    "loop.example": {"TXT": ["v=spf1 include:loop2.example -all"]},
    "loop2.example": {"TXT": ["v=spf1 include:loop.example -all"]},
    "voids.example": {"TXT": ["v=spf1 a:n1.example a:n2.example a:n3.example +all"]},
    "mx.example": {"TXT": ["v=spf1 mx -all"], "MX": ["10 in.mx.example."]},
    "in.mx.example": {"A": [PEER]},
    "ptr.example": {"TXT": ["v=spf1 ptr -all"]},
    "7.100.51.198.in-addr.arpa": {"PTR": ["out.ptr.example"]},
    "out.ptr.example": {"A": [PEER]},
    "six.example": {"TXT": ["v=spf1 a//64 -all"], "AAAA": ["2001:db8::7"]},
}


@pytest.mark.parametrize(("sender", "peer", "helo", "result"), SPF)
def test_spf_says_who_may_send_for_a_domain(
    zone: Zone, sender: str, peer: str, helo: str, result: str
) -> None:
    resolve = ZoneFile({**zone, **SPF_ZONE}, {"away.example"})
    assert spf_result(peer, helo, sender, resolve) == result


def test_spf_asks_no_more_than_its_ten_questions() -> None:
    zone = {
        f"d{n}.example": {
            "TXT": [f"v=spf1 include:d{2 * n + 1}.example include:d{2 * n + 2}.example"]
        }
        for n in range(200)
    }
    resolve = ZoneFile(zone)
    assert spf_result(PEER, "h.example", "a@d0.example", resolve) == "permerror"
    assert len(resolve.asked) <= 12


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 " + "a:" * 8_000, "v=spf1 " + "%{d}" * 3_000,
        "v=spf1 exists:%{i" + "9" * 4_000 + "r}.x",
        "v=spf1 " + "." * 15_000, "v=spf1 ip6:" + ":" * 15_000, "v=spf1 a:" + "0-" * 7_000,
        "v=spf1 " + " " * 15_000 + "moo", "v=spf1 redirect=" + "a." * 7_000 + "b",
        "v=spf1 exp=" + "%{l1r+-/=}" * 1_500,
    ],
)  # fmt: skip
def test_a_hostile_spf_record_costs_little_time(record: str) -> None:
    began = time.process_time()
    spf_result(PEER, "h.example", "a@x.example", ZoneFile({"x.example": {"TXT": [record]}}))
    assert time.process_time() - began < 1


# DKIM


@pytest.mark.parametrize("header", [b"relaxed", b"simple"])
@pytest.mark.parametrize("body", [b"relaxed", b"simple"])
@pytest.mark.parametrize(
    "text",
    [b"", b"\r\n", b"\r\n\r\n\r\n", b"a", b"a\r\n", b"a \t \r\n\r\n \r\n", b" a\t\tb\r\n\r\nc\r\n",
     b"a\nb \n\n", b"\xff\x00 \r x\r\n", b" \r\n"],
)  # fmt: skip
def test_dkim_finds_good_what_dkimpy_has_signed(
    sign: Sign, zone: Zone, header: bytes, body: bytes, text: bytes
) -> None:
    head, _, _ = MAIL.partition(b"\r\n\r\n")
    raw = sign(head + b"\r\n\r\n" + text, canonicalize=(header, body))
    assert dkim_result(Source.of_bytes(raw), ZoneFile(zone)) == ("pass", ("example.cn",))


def test_dkim_finds_a_changed_body_and_a_changed_header(sign: Sign, zone: Zone) -> None:
    raw = sign()
    for changed in (raw.replace(b"print.", b"prink."), raw.replace(b": printer", b": nothing")):
        assert dkim_result(Source.of_bytes(changed), ZoneFile(zone)) == ("fail", ())
    relayed = raw.replace(b"does  not print. \r\n", b"does not   print.\r\n")  # relaxed
    assert dkim_result(Source.of_bytes(relayed), ZoneFile(zone))[0] == "pass"


def test_a_second_from_in_front_of_a_signed_mail_is_found(sign: Sign, zone: Zone) -> None:
    raw = b"From: boss@example.cn\r\n" + sign()
    assert dkim_result(Source.of_bytes(raw), ZoneFile(zone))[0] == "fail"


def test_one_good_signature_of_several_is_enough(sign: Sign, zone: Zone) -> None:
    raw = sign(sign(domain=b"other.example"), domain=b"gone.example")
    assert dkim_result(Source.of_bytes(raw), ZoneFile(zone)) == ("pass", ("other.example",))
    away = {"s1._domainkey.other.example"}
    assert dkim_result(Source.of_bytes(raw), ZoneFile(zone, away)) == ("temperror", ())


def _replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(old, new, 1)


MALFORMED: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("SHA-1", _replaced(b"rsa-sha256", b"rsa-sha1"), "permerror"),
    ("Ed25519 is not known here", _replaced(b"rsa-sha256", b"ed25519-sha256"), "neutral"),
    ("part of the body only", _replaced(b"v=1;", b"v=1; l=3;"), "neutral"),
    ("a date of 3,500 digits", _replaced(b"v=1;", b"v=1; x=" + b"9" * 3_500 + b";"), "fail"),
    ("From is not signed", lambda raw: re.sub(rb"\bfrom\b", b"date", raw), "permerror"),
    ("a tag twice", _replaced(b"v=1;", b"v=1; v=1;"), "permerror"),
    ("no equals sign", _replaced(b"v=1;", b"v;"), "permerror"),
    ("another version", _replaced(b"v=1;", b"v=2;"), "permerror"),
    ("expired", _replaced(b"v=1;", b"v=1; x=1000000000;"), "permerror"),
    ("a domain that is not ASCII", _replaced(b"d=example.cn", "d=例.cn".encode()), "permerror"),
    ("no key", _replaced(b"s=s1", b"s=s2"), "permerror"),
    ("a header that is none", _replaced(b"Subject: ", b"Subject "), "permerror"),
    ("another's domain", _replaced(b"i=@example.cn", b"i=@x.cn"), "permerror"),
]


@pytest.mark.parametrize(
    ("change", "result"), [each[1:] for each in MALFORMED], ids=[each[0] for each in MALFORMED]
)
def test_a_malformed_signature_proves_nothing(
    sign: Sign, zone: Zone, change: Callable[[bytes], bytes], result: str
) -> None:
    raw = sign(identity=b"@example.cn")
    changed = change(raw)
    assert changed != raw
    assert dkim_result(Source.of_bytes(changed), ZoneFile(zone)) == (result, ())


@pytest.mark.parametrize(
    "record",
    ["", "v=DKIM1; p=", "v=DKIM1; p=!!!!", "p=AAAA", "v=DKIM2; p=AAAA", "k=rsa; p=" + "A" * 9_000],
)  # fmt: skip
def test_a_key_of_no_use_proves_nothing(sign: Sign, zone: Zone, record: str) -> None:
    changed = {**zone, "s1._domainkey.example.cn": {"TXT": [record]}}
    assert dkim_result(Source.of_bytes(sign()), ZoneFile(changed)) == ("permerror", ())


SIGNATURE = "DKIM-Signature: v=1; a=rsa-sha256; d=example.cn; s=s1;"
MANY = ":".join(f"h{n}" for n in range(190))
HOSTILE: list[tuple[str, bytes]] = [
    ("4 MB of blanks in a line", MAIL + b" " * (4 << 20) + b"x"),
    ("a million line ends, then a word", MAIL + b"\r\n" * 1_000_000 + b"x"),
    ("a million words", MAIL + b"a " * 1_000_000),
    ("50,000 folds", b"X: y\r\n" + b" \r\n" * 50_000 + MAIL),
    ("100,000 headers", b"X: y\r\n" * 100_000 + MAIL),
    ("a header of 20 kB of quotes", b"From: " + b'"' * 20_000 + b"\r\n" + MAIL),
]


@pytest.mark.parametrize("raw", [each[1] for each in HOSTILE], ids=[each[0] for each in HOSTILE])
@pytest.mark.parametrize("canonical", ["relaxed/relaxed", "simple/simple"])
def test_a_hostile_mail_costs_little_time(zone: Zone, raw: bytes, canonical: str) -> None:
    """The signatures are none, but all but their last step has to be gone to see that."""
    digest = body_hash(Source.of_bytes(raw).body(), relaxed=canonical.endswith("relaxed"))
    one = (
        f"{SIGNATURE} c={canonical}; h=from:{MANY}; b=AAAA; bh={base64.b64encode(digest).decode()}"
    )
    began = time.process_time()
    dkim_result(Source.of_bytes(f"{one}\r\n".encode() * 5 + raw), ZoneFile(zone))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "tags",
    ["b=AAAA; h=from:" + ":".join(f"h{n}" for n in range(900)), "b" + " " * 4_000,
     "h=from" + " " * 3_000 + ":x; b=AAAA",
     "h=from; b=" + "/" * 400_000, "h=from; b=" + "A " * 1_500, "h=from; b=" + " \r\n b" * 700],
)  # fmt: skip
def test_a_hostile_signature_costs_little_time(zone: Zone, tags: str) -> None:
    digest = base64.b64encode(body_hash(Source.of_bytes(MAIL).body(), relaxed=False)).decode()
    one = f"{SIGNATURE} bh={digest}; {tags}\r\n"
    began = time.process_time()
    dkim_result(Source.of_bytes(one.encode() * 5 + MAIL), ZoneFile(zone))
    assert time.process_time() - began < 2


def test_a_body_in_pieces_has_the_same_hash(tmp_path: Path) -> None:
    body = b"a  b \r\n\r\n" * 50 + b"\r\n" * 5 + b"c\r\n\r\n\r\n"
    whole = body_hash(iter([body]), relaxed=True)
    for size in range(1, 30):
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        assert body_hash(pieces, relaxed=True) == whole
    text = b"a b\r\n\r\n" * 50 + b"\r\n" * 5 + b"c\r\n"
    assert hashlib.sha256(text).digest() == whole
    path = tmp_path / "segment"
    path.write_bytes(b"before" + MAIL + b"after")
    source = Source.of_file(path, len(b"before"), len(MAIL))
    assert (source.header, b"".join(source.body())) == (
        Source.of_bytes(MAIL).header, MAIL.partition(b"\r\n\r\n")[2]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "header", "body"),
    [(b"", b"", b""), (b"\r\nx", b"", b"x"), (b"A: b", b"A: b", b""),
     (b"A: b\n\nc", b"A: b\n", b"c")],
)  # fmt: skip
def test_where_a_header_ends(raw: bytes, header: bytes, body: bytes) -> None:
    source = Source.of_bytes(raw)
    assert (source.header, b"".join(source.body())) == (header, body)


def test_a_header_is_read_as_dkimpy_reads_it() -> None:
    header = b"A: b\r\n c\r\nD:e\nF : g\n\th\n"
    assert header_fields(header) == [
        [b"A", b" b\r\n c\r\n"], [b"D", b"e\r\n"], [b"F", b" g\r\n\th\r\n"]
    ]  # fmt: skip
    with pytest.raises(PermanentFailure):
        header_fields(b" folded from nothing\r\n")


# DMARC, and all together


def test_a_mail_from_where_it_says_passes_all_three(sign: Sign, zone: Zone) -> None:
    assert verdict(sign(), zone) == Verdict(
        spf="pass", dkim="pass", dkim_domains=("example.cn",), dmarc="pass", policy="reject",
        from_domain="example.cn", aligned=True,
    )  # fmt: skip


def test_either_spf_or_dkim_of_the_same_organization_is_enough(sign: Sign, zone: Zone) -> None:
    forwarded = verdict(sign(domain=b"news.example.cn"), zone, peer="192.0.2.1")
    assert (forwarded.spf, forwarded.dmarc, forwarded.aligned) == ("fail", "pass", True)
    unsigned = verdict(MAIL, zone, author="li@hr.example.cn")
    assert (unsigned.dkim, unsigned.dmarc, unsigned.policy) == ("none", "pass", "quarantine")


def test_a_good_mail_of_somebody_else_does_not_prove_the_sender(sign: Sign, zone: Zone) -> None:
    forged = {**zone, "evil.example": {"TXT": ["v=spf1 +all"]}}
    found = verdict(sign(domain=b"other.example"), forged, reverse_path="x@evil.example")
    assert (found.spf, found.dkim, found.dmarc, found.aligned) == ("pass", "pass", "fail", False)


def test_a_neighbour_below_a_public_suffix_is_a_stranger(sign: Sign, zone: Zone) -> None:
    shared = {**zone, "b.com.cn": {"TXT": ["v=spf1 +all"]}}
    found = verdict(MAIL, shared, author="li@a.com.cn", reverse_path="x@b.com.cn")
    assert (found.spf, found.aligned) == ("pass", False)


def test_strict_alignment_wants_the_very_domain(sign: Sign, zone: Zone) -> None:
    strict = {**zone, "_dmarc.example.cn": {"TXT": ["v=DMARC1; p=reject; adkim=s; aspf=s"]}}
    raw = sign(domain=b"news.example.cn")
    assert verdict(raw, strict, peer="192.0.2.1").dmarc == "fail"
    assert verdict(raw, strict).dmarc == "pass"  # by SPF
    assert verdict(raw, strict, author="li@hr.example.cn").dmarc == "fail"


def test_without_a_policy_the_sender_is_proven_all_the_same(zone: Zone) -> None:
    found = verdict(MAIL, {name: zone[name] for name in ("example.cn",)})
    assert (found.dmarc, found.policy, found.aligned) == ("none", "", True)


RECORDS: list[tuple[list[str], str, str]] = [
    (["v=DMARC1; p=none"], "none", "fail"),
    (["V=DMARC1; p=reject"], "", "none"),
    (["v=DMARC1;p=REJECT;"], "reject", "fail"),
    (["v=DMARC1; p=rubbish; rua=mailto:a@b.cn"], "none", "fail"),
    (["v=DMARC1; p=rubbish"], "", "none"),
    (["v=DMARC1; p=reject", "v=DMARC1; p=none"], "", "none"),
    (["other", "v=DMARC1; p=quarantine"], "quarantine", "fail"),
    (["v=DMARC10; p=reject"], "", "none"),
]


@pytest.mark.parametrize(("records", "policy", "result"), RECORDS)
def test_what_a_dmarc_record_says(zone: Zone, records: list[str], policy: str, result: str) -> None:
    changed = {**zone, "_dmarc.example.cn": {"TXT": records}}
    found = verdict(MAIL, changed, peer="192.0.2.1")
    assert (found.policy, found.dmarc) == (policy, result)


def test_who_cannot_be_asked_makes_it_a_temporary_error_and_not_a_failure(
    sign: Sign, zone: Zone
) -> None:
    found = verdict(sign(), zone, away={"_dmarc.example.cn"})
    assert (found.dmarc, found.aligned) == ("temperror", True)
    away = {"example.cn", "s1._domainkey.example.cn"}
    found = verdict(sign(), zone, away=away)
    assert (found.spf, found.dkim, found.dmarc) == ("temperror",) * 3
    assert not found.aligned


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "", "unix:/run/lmtp"])
def test_a_relay_of_ours_is_not_judged_as_the_sender(zone: Zone, peer: str) -> None:
    assert verdict(MAIL, zone, peer=peer).spf == "none"


def test_a_mail_without_a_sender_is_nobodys(sign: Sign, zone: Zone) -> None:
    found = verdict(sign(), zone, author="")
    assert (found.from_domain, found.dmarc, found.aligned) == ("", "none", False)


@pytest.mark.parametrize(
    ("address", "domain"),
    [("a@B.Example.", "b.example"), ("a@例子.cn", "xn--fsqu00a.cn"), ("", ""),
     ("a@" + "é" * 80, ""),
     ("a@x\u3002y", "x.y")],
)  # fmt: skip
def test_a_domain_as_dns_has_it(address: str, domain: str) -> None:
    assert domain_of(address) == domain


@pytest.mark.parametrize(
    ("address", "found"),
    [("192.0.2.1", ("192.0.2.1", 53)), ("192.0.2.1:5353", ("192.0.2.1", 5353)),
     ("[2001:db8::1]:53", ("2001:db8::1", 53)), ("[::1]", ("::1", 53)),
     ("2001:db8::1", ("2001:db8::1", 53))],
)  # fmt: skip
def test_how_a_name_server_is_named(address: str, found: tuple[str, int]) -> None:
    assert verdicts._host_and_port(address) == found
    with pytest.raises(ValueError, match="address"):
        verdicts._host_and_port(address + "x")
