"""A question to the user, as it stands open: one at a time, and silence is a no."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from contactd.remote.peers import Peer
from contactd.tickets import agreement
from contactd.tickets.remote import Purpose, Right
from contactd.tickets.sharing import Consent, Kind, SharedFile

SILENT_S: Final = 120.0  # no answer by then is a no
MOST_ASKS: Final = 40  # of one session while it is in memory: nobody is worn down by questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    yes: bool
    rights: frozenset[Right] = frozenset()


NO: Final = Answer(yes=False)


@dataclass(slots=True, kw_only=True, eq=False)
class Ask:
    """`answer` is None when the question was withdrawn: that is no answer and none is kept."""

    number: int
    kind: Kind
    user: str  # the log-in name of who wants it
    engineer: str  # their name as the user is told
    rights: frozenset[Right]
    purpose: Purpose = Purpose.HELP
    file: SharedFile | None = None
    by: Peer | None = None  # who showed it when it was answered
    answer: asyncio.Future[Answer | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def resolve(self, answer: Answer | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def message(self) -> dict[str, Any]:
        """Return the question as it goes to the user's helper or page."""
        told: dict[str, Any] = {
            "type": "ask", "ask": self.number, "kind": self.kind.value, "engineer": self.engineer,
            "rights": sorted(self.rights),
        }  # fmt: skip
        if self.file is not None:
            told["file"] = {"name": self.file.blob.name, "size": self.file.blob.size_bytes,
                            "number": self.file.number}  # fmt: skip
        return told

    def answered(self, by: Peer, *, yes: bool, rights: frozenset[Right]) -> None:
        """Take an answer; what was not asked for is not given."""
        self.by = by
        given = rights & self.rights if yes else frozenset[Right]()
        self.resolve(Answer(yes=yes, rights=given))

    def consent(self, answer: Answer, language: str) -> Consent:
        """Return what is kept of the answer: the hash is of the sentence that was shown."""
        version = agreement.CURRENT
        name = self.file.blob.name if self.file is not None else ""
        shown = agreement.question_of(
            version, language, self.kind.value, engineer=self.engineer, file=name
        )
        return Consent(
            kind=self.kind, user=self.user, engineer=self.engineer, purpose=self.purpose,
            rights=answer.rights, yes=answer.yes, language=language, version=version,
            text_hash=agreement.hash_of(shown),
        )  # fmt: skip
