"""The API's end points of webhooks: who is told of tickets, and how that went."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from contactd.errors import NotFound
from contactd.httpd import Problem, Refused
from contactd.store.webhooks import Delivery, DeliveryState, Webhook, Webhooks, Wish
from contactd.web import resources as r
from contactd.web import resources_more as more
from contactd.web.access import ADMINISTERING
from contactd.web.actions import actor_of
from contactd.web.endpoints import PREFIX, Answer, Asked, Endpoint, bad_query
from contactd.web.hooks import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookApi:
    webhooks: Webhooks
    guard: Guard

    async def list_webhooks(self, asked: Asked) -> r.Page[more.Webhook]:
        found = await self.webhooks.all()
        return r.Page[more.Webhook](
            items=tuple(_webhook(each) for each in found if _is_ours(asked, each))
        )

    async def get_webhook(self, asked: Asked) -> more.Webhook:
        return _webhook(await self._mine(asked))

    async def add_webhook(self, asked: Asked) -> Answer:
        sent = asked.sent(more.AddWebhook)
        check_grant(asked, sent.sites)
        self.guard.check_url(sent.url)
        wish = Wish(
            name=sent.name, url=sent.url, events=[each.value for each in sent.events],
            sites=sent.sites, has_text="text" in sent.include,
        )  # fmt: skip
        made = await self.webhooks.add(
            wish, secret=sent.secret or "", actor=actor_of(asked.identity)
        )
        shown = more.WebhookAdded(**_webhook(made).model_dump(), secret=made.secrets[0])
        return Answer(value=shown, status=201, location=f"{PREFIX}/webhooks/{made.id}")

    async def change_webhook(self, asked: Asked) -> more.Webhook:
        known, sent = await self._mine(asked), asked.sent(more.ChangeWebhook)
        if sent.sites is not None:
            check_grant(asked, sent.sites)
        wish = Wish(
            name=sent.name,
            events=None if sent.events is None else [each.value for each in sent.events],
            sites=sent.sites,
            has_text=None if sent.include is None else "text" in sent.include,
            is_enabled=sent.enabled,
        )
        actor = actor_of(asked.identity)
        return _webhook(await self.webhooks.change(known.id, wish, actor=actor))

    async def rotate(self, asked: Asked) -> more.WebhookSecret:
        known = await self._mine(asked)
        secret = await self.webhooks.rotate(known.id, actor=actor_of(asked.identity))
        return more.WebhookSecret(id=known.id, secret=secret)

    async def remove(self, asked: Asked) -> r.Page[more.Webhook]:
        known = await self._mine(asked)
        await self.webhooks.remove(known.id, actor=actor_of(asked.identity))
        return await self.list_webhooks(asked)

    async def try_out(self, asked: Asked) -> Answer:
        known = await self._mine(asked)
        delivery = await self.webhooks.try_out(known.id)
        return Answer(value=_delivery(delivery), status=202)

    async def list_deliveries(self, asked: Asked) -> r.Page[more.Delivery]:
        known, query = await self._mine(asked), asked.queried(more.ListQuery)
        if query.cursor and not (query.cursor.isascii() and query.cursor.isdigit()):
            raise bad_query("the cursor is none of ours")
        before = int(query.cursor[:19] or "0")
        items, following = await self.webhooks.deliveries(known.id, before, query.limit)
        return r.Page[more.Delivery](
            items=tuple(map(_delivery, items)), next=str(following) if following else None
        )

    async def _mine(self, asked: Asked) -> Webhook:
        found = await self.webhooks.one(asked.id("webhook"))
        if not _is_ours(asked, found):
            raise NotFound("there is no such webhook")
        return found

    def endpoints(self) -> Sequence[Endpoint]:
        path = "/webhooks/{webhook}"
        return (
            Endpoint(
                method="GET", path="/webhooks", tag="webhooks", handler=self.list_webhooks,
                summary="Who is told of tickets", roles=ADMINISTERING,
                returns=r.Page[more.Webhook],
            ),
            Endpoint(
                method="POST", path="/webhooks", tag="webhooks", handler=self.add_webhook,
                summary="Tell another system of tickets from now on", roles=ADMINISTERING,
                body=more.AddWebhook, returns=more.WebhookAdded, statuses=(201,), is_secret=True,
            ),
            Endpoint(
                method="GET", path=path, tag="webhooks", handler=self.get_webhook,
                summary="One webhook, and whether it works", roles=ADMINISTERING,
                returns=more.Webhook, problems=(404,),
            ),
            Endpoint(
                method="PATCH", path=path, tag="webhooks", handler=self.change_webhook,
                summary="Change a webhook, or enable it again", roles=ADMINISTERING,
                body=more.ChangeWebhook, returns=more.Webhook, problems=(404,),
            ),
            Endpoint(
                method="DELETE", path=path, tag="webhooks", handler=self.remove,
                summary="Remove a webhook with what waits for it", roles=ADMINISTERING,
                returns=r.Page[more.Webhook], problems=(404,),
            ),
            Endpoint(
                method="POST", path=f"{path}/rotate", tag="webhooks", handler=self.rotate,
                summary="Give it a new secret; the old one signs, too, for a day",
                roles=ADMINISTERING, body=more.Nothing, returns=more.WebhookSecret,
                problems=(404,), is_secret=True,
            ),
            Endpoint(
                method="POST", path=f"{path}/test", tag="webhooks", handler=self.try_out,
                summary="Have a test sent; its delivery says how that went", roles=ADMINISTERING,
                body=more.Nothing, returns=more.Delivery, statuses=(202,), problems=(404,),
            ),
            Endpoint(
                method="GET", path=f"{path}/deliveries", tag="webhooks",
                handler=self.list_deliveries, roles=ADMINISTERING, query=more.ListQuery,
                returns=r.Page[more.Delivery], problems=(404,),
                summary="What it was told and how that went, the last first",
            ),
        )  # fmt: skip


def check_grant(asked: Asked, sites: Collection[str]) -> None:
    """Refuse to let others see what somebody does not see themselves.

    Raises:
        Refused: some of these sites (empty: all) are not theirs.
    """
    mine = asked.identity.sites
    if mine and not (sites and mine >= set(sites)):
        raise Refused(Problem(status=403, detail="sites: some of them are not yours"))


def _is_ours(asked: Asked, found: Webhook) -> bool:
    """Return whether who asks may see everything that it is told."""
    mine = asked.identity.sites
    return not mine or (bool(found.sites) and found.sites <= mine)


def _webhook(row: Webhook) -> more.Webhook:
    return more.Webhook.model_validate(
        {
            "id": row.id, "name": row.name, "url": row.url, "events": sorted(row.events),
            "sites": sorted(row.sites), "include": ("text",) if row.has_text else (),
            "created_at": row.created_at, "created_by": row.created_by,
            "failures": row.failures, "failing_since": row.failing_since,
            "waiting": row.waiting, "disabled_at": row.disabled_at,
            "disabled_why": row.disabled_why,
        }
    )  # fmt: skip


def _delivery(row: Delivery) -> more.Delivery:
    is_waiting = row.state is DeliveryState.WAITING
    return more.Delivery(
        id=row.ref, event=row.event, state=row.state, attempts=row.attempts, status=row.status,
        error=row.error, created_at=row.created_at, due_at=row.due_at if is_waiting else None,
        settled_at=row.settled_at,
    )  # fmt: skip
