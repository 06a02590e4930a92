"""Who may do what (requirement D6): one table of rights and roles, and the sites of a person.

A right says what somebody's role may do anywhere; `sees` says where. What lies outside is answered
as if it were not there, so that nobody learns of a ticket by guessing its number.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from contactd.errors import NotFound
from contactd.httpd import Identity, Problem, Refused
from contactd.tickets.people import PEOPLES_ROLES, Role


class Right(StrEnum):
    WATCH = "watch"  # the status page: nothing personal
    SEE = "see"  # requesters and what they said
    WORK = "work"  # act on tickets
    DECIDE = "decide"  # what was promised; addresses of messages, which engineers have, too
    LISTEN = "listen"  # recordings of calls
    PLAN = "plan"  # the rota: other people's duty, swaps and leave
    AUDIT = "audit"  # who did what
    ADMINISTER = "administer"  # sites, people, policies, users, tokens


_ALL_BUT_OPERATIONS: Final = PEOPLES_ROLES - {Role.OPERATIONS}

RIGHTS: Final[Mapping[Right, frozenset[Role]]] = {
    Right.WATCH: PEOPLES_ROLES,
    Right.SEE: _ALL_BUT_OPERATIONS,
    Right.WORK: frozenset({Role.DESK, Role.ENGINEER, Role.SUPERVISOR, Role.ADMIN}),
    Right.DECIDE: frozenset({Role.SUPERVISOR, Role.ADMIN}),
    Right.LISTEN: frozenset({Role.SUPERVISOR, Role.MANAGER, Role.QUALITY, Role.ADMIN}),
    Right.PLAN: frozenset({Role.SUPERVISOR, Role.MANAGER, Role.ADMIN}),
    Right.AUDIT: frozenset({Role.SUPERVISOR, Role.MANAGER, Role.QUALITY, Role.ADMIN}),
    Right.ADMINISTER: frozenset({Role.ADMIN}),
}

EVERYBODY: Final = RIGHTS[Right.WATCH]
PERSONAL: Final = RIGHTS[Right.SEE]
ACTING: Final = RIGHTS[Right.WORK]
DECIDING: Final = RIGHTS[Right.DECIDE]
ADDRESSED: Final = DECIDING
LISTENING: Final = RIGHTS[Right.LISTEN]
PLANNING: Final = RIGHTS[Right.PLAN]
AUDITING: Final = RIGHTS[Right.AUDIT]
ADMINISTERING: Final = RIGHTS[Right.ADMINISTER]


def may(identity: Identity | None, right: Right) -> bool:
    return identity is not None and identity.role in RIGHTS[right]


def sees(identity: Identity, site: str) -> bool:
    """Return whether somebody sees what belongs to a site.

    What belongs to no known site (`site` is "") everybody sees: it must not fall between chairs.
    """
    return not site or not identity.sites or site in identity.sites


def check_everywhere(identity: Identity) -> None:
    """Refuse who sees some sites only what is the whole installation's: users, journal of acts.

    Raises:
        Refused: 403; otherwise they could let themselves see the others.
    """
    if identity.sites:
        raise Refused(Problem(status=403, detail="only for who sees all sites"))


def check_site(identity: Identity, site: str, what: str = "there is no such ticket") -> None:
    """Refuse what belongs to another site.

    Raises:
        NotFound: as if it were not there.
    """
    if not sees(identity, site):
        raise NotFound(what)
