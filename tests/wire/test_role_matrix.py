"""Every route of the built daemon × every role and nobody × one's own and another site (D6).

A new route needs one line in `TABLE`: who may use it, and how to ask for it. In an address and in
what is sent `{ticket}`, `{contact}`, `{mail}`, `{person}` and `{file}` stand for what belongs to a
site: then what is of another site must be as if it were not there.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import structlog
from argon2 import PasswordHasher
from sqlalchemy import insert, select, update

from contactd.clock import SystemClock
from contactd.httpd import SESSION_COOKIE
from contactd.store.accounts import Accounts
from contactd.store.blobs import Blobs
from contactd.store.keys import Keys
from contactd.store.remote import RemoteSessions
from contactd.store.schema import attachments, contacts, mail_pages, people, tickets
from contactd.tickets.contact import CallFacts, Contact, Medium, Outcome
from contactd.tickets.people import PEOPLES_ROLES, Role
from contactd.web.access import (
    ACTING,
    ADMINISTERING,
    AUDITING,
    DECIDING,
    EVERYBODY,
    LISTENING,
    PERSONAL,
    PLANNING,
)
from tests.fakes.built import Built, built
from tests.fakes.rota import FROM_GZ, FROM_SZ

API: Final = "/api/v1"
KEY: Final = "0" * 32
SHA: Final = "0" * 64
REFUSED: Final = frozenset({401, 403, 404, 405})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one route should answer.

    `roles` None: nobody need say who they are. `form` or `body` (JSON) is sent. `whole`: only for
    who sees all sites. `missing`: whoever may use it is told 404, what is asked for is not there.
    """

    roles: frozenset[Role] | None
    url: str
    form: Mapping[str, str] | None = None
    body: Any = None
    whole: bool = False
    missing: bool = False

    @property
    def is_of_a_site(self) -> bool:
        return "{" in self.url + json.dumps([self.form, self.body]).replace('{"', "").replace(
            "{}", ""
        )


def get(roles: frozenset[Role] | None, url: str, **more: Any) -> Line:
    return Line(roles=roles, url=url, **more)


def form(roles: frozenset[Role] | None, url: str, *, whole: bool = False, missing: bool = False,
         **fields: str) -> Line:  # fmt: skip
    return Line(roles=roles, url=url, form=fields, whole=whole, missing=missing)


def act(name: str, roles: frozenset[Role] = ACTING, **body: Any) -> Line:
    return Line(roles=roles, url=f"{API}/tickets/{{ticket}}/actions/{name}", body=body)


def api(roles: frozenset[Role], url: str, body: Any = None, **more: Any) -> Line:
    return Line(roles=roles, url=API + url, body=body, **more)


def public(*urls: str) -> dict[str, Line]:
    """Return routes for requesters, programs and who logs in: they have their own checks."""
    return {url: Line(roles=None, url=url.partition(" ")[2]) for url in urls}


TICKET: Final = "/desk/tickets/{ticket}"
HELP: Final = (
    "GET /help", "GET /help/new", "GET /help/sent/{sent}", "GET /help/code/{challenge}",
    "GET /help/my", "GET /help/t/{token}", "GET /help/t/{token}/progress",
    "GET /help/t/{token}/files/{file}", "GET /help/my/{number}", "GET /help/my/{number}/progress",
    "GET /help/my/{number}/files/{file}", "POST /help/my", "POST /help/code/{challenge}",
    "POST /help/leave", "POST /help/files/{sha256}/drop", "POST /help/t/{token}/confirm",
    "POST /help/t/{token}/rate", "POST /help/t/{token}/call-back", "POST /help/t/{token}/remote",
    "POST /help/my/{number}/confirm", "POST /help/my/{number}/rate",
    "POST /help/my/{number}/call-back", "POST /help/my/{number}/remote", "POST /help/new",
    "POST /help/files", "POST /help/t/{token}/reply", "POST /help/my/{number}/reply",
)  # fmt: skip

SHARE: Final = (
    "GET /s", "POST /s", "GET /s/{code}", "POST /s/{code}/answer", "GET /s/session",
    "GET /s/session/part", "GET /s/session/helper", "GET /s/session/files/{file}",
    "POST /s/session/admission", "POST /s/session/stop", "POST /s/session/chat",
    "POST /s/session/files", "POST /s/session/files/{file}/answer", "GET /s/live", "GET /s/connect",
)  # fmt: skip

TABLE: Final[Mapping[str, Line]] = {
    # Status page and probes
    "GET /": get(EVERYBODY, "/"),
    "GET /live": get(EVERYBODY, "/live"),
    **public("GET /livez", "GET /readyz", "GET /metrics", f"GET {API}/openapi.json"),
    # Log-in; requesters' own pages, who prove who they are by links and codes
    **public(
        "GET /login",
        "POST /login",
        "GET /login/code",
        "POST /login/code",
        "GET /login/oidc",
        "GET /login/oidc/callback",
        "POST /logout",
        "GET /m/{token}",
        "POST /m/{token}",
        *HELP,
        *SHARE,
    ),
    # Account, users, tokens, acts
    "GET /account": get(EVERYBODY, "/account"),
    "POST /account/password": form(EVERYBODY, "/account/password", new="x"),
    "GET /account/factor": get(EVERYBODY, "/account/factor"),
    "POST /account/factor": form(EVERYBODY, "/account/factor", key="x"),
    "POST /account/factor/remove": form(EVERYBODY, "/account/factor/remove", old="x"),
    "POST /account/sessions": form(EVERYBODY, "/account/sessions"),
    "POST /account/calendar": form(EVERYBODY, "/account/calendar"),
    "GET /desk/users": get(ADMINISTERING, "/desk/users", whole=True),
    "GET /desk/users/new": get(ADMINISTERING, "/desk/users/new", whole=True),
    "POST /desk/users/new": form(ADMINISTERING, "/desk/users/new", whole=True, name=""),
    "GET /desk/users/one": get(ADMINISTERING, "/desk/users/one?name=desk-gz", whole=True),
    "POST /desk/users/one": form(
        ADMINISTERING, "/desk/users/one", whole=True, name="desk-gz", do="changed", role="king"
    ),
    "GET /desk/users/tokens": get(ADMINISTERING, "/desk/users/tokens", whole=True),
    "POST /desk/users/tokens": form(ADMINISTERING, "/desk/users/tokens", whole=True, do="create"),
    "GET /desk/acts": get(AUDITING, "/desk/acts", whole=True),
    # Tickets and people
    "GET /desk": get(PERSONAL, "/desk"),
    "GET /desk/search": get(PERSONAL, "/desk/search?q=x"),
    "POST /desk/filters": form(PERSONAL, "/desk/filters", do="save", name="x", query="state=new"),
    "GET /desk/tickets/{number}": get(PERSONAL, TICKET),
    "POST /desk/tickets/{number}": form(ACTING, TICKET, key=KEY, words="x"),
    "POST /desk/tickets/{number}/preview": form(ACTING, f"{TICKET}/preview", key=KEY, words="x"),
    "POST /desk/tickets/{number}/acts/{act}": form(ACTING, f"{TICKET}/acts/comment", key=KEY),
    "POST /desk/tickets/{number}/mail": form(ACTING, f"{TICKET}/mail", key=KEY, words="x"),
    "GET /desk/people": get(PERSONAL, "/desk/people"),
    "GET /desk/people/{id}": get(PERSONAL, "/desk/people/{person}"),
    "POST /desk/people/{id}": form(ACTING, "/desk/people/{person}", name="x"),
    "POST /desk/people/{id}/merge": form(
        ACTING, "/desk/people/{person}/merge", into="999999", missing=True
    ),
    "GET /desk/new": get(ACTING, "/desk/new"),
    "POST /desk/new": form(ACTING, "/desk/new"),
    "GET /desk/files/{id}": get(PERSONAL, "/desk/files/{file}"),
    "GET /desk/mails/{id}": get(PERSONAL, "/desk/mails/{mail}"),
    "GET /texts": get(PERSONAL, "/texts"),
    "GET /desk/live": get(PERSONAL, "/desk/live"),
    "POST /desk/live/writing": form(PERSONAL, "/desk/live/writing"),
    "GET /desk/remote": get(ACTING, "/desk/remote"),
    "GET /desk/remote/{session}": get(ACTING, "/desk/remote/{remote}"),
    "GET /desk/remote/{session}/files/{file}": get(ACTING, "/desk/remote/{remote}/files/1"),
    "POST /desk/remote/claim": form(ACTING, "/desk/remote/claim", code="123456789", missing=True),
    "POST /desk/remote/{session}/join": form(ACTING, "/desk/remote/{remote}/join"),
    "POST /desk/remote/{session}/release": form(ACTING, "/desk/remote/{remote}/release"),
    "POST /desk/remote/{session}/end": form(ACTING, "/desk/remote/{remote}/end"),
    "POST /desk/remote/{session}/admission": form(
        ACTING, "/desk/remote/{remote}/admission", purpose="desk"
    ),
    "POST /desk/remote/{session}/files": form(ACTING, "/desk/remote/{remote}/files"),
    "POST /desk/remote/{session}/files/{file}/answer": form(
        ACTING, "/desk/remote/{remote}/files/1/answer", do="yes"
    ),
    "POST /desk/tickets/{number}/remote/invite": form(
        ACTING, f"{TICKET}/remote/invite", medium="x"
    ),
    "GET /desk/remote/{session}/live": get(ACTING, "/desk/remote/1/live"),
    "GET /desk/remote/{session}/screen": get(ACTING, "/desk/remote/1/screen"),
    "GET /desk/remote/{session}/legs/{leg}": get(LISTENING, "/desk/remote/1/legs/1", missing=True),
    "GET /desk/remote/{session}/legs/{leg}/recording": get(
        LISTENING, "/desk/remote/1/legs/1/recording", missing=True
    ),
    "GET /desk/calls": get(PERSONAL, "/desk/calls"),
    "GET /desk/calls/rows": get(PERSONAL, "/desk/calls/rows"),
    "POST /desk/calls": form(ACTING, "/desk/calls", ticket="{ticket}"),
    # Administration, duty
    "GET /desk/admin": get(PLANNING, "/desk/admin"),
    "GET /desk/admin/desk/{section:[a-z]+}": get(PLANNING, "/desk/admin/desk/shifts"),
    "GET /desk/admin/desk/{section:[a-z]+}/{was:new|[0-9a-f]{16}}": get(
        PLANNING, "/desk/admin/desk/shifts/new"
    ),
    "POST /desk/admin/desk/{section:[a-z]+}": form(PLANNING, "/desk/admin/desk/shifts"),
    "GET /desk/admin/text": get(ADMINISTERING, "/desk/admin/text", whole=True),
    "POST /desk/admin/text": form(ADMINISTERING, "/desk/admin/text", whole=True),
    "GET /desk/admin/versions": get(PLANNING, "/desk/admin/versions"),
    "GET /desk/admin/versions/{number:[0-9]{1,9}}": get(
        ADMINISTERING, "/desk/admin/versions/1", whole=True, missing=True
    ),
    "POST /desk/admin/versions/{number:[0-9]{1,9}}": form(
        ADMINISTERING, "/desk/admin/versions/1", whole=True, missing=True
    ),
    "GET /desk/duty": get(PERSONAL, "/desk/duty"),
    "GET /desk/duty/swap": get(PERSONAL, "/desk/duty/swap"),
    "POST /desk/duty/swap": form(PERSONAL, "/desk/duty/swap"),
    "POST /desk/duty/leave": form(PERSONAL, "/desk/duty/leave"),
    "POST /desk/duty/requests/{request:[0-9]{1,12}}": form(
        PERSONAL, "/desk/duty/requests/999999", missing=True
    ),
    "GET /desk/admin/letters": get(ADMINISTERING, "/desk/admin/letters", whole=True),
    "GET /desk/admin/letters/{reason:[a-z-]+}/{language:zh|en}": get(
        ADMINISTERING, "/desk/admin/letters/new/zh", whole=True
    ),
    "POST /desk/admin/letters/{reason:[a-z-]+}/{language:zh|en}": form(
        ADMINISTERING, "/desk/admin/letters/new/zh", whole=True
    ),
    "GET /desk/admin/prompts": get(ADMINISTERING, "/desk/admin/prompts", whole=True),
    "GET /desk/admin/prompts/{language:zh|en}/{name:[a-z0-9-]+/[a-z0-9-]+}": get(
        ADMINISTERING, "/desk/admin/prompts/zh/a/b", missing=True
    ),
    "GET /desk/admin/holidays": get(ADMINISTERING, "/desk/admin/holidays", whole=True),
    # API: tickets
    f"GET {API}/tickets": api(PERSONAL, "/tickets"),
    f"POST {API}/tickets": api(PERSONAL, "/tickets", {}),
    f"GET {API}/tickets/{{number}}": api(PERSONAL, "/tickets/{ticket}"),
    f"POST {API}/tickets/{{number}}/actions/{{action}}": act("hold", note="x"),
    f"POST {API}/tickets/{{number}}/actions/take": act("take", engineer="wang"),
    f"POST {API}/tickets/{{number}}/actions/classify": act("classify", title="x"),
    f"POST {API}/tickets/{{number}}/actions/answered": act("answered", how="reply"),
    f"POST {API}/tickets/{{number}}/actions/updated": act("updated", note="x"),
    f"POST {API}/tickets/{{number}}/actions/hand_over": act("hand_over", engineer="wang"),
    f"POST {API}/tickets/{{number}}/actions/assign_team": act("assign_team", team="x"),
    f"POST {API}/tickets/{{number}}/actions/set_contract": act(
        "set_contract", DECIDING, contract="x.1"
    ),
    f"POST {API}/tickets/{{number}}/actions/confirm": act("confirm", solved=True),
    f"POST {API}/tickets/{{number}}/actions/dispatch": act("dispatch", engineer="wang"),
    f"POST {API}/tickets/{{number}}/actions/dispatch_step": act("dispatch_step", step="accept"),
    f"POST {API}/tickets/{{number}}/actions/describe": act("describe", title="x"),
    f"POST {API}/tickets/{{number}}/actions/comment": act("comment", words="x"),
    f"POST {API}/tickets/{{number}}/actions/merge": act("merge", into="{ticket}"),
    f"POST {API}/tickets/{{number}}/actions/set_requester": act("set_requester", person=1),
    f"POST {API}/tickets/{{number}}/actions/ask_call_back": act(
        "ask_call_back", phone="13900000001"
    ),
    f"POST {API}/tickets/{{number}}/actions/ask_remote": act("ask_remote"),
    f"POST {API}/tickets/{{number}}/actions/text": act("text", words="x"),
    f"POST {API}/tickets/{{number}}/actions/mail": act("mail", words="x"),
    f"POST {API}/tickets/{{number}}/mail-preview": api(
        ACTING, "/tickets/{ticket}/mail-preview", {"words": "x"}
    ),
    f"POST {API}/tickets/{{number}}/text-preview": api(
        ACTING, "/tickets/{ticket}/text-preview", {"words": "x"}
    ),
    f"POST {API}/tickets/{{number}}/attachments": api(
        ACTING, "/tickets/{ticket}/attachments?name=x.txt", {}
    ),
    # API: contacts, files, people
    f"GET {API}/contacts": api(PERSONAL, "/contacts"),
    f"GET {API}/contacts/{{contact}}": api(PERSONAL, "/contacts/{contact}"),
    f"POST {API}/contacts/{{contact}}/split": api(ACTING, "/contacts/{contact}/split", {}),
    f"GET {API}/attachments/{{attachment}}": api(PERSONAL, "/attachments/{file}"),
    f"GET {API}/people": api(PERSONAL, "/people"),
    f"POST {API}/people": api(ACTING, "/people", {}),
    f"GET {API}/people/{{person}}": api(PERSONAL, "/people/{person}"),
    f"PATCH {API}/people/{{person}}": api(ACTING, "/people/{person}", {"department": "x"}),
    f"POST {API}/people/{{person}}/merge": api(
        ACTING, "/people/{person}/merge", {"into": 999999}, missing=True
    ),
    f"GET {API}/texts": api(PERSONAL, "/texts"),
    f"GET {API}/calls": api(PERSONAL, "/calls"),
    f"GET {API}/remote-sessions": api(PERSONAL, "/remote-sessions"),
    f"GET {API}/remote-sessions/{{session}}": api(PERSONAL, "/remote-sessions/{remote}"),
    f"POST {API}/remote-sessions/{{session}}/end": api(ACTING, "/remote-sessions/{remote}/end", {}),
    f"POST {API}/tickets/{{number}}/remote-sessions": api(
        ACTING, "/tickets/{ticket}/remote-sessions", {"medium": "text"}
    ),
    f"GET {API}/duty-requests": api(PLANNING, "/duty-requests"),
    f"POST {API}/tickets/{{number}}/actions/call": act("call", number="13900000001"),
    # API: desk and operations
    f"GET {API}/sites": api(EVERYBODY, "/sites"),
    f"GET {API}/oncall": api(EVERYBODY, "/oncall"),
    f"GET {API}/oncall/range": api(EVERYBODY, "/oncall/range"),
    f"GET {API}/oncall/{{view:person|team|site}}/{{key:[a-z0-9_-]+}}.ics": Line(
        roles=EVERYBODY, url=f"{API}/oncall/site/{{site}}.ics"
    ),
    f"GET {API}/ledger": api(EVERYBODY, "/ledger"),
    f"GET {API}/status": api(EVERYBODY, "/status"),
    f"GET {API}/desk-versions": api(ADMINISTERING, "/desk-versions", whole=True),
    f"GET {API}/desk-versions/{{version}}": api(
        ADMINISTERING, "/desk-versions/999999", whole=True, missing=True
    ),
    f"PUT {API}/desk": api(ADMINISTERING, "/desk", {"text": "", "base": 1}, whole=True),
    f"GET {API}/users": api(ADMINISTERING, "/users", whole=True),
    f"POST {API}/users": api(ADMINISTERING, "/users", {"name": "", "password": "", "role": "desk"}),
    f"GET {API}/users/{{user}}": api(ADMINISTERING, "/users/desk-all", whole=True),
    f"PUT {API}/users/{{user}}": api(
        ADMINISTERING, "/users/desk-all", {"role": "desk", "sites": []}, whole=True
    ),
    f"GET {API}/tokens": api(ADMINISTERING, "/tokens", whole=True),
    f"POST {API}/tokens": api(
        ADMINISTERING, "/tokens", {"name": "t", "role": "desk", "sites": []}, whole=True
    ),
    f"DELETE {API}/tokens/{{token}}": api(
        ADMINISTERING, "/tokens/nothing", whole=True, missing=True
    ),
    f"GET {API}/acts": api(AUDITING, "/acts", whole=True),
    f"GET {API}/webhooks": api(ADMINISTERING, "/webhooks"),
    f"POST {API}/webhooks": api(ADMINISTERING, "/webhooks", {}),
    f"GET {API}/webhooks/{{webhook}}": api(ADMINISTERING, "/webhooks/999", missing=True),
    f"PATCH {API}/webhooks/{{webhook}}": api(ADMINISTERING, "/webhooks/999", {}, missing=True),
    f"DELETE {API}/webhooks/{{webhook}}": api(ADMINISTERING, "/webhooks/999", missing=True),
    f"POST {API}/webhooks/{{webhook}}/rotate": api(
        ADMINISTERING, "/webhooks/999/rotate", {}, missing=True
    ),
    f"POST {API}/webhooks/{{webhook}}/test": api(
        ADMINISTERING, "/webhooks/999/test", {}, missing=True
    ),
    f"GET {API}/webhooks/{{webhook}}/deliveries": api(
        ADMINISTERING, "/webhooks/999/deliveries", missing=True
    ),
}
# Anybody may know when a person is on duty: names of sites, and hours. A token of role calendar is
# let in here and nowhere else.
CALENDARS: Final = f"GET {API}/oncall/{{view:person|team|site}}/{{key:[a-z0-9_-]+}}.ics"


@dataclass(slots=True, kw_only=True)
class House:
    """The built daemon with a ticket, a mail, a person and a file at gz and at sz each."""

    built: Built
    http: aiohttp.ClientSession
    things: dict[str, dict[str, str]] = field(default_factory=dict)  # site -> what -> its id
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)  # who -> headers

    async def ask(self, who: str, route: str, site: str = "gz") -> int:
        line, method = TABLE[route], route.partition(" ")[0]
        things = self.things[site]
        headers = {"Sec-Fetch-Site": "same-origin", **self.secrets[who]}
        sent: dict[str, Any] = {}
        if line.form is not None:
            sent["data"] = {key: filled(value, things) for key, value in line.form.items()}
        elif line.body is not None:
            sent["data"] = filled(json.dumps(line.body), things)
            headers["Content-Type"] = "application/json"
        url = self.built.url + filled(line.url, things)
        async with self.http.request(
            method, url, headers=headers, allow_redirects=False, **sent
        ) as answer:
            return answer.status


def filled(text: str, things: Mapping[str, str]) -> str:
    for name, value in things.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@asynccontextmanager
async def house(folder: Path, database_url: str) -> AsyncIterator[House]:
    async with (
        built(folder, database_url, sms={"gateways": ["log"]}) as running,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        full = House(built=running, http=http)
        for site, number in (("gz", FROM_GZ), ("sz", FROM_SZ)):
            full.things[site] = await furnish(running, site, number)
        full.secrets = await admit(running)
        yield full


async def furnish(running: Built, site: str, number: str) -> dict[str, str]:
    now = SystemClock().now()
    filed = await running.tickets.receive(
        Contact(
            medium=Medium.CALL, external_id=f"pbx1-{site}.1", received_at=now, from_value=number,
            outcome=Outcome.ANSWERED,
            call=CallFacts(pbx="pbx1", did="4008001234", final=True, ended_at=now),
        )
    )  # fmt: skip
    blob = await Blobs(running.settings.service.data_dir / "blobs").put_bytes(
        site.encode(), media_type="text/plain", name="x.txt"
    )
    async with running.database.writing() as connection:
        row = (
            await connection.execute(
                select(tickets, contacts.c.id.label("contact"))
                .select_from(tickets.join(contacts, contacts.c.ticket_id == tickets.c.id))
                .where(tickets.c.number == filed.ticket)
            )
        ).one()
        assert row.site == site
        file = {
            "contact_id": row.contact, "kind": "attachment", "sha256": blob.sha256,
            "size_bytes": 2, "media_type": "text/plain", "name": "x.txt", "stored_at": now,
        }  # fmt: skip
        await connection.execute(
            update(people).where(people.c.id == row.requester_id).values(site=site)
        )
        added = await connection.execute(insert(attachments).values(file))
        await connection.execute(
            insert(mail_pages).values({"contact_id": row.contact, "html": "<p>x"})
        )
    key = added.inserted_primary_key
    assert key is not None
    clock = SystemClock()
    remote = RemoteSessions(running.database, clock, Keys(running.database, clock).signing)
    invitation = await remote.invite(filed.ticket, actor="user:x", language="zh")
    return {
        "ticket": filed.ticket, "contact": str(row.contact), "mail": str(row.contact),
        "person": str(row.requester_id), "file": str(key[0]), "site": site,
        "remote": str(invitation.session),
    }  # fmt: skip


async def admit(running: Built) -> dict[str, dict[str, str]]:
    """Return the headers of nobody, of a calendar, and of each role at gz and everywhere."""
    accounts = Accounts(running.database, SystemClock())
    accounts._hasher = PasswordHasher(time_cost=1, memory_cost=64)
    calendar = await accounts.create_token("calendar", Role.CALENDAR)
    found = {"nobody": {}, "calendar": {"Authorization": f"Bearer {calendar}"}}
    for role in sorted(PEOPLES_ROLES):
        for where, sites in (("gz", {"gz"}), ("all", set[str]())):
            name = f"{role}-{where}"
            await accounts.add_user(name, "correct horse", role, sites=sites, engineer="wang")
            secret = await accounts.open_session(name, lasts=timedelta(hours=1))
            found[name] = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    return found


def is_right(status: int, line: Line, *, may: bool, there: bool) -> bool:
    """Return whether an answer is as the table says."""
    if not may:
        return status == 403
    if not there:
        return status == 404
    return status == 404 if line.missing else status not in REFUSED and status < 500


@pytest.fixture(autouse=True)
def _quiet() -> AsyncIterator[None]:  # type: ignore[misc]
    with structlog.testing.capture_logs():
        yield


async def test_every_route_answers_each_role_as_the_table_says(  # noqa: C901 - three axes
    tmp_path: Path, sqlite_url: str
) -> None:
    wrong = []
    async with house(tmp_path, sqlite_url) as there:
        for route, line in TABLE.items():
            if line.roles is None:
                continue
            if (status := await there.ask("nobody", route)) != 401:
                wrong.append(f"{route}: nobody gets {status}")
            if (status := await there.ask("calendar", route)) != 403 and route != CALENDARS:
                wrong.append(f"{route}: a calendar's token gets {status}")
            for role in sorted(PEOPLES_ROLES):
                for who, site in (
                    (f"{role}-gz", "gz"),
                    (f"{role}-gz", "sz"),
                    (f"{role}-all", "sz"),
                ):
                    if site == "sz" and not line.is_of_a_site and who.endswith("-gz"):
                        continue
                    is_whole = who.endswith("-all")
                    may = role in line.roles and (is_whole or not line.whole)
                    status = await there.ask(who, route, site)
                    if not is_right(status, line, may=may, there=is_whole or site == "gz"):
                        wrong.append(f"{route}: {who} at {site} gets {status}")
    assert not wrong, "\n".join(wrong)


async def test_what_is_open_to_all_breaks_for_nobody(tmp_path: Path, sqlite_url: str) -> None:
    async with house(tmp_path, sqlite_url) as there:
        found = {
            (route, who): await there.ask(who, route)
            for route, line in TABLE.items()
            if line.roles is None
            for who in ("nobody", "calendar", "desk-gz")
            if not (who == "desk-gz" and route == "POST /logout")
        }
    assert {key: status for key, status in found.items() if status >= 500} == {}


async def test_every_route_has_a_line_in_the_table(tmp_path: Path, sqlite_url: str) -> None:
    async with built(tmp_path, sqlite_url) as running:
        routes = {f"{each.method} {each.path}": each.roles for each in running.httpd._routes}
    assert sorted(routes) == sorted(TABLE)
    for route, roles in routes.items():
        line = TABLE[route]
        if route == CALENDARS:
            assert roles is None  # tokens may be in its address: it asks for itself
        elif line.roles is None or roles is None:
            assert line.roles == roles, route
        else:
            assert line.roles <= roles, route


async def test_lists_show_what_is_of_ones_sites_only(tmp_path: Path, sqlite_url: str) -> None:
    """Look for the other site's ticket number and caller in every page and list that is let in."""
    async with house(tmp_path, sqlite_url) as there:
        foreign = [there.things["sz"]["ticket"], FROM_SZ, "+86" + FROM_SZ.removeprefix("0")]
        leaks = []
        for route, line in TABLE.items():
            is_list = route.startswith("GET ") and line.roles and not line.is_of_a_site
            if not is_list or route in ("GET /live", "GET /desk/live"):
                continue
            for role in ("desk", "supervisor", "quality"):
                headers = there.secrets[f"{role}-gz"]
                url = there.built.url + line.url
                async with there.http.get(url, headers=headers, allow_redirects=False) as answer:
                    text = await answer.text()
                if any(each in text for each in foreign):
                    leaks.append(f"{route}: {role}")
    # The status page is for the wall: tickets by number, names and numbers masked.
    assert [leak for leak in leaks if not leak.startswith("GET /:")] == []
