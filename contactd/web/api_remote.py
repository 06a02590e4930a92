"""The API's end points of remote help: who saw whose screen, an invitation, and the end.

None of them shows a screen or lets anybody see one: a session begins with its user's own act.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from contactd.errors import NotFound
from contactd.httpd import Identity
from contactd.tickets.contact import Medium
from contactd.tickets.remote import Ending
from contactd.tickets.sharing import Filters, LegRecord, Session
from contactd.web import resources as r
from contactd.web import resources_remote as remote
from contactd.web.access import ACTING, PERSONAL, check_site
from contactd.web.actions import actor_of
from contactd.web.endpoints import PREFIX, Answer, Asked, Endpoint, bad_query

PATH: Final = "/remote-sessions"
_MISSING: Final = "there is no such remote session"
_LARGEST: Final = 10**18


class Sessions(Protocol):
    """What is kept; `store.remote.RemoteSessions` has it."""

    async def session(self, session_id: int) -> Session | None: ...

    async def page(
        self, filters: Filters, before: int | None, limit: int
    ) -> tuple[tuple[Session, ...], bool]: ...


class Invited(Protocol):
    """A link that is on its way."""

    @property
    def session(self) -> int: ...

    @property
    def medium(self) -> Medium: ...

    @property
    def expires_at(self) -> datetime: ...


class Invites(Protocol):
    """Sends the requester a link; `remote.inviting` has it."""

    async def invite(self, number: str, *, actor: str, medium: Medium) -> Invited: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteApi:
    sessions: Sessions
    invites: Invites
    cut: Callable[[int, Ending, str], Awaitable[object]]

    async def list_sessions(self, asked: Asked) -> r.Page[remote.RemoteSession]:
        query = asked.queried(remote.RemoteQuery)
        filters = Filters(ticket=query.ticket, state=query.state, sites=asked.identity.sites)
        before = _position(query.cursor)
        found, has_more = await self.sessions.page(filters, before, query.limit)
        following = str(found[-1].id) if has_more else None
        return r.Page[remote.RemoteSession](items=tuple(map(_session, found)), next=following)

    async def get_session(self, asked: Asked) -> remote.RemoteSession:
        return _session(await self._seen(asked.identity, asked.id("session")))

    async def invite(self, asked: Asked) -> Answer:
        number, medium = asked.part("number"), asked.sent(remote.InviteRemote).medium
        actor = actor_of(asked.identity)
        made = await self.invites.invite(number, actor=actor, medium=Medium(medium))
        url = f"{PREFIX}{PATH}/{made.session}"
        value = remote.RemoteInvitation(
            session=made.session, url=url, medium=made.medium.value, expires_at=made.expires_at
        )
        return Answer(value=value, status=201, location=url)

    async def end(self, asked: Asked) -> remote.RemoteSession:
        """End it; harmless twice. Whoever sees a screen there sees it no more."""
        session = await self._seen(asked.identity, asked.id("session"))
        await self.cut(session.id, Ending.DONE, actor_of(asked.identity))
        return await self.get_session(asked)

    async def _seen(self, identity: Identity, session_id: int) -> Session:
        found = await self.sessions.session(session_id)
        if found is None:
            raise NotFound(_MISSING)
        check_site(identity, found.site, _MISSING)
        return found

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET", path=PATH, tag="remote", handler=self.list_sessions,
                summary="Sessions of remote help, the newest first", roles=PERSONAL,
                query=remote.RemoteQuery, returns=r.Page[remote.RemoteSession],
            ),
            Endpoint(
                method="GET", path=f"{PATH}/{{session}}", tag="remote", handler=self.get_session,
                summary="A session, with who saw the screen and how long", roles=PERSONAL,
                returns=remote.RemoteSession, problems=(404,),
            ),
            Endpoint(
                method="POST", path="/tickets/{number}/remote-sessions", tag="remote",
                handler=self.invite, roles=ACTING, body=remote.InviteRemote,
                returns=remote.RemoteInvitation, statuses=(201,), problems=(404, 409),
                summary="Send the requester a link with which they can begin remote help",
                description="Nothing is shared before they open it and agree, and then only with"
                " those whom they let in. It works once, for ten minutes; an earlier one of the"
                " ticket works no more.",
            ),
            Endpoint(
                method="POST", path=f"{PATH}/{{session}}/end", tag="remote", handler=self.end,
                summary="End a session at once", roles=ACTING, body=remote.EndRemote,
                returns=remote.RemoteSession, problems=(404,), twice_is_once=True,
            ),
        )  # fmt: skip


def _position(cursor: str) -> int | None:
    if not cursor:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > len(str(_LARGEST)):
        raise bad_query("the cursor is none of ours")
    return min(int(cursor), _LARGEST)


def _session(found: Session) -> remote.RemoteSession:
    same = remote.RemoteSession.model_fields.keys() - {"legs"}
    return remote.RemoteSession(
        **{name: getattr(found, name) for name in same}, legs=tuple(map(_leg, found.legs))
    )


def _leg(record: LegRecord) -> remote.RemoteLeg:
    leg, counts, kept = record.leg, record.counts, record.recording
    return remote.RemoteLeg(
        number=leg.number, engineer=leg.engineer, user=leg.user, purpose=leg.purpose,
        rights=tuple(sorted(leg.rights)), opened_at=leg.opened_at, ended_at=leg.ended_at,
        ending=leg.ending, keys=counts.keys, clicks=counts.clicks, bytes=counts.bytes,
        recording=kept.sha256 if kept is not None else None,
    )  # fmt: skip
