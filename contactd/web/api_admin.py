"""The API's end points of users, tokens, journals of acts, and texts that were sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from contactd.errors import NotFound, PermanentFailure
from contactd.store.accounts import Accounts, Grant, User
from contactd.store.acts import ActFilters, Acts
from contactd.store.apiviews import ApiViews, SentText
from contactd.tickets.people import Role
from contactd.web import resources as r
from contactd.web import resources_more as more
from contactd.web.access import (
    ADDRESSED,
    ADMINISTERING,
    AUDITING,
    PERSONAL,
    check_everywhere,
)
from contactd.web.actions import actor_of
from contactd.web.endpoints import Answer, Asked, Endpoint, paged


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApi:
    accounts: Accounts
    acts: Acts
    pages: ApiViews

    # Users

    async def list_users(self, asked: Asked) -> r.Page[more.User]:
        check_everywhere(asked.identity)
        return r.Page[more.User](items=tuple(map(_user, await self.accounts.users())))

    async def get_user(self, asked: Asked) -> more.User:
        check_everywhere(asked.identity)
        return _user(await self.accounts.user(asked.part("user")))

    async def add_user(self, asked: Asked) -> Answer:
        check_everywhere(asked.identity)
        sent = asked.sent(more.AddUser)
        await self.accounts.add_user(
            sent.name, sent.password, _peoples(sent.role), sites=sent.sites,
            engineer=sent.engineer, replaces=False, actor=actor_of(asked.identity),
        )  # fmt: skip
        return Answer(value=_user(await self.accounts.user(sent.name)), status=201)

    async def change_user(self, asked: Asked) -> more.User:
        check_everywhere(asked.identity)
        name, sent = asked.part("user"), asked.sent(more.ChangeUser)
        actor = actor_of(asked.identity)
        known = await self.accounts.user(name)
        grant = Grant(role=_peoples(sent.role), sites=frozenset(sent.sites), engineer=sent.engineer)
        await self.accounts.change_user(name, grant, actor=actor)
        if sent.enabled and known.disabled_at is not None:
            await self.accounts.enable_user(name, actor=actor)
        elif not sent.enabled and known.disabled_at is None:
            await self.accounts.disable_user(name, actor=actor)
        return _user(await self.accounts.user(name))

    # Tokens

    async def list_tokens(self, asked: Asked) -> r.Page[more.Token]:
        check_everywhere(asked.identity)
        found = await self.accounts.tokens()
        return r.Page[more.Token](
            items=tuple(
                more.Token(
                    name=each.name, role=each.role, sites=tuple(sorted(each.sites)),
                    created_at=each.created_at, expires_at=each.expires_at,
                    revoked_at=each.revoked_at,
                )
                for each in found
            )
        )  # fmt: skip

    async def add_token(self, asked: Asked) -> Answer:
        check_everywhere(asked.identity)
        sent = asked.sent(more.AddToken)
        secret = await self.accounts.create_token(
            sent.name, sent.role, sites=sent.sites, expires_at=sent.expires_at,
            actor=actor_of(asked.identity),
        )  # fmt: skip
        return Answer(value=more.TokenSecret(name=sent.name, secret=secret), status=201)

    async def revoke_token(self, asked: Asked) -> r.Page[more.Token]:
        check_everywhere(asked.identity)
        name = asked.part("token")
        if not name.isprintable():
            raise NotFound("there is no such token")
        await self.accounts.revoke_token(name, actor=actor_of(asked.identity))
        return await self.list_tokens(asked)

    # Journals

    async def list_acts(self, asked: Asked) -> r.Page[more.Act]:
        check_everywhere(asked.identity)
        query = asked.queried(more.ActQuery)
        filters = ActFilters(
            actor=query.actor, action=query.action, subject=query.subject, since=query.since,
            until=query.until,
        )  # fmt: skip
        page = await paged(self.acts.page(filters, query.cursor, query.limit))
        return r.Page[more.Act](
            items=tuple(
                more.Act.model_validate(
                    {name: getattr(act, name) for name in more.Act.model_fields}
                )
                for act in page.items
            ),
            next=page.next_cursor or None,
        )

    async def list_texts(self, asked: Asked) -> r.Page[more.TextSent]:
        query = asked.queried(more.ListQuery)
        items, following = await paged(
            self.pages.texts(asked.identity.sites, query.cursor, query.limit)
        )
        has_number = asked.identity.role in ADDRESSED
        return r.Page[more.TextSent](
            items=tuple(_text(each, has_number=has_number) for each in items),
            next=following or None,
        )

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET", path="/users", tag="accounts", handler=self.list_users,
                summary="Who logs in to the pages", roles=ADMINISTERING,
                returns=r.Page[more.User],
            ),
            Endpoint(
                method="POST", path="/users", tag="accounts", handler=self.add_user,
                summary="Add a user", roles=ADMINISTERING, body=more.AddUser, returns=more.User,
                statuses=(201,),
            ),
            Endpoint(
                method="GET", path="/users/{user}", tag="accounts", handler=self.get_user,
                summary="One user", roles=ADMINISTERING, returns=more.User, problems=(404,),
            ),
            Endpoint(
                method="PUT", path="/users/{user}", tag="accounts", handler=self.change_user,
                summary="Say what a user may do and where, and whether they may log in",
                roles=ADMINISTERING, body=more.ChangeUser, returns=more.User, problems=(404,),
            ),
            Endpoint(
                method="GET", path="/tokens", tag="accounts", handler=self.list_tokens,
                summary="The tokens, revoked ones too", roles=ADMINISTERING,
                returns=r.Page[more.Token],
            ),
            Endpoint(
                method="POST", path="/tokens", tag="accounts", handler=self.add_token,
                summary="Make a token; its secret is shown this once", roles=ADMINISTERING,
                body=more.AddToken, returns=more.TokenSecret, statuses=(201,), is_secret=True,
            ),
            Endpoint(
                method="DELETE", path="/tokens/{token}", tag="accounts",
                handler=self.revoke_token, roles=ADMINISTERING, returns=r.Page[more.Token],
                problems=(404,), summary="Revoke a token",
            ),
            Endpoint(
                method="GET", path="/acts", tag="operations", handler=self.list_acts,
                summary="What people did beside tickets, the newest first", roles=AUDITING,
                query=more.ActQuery, returns=r.Page[more.Act],
            ),
            Endpoint(
                method="GET", path="/texts", tag="operations", handler=self.list_texts,
                summary="Texts that gateways were handed, the last first", roles=PERSONAL,
                query=more.ListQuery, returns=r.Page[more.TextSent],
            ),
        )  # fmt: skip


def _peoples(role: Role) -> Role:
    if role is Role.CALENDAR:
        raise PermanentFailure("role: calendar is for tokens")
    return role


def _user(row: User) -> more.User:
    return more.User(
        name=row.name, role=row.grant.role, sites=tuple(sorted(row.grant.sites)),
        engineer=row.grant.engineer, created_at=row.created_at, disabled_at=row.disabled_at,
        has_factor=row.has_factor, is_external=row.is_external,
    )  # fmt: skip


def _text(row: SentText, *, has_number: bool) -> more.TextSent:
    return more.TextSent(
        ref=row.ref, ticket=row.ticket, gateway=row.gateway,
        number=row.number if has_number else None, segments=row.segments, state=row.state,
        delivery=row.delivery, error=row.error, handed_at=row.handed_at,
        updated_at=row.updated_at,
    )  # fmt: skip
