"""Words of mails that an installation writes itself: a TOML file, checked, and shown in advance.

Each reason and language may have a table; what a table does not say stays as `routing.words` has
it. `etc/letters.toml` is a sample with every place that may be named.

    [solved.zh]
    sentence = "{name}您好，您的工单{ticket}已处理完毕{of}。"
    subject = "请确认：{title}"
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Any, Final

from contactd.errors import ConfigurationError
from contactd.routing.notify import REQUESTER, Notification, Reason
from contactd.routing.words import PLACES, Letter, Setting, Wording, letter
from contactd.tickets.contact import Medium

LANGUAGES: Final = ("zh", "en")
LONGEST: Final = 1000  # characters of one sentence
_KINDS: Final = tuple(each.name for each in fields(Wording))
# A subject has the number in front by itself.
_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "sentence": frozenset({"ticket"}),
    "answer": frozenset({"ticket"}),
    "subject": frozenset(),
}
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "sentence": PLACES - {"send"},
    "answer": frozenset({"ticket", "send"}),
    "subject": PLACES - {"send"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """The installation's own words, by reason and language."""

    wordings: Mapping[tuple[Reason, str], Wording] = field(default_factory=dict)

    def wording(self, reason: Reason, language: str) -> Wording:
        language = "zh" if language.startswith("zh") else "en"
        return self.wordings.get((reason, language), Wording())


def read_letters(path: Path | None) -> Letters:
    """Return what the file says; without one every mail has our words.

    Raises:
        ConfigurationError: it cannot be read, or something in it is wrong: each in a line.
    """
    if path is None:
        return Letters()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"mail.letters_file: {path}: {error}") from error
    except ConfigurationError as error:
        lines = [f"mail.letters_file: {path}: {line}" for line in str(error).splitlines()]
        raise ConfigurationError("\n".join(lines)) from error


def parse(text: str) -> Letters:
    """Return the words of a file's text.

    Raises:
        ConfigurationError: what is wrong, in a line each, with its key or its line.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(str(error)) from error
    wrong: list[str] = []
    found: dict[tuple[Reason, str], Wording] = {}
    for reason, language, table in _tables(tables, wrong):
        key = f"{reason}.{language}"
        faults = _faults(key, table)
        wrong += faults
        if not faults:
            found[reason, language] = Wording(**table)
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return Letters(wordings=found)


def _tables(tables: Any, wrong: list[str]) -> list[tuple[Reason, str, dict[str, Any]]]:
    """Return each reason's tables; what is none goes to `wrong`."""
    found = []
    for name, languages in tables.items():
        if name not in set(Reason):
            wrong.append(f"{name}: no such letter; there are {', '.join(sorted(Reason))}")
        elif not isinstance(languages, dict):
            wrong.append(f"{name}: must be a table for each language: [{name}.zh], [{name}.en]")
        else:
            for language, table in languages.items():
                if language not in LANGUAGES or not isinstance(table, dict):
                    wrong.append(f"{name}.{language}: must be the table [{name}.zh] or [{name}.en]")
                else:
                    found.append((Reason(name), language, table))
    return found


def _faults(key: str, table: Mapping[str, Any]) -> list[str]:
    found = []
    for kind, words in table.items():
        if kind not in _KINDS:
            found.append(f"{key}.{kind}: unknown; there are {', '.join(_KINDS)}")
        elif fault := _fault(kind, words):
            found.append(f"{key}.{kind}: {fault}")
    return found


def _fault(kind: str, words: Any) -> str:
    """Return what is wrong with one sentence, "" if nothing is."""
    if not isinstance(words, str) or not words.strip() or not words.isprintable():
        return "must be text on one line"
    if len(words) > LONGEST:
        return f"must not be longer than {LONGEST} characters"
    try:
        parts = [part[1:] for part in Formatter().parse(words) if part[1] is not None]
    except ValueError as error:
        return f"{error}; a brace itself is written {{{{ or }}}}"
    places = {str(name) for name, _, _ in parts}
    # No format, no attribute: `{ticket.__class__}` and `{ticket:9999999}` are nobody's words.
    plain = all(not form and conversion is None for _, form, conversion in parts)
    if unknown := sorted(places - _KNOWN[kind]):
        known = ", ".join(f"{{{name}}}" for name in sorted(_KNOWN[kind]))
        return f"unknown place {{{unknown[0]}}}; there are {known}"
    if not plain:
        return "a place is a name in braces and nothing else"
    if missing := sorted(_NEEDS[kind] - places):
        return f"{{{missing[0]}}} is missing"
    return ""


# Shown in advance


_SAMPLES: Final[Mapping[str, Mapping[str, str]]] = {
    "zh": {
        "name": "张三", "site_name": "广州珠江新城", "title": "收银机打不开", "engineer": "王伟",
        "note": "备件明天上午到",
    },
    "en": {
        "name": "Zhang San", "site_name": "Guangzhou", "title": "The till does not start",
        "engineer": "Wang Wei", "note": "the spare part comes tomorrow morning",
    },
}  # fmt: skip
_FOR_REQUESTER: Final = frozenset(
    {
        Reason.RECEIVED, Reason.PROGRESS, Reason.HEARD, Reason.CODE, Reason.SOLVED,
        Reason.REMINDER, Reason.CLOSED, Reason.REMOTE,
    }
)  # fmt: skip


def preview(
    reason: Reason, language: str, letters: Letters, *, service: str = "contactd"
) -> Letter:
    """Return a mail as somebody would get it about a ticket that there never was."""
    sample = _SAMPLES["zh" if language.startswith("zh") else "en"]
    facts = {name: value for name, value in sample.items() if name != "name"} | {
        "vip": "" if reason in _FOR_REQUESTER else "1", "priority": "P2", "code": "4711",
        "stage": "taken", "zone": "Asia/Shanghai",
    }  # fmt: skip
    if reason in (Reason.WARNING, Reason.BREACH):
        facts |= {"metric": "arrival", "percent": "75", "due": "2026-11-22T10:30:00+00:00"}
    if reason is Reason.REMOTE:
        facts |= {"link": "https://desk.example.cn/s/012345678", "minutes": "10"}
    to_requester = reason in _FOR_REQUESTER
    notification = Notification(
        ref="preview", ticket="26112200172", recipient=REQUESTER if to_requester else "wang",
        name=sample["name" if to_requester else "engineer"], medium=Medium.MAIL,
        address="somebody@example.cn", language=language, reason=reason, facts=facts,
    )  # fmt: skip
    setting = Setting(
        service=service,
        link="https://desk.example.cn/m/preview",
        can_reply=True,
        subject=sample["title"],
        wording=letters.wording(reason, language),
    )
    return letter(notification, setting)
