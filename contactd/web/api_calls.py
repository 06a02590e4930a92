"""The API's end points of calls: those of this moment, and ringing a requester by a click."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from contactd.httpd import Problem, Refused
from contactd.tickets.people import Role
from contactd.web import resources as r
from contactd.web import resources_more as more
from contactd.web.access import ACTING, PERSONAL, sees
from contactd.web.actions import actor_of
from contactd.web.calling import DeskCall, Look
from contactd.web.callspage import REFUSALS, Call, Click, Reads, Refusal
from contactd.web.endpoints import Answer, Asked, Endpoint
from contactd.web.writing import new_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicker:
    """Who calls, with the engineer whose phone rings first."""

    name: str
    role: Role
    sites: frozenset[str]
    engineer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsApi:
    look: Look
    reads: Reads
    call: Call

    async def list_calls(self, asked: Asked) -> r.Page[more.LiveCall]:
        found = [each for each in self.look() if each.stage and sees(asked.identity, each.site)]
        return r.Page[more.LiveCall](items=tuple(map(_call, found)))

    async def make_call(self, asked: Asked) -> Answer:
        sent, who = asked.sent(more.MakeCall), asked.identity
        callee = await self.reads.callee(asked.part("number"))
        key = hashlib.sha256(asked.key.encode()).hexdigest()[:16] if asked.key else new_key()
        click = Click(
            callee=callee,
            number=sent.number,
            identity=Clicker(
                name=who.name, role=who.role, sites=who.sites,
                engineer=sent.engineer or who.engineer,
            ),
            actor=actor_of(who),
            key=key,
        )  # fmt: skip
        try:
            await self.call(click)
        except Refusal as refusal:
            title, remedy, status = REFUSALS[refusal.why]
            after = {"Retry-After": "60"} if status in (429, 503) else {}
            raise Refused(
                Problem(status=status, detail=f"{title}: {remedy}", headers=after)
            ) from refusal
        return Answer(value=more.CallMade(ticket=callee.ticket, number=sent.number), status=202)

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET", path="/calls", tag="calls", handler=self.list_calls,
                summary="The calls of this moment", roles=PERSONAL,
                returns=r.Page[more.LiveCall],
            ),
            Endpoint(
                method="POST", path="/tickets/{number}/actions/call", tag="calls",
                handler=self.make_call, roles=ACTING, body=more.MakeCall,
                returns=more.CallMade, statuses=(202,), problems=(404, 409),
                summary="Ring an engineer's phone, then the requester's", twice_is_once=True,
            ),
        )  # fmt: skip


def _call(row: DeskCall) -> more.LiveCall:
    assert row.stage is not None  # noqa: S101 - of a call that is going on
    return more.LiveCall(
        call_id=row.call_id, stage=row.stage, since=row.since, arrived_at=row.arrived_at,
        caller=row.caller, name=row.name, did=row.did, site=row.site, ticket=row.ticket,
        offered=row.offered, engineer=row.engineer, outgoing=row.ours is not None,
    )  # fmt: skip
