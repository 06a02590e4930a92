"""What the administration calls the sections of the desk file, their fields, and what is wrong."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from contactd.web.access import Right
from contactd.web.words import N_


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A list of entries: what it is called, what it is for, who may change it."""

    key: str
    name: str
    one: str  # a new one
    about: str
    right: Right
    columns: Sequence[str]  # fields that the list shows


SECTIONS: Final[Mapping[str, Section]] = {
    each.key: each
    for each in (
        Section(
            key="sites", name=N_("Sites"), one=N_("New site"), right=Right.ADMINISTER,
            about=N_(
                "The customer’s places. Each has a floor number that is rung when "
                "nobody is on duty."
            ),
            columns=("zone", "floor", "supervisor", "contract", "calendar"),
        ),
        Section(
            key="engineers", name=N_("Engineers"), one=N_("New engineer"), right=Right.ADMINISTER,
            about=N_("Who can be on duty, and how they are reached."),
            columns=("number", "department", "kind", "skills", "sites"),
        ),
        Section(
            key="people", name=N_("Requesters"), one=N_("New requester"), right=Right.ADMINISTER,
            about=N_("Who is recognised when calling or writing."),
            columns=("department", "site", "vip", "numbers"),
        ),
        Section(
            key="teams", name=N_("Teams"), one=N_("New team"), right=Right.PLAN,
            about=N_("Who belongs together: a tier, its sites, and what a stand-in must know."),
            columns=("tier", "sites", "skills"),
        ),
        Section(
            key="rotations", name=N_("Rotations"), one=N_("New rotation"), right=Right.PLAN,
            about=N_("Members of a team have turns, one after the other."),
            columns=("team", "members", "turn", "start", "handoff", "calendar"),
        ),
        Section(
            key="shifts", name=N_("Fixed shifts"), one=N_("New shift"), right=Right.PLAN,
            about=N_("The same hours each week, of one person."),
            columns=("engineer", "team", "tier", "site", "days", "start", "end"),
        ),
        Section(
            key="windows", name=N_("Resident hours"), one=N_("New resident hours"),
            right=Right.PLAN,
            about=N_(
                "On duty whenever a calendar is open; residents 10 minutes earlier "
                "and later."
            ),
            columns=("engineer", "team", "calendar", "margin"),
        ),
        Section(
            key="overrides", name=N_("Overrides"), one=N_("New override"), right=Right.PLAN,
            about=N_("Somebody stands in for a while, for a person or for a whole tier."),
            columns=("engineer", "replaces", "tier", "site", "start", "end"),
        ),
        Section(
            key="swaps", name=N_("Swaps"), one=N_("New swap"), right=Right.PLAN,
            about=N_("Two people exchange what each has in a time of their own."),
            columns=("one", "other"),
        ),
        Section(
            key="leaves", name=N_("Leave"), one=N_("New leave"), right=Right.PLAN,
            about=N_("Who is away; a backup is named, or chosen by rule."),
            columns=("engineer", "first", "last", "start", "end", "backup"),
        ),
        Section(
            key="feeds", name=N_("External calendars"), one=N_("New external calendar"),
            right=Right.ADMINISTER,
            about=N_("iCalendar addresses whose events are an engineer’s leave."),
            columns=("engineer", "url"),
        ),
        Section(
            key="calendars", name=N_("Working hours"), one=N_("New working hours"),
            right=Right.ADMINISTER,
            about=N_(
                "Calendars for the rota and for promises: weekly hours, holidays, "
                "single dates."
            ),
            columns=("zone", "weekly", "holidays"),
        ),
        Section(
            key="contracts", name=N_("Contracts"), one=N_("New contract"), right=Right.ADMINISTER,
            about=N_(
                "What is promised by priority. A change holds for tickets opened "
                "from then on."
            ),
            columns=("promises",),
        ),
        Section(
            key="policies", name=N_("Escalation policies"), one=N_("New policy"),
            right=Right.ADMINISTER,
            about=N_("Who is told, step by step, until somebody takes the ticket."),
            columns=("steps", "rounds", "ack_expires"),
        ),
        Section(
            key="rules", name=N_("Assignment rules"), one=N_("New rule"), right=Right.ADMINISTER,
            about=N_("Which team and policy a ticket gets: the first rule that fits decides."),
            columns=("when", "team", "policy", "skill"),
        ),
        Section(
            key="closing", name=N_("Closing and survey"), one=N_("Change"), right=Right.ADMINISTER,
            about=N_(
                "How long a resolved ticket waits, and when the requester is asked "
                "for a mark."
            ),
            columns=("remind_after", "reminders", "close_after", "survey_after"),
        ),
    )
}  # fmt: skip

LABELS: Final[Mapping[str, str]] = {
    "ack_expires": N_("Must answer within"),
    "after": N_("Wait first"),
    "again_after": N_("Next round after"),
    "area_code": N_("Area code"),
    "backup": N_("Backup"),
    "calendar": N_("Working hours"),
    "category": N_("Categories"),
    "close_after": N_("Close after"),
    "conference": N_("Conference"),
    "contract": N_("Contract"),
    "count": N_("A turn counts"),
    "date": N_("Date"),
    "days": N_("Days"),
    "calendars.days": N_("Single dates"),
    "department": N_("Department"),
    "each": N_("Each one has"),
    "end": N_("End"),
    "engineer": N_("Engineer"),
    "first": N_("First day"),
    "floor": N_("Floor number"),
    "group_within": N_("Group tickets within"),
    "handoff": N_("Hand-off at"),
    "holidays": N_("Public holidays"),
    "hours": N_("Hours"),
    "key": N_("Key"),
    "kind": N_("Kind"),
    "language": N_("Language"),
    "last": N_("Last day"),
    "mails": N_("Mail addresses"),
    "margin": N_("Earlier and later"),
    "members": N_("Members"),
    "name": N_("Name"),
    "name_en": N_("English name"),
    "name_zh": N_("Chinese name"),
    "need": N_("How many must take it"),
    "number": N_("Number"),
    "numbers": N_("Numbers"),
    "one": N_("One"),
    "other": N_("The other"),
    "page": N_("Told by"),
    "parallel": N_("All at once"),
    "people.vip": N_("VIP"),
    "pin": N_("PIN on the telephone"),
    "policy": N_("Policy"),
    "priority": N_("Priorities"),
    "promises": N_("Promises"),
    "promises.calendar": N_("Working hours"),
    "promises.goal": N_("Goal"),
    "promises.metric": N_("What"),
    "promises.pausable": N_("Can be paused"),
    "promises.priority": N_("Priority"),
    "promises.warnings": N_("Warn at %%"),
    "queue": N_("Queue of the PBX"),
    "rank": N_("Rank"),
    "remind_after": N_("Remind after"),
    "reminders": N_("Reminders"),
    "replaces": N_("Instead of"),
    "rounds": N_("Rounds"),
    "since": N_("From (day)"),
    "site": N_("Site"),
    "sites": N_("Sites"),
    "skill": N_("Skill"),
    "skills": N_("Skills"),
    "start": N_("Start"),
    "rotations.start": N_("First turn on"),
    "steps": N_("Steps"),
    "supervisor": N_("Supervisor"),
    "survey_after": N_("Survey after"),
    "system": N_("Systems"),
    "team": N_("Team"),
    "tell": N_("Tell"),
    "text": N_("Number for texts"),
    "tier": N_("Tier"),
    "turn": N_("A turn lasts"),
    "until": N_("Until (first day without)"),
    "url": N_("Address"),
    "vip": N_("VIP"),
    "weekly": N_("Each week"),
    "when": N_("If all of this holds"),
    "zone": N_("Time zone"),
}
HINTS: Final[Mapping[str, str]] = {
    "ack_expires": N_("Like 30m or 2h; then the others are told again."),
    "again_after": N_("Like 5m."),
    "area_code": N_("Without 0, like 755: callers from such landlines belong to this site."),
    "calendars.days": N_("Hours of one date, before everything else; no hours: closed."),
    "category": N_("One a line; none: any."),
    "closing.survey_after": N_("After closing, like 24h; 0m: nobody is asked."),
    "count": N_("active: days on which the working hours are closed make no turn longer."),
    "days": N_("On which it starts."),
    "each": N_("One after the other: like 45s."),
    "shifts.end": N_("24:00 is midnight; an end before the start is on the next day."),
    "engineers.sites": N_("Where somebody can stand in; none: everywhere."),
    "engineers.text": N_("Only if it is another one."),
    "floor": N_("Rung when nobody is on duty. Somebody must answer it day and night."),
    "holidays": N_("cn: closed on public holidays, open on make-up days."),
    "hours": N_("Like 09:00-12:00, 13:00-18:00; empty: closed."),
    "key": N_("Small letters, digits, - and _; stays the same for good."),
    "last": N_("Included; empty: one day only."),
    "leaves.backup": N_("Empty: somebody with the team’s skills is chosen by rule."),
    "leaves.end": N_("Only with a start; instead of whole days."),
    "leaves.start": N_("For part of a day; leave the days empty then."),
    "mails": N_("One a line."),
    "margin": N_("Like 10m; empty: 10 minutes for residents, none for others."),
    "members": N_("In the order of their turns. An empty row is left out."),
    "number": N_("A telephone number, or an extension of 1 to 5 digits."),
    "numbers": N_("One a line."),
    "overrides.end": N_("On the clocks of the site."),
    "overrides.site": N_("* is every site."),
    "overrides.sites": N_("Instead of one site."),
    "overrides.start": N_("On the clocks of the site."),
    "page": N_("One a line: call, text after 2m, mail after 5m; empty: by a call."),
    "pin": N_("4 to 8 digits."),
    "queue": N_("Empty: the key."),
    "rank": N_("Of several overrides the highest has the last word."),
    "remind_after": N_("Like 24h, and again after each."),
    "replaces": N_("Empty: takes over the whole tier."),
    "rotations.calendar": N_("Nobody is on duty outside of these hours."),
    "shifts.site": N_("With a tier; * is every site, each in its own time zone."),
    "shifts.sites": N_("Some of the team’s sites; none: all."),
    "shifts.tier": N_("Instead of a team."),
    "sites.calendar": N_("Its working hours; empty: always open."),
    "sites.contract": N_("Empty: the times of contactd.toml."),
    "skills": N_("One a line; a stand-in must have them all."),
    "steps": N_("One after the other until somebody takes it. An empty row is left out."),
    "supervisor": N_("Told when nobody takes a ticket."),
    "swaps.one.end": N_("On the clocks of the time zone below."),
    "swaps.other.end": N_("On the clocks of the time zone below."),
    "system": N_("One a line; none: any."),
    "teams.sites": N_("None: all sites."),
    "tell": N_("One a line: tier 1, team field, person sun, supervisor, everybody, floor."),
    "weekly": N_("Like 09:00-12:00, 13:00-18:00; empty: closed."),
}

# What the check of the file says, as far as a form can bring it about, in both languages.
_ERRORS: Final[Sequence[tuple[str, str]]] = (
    (r"is missing", N_("This is missing.")),
    (r"no such setting", N_("There is no such setting.")),
    (r"there is no (?P<what>\w+) '(?P<name>[^']*)'", N_("“%(name)s” does not exist (any more).")),
    (r"'(?P<name>.*)' is used twice", N_("“%(name)s” is used already.")),
    (
        r"(?P<name>\S+) already belongs to (?P<place>\S+)",
        N_("%(name)s belongs to %(place)s already."),
    ),
    (
        r"'(?P<name>.*)' is neither a telephone number nor an extension.*",
        N_("“%(name)s” is neither a telephone number nor an extension (1–5 digits)."),
    ),
    (r"'(?P<name>.*)' is not a telephone number", N_("“%(name)s” is not a telephone number.")),
    (r"'(?P<name>.*)' is not of the form .*", N_("“%(name)s” is not written as it must be.")),
    (r"must be a time of the day.*", N_("This must be a time of the day, like 08:00.")),
    (r"must be a length of time.*", N_("This must be a length of time, like 90s, 30m or 2h.")),
    (r"must be longer than 0", N_("This must be longer than 0.")),
    (r"must be a length of turns.*", N_("Say how long a turn lasts.")),
    (r"must be days like.*|'.*' is not a day or a range of days.*", N_("Choose at least one day.")),
    (r"must be a date.*", N_("This must be a date.")),
    (r"'(?P<name>.*)' is no period.*", N_("“%(name)s” is no period; write it like 09:00-12:00.")),
    (
        r"'(?P<name>.*)' must end after it starts.*",
        N_("“%(name)s” must end after it starts; split it at midnight."),
    ),
    (r".*hours must be in order.*", N_("Hours must be in order and must not overlap.")),
    (r"must be open at some time of the week", N_("There must be hours on some day of the week.")),
    (
        r"until must be after since.*",
        N_("The first day without them must be after the first day with them."),
    ),
    (r"end must be after start", N_("The end must be after the start.")),
    (r"last must not be before first", N_("The last day must not be before the first.")),
    (r"give first and last \(days\).*", N_("Give either days or times.")),
    (r"give either first and last.*", N_("Give either days or times, not both.")),
    (r"give either a team or a tier", N_("Give either a team or a tier.")),
    (r"with a tier, site must be given.*", N_("With a tier, a site must be given.")),
    (r"give either site or sites", N_("Give either one site or several, not both.")),
    (r"site must be given.*", N_("A site must be given.")),
    (r"other must be somebody else", N_("The other must be somebody else.")),
    (
        r"'(?P<name>.*)' is nobody: tell is made of.*",
        N_("“%(name)s” is nobody who can be told; see the hint."),
    ),
    (r"must rise between 1 and 99.*", N_("Warnings must rise between 1 and 99.")),
    (
        r"close_after must be later than the last reminder",
        N_("Closing must come after the last reminder."),
    ),
    (r"'(?P<name>.*)' is not a time zone.*", N_("“%(name)s” is not a time zone.")),
    (r"'(?P<name>.*)' is built in", N_("“%(name)s” is built in; take another key.")),
    (
        r"takes longer than a year of calendar.*",
        N_("This takes longer than a year of these working hours."),
    ),
    (r"must be call, text or mail.*", N_("Write call, text or mail, and when: text after 2m.")),
    (
        r"Tuple should have at least 1 item.*|String should have at least 1 character",
        N_("This is missing."),
    ),
    (r"Input should be a valid integer", N_("This must be a whole number.")),
    (r"Input should be (greater|less) than.*", N_("This number is out of range.")),
)  # fmt: skip
_RULES: Final = [(re.compile(pattern), words) for pattern, words in _ERRORS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message id with its values; `raw` when there are no words of ours for it."""

    text: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    raw: str = ""


def said(text: str) -> Said:
    """Return what the check says in the words of the pages."""
    for pattern, words in _RULES:
        found = pattern.fullmatch(text)
        if found is not None:
            return Said(text=words, values=found.groupdict())
    return Said(raw=text)


FLAWS: Final[Mapping[str, str]] = {
    "no floor": N_("No floor number"),
    "unknown key": N_("Unknown name"),
    "no number": N_("No number"),
    "uncovered": N_("Nobody on duty"),
    "unfilled": N_("Not filled"),
    "two places": N_("In two places"),
    "idle": N_("Changes nothing"),
}
DAYS: Final[Mapping[str, str]] = {
    "mon": N_("Mon"), "tue": N_("Tue"), "wed": N_("Wed"), "thu": N_("Thu"),
    "fri": N_("Fri"), "sat": N_("Sat"), "sun": N_("Sun"),
}  # fmt: skip
UNITS: Final[Mapping[str, str]] = {
    "hour": N_("hours"), "day": N_("days"), "week": N_("weeks"), "month": N_("months"),
}  # fmt: skip
OPTIONS: Final[Mapping[str, str]] = {  # what fields can be set to, where the word is not its own
    "resident": N_("resident"), "field": N_("field"), "backup": N_("backup"),
    "remote": N_("remote"), "second line": N_("second line"), "zh": N_("Chinese"),
    "en": N_("English"), "calendar": N_("all days"), "active": N_("days with hours only"),
    "cn": N_("China"), "leave": N_("leave"), "*": N_("every site"), "always": N_("day and night"),
    "all": N_("every priority"), "answer": N_("Answer"), "first_update": N_("First update"),
    "offer": N_("Offer of remote help"), "arrival": N_("Arrival"),
    "resolution": N_("Resolution"),
}  # fmt: skip
SOURCES: Final[Mapping[str, str]] = {"file": N_("from the file"), "web": N_("on the web")}
STATES: Final[Mapping[str, str]] = {  # of swaps and leave that somebody asked for
    "asked": N_("waiting for the colleague"),
    "waiting": N_("waiting for a planner"),
    "agreed": N_("agreed"),
    "refused": N_("refused"),
    "withdrawn": N_("taken back"),
}
