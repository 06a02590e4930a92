"""flufl.bounce (GNU Mailman): the addresses a bounce names, and whether for good."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.corpus import words
from bench.corpus.generic import definite
from bench.corpus.marks import Case, Judgement, MailSet, Rate, SetReader, judgement
from contactd.mail.parsed import Kind, Parsed


def recognises(folder: Path) -> bool:
    return folder.name == "flufl.bounce" and (folder / "expected.json").is_file()


def read(folder: Path) -> MailSet:
    facts = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    paths = (path for path in sorted((folder / "data").iterdir()) if path.is_file())
    return MailSet(
        name="flufl.bounce",
        cases=[_case(path, facts.get(path.name)) for path in paths],
        rates=(
            Rate("expected", "addresses and permanence", 110 / 113),
            Rate("addresses", "addresses"),
            Rate("kind", "seen as a bounce"),
        ),
    )


def _case(path: Path, expected: Mapping[str, Any] | None) -> Case:
    def judge(mail: Parsed) -> Judgement:
        return definite(mail) if expected is None else compare(mail, expected)

    return Case(name=path.name, raw=path.read_bytes(), judge=judge)


def compare(mail: Parsed, expected: Mapping[str, Any]) -> Judgement:
    """Return `near` if the addresses are right and only what became of them is not."""
    wanted = {address.lower() for address in expected["failed"]}
    failed = mail.bounce.recipients if mail.bounce else ()
    found = {one.address.lower() for one in failed}
    wrong, near = [], []
    if found != wanted:
        wrong.append(f"failed {words.listed(found)}, not {words.listed(wanted)}")
    is_permanent = expected["kind"] == "permanent"
    if any(one.permanent is not is_permanent for one in failed):
        near.append(f"not {expected['kind']}: {words.listed(one.status for one in failed)}")
    if mail.kind is not Kind.BOUNCE:
        near.append(f"kind {mail.kind}")
    facts = {
        "expected": not wrong and not near,
        "addresses": found == wanted,
        "kind": mail.kind is Kind.BOUNCE,
    }
    return judgement(wrong, near, facts)


SET: Final = SetReader(recognises, read)
