"""A ticket to which everything happened, and the page that shows it."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from contactd.httpd import Route
from contactd.routing.notify import Reason
from contactd.store.acts import Acts
from contactd.store.blobs import Blobs
from contactd.store.calls import Calls
from contactd.store.ticketviews import TicketViews
from contactd.store.views import Views
from contactd.tickets.contact import Medium
from contactd.tickets.dispatching import Step
from contactd.tickets.model import Category, Classification
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.states import Action
from contactd.web import peoplepage, ticketacts, ticketfiles, ticketpage
from contactd.web.pages import Pages
from contactd.web.peoplepage import PeoplePage
from contactd.web.ticketacts import TicketActs
from contactd.web.ticketfiles import TicketFiles
from contactd.web.ticketpage import TicketPage
from tests.fakes.desk import Desk, engineer, hours, minutes, shift

ZONE: Final = "Asia/Shanghai"
CALLER: Final = "13922223333"
HOSTILE_TITLE: Final = "<script>alert(1)</script>\"'{{ 7 * 7 }} %(number)s \u202eDROP TABLE tickets"
NOTE: Final = "等待配件：交换机电源模块\n供应商承诺下午到货"


def document(**promises: Any) -> dict[str, Any]:
    """Return a desk with names as people have them; `promises` replace what gz was promised."""
    at_gz = {"supervisor": "tan", "contract": "gold", "calendar": "gz-hours"}
    return {
        "sites": [
            {"key": "gz", "name_zh": "广州珠江新城", "name_en": "Guangzhou", "area_code": "20",
             "floor": "+8613800000090", **at_gz},
            {"key": "tokyo", "name_zh": "东京", "name_en": "Tokyo", "zone": "Asia/Tokyo",
             "floor": "+8613800000090"},
        ],
        "engineers": [
            {**engineer("wang", 1, page=["call", "text after 2m"]), "name": "王伟"},
            {**engineer("li", 2), "name": "李娜"},
            {**engineer("zhao", 3), "name": "赵云鹏"},
            {**engineer("huang", 4), "name": "黄强"},
            {**engineer("tan", 5), "name": "谭丽华"},
        ],
        "people": [
            {"key": "liang", "name": "梁总", "department": "总经理办公室", "site": "gz",
             "vip": True, "numbers": [CALLER], "mails": ["liang@example.com"]},
            {"key": "sato", "name": "Sato", "site": "tokyo", "numbers": ["+81312345678"]},
        ],
        "shifts": [shift("gz", 1, "wang"), shift("gz", 2, "li")],
        "calendars": [
            {"key": "gz-hours", "zone": ZONE,
             "weekly": {"mon-fri": ["09:00-12:00", "13:00-18:00"]}}
        ],
        "contracts": [
            {
                "key": "gold",
                "promises": {
                    "all": {
                        "answer": "15m",
                        "first_update": "1h",
                        "offer": "15m",
                        "arrival": {"goal": "2h", "pausable": True},
                        "resolution": {"goal": "3h", "calendar": "gz-hours", "pausable": True},
                        **promises,
                    }
                },
            }
        ],
    }  # fmt: skip


async def eventful(desk: Desk) -> str:
    """Play a day of a ticket: missed, late, on hold, at the site, solved, and not solved."""
    await desk.load(**document())
    ticket = await desk.call(CALLER, waited=timedelta(seconds=95))
    await desk.fast_forward(minutes(4))
    await desk.press("li", "2")
    await desk.fast_forward(minutes(14))
    await desk.press("wang", "1")
    kind = Classification(
        impact=Impact.DEPARTMENT, urgency=Urgency.MEDIUM, category=Category.NETWORK,
        system="ERP", title="三楼会议室无法上网，打印机也连不上",
    )  # fmt: skip
    await desk.when(desk.tickets.classify(ticket, kind, actor="engineer:wang"))
    await desk.when(desk.tickets.answered(ticket, actor="engineer:wang", how="call_back"))
    await desk.fast_forward(minutes(25))
    await desk.when(desk.tickets.updated(ticket, actor="engineer:wang", note="已定位到交换机"))
    await desk.fast_forward(minutes(6))
    await desk.when(desk.tickets.act(ticket, Action.HOLD, actor="engineer:wang", note=NOTE))
    await desk.fast_forward(hours(1))
    await desk.when(desk.tickets.act(ticket, Action.RESUME, actor="engineer:wang"))
    await desk.when(desk.tickets.dispatch(ticket, "huang", actor="engineer:wang"))
    await desk.press("huang", "2")
    await desk.fast_forward(minutes(5))
    await desk.when(desk.tickets.dispatch(ticket, "zhao", actor="engineer:wang"))
    await desk.press("zhao", "4")
    await desk.fast_forward(minutes(40))
    await arrive(desk, ticket)
    await desk.write(CALLER, Medium.TEXT, "电源模块到了吗？我们下午三点要开会。")
    await desk.fast_forward(minutes(20))
    step = desk.tickets.dispatch_step(ticket, Step.FINISH, actor="engineer:zhao")
    await desk.when(step)
    solved = desk.tickets.act(ticket, Action.RESOLVE, actor="engineer:zhao", note="已更换电源")
    await desk.when(solved)
    await desk.fast_forward(minutes(25))
    await desk.when(
        desk.tickets.confirm(
            ticket, solved=False, actor="requester", how="text", note="还是上不了网"
        )
    )
    await desk.fast_forward(minutes(9))
    return ticket


async def arrive(desk: Desk, ticket: str) -> None:
    step = desk.tickets.dispatch_step(ticket, Step.ARRIVE, actor="engineer:zhao", code=code(desk))
    await desk.when(step)


def code(desk: Desk) -> str:
    """Return the arrival code that the requester was sent last."""
    sent = [each.notification for each in desk.network]
    return [note.facts["code"] for note in sent if note.reason is Reason.CODE][-1]


async def keep_recording(desk: Desk, ticket: str, folder: Path) -> None:
    """Attach a recording to the ticket's first contact."""
    detail = await Views(desk.database, desk.clock).ticket(ticket)
    file = folder / "call.wav"
    file.write_bytes(b"RIFF")
    blob = await Blobs(folder / "blobs").put(file, media_type="audio/wav")
    await Calls(desk.database, desk.clock).attach(detail.contacts[0].id, "recording", blob)


def page_of(desk: Desk, folder: Path | None = None) -> Callable[[Pages], Iterable[Route]]:
    """Return what makes the page's routes over the desk's database, at the desk's time.

    `folder` is where the files are, if there are any.
    """

    def make(pages: Pages) -> Iterable[Route]:
        views = Views(desk.database, desk.clock)
        more = TicketViews(desk.database, desk.clock)
        page = TicketPage(
            pages=pages, views=views, more=more, terms=desk.core.terms, clock=desk.clock,
            zone=ZONE, has_mail=True, has_pbx=True,
        )  # fmt: skip
        acts = TicketActs(
            page=page, tickets=desk.tickets, writes=desk.core.follow_up, service="contactd"
        )
        people = PeoplePage(
            pages=pages, views=views, more=more, tickets=desk.tickets, clock=desk.clock, zone=ZONE
        )
        routes = (
            *ticketpage.routes(page), *ticketacts.routes(acts), *peoplepage.routes(people),
        )  # fmt: skip
        if folder is None:
            return routes
        files = TicketFiles(more=more, blobs=Blobs(folder), acts=Acts(desk.database, desk.clock))
        return (*routes, *ticketfiles.routes(files))

    return make
