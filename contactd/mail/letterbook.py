"""The words of mails in force: those edited on the web, else those of the file.

Whoever sends mails holds `letters`, which say what is newest as soon as it was read here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import tomlkit

from contactd.errors import ConfigurationError
from contactd.log import get_logger
from contactd.mail.templates import Letters, parse, preview, read_letters
from contactd.routing.deskedit import Stale, fingerprint
from contactd.routing.notify import Reason
from contactd.routing.words import Letter, Wording
from contactd.service import Health
from contactd.store.deskversions import DeskVersions, Kind, Wish

log = get_logger()

KINDS: Final = ("sentence", "answer", "subject")
TRIES: Final = 4


class Letterbook:
    """Reads the words once the database is open, and changes them one letter at a time."""

    name = "letters"

    def __init__(self, versions: DeskVersions, file: Path | None, *, service: str) -> None:
        self._versions = versions
        self._service = service
        self._file = file
        self._words: dict[tuple[Reason, str], Wording] = dict(read_letters(file).wordings)
        self.letters = Letters(wordings=self._words)  # shared with whoever sends mails

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        text, number = await self.current()
        if number:
            self._take(text)
        yield

    def health(self) -> list[Health]:
        return []

    async def current(self) -> tuple[str, int]:
        """Return the words as text, and their version; 0 is the file.

        Raises:
            TemporaryFailure: the database is away.
        """
        newest = await self._versions.newest(Kind.LETTERS)
        if newest is not None:
            return newest.text, newest.number
        return self._file.read_text(encoding="utf-8") if self._file else "", 0

    def wording(self, text: str, reason: Reason, language: str) -> dict[str, str]:
        """Return what the installation says in a letter, by kind; what is missing is ours."""
        table: Any = tomlkit.parse(text).unwrap().get(reason, {}).get(language, {})
        return dict(table)

    def preview(self, text: str, reason: Reason, language: str) -> Letter:
        """Return a letter about a ticket that there never was.

        Raises:
            ConfigurationError: what is wrong with the words, in a line each.
        """
        return preview(reason, language, parse(text), service=self._service)

    def edited(
        self, text: str, reason: Reason, language: str, words: dict[str, str], was: str
    ) -> str:
        """Return the text with other words for one letter; none at all are ours again.

        Raises:
            Stale: somebody else has changed this letter.
        """
        if was != fingerprint(self.wording(text, reason, language)):
            raise Stale("somebody else has changed this letter meanwhile")
        document = tomlkit.parse(text)
        languages: Any = document.setdefault(reason.value, tomlkit.table(is_super_table=True))
        if words:
            languages[language] = words
        elif language in languages:
            del languages[language]
        if not languages:
            del document[reason.value]
        return tomlkit.dumps(document)

    async def save(
        self, reason: Reason, language: str, words: dict[str, str], *, was: str, actor: str
    ) -> int:
        """Store other words for one letter and use them from now on; return the version.

        Raises:
            ConfigurationError: what is wrong with the words, in a line each.
            Stale: somebody else has changed this letter.
            TemporaryFailure: nothing was stored.
        """
        for left in reversed(range(TRIES)):
            before, base = await self.current()
            text = self.edited(before, reason, language, words, was)
            parse(text)
            act = {"letter": f"{reason}.{language}"}
            wish = Wish(text=text, base=base, actor=actor, action="letters.changed", act=act)
            try:
                number = await self._versions.save_letters(wish)
            except Stale:
                if not left:
                    raise
                continue
            self._take(text)
            return number
        raise AssertionError("the last try returns or raises")

    def _take(self, text: str) -> None:
        try:
            words = parse(text).wordings
        except ConfigurationError as error:  # of an older contactd: ours are better than none
            log.warning("letters.unusable", error=str(error))
            return
        self._words.clear()
        self._words.update(words)
