"""A desk with a remote session: invited, agreed, or with somebody who sees the screen."""

from dataclasses import dataclass
from typing import Final

from contactd.tickets import agreement
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import Leg, Mode, Purpose, Right
from contactd.tickets.sharing import Agreed, Consent, Invitation, Kind
from tests.fakes.desk import AT_GZ, Desk

PEER: Final = "192.0.2.7"
EVERYTHING: Final = frozenset(Right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A user who agreed; `leg` is that of who sees their screen."""

    session: int
    ticket: str
    code: str
    secret: str  # the cookie's value
    leg: Leg | None = None


def answer(mode: Mode = Mode.CONTROL, language: str = "zh") -> Agreed:
    """Return what somebody answers on the share page."""
    version = agreement.CURRENT
    shown = agreement.hash_of(agreement.text_of(version, language))
    return Agreed(mode=mode, language=language, version=version, text_hash=shown)


def consent(
    user: str = "wang",
    engineer: str = "王伟",
    *,
    kind: Kind = Kind.CONSENT,
    purpose: Purpose = Purpose.HELP,
    rights: frozenset[Right] = EVERYTHING,
    yes: bool = True,
) -> Consent:
    """Return what somebody answers when their screen is asked for."""
    asked = agreement.question_of(agreement.CURRENT, "zh", kind.value, engineer=engineer)
    return Consent(
        kind=kind, user=user, engineer=engineer, purpose=purpose, rights=rights, yes=yes,
        language="zh", version=agreement.CURRENT, text_hash=agreement.hash_of(asked),
    )  # fmt: skip


async def invited(desk: Desk, ticket: str = "", actor: str = REQUESTER) -> Invitation:
    """Invite the requester of a ticket, of a new one if none is named."""
    ticket = ticket or await desk.call(AT_GZ)
    return await desk.when(desk.remote.invite(ticket, actor=actor, language="zh"))


async def agreed(desk: Desk, mode: Mode = Mode.CONTROL, ticket: str = "") -> Guest:
    invitation = await invited(desk, ticket)
    secret = await desk.when(desk.remote.agree(invitation.code, PEER, answer(mode)))
    assert secret is not None
    return Guest(
        session=invitation.session, ticket=invitation.ticket, code=invitation.code, secret=secret
    )


async def active(desk: Desk, mode: Mode = Mode.CONTROL, ticket: str = "") -> Guest:
    """Return a user whose screen `wang` sees."""
    guest = await agreed(desk, mode, ticket)
    await desk.remote.claim(guest.session, user="wang", engineer="王伟")
    leg = await desk.when(desk.remote.open_leg(guest.session, consent()))
    assert leg is not None
    return Guest(
        session=guest.session, ticket=guest.ticket, code=guest.code, secret=guest.secret, leg=leg
    )
