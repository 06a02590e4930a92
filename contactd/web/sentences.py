"""What the entries of a ticket's journal say, in the words of one language.

An entry is a sentence, made of its body where the body has what the sentence asks for, and a list
of what else there is to know. An action nobody has words for is shown as it is written.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from contactd.routing.clocks import Metric, Row
from contactd.routing.closing import Stage
from contactd.routing.notify import REQUESTER
from contactd.routing.oncall import FLOOR_KEY
from contactd.tickets.contact import Medium, Outcome
from contactd.tickets.journal import SYSTEM, Entry
from contactd.tickets.model import ENGINEER, Category
from contactd.tickets.priority import Impact, Urgency
from contactd.tickets.remote import Ending, Mode, Right
from contactd.tickets.states import State
from contactd.web import words
from contactd.web.i18n import Clockwork, Say
from contactd.web.words import N_

USER: Final = "user:"
ALIKE_FROM: Final = 4  # so many entries that say the same are folded
_AGO: Final = timedelta(seconds=1)  # a fact older than its entry by that much has its own time
_NO_PLACE: Final = "–"

_PLACES: Final = re.compile(r"%\((\w+)\)s")
_REASON: Final = re.compile(  # as `tickets.priority` writes it
    r"impact ({}), urgency ({})( \(raised by one: VIP\))?".format(
        *("|".join(each.name.lower() for each in kind) for kind in (Impact, Urgency))
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry. `details` are labels and what belongs to them, `note` somebody's own words."""

    seq: int
    at: datetime
    who: str
    text: str
    details: tuple[tuple[str, str], ...] = ()
    note: str = ""

    @property
    def content(self) -> tuple[object, ...]:
        return self.who, self.text, self.details, self.note


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Puts entries into words. `names` are those of people, by key; `now` that of the reader."""

    say: Say
    times: Clockwork
    names: Mapping[str, str]
    now: datetime

    def line(self, entry: Entry) -> Line:
        entry = _without_actor(entry)
        body = entry.body
        known = _SENTENCES.get(entry.action)
        if known is None:
            raw = json.dumps(body, ensure_ascii=False, sort_keys=True) if body else ""
            return self._line(entry, entry.action, (), raw)
        text = next(each for each in known if each is known[-1] or _has_all(each, body))
        places = _PLACES.findall(text)
        values = {name: self._value(entry, name) or _NO_PLACE for name in places}
        details = tuple(
            (self.say(label), value)
            for key, label in _LABELS.items()
            if key not in places and (value := self._value(entry, key))
        )
        note = body.get("note") or (body.get("reason") if entry.action == "held" else "")
        return self._line(entry, self.say(text, **values), details, str(note or ""))

    def _line(
        self, entry: Entry, text: str, details: tuple[tuple[str, str], ...], note: str
    ) -> Line:
        who = self.actor(entry.actor)
        return Line(seq=entry.seq, at=entry.at, who=who, text=text, details=details, note=note)

    def lines(self, entries: Iterable[Entry]) -> list[list[Line]]:
        """Return the lines; many in a row that say the same are one group, others alone."""
        groups = []
        for _, found in groupby(map(self.line, entries), key=lambda line: line.content):
            alike = list(found)
            groups.extend([alike] if len(alike) >= ALIKE_FROM else [[line] for line in alike])
        return groups

    def actor(self, actor: str) -> str:
        if actor.startswith(ENGINEER):
            return self.person(actor.removeprefix(ENGINEER))
        if actor in _OTHERS:
            return self.person(actor)
        return actor.removeprefix(USER)

    def person(self, key: str) -> str:
        """Return the name of an engineer or of who else is told; a key that nobody knows stays."""
        if key in _OTHERS:
            return self.say(_OTHERS[key])
        return self.names.get(key) or key

    def cause(self, row: Row) -> str:
        """Return why a clock runs or stands still in an interval."""
        known = words.RUNS if row.running else words.PAUSED
        return self.say(known[row.reason]) if row.reason in known else row.reason

    def reason(self, text: str) -> str:
        """Return why a ticket has its priority, in words; a reason nobody knows stays as it is."""
        found = _REASON.fullmatch(text)
        if found is None:
            return text
        told = N_("impact: %(impact)s, urgency: %(urgency)s")
        raised = N_("impact: %(impact)s, urgency: %(urgency)s (one higher: VIP)")
        return self.say(
            raised if found[3] else told,
            impact=self.say(words.IMPACTS[Impact[found[1].upper()]]),
            urgency=self.say(words.URGENCIES[Urgency[found[2].upper()]]),
        )

    def moment(self, at: datetime) -> str:
        return self.times.moment(at, self.now)

    def _value(self, entry: Entry, key: str) -> str:
        value = entry.body.get(key)
        if value is None or value == "" or value == []:
            return ""
        tell = _OF_ACTION.get((entry.action, key)) or _VALUES.get(key, _plain)
        return tell(self, value, entry)


Tell = Callable[[Teller, Any, Entry], str]


def length(span: timedelta) -> str:
    """Return e.g. 0:12:30: hours, minutes, seconds."""
    seconds = round(span.total_seconds())
    sign = "−" if seconds < 0 else ""
    seconds = abs(seconds)
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def keys(entries: Iterable[Entry]) -> set[str]:
    """Return the keys of the people that entries name."""
    found: set[str] = set()
    for entry in entries:
        if entry.actor.startswith(ENGINEER):
            found.add(entry.actor.removeprefix(ENGINEER))
        for name in _PEOPLE:
            told = entry.body.get(name)
            found.update(map(str, told if isinstance(told, list) else [told] if told else []))
    return found


def _without_actor(entry: Entry) -> Entry:
    """Return the entry without naming who wrote it a second time, in its body."""
    if entry.actor != f"{ENGINEER}{entry.body.get('engineer')}":
        return entry
    return replace(entry, body={k: v for k, v in entry.body.items() if k != "engineer"})


def _has_all(text: str, body: Mapping[str, Any]) -> bool:
    return all(body.get(place) not in (None, "", []) for place in _PLACES.findall(text))


# How values of a body are said


def _plain(_teller: Teller, value: Any, _entry: Entry) -> str:
    return str(value)


def _nothing(_teller: Teller, _value: Any, _entry: Entry) -> str:
    return ""


def _people(teller: Teller, value: Any, _entry: Entry) -> str:
    """Return names; of acknowledgements an entry may have only the number."""
    if isinstance(value, list):
        return teller.say(N_(", ")).join(teller.person(str(each)) for each in value)
    return teller.person(str(value))


def _word(table: Mapping[Any, str], kind: Callable[[Any], Any]) -> Tell:
    def tell(teller: Teller, value: Any, _entry: Entry) -> str:
        try:
            return teller.say(table[kind(value)])
        except (KeyError, ValueError):
            return str(value)

    return tell


def _whether(yes: str, no: str = "") -> Tell:
    def tell(teller: Teller, value: Any, _entry: Entry) -> str:
        word = yes if value else no
        return teller.say(word) if word else ""

    return tell


def _priority(teller: Teller, value: Any, _entry: Entry) -> str:
    return teller.reason(str(value))


def _step(_teller: Teller, value: Any, _entry: Entry) -> str:
    return str(int(value) + 1)


def _length(_teller: Teller, value: Any, _entry: Entry) -> str:
    return length(timedelta(seconds=value))


def _earlier(teller: Teller, value: Any, entry: Entry) -> str:
    at = datetime.fromisoformat(value)
    return teller.moment(at) if abs(entry.at - at) > _AGO else ""


def _rights(teller: Teller, value: Any, _entry: Entry) -> str:
    if not isinstance(value, list):
        return str(value)
    known = {each.value: words.REMOTE_RIGHTS[each] for each in Right}
    return teller.say(N_(", ")).join(
        teller.say(known[name]) if name in known else str(name) for name in value
    )


def _repaired(teller: Teller, value: Any, _entry: Entry) -> str:
    return teller.say(N_("the PBX’s records (repaired)")) if value == "replay" else ""


_OTHERS: Final[Mapping[str, str]] = {
    SYSTEM: N_("contactd"),
    REQUESTER: N_("Requester"),
    FLOOR_KEY: N_("Floor number"),
}
_STAGES: Final[Mapping[Stage, str]] = {  # what a requester was told
    Stage.TAKEN: N_("it was taken"),
    Stage.ON_WAY: N_("somebody is on the way"),
    Stage.ARRIVED: N_("somebody has arrived"),
    Stage.HELD: N_("it is on hold"),
    Stage.RESUMED: N_("work goes on"),
    Stage.UPDATED: N_("there is news"),
}
_ASKED: Final[Mapping[str, str]] = {  # what a user was asked, by the question's kind
    "consent": N_("to see the screen"),
    "hand_over": N_("to go on with the session"),
    "look": N_("to watch"),
    "rights": N_("to do more"),
    "file": N_("to hand over a file"),
}
_PEOPLE: Final = ("engineer", "before", "people", "acks")
_VALUES: Final[Mapping[str, Tell]] = {
    "acks": _people,
    "acknowledged_at": _earlier,
    "answered_at": _earlier,
    "asked": _word(_ASKED, str),
    "at": _earlier,
    "before": _people,
    "category": _word(words.CATEGORIES, Category),
    "ended_at": _earlier,
    "ending": _word(words.REMOTE_ENDINGS, Ending),
    "engineer": _people,
    "goal_s": _length,
    "happened_at": _earlier,
    "how": _word(words.HOW, str),
    "impact": _word(words.IMPACTS, Impact),
    "lasted_s": _length,
    "late": _whether(N_("too late to tell anybody")),
    "medium": _word(words.ONE_OF, Medium),
    "metric": _word(words.METRICS, Metric),
    "mode": _word(words.REMOTE_MODES, Mode),
    "outcome": _word(words.OUTCOMES, Outcome),
    "people": _people,
    "proved": _whether(N_("right"), N_("not told")),
    "reached": _whether("", N_("could not be reached")),
    "reason": _priority,
    "received_at": _earlier,
    "rights": _rights,
    "source": _repaired,
    "stage": _word(_STAGES, Stage),
    "step": _step,
    "talked_s": _length,
    "urgency": _word(words.URGENCIES, Urgency),
    "voicemail": _whether(N_("left")),
    "waited_s": _length,
}
_OF_ACTION: Final[Mapping[tuple[str, str], Tell]] = {
    ("call.ended", "reason"): _nothing,  # the PBX's own word
    ("call.corrected", "reason"): _nothing,
    ("calling.ended", "reason"): _nothing,
    ("calling.dialled", "medium"): _nothing,
    ("dispatch.cancelled", "reason"): _word(words.STATES, State),
    ("escalation.ignored", "reason"): _nothing,
    ("held", "reason"): _nothing,  # shown as it was said
    ("opened", "engineer"): _nothing,
    ("remote.file", "accepted"): _whether(N_("taken"), N_("not taken")),
    ("remote.left", "recording"): _whether(N_("yes")),
}

# What an entry says: the first for which the body has everything, else the last.
_SENTENCES: Final[Mapping[str, Sequence[str]]] = {
    "opened": (N_("Ticket opened: %(medium)s"),),
    "contact.added": (N_("Contacted us again: %(medium)s"),),
    "ticket.separated": (N_("About something else: now ticket %(to)s"),),
    "call.answered": (N_("Took the call"),),
    "call.ended": (N_("Call over: %(outcome)s"),),
    "call.corrected": (N_("Call corrected by the PBX’s records: %(outcome)s"),),
    "calling.placed": (N_("Calls the requester"),),
    "calling.dialled": (N_("The requester’s phone rings"),),
    "calling.ended": (N_("Call to the requester over: %(outcome)s"),),
    "acknowledged": (
        N_("%(engineer)s took the ticket %(how)s"),
        N_("Took the ticket %(how)s"),
        N_("Took the ticket"),
    ),
    "assigned": (
        N_("%(engineer)s took the ticket over %(how)s"),
        N_("Took the ticket over %(how)s"),
        N_("Took the ticket over"),
    ),
    "handed_over": (
        N_("Handed over from %(before)s to %(engineer)s"),
        N_("Handed over to %(engineer)s"),
        N_("Took the ticket over from %(before)s"),
        N_("Took the ticket over"),
    ),
    "engineer.left": (N_("%(engineer)s does not work here any more: others are told"),),
    "hand_over.declined": (N_("Gave the ticket back: others are told"),),
    "hand_over.not_told": (N_("%(engineer)s could not be told that they have it"),),
    "team.assigned": (N_("Team %(team)s is responsible"), N_("No team is responsible")),
    "classified": (N_("Classified"),),
    "ticket.described": (N_("Described the fault"),),
    "ticket.merged": (N_("Has the contacts of ticket %(from)s now"),),
    "comment": (N_("Note"),),
    "file.added": (N_("Added the file %(name)s"), N_("Added a file")),
    "requester.changed": (
        N_("The requester is %(requester)s, not %(was)s"),
        N_("The requester is %(requester)s"),
    ),
    "site.changed": (N_("The site is %(site)s"),),
    "priority.changed": (N_("Priority changed from %(before)s to %(priority)s"),),
    "answered": (
        N_("%(engineer)s spoke to the requester %(how)s"),
        N_("Spoke to the requester %(how)s"),
    ),
    "updated": (N_("Told the requester how it stands"),),
    "requester.written_to": (N_("Wrote to the requester"),),
    "held": (N_("Put on hold"),),
    "resumed": (N_("Went on"),),
    "resolved": (N_("Resolved"),),
    "reopened": (N_("Not solved: reopened %(how)s"), N_("Reopened")),
    "closed": (N_("Confirmed and closed %(how)s"), N_("Closed")),
    "cancelled": (N_("Cancelled: merged into ticket %(into)s"), N_("Cancelled")),
    "contract.changed": (N_("Contract is now %(contract)s"), N_("Contract changed")),
    "calendar.changed": (N_("Working hours are now %(calendar)s"), N_("Working hours changed")),
    "remote.asked": (N_("Remote help asked for"),),
    "remote.invited": (N_("Invited to remote help: %(medium)s"), N_("Invited to remote help")),
    "remote.agreed": (N_("Agreed to remote help: %(mode)s"),),
    "remote.refused": (N_("Said no to remote help"),),
    "remote.claimed": (N_("%(engineer)s will help remotely"),),
    "remote.started": (
        N_("Remote session began: %(engineer)s sees the screen"),
        N_("Remote session began"),
    ),
    "remote.resumed": (N_("Remote session went on: %(engineer)s sees the screen again"),),
    "remote.handed_over": (N_("Remote session handed over to %(engineer)s"),),
    "remote.looked": (N_("%(engineer)s watches the remote session"),),
    "remote.declined": (N_("Said no when %(engineer)s asked %(asked)s"),),
    "remote.rights": (N_("%(engineer)s may now %(rights)s"), N_("%(engineer)s may do nothing now")),
    "remote.frozen": (N_("Remote session interrupted: the connection was lost"),),
    "remote.left": (N_("%(engineer)s sees the screen no more: %(ending)s"),),
    "remote.ended": (N_("Remote session over: %(ending)s"),),
    "remote.file": (N_("File %(name)s: %(accepted)s"),),
    "remote.replayed": (N_("Watched the recording of the remote session (leg %(leg)s)"),),
    "call_back.asked": (N_("Wants to be called back: %(number)s"),),
    "on_my_way": (N_("Is on the way"),),
    "dispatch.offered": (
        N_("Dispatch %(dispatch)s offered to %(engineer)s"),
        N_("Dispatch %(dispatch)s: goes there"),
    ),
    "dispatch.accepted": (N_("Dispatch %(dispatch)s accepted"),),
    "dispatch.declined": (N_("Dispatch %(dispatch)s declined"),),
    "dispatch.on_way": (N_("Dispatch %(dispatch)s: on the way"),),
    "dispatch.arrived": (N_("Dispatch %(dispatch)s: arrived"),),
    "dispatch.proved": (N_("Dispatch %(dispatch)s: arrival proved by the code"),),
    "dispatch.code_refused": (N_("Dispatch %(dispatch)s: wrong arrival code"),),
    "dispatch.done": (N_("Dispatch %(dispatch)s: done on site"),),
    "dispatch.cancelled": (N_("Dispatch %(dispatch)s called off"),),
    "dispatch.not_told": (
        N_("Dispatch %(dispatch)s: %(engineer)s could not be told"),
        N_("Dispatch %(dispatch)s was declined, and nobody could be told"),
    ),
    "dispatch.code_not_sent": (N_("Dispatch %(dispatch)s: the code could not be sent"),),
    "clock.warned": (N_("%(percent)s %% of the time is spent: %(metric)s"),),
    "clock.breached": (N_("Promise broken: %(metric)s"),),
    "escalation.started": (N_("People are told, by policy %(policy)s"),),
    "escalation.told": (
        N_("%(people)s told (step %(step)s)"),
        N_("Nobody to tell (step %(step)s)"),
    ),
    "escalation.acknowledged": (N_("Answered for the ticket %(how)s"),),
    "escalation.short": (
        N_("Fewer took it than were wanted: %(acks)s"),
        N_("Nobody took it, and everybody was told"),
    ),
    "escalation.attached": (N_("Like ticket %(to)s: waits for it"),),
    "escalation.passed": (N_("Passed it on"),),
    "escalation.escalated": (N_("One step higher"),),
    "escalation.expired": (N_("No progress since it was taken: people are told again"),),
    "escalation.reopened": (N_("People are told again"),),
    "escalation.over": (N_("Nobody need be told any more"),),
    "escalation.ignored": (N_("An answer came too late and changed nothing"),),
    "confirm.asked": (N_("Asked the requester whether it is solved"),),
    "rated": (N_("Mark %(mark)s of 5 %(how)s"), N_("Mark %(mark)s of 5")),
    "survey.asked": (N_("Asked the requester for a mark"),),
    "survey.low": (N_("A low mark, %(mark)s of 5: for quality to look into"),),
    "reply.heard": (N_("Answered the reply: nobody need read it"),),
    "requester.told": (
        N_("Told the requester: %(stage)s, %(engineer)s"),
        N_("Told the requester: %(stage)s"),
    ),
    "requester.not_told": (N_("Too many messages to one address: the requester is told no more"),),
}
_LABELS: Final[Mapping[str, str]] = {  # what is said beside the sentence, in this order
    "engineer": N_("Engineer"),
    "priority": N_("Priority"),
    "reason": N_("Reason"),
    "category": N_("Category"),
    "system": N_("System"),
    "impact": N_("Impact"),
    "urgency": N_("Urgency"),
    "title": N_("Title"),
    "subject": N_("Subject"),
    "what": N_("What happened"),
    "happened_at": N_("When it happened"),
    "device": N_("Device"),
    "version": N_("Version"),
    "error": N_("Error message"),
    "wished": N_("Wished for"),
    "contacts": N_("Contacts"),
    "contract": N_("Contract"),
    "calendar": N_("Working hours"),
    "goal_s": N_("Promised"),
    "waited_s": N_("Waited"),
    "talked_s": N_("Talked"),
    "voicemail": N_("Message"),
    "rights": N_("Rights"),
    "mode": N_("Kind"),
    "lasted_s": N_("Lasted"),
    "legs": N_("Number of parts"),
    "keys": N_("Keys pressed"),
    "clicks": N_("Clicks"),
    "recording": N_("Recorded"),
    "proved": N_("Arrival code"),
    "wrong_codes": N_("Wrong codes"),
    "reached": N_("Requester"),
    "late": N_("Noticed"),
    "source": N_("Known from"),
    "received_at": N_("When it came"),
    "answered_at": N_("When it was"),
    "acknowledged_at": N_("When it was"),
    "ended_at": N_("When it ended"),
    "at": N_("When it was"),
}
