"""Which of Aliyun's reviewed templates stands for which message: a TOML file, checked (pure).

Each reason and language may have a table; what has none is not sent by Aliyun. A parameter is text
with the places of `words.PLACES`. `etc/aliyun-templates.toml` is a sample.

    [received.zh]
    code = "SMS_123456789"
    params.ticket = "{ticket}"
    params.site = "{site}"
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Final

from contactd.errors import ConfigurationError
from contactd.routing.notify import Notification, Reason
from contactd.routing.words import PLACES, Setting, Wording, letter

LANGUAGES: Final = ("zh", "en")
# "单个变量的长度限制为1~35个字符": help.aliyun.com/document_detail/108088.html.
LONGEST_PARAMETER: Final = 35
LONGEST_WORDS: Final = 200  # of a parameter in the file, with its places
NOTHING: Final = "-"  # a parameter must not be empty
_KNOWN: Final = PLACES - {"send"}
_CODE: Final = re.compile(r"SMS_[0-9]{1,20}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
# The signature stands in such brackets; in a template they are refused: document_detail/463270.
_BRACKETS: Final = str.maketrans("【】", "[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template's code, and what its parameters are filled with."""

    code: str
    params: Mapping[str, str]

    def filled(self, notification: Notification) -> dict[str, str]:
        """Return the parameters of one message, each as short as a parameter has to be."""
        return {name: _filled(words, notification) for name, words in self.params.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The installation's templates, by reason and language."""

    known: Mapping[tuple[Reason, str], Template] = field(default_factory=dict)

    def of(self, notification: Notification) -> Template | None:
        language = "zh" if notification.language.startswith("zh") else "en"
        return self.known.get((notification.reason, language))


def parse(text: str) -> Templates:
    """Return the templates of a file's text.

    Raises:
        ConfigurationError: what is wrong, in a line each, with its key or its line.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(str(error)) from error
    wrong: list[str] = []
    known: dict[tuple[Reason, str], Template] = {}
    for reason, language, table in _tables(tables, wrong):
        faults = _faults(f"{reason}.{language}", table)
        wrong += faults
        if not faults:
            known[reason, language] = Template(code=table["code"], params=table.get("params", {}))
    if not tables:
        wrong.append("there is no template in it")
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return Templates(known=known)


def _filled(words: str, notification: Notification) -> str:
    # The first line of a mail whose sentence these words are: each place has a mail's words.
    said = letter(notification, Setting(service="", wording=Wording(sentence=words)))
    value = " ".join(said.text.partition("\n")[0].translate(_BRACKETS).split())
    return value[:LONGEST_PARAMETER].rstrip() or NOTHING


def _tables(tables: Any, wrong: list[str]) -> list[tuple[Reason, str, dict[str, Any]]]:
    """Return each reason's tables; what is none goes to `wrong`."""
    found = []
    for name, languages in tables.items():
        if name not in set(Reason):
            wrong.append(f"{name}: no such message; there are {', '.join(sorted(Reason))}")
        elif not isinstance(languages, dict) or not languages:
            wrong.append(f"{name}: must be a table for each language: [{name}.zh], [{name}.en]")
        else:
            for language, table in languages.items():
                if language not in LANGUAGES or not isinstance(table, dict):
                    wrong.append(f"{name}.{language}: must be the table [{name}.zh] or [{name}.en]")
                else:
                    found.append((Reason(name), language, table))
    return found


def _faults(key: str, table: Mapping[str, Any]) -> list[str]:
    found = [
        f"{key}.{name}: unknown; there are code and params"
        for name in table
        if name not in ("code", "params")
    ]
    code, params = table.get("code"), table.get("params", {})
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        found.append(f"{key}.code: must be the template's code, e.g. SMS_123456789")
    if not isinstance(params, dict):
        return [*found, f'{key}.params: must be a table: params.ticket = "{{ticket}}"']
    for name, words in params.items():
        if fault := _fault(name, words):
            found.append(f"{key}.params.{name}: {fault}")
    # A reply can be tied to one of several texts by nothing else: see `routing.words`.
    if not any("{ticket}" in str(words) for words in params.values()):
        found.append(f"{key}.params: {{ticket}} is missing")
    return found


def _fault(name: str, words: Any) -> str:
    """Return what is wrong with one parameter, "" if nothing is."""
    if not _NAME.fullmatch(name):
        return "a parameter's name has letters, digits and _"
    if not isinstance(words, str) or not words.strip() or not words.isprintable():
        return "must be text on one line"
    if len(words) > LONGEST_WORDS:
        return f"must not be longer than {LONGEST_WORDS} characters"
    try:
        parts = [part[1:] for part in Formatter().parse(words) if part[1] is not None]
    except ValueError as error:
        return f"{error}; a brace itself is written {{{{ or }}}}"
    if unknown := sorted({str(place) for place, _, _ in parts} - _KNOWN):
        known = ", ".join(f"{{{place}}}" for place in sorted(_KNOWN))
        return f"unknown place {{{unknown[0]}}}; there are {known}"
    if any(form or conversion is not None for _, form, conversion in parts):
        return "a place is a name in braces and nothing else"
    return ""
