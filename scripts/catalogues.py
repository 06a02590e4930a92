# ruff: noqa: INP001 - a script, not a package
"""Bring the catalogues up to date with the texts in contactd/web, and report what lacks words.

    python scripts/catalogues.py       rewrites contactd/web/locale/*/LC_MESSAGES/contactd.po

English needs no translator: the message ids are English, and are filled in. New Chinese entries
are left empty and listed; the exit code is then 1.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

WEB = Path(__file__).parent.parent / "contactd" / "web"
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
OPTIONS = {"templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true"}}
KEYWORDS = {"N_": None, "_": None, "gettext": None, "ngettext": (1, 2)}
# Without a date: running this twice changes nothing.
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)


def extracted() -> Catalog:
    """Return every text of the pages, as a template without translations."""
    template = Catalog(project="contactd", charset="utf-8", fuzzy=False, creation_date=EPOCH)
    found = extract_from_dir(str(WEB), METHODS, OPTIONS, KEYWORDS)
    for name, _line, message, comments, context in found:
        template.add(message, None, [(name, 0)], auto_comments=comments, context=context)
    return template


def catalogue(language: str) -> Path:
    return WEB / "locale" / language / "LC_MESSAGES" / "contactd.po"


def updated(language: str, template: Catalog) -> Catalog:
    path = catalogue(language)
    before = Catalog()
    if path.exists():
        with path.open("rb") as file:
            before = read_po(file)
    after = Catalog(
        locale=language, project="contactd", charset="utf-8", fuzzy=False,
        creation_date=EPOCH, revision_date=EPOCH, last_translator="contactd",
        language_team=language, msgid_bugs_address="-", version="0",
        header_comment="# Texts of contactd's pages; scripts/catalogues.py keeps the entries.",
    )  # fmt: skip
    for message in template:
        if not message.id:
            continue
        known = before.get(message.id)
        words = known.string if known else ""
        if language == "en":
            words = message.id
        after.add(message.id, words, message.locations, auto_comments=message.auto_comments)
    return after


def main() -> int:
    template = extracted()
    missing = 0
    for language in ("zh", "en"):
        after = updated(language, template)
        path = catalogue(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, after, width=100, sort_output=True, include_lineno=False)
        for message in after:
            words = message.string
            if message.id and not all(words if isinstance(words, tuple | list) else (words,)):
                missing += 1
                sys.stderr.write(f"{path.name} ({language}): no words for {message.id!r}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
