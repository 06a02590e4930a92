"""What lies outside of somebody's sites is, for the API, as if it were not there."""

from collections.abc import Mapping
from dataclasses import dataclass

from contactd.errors import NotFound
from contactd.httpd import Identity
from contactd.store.ticketviews import TicketViews
from contactd.web.access import check_site
from contactd.web.endpoints import Asked, Check


@dataclass(frozen=True, slots=True, kw_only=False)
class Scope:
    """Refuses by the part of the path that names something."""

    views: TicketViews

    def checks(self) -> Mapping[str, Check]:
        return {
            "number": self._number,
            "contact": self._contact,
            "attachment": self._attachment,
            "person": self._person,
        }

    async def sees_ticket(self, identity: Identity, number: str) -> None:
        """Raise NotFound if there is no such ticket for somebody."""
        check_site(identity, await self.views.site_of(number))

    async def sees_person(self, identity: Identity, person: int) -> None:
        """Raise NotFound if there is no such person for somebody."""
        found = await self.views.person(person)
        check_site(identity, found.site, "there is no such person")

    async def _number(self, asked: Asked) -> None:
        await self.sees_ticket(asked.identity, asked.part("number"))

    async def _contact(self, asked: Asked) -> None:
        _, site = await self.views.ticket_of(asked.id("contact"))
        check_site(asked.identity, site, "there is no such contact")

    async def _attachment(self, asked: Asked) -> None:
        missing = "there is no such file"
        try:
            file, _ = await self.views.file(asked.id("attachment"))
        except NotFound:
            raise NotFound(missing) from None
        _, site = await self.views.ticket_of(file.contact_id)
        check_site(asked.identity, site, missing)

    async def _person(self, asked: Asked) -> None:
        await self.sees_person(asked.identity, asked.id("person"))
