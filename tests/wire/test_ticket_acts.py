"""What is done on a ticket's page, through its forms: each act, who may, and what goes wrong."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from contactd.routing.notify import Reason
from contactd.store.acts import ActFilters, Acts
from contactd.store.blobs import Blobs
from contactd.store.engine import Database
from contactd.store.schema import attachments, contacts, tickets
from contactd.tickets.contact import Blob, Contact, File, MailFacts, Medium
from contactd.tickets.people import Role
from contactd.tickets.states import TRANSITIONS, Action, State
from contactd.web.access import ACTING, DECIDING, LISTENING, PERSONAL
from contactd.web.ticketpage import PATH
from tests.fakes.clock import FakeClock
from tests.fakes.desk import Desk, hours
from tests.fakes.history import CALLER, ZONE, code, document, keep_recording, page_of
from tests.fakes.site import FakeIdentity, Site, running_site

HTML = {"Accept": "text/html", "Accept-Language": "en"}
KEY = "0123456789abcdef"
STRANGER = "13712340001"
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20


@dataclass(slots=True, kw_only=True)
class Browser:
    """Sends forms of one desk's pages, as somebody by token."""

    desk: Desk
    site: Site
    http: aiohttp.ClientSession
    who: str = "cd_supervisor"

    async def get(self, path: str, who: str = "") -> tuple[int, str]:
        async with self.http.get(
            f"{self.site.url}{path}", headers=self._headers(who), allow_redirects=False
        ) as answer:
            return answer.status, await answer.text(errors="replace")

    async def post(
        self, path: str, fields: dict[str, Any] | None = None, who: str = ""
    ) -> tuple[int, str]:
        """Return the status, and where it leads or what the page says."""
        async with self.http.post(
            f"{self.site.url}{path}",
            data=fields or {"x": ""},
            headers=self._headers(who),
            allow_redirects=False,
        ) as answer:
            text = await answer.text()
            await self.desk.drain()
            return answer.status, answer.headers.get("Location", "") or text

    async def act(self, ticket: str, act: str, who: str = "", **fields: Any) -> tuple[int, str]:
        return await self.post(f"{PATH}/{ticket}/acts/{act}", fields, who)

    async def page(self, ticket: str, query: str = "", who: str = "") -> str:
        status, html = await self.get(f"{PATH}/{ticket}{query}", who)
        assert status == 200
        return html

    def _headers(self, who: str) -> dict[str, str]:
        return HTML | {"Authorization": f"Bearer {who or self.who}"}


@pytest.fixture
async def desk(database: Database, clock: FakeClock) -> Desk:
    desk = Desk(database, clock)
    await desk.load(**document())
    return desk


@pytest.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    async with (
        running_site(make_routes=page_of(desk, tmp_path / "blobs")) as site,
        aiohttp.ClientSession() as http,
    ):
        known = site.accounts.tokens
        known["wang"] = FakeIdentity(name="wang", role=Role.ENGINEER, engineer="wang")
        known["at_gz"] = FakeIdentity(name="gz", role=Role.SUPERVISOR, sites=frozenset({"gz"}))
        known["at_tokyo"] = FakeIdentity(
            name="tokyo", role=Role.SUPERVISOR, sites=frozenset({"tokyo"})
        )
        yield Browser(desk=desk, site=site, http=http)


async def row(desk: Desk, number: str) -> dict[str, Any]:
    async with desk.database.reading() as connection:
        found = await connection.execute(select(tickets).where(tickets.c.number == number))
        return dict(found.mappings().one())


async def actions(desk: Desk, number: str) -> list[str]:
    return [each.action for each in await desk.journal(number)]


def offered(html: str) -> set[str]:
    """Return the acts whose forms are on a page."""
    return set(re.findall(r'action="/desk/tickets/\d+/acts/(\w+)"', html))


def seen_on(html: str) -> str:
    found = re.search(r'name="seen" value="(\d+)"', html)
    assert found
    return found[1]


# The life cycle


async def test_a_ticket_is_taken_held_resumed_resolved_and_confirmed(browser: Browser) -> None:
    desk = browser.desk
    ticket = await desk.call(CALLER)
    for act, state, fields in (
        ("take", "in_progress", {}),
        ("hold", "pending", {"note": "等配件"}),
        ("resume", "in_progress", {}),
        ("resolve", "resolved", {"note": "换了电源"}),
        ("not_solved", "in_progress", {"note": "还是不行"}),
        ("resolve", "resolved", {"note": "又换了一个"}),
        ("solved", "closed", {}),
    ):
        status, where = await browser.act(ticket, act, who="wang", **fields)
        assert (status, where) == (303, f"{PATH}/{ticket}?did={act}#done")
        assert (await row(desk, ticket))["state"] == state
    html = await browser.page(ticket)
    for words in ("等配件", "换了电源", "还是不行"):
        assert words in html


@pytest.mark.parametrize("state", [*State])
async def test_the_buttons_are_those_of_the_table_of_states(browser: Browser, state: State) -> None:
    desk = browser.desk
    ticket = await desk.write(STRANGER)
    await bring(desk, ticket, state)
    html = await browser.page(ticket)
    wanted = {action.value for before, action in TRANSITIONS if before is state}
    # Who has solved it is said by what the requester said; acknowledging is `take`.
    named = {"acknowledge": "take", "reopen": "not_solved"}
    wanted = {named.get(each, each) for each in wanted}
    moves = {*map(str, Action), "take", "not_solved"}
    assert offered(html) & moves == wanted


async def bring(desk: Desk, ticket: str, state: State) -> None:
    steps = {
        State.NEW: (),
        State.IN_PROGRESS: (Action.ACKNOWLEDGE,),
        State.PENDING: (Action.ACKNOWLEDGE, Action.HOLD),
        State.RESOLVED: (Action.ACKNOWLEDGE, Action.RESOLVE),
        State.CLOSED: (Action.ACKNOWLEDGE, Action.RESOLVE, Action.CLOSE),
        State.CANCELLED: (Action.CANCEL,),
    }
    for step in steps[state]:
        await desk.when(desk.tickets.act(ticket, step, actor="user:x", note="x"))


async def test_what_is_not_possible_any_more_says_so_and_keeps_the_words(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    status, html = await browser.act(ticket, "hold", note="等<b>配件</b>")
    assert status == 409
    assert "moved on meanwhile" in html
    assert "等<b>" not in html
    await bring(browser.desk, ticket, State.IN_PROGRESS)
    status, html = await browser.act(ticket, "hold", note="")
    assert status == 422
    assert "Please say in a few words" in html
    assert (await row(browser.desk, ticket))["state"] == "in_progress"


async def test_a_second_engineer_is_told_that_somebody_has_it(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    await browser.desk.when(browser.desk.tickets.take(ticket, "li", how="web"))
    status, html = await browser.act(ticket, "take", who="wang")
    assert status == 422
    assert "Somebody else has it already" in html


# Who may


@pytest.mark.parametrize("role", [*Role])
async def test_acts_are_for_the_roles_that_work(browser: Browser, role: Role) -> None:
    ticket = await browser.desk.write(STRANGER)
    who = f"cd_{role}"
    if role in PERSONAL:
        html = await browser.page(ticket, who=who)
        assert bool(offered(html)) == (role in ACTING)
        assert ("contract" in offered(html)) == (role in DECIDING)
    status, _ = await browser.act(ticket, "comment", who, note="x", key=KEY)
    assert status == (303 if role in ACTING else 403)
    status, _ = await browser.act(ticket, "contract", who, contract="gold")
    assert status == (303 if role in DECIDING else 403)


async def test_what_belongs_to_another_site_is_as_if_it_were_not_there(browser: Browser) -> None:
    desk = browser.desk
    ticket = await desk.call(CALLER)  # at gz
    own = await desk.call("+81312345678", waited=None)
    person = (await row(desk, ticket))["requester_id"]
    async with desk.database.reading() as connection:
        contact = (await connection.execute(select(contacts.c.id))).scalars().first()
    assert (await browser.get(f"{PATH}/{ticket}", "at_gz"))[0] == 200
    for path in (f"{PATH}/{ticket}", f"/desk/people/{person}", f"/desk/people?ticket={ticket}"):
        assert (await browser.get(path, "at_tokyo"))[0] == 404
    for path, fields in (
        (f"{PATH}/{ticket}/acts/comment", {"note": "x", "key": KEY}),
        (f"{PATH}/{ticket}/acts/cancel", {"note": "x"}),
        (f"{PATH}/{ticket}/mail", {"words": "x", "key": KEY}),
        (f"{PATH}/{ticket}", {"words": "x", "key": KEY}),
        (f"{PATH}/{ticket}/preview", {"words": "x", "key": KEY}),
        (f"{PATH}/{own}/acts/split", {"contact": contact}),
        (f"{PATH}/{own}/acts/requester", {"person": person}),
        (f"/desk/people/{person}", {"name": "x"}),
        (f"/desk/people/{person}/merge", {"into": "1"}),
        ("/desk/new", {"person": person, "title": "x", "key": KEY}),
    ):
        assert (await browser.post(path, fields, "at_tokyo"))[0] == 404, path
    status, html = await browser.act(own, "merge", "at_tokyo", into=ticket)
    assert status == 422
    assert "There is no ticket of this number" in html
    assert "comment" not in await actions(desk, ticket)
    listed = (await browser.get("/desk/people", "at_tokyo"))[1]
    assert "梁总" not in listed
    assert "Sato" in listed


async def test_who_is_not_logged_in_does_nothing(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    for path in (f"{PATH}/{ticket}/acts/comment", f"{PATH}/{ticket}/mail", "/desk/new"):
        status, where = await browser.post(path, {"note": "x", "key": KEY}, "nobody")
        assert (status, where.split("?")[0]) == (303, "/login")


@pytest.mark.parametrize(
    ("act", "fields"),
    [
        ("nothing", {}), ("step", {"step": "fly", "dispatch": "1"}), ("split", {"contact": "x"}),
        ("classify", {"impact": "9"}), ("classify", {"category": "magic"}),
        ("comment", {"note": "x", "key": "wrong"}), ("requester", {"person": "-1"}),
    ],
)  # fmt: skip
async def test_what_no_form_of_ours_sends_is_refused(
    browser: Browser, act: str, fields: dict[str, str]
) -> None:
    ticket = await browser.desk.write(STRANGER)
    before = await browser.desk.journal(ticket)
    assert (await browser.act(ticket, act, **fields))[0] in (400, 404)
    assert await browser.desk.journal(ticket) == before


# What it is about


async def test_two_who_classify_at_once_both_see_what_the_other_says(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    seen = seen_on(await browser.page(ticket))
    fields = {"impact": "3", "urgency": "2", "category": "network", "system": "ERP"}
    one = await browser.act(ticket, "classify", seen=seen, title="三楼断网", **fields)
    assert one[0] == 303
    status, html = await browser.act(
        ticket, "classify", seen=seen, title="打印机<坏了>", **fields | {"impact": "2"}
    )
    assert status == 409
    assert "Somebody else has changed this meanwhile" in html
    assert 'value="打印机&lt;坏了&gt;"' in html
    assert "now: 三楼断网" in html
    assert (await row(browser.desk, ticket))["title"] == "三楼断网"
    again = seen_on(html)
    assert int(again) > int(seen)
    status, _ = await browser.act(ticket, "classify", seen=again, title="打印机", **fields)
    assert status == 303
    assert (await row(browser.desk, ticket))["title"] == "打印机"


async def test_a_description_is_kept_with_the_time_of_the_site(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    html = await browser.page(ticket)
    assert re.search(r'class="wanted"[^>]*><span[^>]*>○</span> When it happened', html)
    status, _ = await browser.act(
        ticket, "describe", seen=seen_on(html), zone=ZONE, what="一直\n报错", device="PC-0815",
        happened_at="2026-11-20T09:30", version="5.2", error="0x8007", impact="2", wished="今天",
    )  # fmt: skip
    assert status == 303
    assert (await row(browser.desk, ticket))["standard"] == {
        "what": "一直\n报错", "device": "PC-0815", "happened_at": "2026-11-20T01:30:00.000000Z",
        "version": "5.2", "error": "0x8007", "impact": 2, "wished": "今天",
    }  # fmt: skip
    html = await browser.page(ticket)
    assert "PC-0815" in html
    assert not re.search(r'class="wanted"[^>]*><span[^>]*>○</span> When it happened', html)
    status, html = await browser.act(ticket, "describe", happened_at="yesterday", what="words")
    assert status == 422
    assert "That is not a date" in html
    assert "words</textarea>" in html


async def test_a_note_is_kept_once_and_found_among_the_notes(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER, text="words of the requester")
    for _ in range(2):
        assert (await browser.act(ticket, "comment", note="an inner note", key=KEY))[0] == 303
    assert (await actions(browser.desk, ticket)).count("comment") == 1
    everything, said, notes = [
        await browser.page(ticket, query) for query in ("", "?show=said", "?show=notes")
    ]
    for html, has in ((everything, (1, 1)), (said, (0, 1)), (notes, (1, 0))):
        line = html.partition('class="entries line"')[2].partition("</section>")[0]
        found = tuple(int(each in line) for each in ("an inner note", "words of the requester"))
        assert found == has


async def test_that_somebody_was_spoken_to_stops_the_promise_to_answer(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    status, _ = await browser.act(
        ticket, "answered", who="wang", how="call_back", note="会再试", key=KEY
    )
    assert status == 303
    entries = {each.action: each for each in await browser.desk.journal(ticket)}
    assert entries["answered"].body["engineer"] == "wang"
    assert entries["comment"].body["note"] == "会再试"
    assert (await row(browser.desk, ticket))["assignee_id"] is not None


# Passing it on


async def test_it_is_handed_over_escalated_and_given_to_a_team(browser: Browser) -> None:
    desk = browser.desk
    ticket = await desk.call(CALLER)
    html = await browser.page(ticket)
    assert html.index("王伟 · on duty") < html.index("黄强")
    status, _ = await browser.act(
        ticket, "hand_over", engineer="li", note="请接手", seen=seen_on(html)
    )
    assert status == 303
    assert (await row(desk, ticket))["assignee_id"] is not None
    status, html = await browser.act(ticket, "hand_over", engineer="", seen="999")
    assert (status, "Choose an engineer" in html) == (422, True)
    status, html = await browser.act(ticket, "hand_over", engineer="nobody", seen="999")
    assert (status, "no such engineer" in html) == (422, True)
    assert (await browser.act(ticket, "team", team="network", seen="999"))[0] == 303
    assert (await row(desk, ticket))["team"] == "network"
    desk.forget()
    assert (await browser.act(ticket, "escalate"))[0] == 303
    told = {"escalation.escalated", "hand_over.declined"} & set(await actions(desk, ticket))
    assert told
    assert (await browser.act(ticket, "remote"))[0] == 303
    assert "remote.asked" in await actions(desk, ticket)


async def test_a_dispatch_goes_step_by_step_with_the_requesters_code(browser: Browser) -> None:
    desk = browser.desk
    ticket = await desk.call(CALLER)
    assert (await browser.act(ticket, "dispatch", engineer="huang"))[0] == 303
    for step, told in (("accept", ""), ("set_out", "0000")):
        status, _ = await browser.act(ticket, "step", step=step, dispatch="1", code=told)
        assert status == 303
    status, html = await browser.act(ticket, "step", step="arrive", dispatch="1", code="0")
    assert (status, "not the code" in html) == (422, True)
    secret = code(desk)
    status, _ = await browser.act(ticket, "step", step="arrive", dispatch="1", code=secret)
    assert status == 303
    html = await browser.page(ticket)
    assert "arrival proved by the code" in html
    assert 'value="finish"' in html
    assert 'value="prove"' not in html
    for _ in range(2):
        assert (await browser.act(ticket, "step", step="finish", dispatch="1"))[0] == 303
    assert (await actions(desk, ticket)).count("dispatch.done") == 1
    assert (await browser.act(ticket, "step", step="set_out", dispatch="1"))[0] == 409


async def test_another_contract_is_promised_from_now_on(browser: Browser) -> None:
    ticket = await browser.desk.write(STRANGER)
    assert (await browser.act(ticket, "contract", contract="gold", seen="999"))[0] == 303
    assert "gold.1" in await browser.page(ticket)
    status, _ = await browser.act(ticket, "contract", contract="silver", seen="999")
    assert status == 422


async def test_tickets_are_merged_and_a_contact_is_split_off(browser: Browser) -> None:
    desk = browser.desk
    one, other = await desk.write(STRANGER, text="ONE"), await desk.write("13712340002")
    status, _ = await browser.act(one, "merge", into=f" {other} ")
    assert status == 303
    assert f'href="/desk/tickets/{other}"' in await browser.page(one)
    html = await browser.page(other)
    assert "ONE" in html
    moved = re.findall(r'name="contact" value="(\d+)"', html)
    assert len(moved) == 2
    async with desk.database.reading() as connection:
        asked = select(contacts.c.id).where(contacts.c.text == "ONE")
        mine = (await connection.execute(asked)).scalar_one()
    status, where = await browser.act(other, "split", contact=mine)
    assert status == 303, where
    assert "ticket.separated" in await actions(desk, other)
    status, html = await browser.act(other, "merge", into="26112000999")
    assert (status, "There is no ticket of this number" in html) == (422, True)


async def test_a_ticket_turns_out_to_be_somebody_elses(browser: Browser) -> None:
    desk = browser.desk
    liang = (await row(desk, await desk.call(CALLER)))["requester_id"]
    ticket = await desk.write(STRANGER)
    html = (await browser.get(f"/desk/people?ticket={ticket}&q=梁"))[1]
    assert f'name="person" value="{liang}"' in html
    assert (await browser.act(ticket, "requester", person=liang))[0] == 303
    assert "梁总" in await browser.page(ticket)


# Writing to them


async def test_a_mail_is_seen_before_it_goes_and_goes_once(browser: Browser) -> None:
    desk = browser.desk
    ticket = await desk.call(CALLER)
    path = f"{PATH}/{ticket}/mail"
    fields = {"key": KEY, "subject": "配件", "words": "您好，\n<b>明天</b>到。", "answers": "1"}
    status, html = await browser.post(path, fields | {"do": "send"})
    assert status == 200
    assert "This is how it will be sent" in html
    assert "liang@example.com" in html
    assert "&lt;b&gt;明天&lt;/b&gt;" in html
    shown = re.findall(r'name="shown" value="([0-9a-f]+)"', html)[-1]
    changed = fields | {"do": "send", "shown": shown, "words": "anders"}
    assert (await browser.post(path, changed))[0] == 200
    for _ in range(2):
        status, _ = await browser.post(path, fields | {"do": "send", "shown": shown})
        assert status == 303
    said = [s.notification for s in desk.everything if s.notification.reason is Reason.SAID]
    assert [(each.medium, each.facts["subject"]) for each in said] == [(Medium.MAIL, "配件")]
    assert (await actions(desk, ticket)).count("requester.written_to") == 1
    assert "answered" in await actions(desk, ticket)
    html = await browser.page(ticket, "?show=said")
    assert "&lt;b&gt;明天&lt;/b&gt;" in html
    assert "sent-sent" in html


async def test_a_mail_without_words_or_address_says_why_it_cannot_go(browser: Browser) -> None:
    ticket = await browser.desk.call(CALLER)
    path = f"{PATH}/{ticket}/mail"
    status, html = await browser.post(path, {"key": KEY, "words": " ", "subject": "kept"})
    assert (status, "There are no words in it" in html, 'value="kept"' in html) == (422, True, True)
    nobody = await browser.desk.write(STRANGER)
    status, html = await browser.post(f"{PATH}/{nobody}/mail", {"key": KEY, "words": "x"})
    assert (status, "No mail address" in html) == (422, True)


# Long tickets


async def test_a_long_ticket_comes_a_part_at_a_time_and_nothing_is_left_out(
    browser: Browser,
) -> None:
    desk = browser.desk
    ticket = await desk.write(STRANGER, text="said 0")
    for number in range(130):
        await desk.tickets.comment(ticket, f"note {number}.", actor="user:x")
    for number in range(1, 80):
        await desk.tickets.receive(
            Contact(
                medium=Medium.TEXT, external_id=f"t-{number}", received_at=desk.clock.now(),
                from_value=STRANGER, text=f"said {number}",
            )
        )  # fmt: skip
    path, found = f"{PATH}/{ticket}", ""
    for _ in range(6):
        status, html = await browser.get(path)
        assert status == 200
        line = html.partition('class="entries line"')[2].partition("</section>")[0]
        found += line
        older = re.search(r'href="([^"]*before=[^"]+)#line"', line)
        if older is None:
            break
        path = unescape(older[1])
    entries = [int(each) for each in re.findall(r'id="entry-(\d+)"', found)]
    heard = re.findall(r'id="contact-(\d+)"', found)
    assert sorted(entries) == list(range(1, len(await desk.journal(ticket)) + 1))
    assert len(heard) == len(set(heard)) == 80
    html = await browser.page(ticket, "?entry=3#entry-3")
    assert 'id="entry-3"' in html
    assert "This is an older part" in html


@pytest.mark.parametrize(
    "query",
    [
        "before=x", "before=1.2", "before=" + "9" * 60, "entry=x", "show=<b>", "did=<b>",
        "before=99999999999999999.1.1",
    ],
)  # fmt: skip
async def test_an_address_that_nobody_gave_does_no_harm(browser: Browser, query: str) -> None:
    ticket = await browser.desk.write(STRANGER)
    assert "<b>" not in await browser.page(ticket, f"?{query}")


# Files


async def with_file(desk: Desk, folder: Path, content: bytes, blob: dict[str, str]) -> int:
    kept = await Blobs(folder / "blobs").put_bytes(content, **blob)
    mail = Contact(
        medium=Medium.MAIL, external_id=f"m-{kept.sha256[:8]}-{blob['name']}",
        received_at=desk.clock.now(), from_value="zhang@x.cn", text="见附件",
        mail=MailFacts(subject="x", message_id=f"<{kept.sha256[:9]}@x>"),
        files=(File(kind="attachment", blob=kept),),
    )  # fmt: skip
    await desk.tickets.receive(mail)
    async with desk.database.reading() as connection:
        return int((await connection.execute(select(attachments.c.id))).scalars().all()[-1])


@pytest.mark.parametrize(
    ("content", "kind", "shown"),
    [
        (PNG, "image/png", "image/png"),
        (PNG, "image/jpeg", "image/png"),  # as it is, not as it says
        (b"<svg xmlns='x'><script>alert(1)</script></svg>", "image/svg+xml", ""),
        (b"<script>alert(1)</script>", "image/png", ""),
        (b"<script>alert(1)</script>", "text/html", ""),
        (b"%PDF-1.7", "application/pdf", ""),
        (b"x", "text/html\r\nX: y", ""),
    ],
)
async def test_a_file_is_shown_only_if_it_is_a_picture(
    browser: Browser, tmp_path: Path, content: bytes, kind: str, shown: str
) -> None:
    blob = {"media_type": kind, "name": "<img src=x>.png"}
    file = await with_file(browser.desk, tmp_path, content, blob)
    headers = {"Authorization": "Bearer cd_desk"}
    async with browser.http.get(f"{browser.site.url}/desk/files/{file}", headers=headers) as answer:
        assert answer.status == 200
        assert await answer.read() == content
        assert answer.content_type == (shown or "application/octet-stream")
        place = answer.headers["Content-Disposition"]
        assert place.startswith("inline" if shown else "attachment")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_pictures_are_in_the_line_and_other_files_are_links(
    browser: Browser, tmp_path: Path
) -> None:
    desk = browser.desk
    name = '"><img src=x onerror=alert(1)>'
    png = await with_file(desk, tmp_path, PNG, {"media_type": "image/png", "name": name})
    svg = await with_file(
        desk, tmp_path, b"<svg/>", {"media_type": "image/svg+xml", "name": "a.svg"}
    )
    async with desk.database.reading() as connection:
        number = (await connection.execute(select(tickets.c.number))).scalars().first()
    html = await browser.page(str(number), who="cd_desk")
    assert f'<img src="/desk/files/{png}"' in html
    assert f'<img src="/desk/files/{svg}"' not in html
    assert f'href="/desk/files/{svg}" download' in html
    assert "<img src=x" not in html


async def test_files_are_for_who_sees_the_ticket_and_recordings_for_who_may_listen(
    browser: Browser, tmp_path: Path
) -> None:
    ticket = await browser.desk.call(CALLER)
    await keep_recording(browser.desk, ticket, tmp_path)
    for role in Role:
        status, _ = await browser.get("/desk/files/1", f"cd_{role}")
        assert status == (200 if role in LISTENING else 403)
    assert (await browser.get("/desk/files/1", "at_tokyo"))[0] == 404
    for path in ("/desk/files/2", "/desk/files/x", "/desk/files/" + "9" * 30):
        assert (await browser.get(path))[0] == 404
    found = await Acts(browser.desk.database, browser.desk.clock).page(
        ActFilters(action="recording.played")
    )
    assert sorted(act.actor for act in found.items) == [
        f"user:oa-{role}" for role in sorted(LISTENING)
    ]
    assert {act.subject for act in found.items} == {ticket}


async def test_a_file_with_a_virus_is_given_to_nobody(browser: Browser, tmp_path: Path) -> None:
    kept = await Blobs(tmp_path / "blobs").put_bytes(PNG, media_type="image/png", name="x")
    await browser.desk.tickets.receive(
        Contact(
            medium=Medium.MAIL, external_id="m", received_at=browser.desk.clock.now(),
            from_value="a@x.cn", mail=MailFacts(checks={"virus": "Eicar"}),
            files=(File(kind="attachment", blob=Blob(
                sha256=kept.sha256, size_bytes=9, media_type="image/png", name="x")),),
        )
    )  # fmt: skip
    assert (await browser.get("/desk/files/1"))[0] == 404


# Nothing on it runs


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}%(x)s"


async def test_what_strangers_say_is_nowhere_more_than_text(browser: Browser) -> None:
    desk = browser.desk
    await desk.tickets.receive(
        Contact(
            medium=Medium.MAIL, external_id=HOSTILE, received_at=desk.clock.now(),
            from_value=f'{HOSTILE}@x.cn'.replace(" ", ""), from_name=HOSTILE, text=HOSTILE,
            mail=MailFacts(subject=HOSTILE, checks={HOSTILE: HOSTILE}, notes=(HOSTILE,)),
        )
    )  # fmt: skip
    async with desk.database.reading() as connection:
        number = str((await connection.execute(select(tickets.c.number))).scalar_one())
    person = (await row(desk, number))["requester_id"]
    told = dict.fromkeys(("what", "device", "version", "error", "wished"), HOSTILE)
    assert (await browser.act(number, "describe", **told))[0] in (303, 409)
    fields = {"title": HOSTILE, "system": HOSTILE, "seen": "999"}
    assert (await browser.act(number, "classify", **fields))[0] == 303
    assert (await browser.act(number, "describe", seen="999", **told))[0] == 303
    assert (await browser.act(number, "comment", note=HOSTILE, key=KEY))[0] == 303
    card = {"name": HOSTILE, "department": HOSTILE}
    assert (await browser.post(f"/desk/people/{person}", card))[0] == 303
    refused = [
        (await browser.act(number, act, **fields))[1]
        for act, fields in (
            ("merge", {"into": HOSTILE}),
            ("hand_over", {"engineer": HOSTILE, "note": HOSTILE, "seen": "999"}),
            ("describe", {"happened_at": HOSTILE, **told}),
        )
    ]
    refused.append((await browser.post("/desk/new", {"what": HOSTILE, "key": KEY}))[1])
    shown = [
        await browser.page(number, query) for query in ("", "?show=said", "?show=notes")
    ] + [
        (await browser.get(path))[1]
        for path in (
            f"/desk/people/{person}", "/desk/people", f"/desk/new?person={person}",
            f"/desk/people?q={'<script>'}", f"/desk/people/{person}?same={'<script>'}",
        )
    ]  # fmt: skip
    for html in (*shown, *refused):
        assert not re.search(
            r"<script(?! src=\"/static)|<img src=x|onerror=alert\(2\)>[^&]*<", html
        )
        assert "49%" not in html
        assert ' style="' not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown[0]


async def test_it_is_quick_with_many_entries(browser: Browser) -> None:
    desk = browser.desk
    ticket = await desk.write(STRANGER)
    for number in range(300):
        await desk.tickets.comment(ticket, f"{number}", actor="user:x")
    await desk.fast_forward(hours(1))
    async with asyncio.timeout(4):
        await browser.page(ticket)
