"""Writing to requesters without anybody who sends: real words and segments; what was written."""

from dataclasses import dataclass, field

from contactd.errors import ContactdError
from contactd.routing import words as wording
from contactd.routing.notify import REQUESTER, Notification, Reason
from contactd.settings import GatewaySettings
from contactd.sms.segments import fitting, size
from contactd.tickets.contact import Medium
from contactd.web.writing import TextPreview, Writing

NUMBER = "+8613922223333"


@dataclass(slots=True, kw_only=True)
class FakeWriting:
    """`failure` is raised by everything; `written` is ticket, actor and words by key."""

    settings: GatewaySettings = field(
        default_factory=lambda: GatewaySettings(signature="【服务台】", price=0.045)
    )
    failure: ContactdError | None = None
    written: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    @property
    def writing(self) -> Writing:
        return Writing(preview=self.preview, texts=self)

    async def preview(self, number: str, words: str) -> TextPreview:
        if self.failure is not None:
            raise self.failure
        note = Notification(
            ref="", ticket=number, recipient=REQUESTER, medium=Medium.TEXT, address=NUMBER,
            language="zh", reason=Reason.SAID, facts={"note": words},
        )  # fmt: skip
        text = fitting(self.settings.signature + each for each in wording.texts(note))
        found = size(text)
        return TextPreview(
            text=text, number=NUMBER, gateway="twilio", encoding=found.encoding.value,
            segments=found.segments, left=found.left, price=self.settings.price,
            currency=self.settings.currency,
        )  # fmt: skip

    async def write(self, number: str, *, actor: str, words: str, key: str) -> str:
        if self.failure is not None:
            raise self.failure
        self.written.setdefault(key, (number, actor, words))
        return f"say-{number}-{key}"
