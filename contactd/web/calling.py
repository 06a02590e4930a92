"""A call as the workbench shows it, and who brings it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from contactd.web.board import CallStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What is known of a call that somebody of the desk makes.

    `end` is how it ended: busy, no_answer, not_you (their own phone was not picked up), "".
    """

    user: str
    talked: bool
    end: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskCall:
    """One call now. `stage` None: it is over. `offered` and `engineer` are keys.

    Of a call that the desk makes `caller` is whom it reaches; RINGING is the own phone's, OFFERED
    the other's.
    """

    call_id: str
    stage: CallStage | None
    since: datetime  # when this stage began
    arrived_at: datetime
    caller: str = ""  # number, "" when withheld
    name: str = ""  # as the network gave it
    did: str = ""
    site: str = ""  # "" when unknown
    ticket: str = ""  # "" while it is being filed
    offered: tuple[str, ...] = ()
    engineer: str = ""
    ours: Ours | None = None


Look = Callable[[], Sequence[DeskCall]]
