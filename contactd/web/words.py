"""What the pages call the values of the domain: message ids, translated where they are shown."""

from collections.abc import Mapping
from typing import Final

from contactd.routing.oncall import Why
from contactd.service import HealthState
from contactd.tickets.contact import Medium
from contactd.tickets.states import State
from contactd.web.board import CallStage


def N_(text: str) -> str:  # noqa: N802 - gettext's customary mark for extraction
    return text


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
    "database": N_("Database"),
    "feeds": N_("External calendars"),
    "http": N_("Web server"),
    "ledger": N_("Ledger"),
    "live": N_("Live pages"),
    "mail": N_("Mail out"),
    "outbox": N_("Outbox"),
    "pbx": N_("PBX"),
    "redis": N_("Redis"),
    "records": N_("PBX records"),
    "roster": N_("Queue members"),
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
