"""A mail as it was written: its HTML, made safe when it was read, on a page that runs nothing."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Final, Protocol
from urllib.parse import unquote

from aiohttp import web

from contactd.errors import NotFound
from contactd.httpd import HTTPD, Route
from contactd.store.views import AttachmentView, ContactView
from contactd.web.access import PERSONAL, check_site
from contactd.web.endpoints import PREFIX

PATH: Final = "/desk/mails"
# Pictures are those of the mail itself: nobody learns from them that it was opened.
POLICY: Final = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "sandbox allow-same-origin allow-popups; frame-ancestors 'none'"
)
_PICTURE: Final = re.compile(r'(?<=src=")cid:([^"]{1,254})(?=")')


class Mails(Protocol):
    async def contact(self, contact_id: int) -> ContactView: ...

    async def html(self, contact_id: int) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MailPage:
    mails: Mails

    async def show(self, request: web.Request) -> web.Response:
        """Draw the mail.

        Raises:
            NotFound: there is no such mail, it is of another site, or it has no HTML.
        """
        identity = await request.app[HTTPD].identify(request)
        assert identity is not None  # noqa: S101 - the route asks for roles
        asked = request.match_info["id"]
        if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
            raise NotFound("there is no such mail")
        contact = await self.mails.contact(int(asked))
        check_site(identity, contact.site, "there is no such mail")
        html = await self.mails.html(contact.id)
        if not html:
            raise NotFound("this mail has no HTML")
        subject = contact.mail.subject if contact.mail is not None else ""
        return web.Response(
            text=document(subject, html, pictures(contact.attachments)),
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": POLICY},
        )


def pictures(files: Iterable[AttachmentView]) -> dict[str, str]:
    """Return where the mail's own pictures are, by Content-ID."""
    return {
        file.content_id: f"{PREFIX}/attachments/{file.id}"
        for file in files
        if file.content_id and file.media_type.startswith("image/")
    }


def document(subject: str, html: str, pictures: Mapping[str, str]) -> str:
    """Return the page; `html` is safe already, pictures that are not there stay away."""
    shown = _PICTURE.sub(lambda found: pictures.get(unquote(found[1]), ""), html)
    return (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>{escape(subject)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<style>body{font:15px/1.5 sans-serif;margin:1rem;overflow-wrap:anywhere}"
        "img,table{max-width:100%}</style>"
        f"</head><body>{shown}</body></html>"
    )


def routes(page: MailPage) -> Iterable[Route]:
    return (Route(method="GET", path=f"{PATH}/{{id}}", handler=page.show, roles=PERSONAL),)
