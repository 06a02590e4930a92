"""sisimai's set of emails: bounces, vacation notes, feedback reports, and mails that are none.

It says how many recipients failed and with which status, but not who: an address counts as right
if the mail itself names it where machines do (Final-Recipient and its friends) or in the To of the
mail that came back, or, in a mail without such fields, anywhere but in its own From and To.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path
from typing import Any, Final

from bench.corpus import words
from bench.corpus.marks import Case, Judgement, MailSet, Rate, SetReader, judgement
from contactd.mail.parsed import Failed, Kind, Parsed

# What a reason of sisimai's makes of a mail; every other reason is a bounce.
KINDS: Final[Mapping[str, frozenset[Kind]]] = {
    "vacation": frozenset({Kind.AUTO_REPLY}),
    "feedback": frozenset({Kind.REPORT}),
    "delivered": frozenset({Kind.RECEIPT, Kind.BOUNCE}),
}
BOUNCE: Final = frozenset({Kind.BOUNCE})
_NAMED: Final = re.compile(
    rb"(?im)^[ \t>]*(?:Final-Recipient|Original-Recipient|X-Actual-Recipient|X-Failed-Recipients"
    rb"|X-Original-Recipient)[ \t]*:(.*(?:\r?\n[ \t].*)*)"
)
_TO: Final = re.compile(rb"(?im)^[ \t>]*To[ \t]*:(.*(?:\r?\n[ \t].*)*)")
_ADDRESS: Final = re.compile(rb"[^\s<>;:,\"'()\[\]]+@[^\s<>;:,\"'()\[\]]+")


def recognises(folder: Path) -> bool:
    return folder.name == "sisimai" and (folder / "expected.json").is_file()


def read(folder: Path) -> MailSet:
    facts = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    paths = sorted((folder / "maildir").glob("*/*.eml"))
    return MailSet(
        name="sisimai",
        cases=[_case(path, facts.get(path.name, ())) for path in paths],
        rates=(
            Rate("machine", "machine mail seen", 0.99),
            Rate("recipient", "failed recipients", 0.95),
            Rate("kind", "exact kind"),
            Rate("status", "status or its class"),
            Rate("exact_status", "status to the letter"),
            Rate("not_bounce", "no bounce, and not taken for one"),
        ),
        remark="it names no addresses: one counts as right where the mail itself names it",
    )


def _case(path: Path, expected: Sequence[Mapping[str, Any]]) -> Case:
    raw, folder = path.read_bytes(), path.parent.name

    def judge(mail: Parsed) -> Judgement:
        if folder == "not":
            return compare_other(mail)
        if not expected:
            return compare_unknown(mail, folder == "err")
        return compare(mail, expected, raw)

    return Case(name=f"{folder}/{path.name}", raw=raw, judge=judge)


def compare_other(mail: Parsed) -> Judgement:
    """Judge a mail that is no bounce."""
    is_bounce = mail.kind is Kind.BOUNCE
    return judgement(
        ["taken for a bounce"] if is_bounce else [], facts={"not_bounce": not is_bounce}
    )


def compare_unknown(mail: Parsed, is_odd: bool) -> Judgement:
    """Judge a bounce nobody says anything of; the odd ones may be something else."""
    is_machine = mail.kind is not Kind.PERSON
    missed = () if is_machine else ("taken for a person's",)
    if is_odd:
        return judgement((), missed)
    return judgement(missed, facts={"machine": is_machine})


def compare(mail: Parsed, expected: Sequence[Mapping[str, Any]], raw: bytes) -> Judgement:
    reason = expected[0]["reason"]
    kinds = KINDS.get(reason, BOUNCE)
    facts = {"machine": mail.kind is not Kind.PERSON, "kind": mail.kind in kinds}
    wrong = [] if facts["machine"] else ["taken for a person's"]
    near = [] if facts["kind"] or wrong else [f"kind {mail.kind}, not {words.listed(kinds)}"]
    if kinds is not BOUNCE:
        return judgement(wrong, near, facts)
    failed = mail.bounce.recipients if mail.bounce else ()
    differences = _recipients(failed, len(expected), raw)
    statuses = [one["dsn"] for one in expected]
    facts |= {
        "recipient": not differences,
        "status": _agree(failed, statuses, _loosely),
        "exact_status": _agree(failed, statuses, str),
    }
    if not facts["status"]:
        found = words.listed(one.status or "none" for one in failed)
        near.append(f"status {found}, not {words.listed(statuses)} ({reason})")
    return judgement([*wrong, *differences], near, facts)


def _recipients(failed: Sequence[Failed], count: int, raw: bytes) -> list[str]:
    found = {one.address.lower() for one in failed if one.address}
    if not found:
        return ["no failed recipient found"]
    named = _named(raw)
    strangers = found - named - _returned_to(raw) if named else found & _own(raw)
    if len(found) != count:
        return [f"{count} recipients failed, found {words.listed(found)}"]
    return [f"not named as failed: {words.listed(strangers)}"] if strangers else []


def _named(raw: bytes) -> set[str]:
    """Return the addresses in fields that name failed recipients."""
    fields = (match.group(1) for match in _NAMED.finditer(raw))
    return set(_addresses(b" ".join(fields)))


def _returned_to(raw: bytes) -> set[str]:
    """Return the addresses in the To fields below the bounce's own header."""
    body = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)[-1]
    return set(_addresses(b" ".join(match.group(1) for match in _TO.finditer(body))))


def _own(raw: bytes) -> set[str]:
    """Return whom the bounce itself comes from and goes to."""
    message = message_from_bytes(raw)
    fields = [str(value) for name in ("From", "To") for value in message.get_all(name, [])]
    return {address.lower() for _, address in getaddresses(fields)}


def _addresses(content: bytes) -> Iterable[str]:
    return (found.decode("latin-1").lower().rstrip(".") for found in _ADDRESS.findall(content))


def _agree(failed: Sequence[Failed], expected: Sequence[str], seen_as: Any) -> bool:
    """Tell whether the statuses are the same, in any order; "" expects nothing."""
    wanted = sorted(seen_as(status) for status in expected if status)
    if not wanted:
        return True
    found = sorted(seen_as(one.status) for one in failed if one.status)
    return found == wanted


def _loosely(status: str) -> str:
    return status[:1]


SET: Final = SetReader(recognises, read)
