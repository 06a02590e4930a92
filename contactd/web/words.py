"""What the pages call the values of the domain: message ids, translated where they are shown."""

from collections.abc import Mapping
from typing import Final

from contactd.routing.clocks import Kind, Metric
from contactd.routing.clocks import State as ClockState
from contactd.routing.notify import Reason, SendState
from contactd.routing.oncall import Why
from contactd.service import HealthState
from contactd.tickets.contact import Medium, Outcome, Writer
from contactd.tickets.describing import Item
from contactd.tickets.dispatching import State as DispatchState
from contactd.tickets.dispatching import Step
from contactd.tickets.model import Category
from contactd.tickets.people import Role
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.remote import Ending, Mode, Right
from contactd.tickets.remote import State as RemoteState
from contactd.tickets.states import State
from contactd.web.board import CallStage


def N_(text: str) -> str:  # noqa: N802 - gettext's customary mark for extraction
    return text


ROLES: Final[Mapping[Role, str]] = {
    Role.DESK: N_("Service desk"),
    Role.ENGINEER: N_("Engineer"),
    Role.SUPERVISOR: N_("Supervisor"),
    Role.MANAGER: N_("Manager"),
    Role.QUALITY: N_("Quality"),
    Role.OPERATIONS: N_("Operations"),
    Role.ADMIN: N_("Administrator"),
    Role.CALENDAR: N_("Calendar address"),
}
STATES: Final[Mapping[State, str]] = {
    State.NEW: N_("New"),
    State.IN_PROGRESS: N_("In progress"),
    State.PENDING: N_("Pending"),
    State.RESOLVED: N_("Resolved"),
    State.CLOSED: N_("Closed"),
    State.CANCELLED: N_("Cancelled"),
}
STAGES: Final[Mapping[CallStage, str]] = {
    CallStage.RINGING: N_("Ringing"),
    CallStage.GREETING: N_("In the greeting"),
    CallStage.QUEUED: N_("Waiting"),
    CallStage.OFFERED: N_("Ringing an engineer"),
    CallStage.TALKING: N_("Talking"),
    CallStage.VOICEMAIL: N_("Leaving a message"),
}
MEDIA: Final[Mapping[Medium, str]] = {
    Medium.CALL: N_("Calls"),
    Medium.MAIL: N_("E-mail"),
    Medium.TEXT: N_("Texts"),
    Medium.WEB: N_("Web"),
    Medium.REMOTE: N_("Remote help"),
}
ONE_OF: Final[Mapping[Medium, str]] = {  # a single one
    Medium.CALL: N_("call"),
    Medium.MAIL: N_("e-mail"),
    Medium.TEXT: N_("text"),
    Medium.WEB: N_("web form"),
    Medium.REMOTE: N_("remote help"),
}
OUTCOMES: Final[Mapping[Outcome, str]] = {
    Outcome.RECEIVED: N_("received"),
    Outcome.ANSWERED: N_("answered"),
    Outcome.VOICEMAIL: N_("left a message"),
    Outcome.ABANDONED_GREETING: N_("hung up in the greeting"),
    Outcome.ABANDONED_MENU: N_("hung up in the menu"),
    Outcome.ABANDONED_QUEUE: N_("hung up while waiting"),
    Outcome.ABANDONED_VOICEMAIL: N_("hung up instead of leaving a message"),
    Outcome.SELF_SERVICE: N_("heard the progress"),
    Outcome.UNREACHED: N_("reached nobody"),
    Outcome.PBX_LOST: N_("the PBX was restarted"),
    Outcome.NO_ANSWER: N_("nobody picked up"),
    Outcome.BUSY: N_("busy"),
}
WRITERS: Final[Mapping[Writer, str]] = {
    Writer.PERSON: N_("a person"),
    Writer.AUTO_REPLY: N_("automatic reply"),
    Writer.AUTO: N_("automatic mail"),
    Writer.LIST: N_("mailing list"),
    Writer.BOUNCE: N_("could not be delivered"),
    Writer.RECEIPT: N_("receipt"),
    Writer.REPORT: N_("report"),
    Writer.OWN: N_("our own mail"),
}
MAIL_NOTES: Final[Mapping[str, str]] = {
    "encoding_unsure": N_("characters may be wrong"),
    "html_too_big": N_("HTML too large: text only"),
    "too_deep": N_("parts too deep: one file"),
    "too_many_parts": N_("too many parts: see the original"),
    "bad_header": N_("damaged header"),
    "cut": N_("cut: see the original"),
    "unreadable": N_("could not be read: see the original"),
}
FILES: Final[Mapping[str, str]] = {
    "recording": N_("recording"),
    "voicemail": N_("voice message"),
    "raw": N_("original mail"),
    "attachment": N_("attachment"),
    "inline": N_("picture in the text"),
}
ITEMS: Final[Mapping[Item, str]] = {  # what a ticket should say
    Item.NAME: N_("Name"),
    Item.DEPARTMENT: N_("Department"),
    Item.PHONE: N_("Telephone number"),
    Item.MAIL: N_("Mail address"),
    Item.SITE: N_("Site"),
    Item.WHAT: N_("What happened"),
    Item.HAPPENED_AT: N_("When it happened"),
    Item.DEVICE: N_("Device or system"),
    Item.VERSION: N_("Version"),
    Item.ERROR: N_("Error message"),
    Item.PICTURE: N_("Picture of the screen"),
    Item.IMPACT: N_("How many it concerns"),
    Item.WISHED: N_("Wished for"),
}
STEPS: Final[Mapping[Step, str]] = {  # what somebody who is sent to the site says
    Step.ACCEPT: N_("Accept"),
    Step.DECLINE: N_("Cannot go"),
    Step.SET_OUT: N_("On the way"),
    Step.ARRIVE: N_("Arrived"),
    Step.PROVE: N_("Check the code"),
    Step.FINISH: N_("Done on site"),
    Step.CANCEL: N_("Call off"),
}
CATEGORIES: Final[Mapping[Category, str]] = {
    Category.HARDWARE: N_("Hardware"),
    Category.SOFTWARE: N_("Software"),
    Category.NETWORK: N_("Network"),
    Category.ACCOUNT: N_("Account"),
    Category.CONFIGURATION: N_("Configuration"),
    Category.CONSUMABLES: N_("Consumables"),
    Category.OTHER: N_("Other"),
}
IMPACTS: Final[Mapping[Impact, str]] = {
    Impact.COMPANY: N_("company"),
    Impact.DEPARTMENT: N_("department"),
    Impact.PERSON: N_("person"),
}
URGENCIES: Final[Mapping[Urgency, str]] = {
    Urgency.HIGH: N_("high"),
    Urgency.MEDIUM: N_("medium"),
    Urgency.LOW: N_("low"),
}
METRICS: Final[Mapping[Metric, str]] = {
    Metric.ANSWER: N_("Answer"),
    Metric.FIRST_UPDATE: N_("First update"),
    Metric.REMOTE: N_("Remote help begins"),
    Metric.OFFER: N_("Dispatch accepted"),
    Metric.ARRIVAL: N_("Arrival"),
    Metric.RESOLUTION: N_("Resolution"),
}
CLOCK_STATES: Final[Mapping[ClockState, str]] = {
    ClockState.RUNNING: N_("Running"),
    ClockState.PAUSED: N_("Paused"),
    ClockState.STOPPED: N_("Done"),
    ClockState.CANCELLED: N_("Called off"),
}
RUNS: Final[Mapping[str, str]] = {  # why a clock runs: `clocks.Segment.reason`
    Kind.OPENED.value: N_("the ticket was opened"),
    Kind.CONTACT_RECEIVED.value: N_("the requester contacted us"),
    Kind.REMOTE_ASKED.value: N_("remote help was asked for"),
    Kind.DISPATCH_OFFERED.value: N_("a dispatch was offered"),
    Kind.DISPATCH_ACCEPTED.value: N_("the dispatch was accepted"),
    Kind.DISPATCH_DECLINED.value: N_("who was sent cannot go"),
    Kind.RESUMED.value: N_("work goes on"),
    Kind.REOPENED.value: N_("reopened"),
    Kind.PRIORITY_CHANGED.value: N_("the priority changed"),
    Kind.CONTRACT_CHANGED.value: N_("the contract changed"),
    Kind.CALENDAR_CHANGED.value: N_("the working hours changed"),
}
PAUSED: Final[Mapping[str, str]] = {  # why it stands still, unless somebody said it in their words
    "pending": N_("on hold"),
    Kind.RESOLVED.value: N_("it counted as solved"),
    Kind.CLOSED.value: N_("it was closed"),
}
REASONS: Final[Mapping[Reason, str]] = {
    Reason.NEW: N_("new ticket"),
    Reason.MISSED: N_("missed call"),
    Reason.VOICEMAIL: N_("voice message"),
    Reason.REOPENED: N_("not solved, reopened"),
    Reason.ASSIGNED: N_("handed over"),
    Reason.DISPATCH: N_("dispatch to the site"),
    Reason.WARNING: N_("promise is running out"),
    Reason.BREACH: N_("promise broken"),
    Reason.CALLED_OFF: N_("dispatch called off"),
    Reason.DECLINED: N_("dispatch declined"),
    Reason.CODE: N_("arrival code"),
    Reason.RECEIVED: N_("confirmation"),
    Reason.PROGRESS: N_("progress"),
    Reason.HEARD: N_("answer to a reply"),
    Reason.SOLVED: N_("is it solved?"),
    Reason.REMINDER: N_("is it solved? (reminder)"),
    Reason.CLOSED: N_("ticket closed"),
    Reason.SURVEY: N_("asked for a mark"),
    Reason.SAID: N_("message from the desk"),
    Reason.SURVEY: N_("how was our service?"),
    Reason.SAID: N_("written by the desk"),
    Reason.LOGIN: N_("code for the portal"),
    Reason.REMOTE: N_("link to remote help"),
}
SENT: Final[Mapping[SendState, str]] = {
    SendState.QUEUED: N_("waiting"),
    SendState.SENDING: N_("being sent"),
    SendState.SENT: N_("sent"),
    SendState.DELIVERED: N_("delivered"),
    SendState.NOT_REACHED: N_("not reached"),
    SendState.UNKNOWN: N_("uncertain, being looked up"),
    SendState.DOUBTFUL: N_("uncertain"),
    SendState.TAKEN: N_("agreed"),
    SendState.PASSED: N_("passed on"),
    SendState.FAILED: N_("refused"),
    SendState.STOPPED: N_("no longer needed"),
}
DELIVERIES: Final[Mapping[str, str]] = {  # how far a gateway has brought a text
    "": N_("with the gateway"),
    "sent": N_("on its way"),
    "delivered": N_("delivered"),
    "failed": N_("not delivered"),
}
DISPATCHES: Final[Mapping[DispatchState, str]] = {
    DispatchState.OFFERED: N_("Offered"),
    DispatchState.ACCEPTED: N_("Accepted"),
    DispatchState.ON_WAY: N_("On the way"),
    DispatchState.ARRIVED: N_("Arrived"),
    DispatchState.DONE: N_("Done"),
    DispatchState.DECLINED: N_("Declined"),
    DispatchState.CANCELLED: N_("Called off"),
}
HOW: Final[Mapping[str, str]] = {  # by what somebody took, answered or said something
    "call": N_("by telephone"),
    "page": N_("when told"),
    "text": N_("by text"),
    "mail": N_("by e-mail"),
    "web": N_("on the web"),
    "remote": N_("in a remote session"),
    "answer": N_("by answering"),
    "dispatch": N_("by accepting the dispatch"),
    "group": N_("together with another ticket"),
    "call_back": N_("by calling back"),
    "reply": N_("by a personal reply"),
    "in_person": N_("in person"),
}
REMOTE_STATES: Final[Mapping[RemoteState, str]] = {
    RemoteState.INVITED: N_("Invited"),
    RemoteState.AGREED: N_("The user agreed and waits"),
    RemoteState.ACTIVE: N_("Under way"),
    RemoteState.FROZEN: N_("Interrupted"),
    RemoteState.ENDED: N_("Over"),
}
REMOTE_MODES: Final[Mapping[Mode, str]] = {
    Mode.CONTROL: N_("view and control, with the helper"),
    Mode.VIEW: N_("view only, from the browser"),
    Mode.REPEATER: N_("the user’s own VNC server"),
}
REMOTE_RIGHTS: Final[Mapping[Right, str]] = {
    Right.VIEW: N_("see the screen"),
    Right.CONTROL: N_("use keyboard and mouse"),
    Right.CLIPBOARD: N_("share the clipboard"),
}
REMOTE_ENDINGS: Final[Mapping[Ending, str]] = {  # why somebody sees the screen no more
    Ending.DONE: N_("finished"),
    Ending.STOPPED: N_("stopped by the user"),
    Ending.REFUSED: N_("the user said no"),
    Ending.EXPIRED: N_("nobody came in time"),
    Ending.IDLE: N_("nobody did anything"),
    Ending.TOO_LONG: N_("the longest time was reached"),
    Ending.LOST: N_("the connection was lost"),
    Ending.HANDED_OVER: N_("handed over"),
    Ending.RECORDER: N_("it could not be recorded any more"),
    Ending.FORBIDDEN: N_("cut off: what was sent is not allowed"),
    Ending.REPLACED: N_("replaced by a newer invitation"),
    Ending.CLOSED: N_("the ticket was closed"),
}
HEALTH: Final[Mapping[HealthState, str]] = {
    HealthState.UP: N_("Working"),
    HealthState.DEGRADED: N_("Impaired"),
    HealthState.DOWN: N_("Down"),
}
WHY: Final[Mapping[Why, str]] = {
    Why.ROTATION: N_("by rotation"),
    Why.SHIFT: N_("by shift"),
    Why.WINDOW: N_("on the customer's hours"),
    Why.SWAP: N_("by a swap"),
    Why.OVERRIDE: N_("stands in"),
    Why.LEAVE: N_("stands in for somebody on leave"),
    Why.FLOOR: N_("nobody on duty: the floor number rings"),
}
TIERS: Final[Mapping[int, str]] = {1: N_("Tier 1"), 2: N_("Tier 2"), 3: N_("Tier 3")}
COMPONENTS: Final[Mapping[str, str]] = {  # what stands before `:` in a component's key
    "agi": N_("Call decisions (FastAGI)"),
    "ami": N_("PBX link (AMI)"),
    "calendar": N_("Public holidays"),
    "clamd": N_("Virus scanner"),
    "database": N_("Database"),
    "desk": N_("Pages of the workbench"),
    "feeds": N_("External calendars"),
    "http": N_("Web server"),
    "intake": N_("Mail to tickets"),
    "ledger": N_("Ledger"),
    "live": N_("Live pages"),
    "mail": N_("Mail out"),
    "outbox": N_("Outbox"),
    "parsers": N_("Mail readers"),
    "pbx": N_("PBX"),
    "redis": N_("Redis"),
    "records": N_("PBX records"),
    "roster": N_("Queue members"),
    "rspamd": N_("Spam filter"),
    "search": N_("Search index"),
    "sms": N_("Texts"),
    "webhooks": N_("Webhooks"),
    "remote": N_("Remote help"),
    "repeater": N_("Repeater of remote help"),
    "smtp": N_("Mail in"),
    "verdicts": N_("Sender checks (SPF, DKIM)"),
    "rota": N_("Rota"),
}
PROBLEMS: Final[Mapping[int, tuple[str, str]]] = {  # title, what to do
    401: (N_("Please log in"), N_("This page is for people of the desk.")),
    403: (N_("Not allowed"), N_("Your role may not see or do this.")),
    404: (N_("Not found"), N_("There is nothing at this address.")),
    405: (N_("Not possible"), N_("This address does not take that.")),
    413: (N_("Too large"), N_("What was sent is larger than allowed.")),
    429: (N_("Too many attempts"), N_("Wait a minute, then try again.")),
    500: (N_("Something went wrong"), N_("The fault is on our side and has been recorded.")),
    503: (N_("Not at the moment"), N_("Nothing was lost. Try again in a few seconds.")),
}
OTHER_PROBLEM: Final = (N_("That did not work"), N_("Go back and try again."))
