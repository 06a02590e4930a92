"""A PBX as the pager sees it: it notes whom it rings, or fails when told to."""

from dataclasses import dataclass, field

from contactd.errors import TemporaryFailure
from contactd.routing.oncall import Engineer
from contactd.tickets.paging import Page, PageState, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    ref: str
    engineer: str
    number: str
    language: str
    ticket: str
    site: str
    what: str
    state: PageState  # of the page, as the line was told


@dataclass(slots=True, kw_only=True)
class FakeLine:
    """`down`: no link to the PBX; `failure` is raised instead of ringing."""

    down: bool = False
    failure: Exception | None = None
    rings: list[Ring] = field(default_factory=list)

    @property
    def connected(self) -> bool:
        return not self.down

    @property
    def rung(self) -> list[str]:
        """Return the keys of those who were rung, in order."""
        return [ring.engineer for ring in self.rings]

    async def page(self, page: Page, *, engineer: Engineer, subject: Subject, what: str) -> None:
        if self.down:
            raise TemporaryFailure("the PBX is away")
        ring = Ring(
            ref=page.ref, engineer=engineer.key, number=engineer.number,
            language=engineer.language, ticket=page.ticket, site=subject.site, what=what,
            state=page.state,
        )  # fmt: skip
        self.rings.append(ring)
        if self.failure is not None:
            raise self.failure
