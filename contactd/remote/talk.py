"""What a peer may say, and what comes of it: one table for each kind of peer.

Anything else, and anything of another shape, is an offence: it costs a page its connection, and a
helper its session.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from contactd.remote.peers import MESSAGE_BYTES, Misbehaved, Peer
from contactd.remote.room import OFFERED, Room
from contactd.tickets.journal import REQUESTER
from contactd.tickets.remote import Ending, Mode, Purpose, Right, State
from contactd.tickets.sharing import Kind

LONGEST_WORD: Final = 4000  # of a chat; the store cuts it further
SIGNAL_BYTES: Final = 60_000  # a description of WebRTC with many candidates
_SENDING: Final = ("a=sendrecv", "a=sendonly")

Message = Mapping[str, Any]
Act = Callable[[Room, Peer, Message], Awaitable[None]]


def parse(text: str) -> Message:
    """Return a message.

    Raises:
        Misbehaved: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Misbehaved("not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise Misbehaved("not a message")
    return found


async def say(room: Room, peer: Peer, message: Message, acts: Mapping[str, Act]) -> None:
    """Do what a peer says.

    Raises:
        Misbehaved: it may not say that.
    """
    act = acts.get(message["type"])
    if act is None:
        raise Misbehaved("a message of no known type")
    if room.over is None:
        await act(room, peer, message)


# Everybody who has a page


async def _chat(room: Room, peer: Peer, message: Message) -> None:
    room.acted()
    await room.say(_actor(peer), _text(message, "text", LONGEST_WORD))


async def _alive(room: Room, peer: Peer, _message: Message) -> None:
    """Somebody is there, though they press nothing."""
    room.acted()


async def _signal(room: Room, peer: Peer, message: Message) -> None:
    """Carry what two browsers say of their connection, if a leg or a lesson allows it."""
    number, data = _number(message, "leg"), message.get("data")
    if not isinstance(data, dict) or len(json.dumps(data)) > SIGNAL_BYTES:
        raise Misbehaved("not a signal")
    other = _pupil(room, peer, data) if number == 0 else _viewer(room, peer, number)
    if other is not None:
        other.tell({"type": "signal", "leg": number, "data": data})


def _viewer(room: Room, peer: Peer, number: int) -> Peer | None:
    """Return the other end of a leg of the bare browser, if this is one of its ends."""
    live = room.legs.get(number)
    if room.mode is not Mode.VIEW or live is None or not room.passes(live):
        return None
    if peer is room.sharer:
        return room.page_of(live.leg.user)
    return room.sharer if peer in room.desk and peer.person == live.leg.user else None


def _pupil(room: Room, peer: Peer, data: Mapping[str, Any]) -> Peer | None:
    """Return the other end of a lesson: the engineer shows, the user only looks."""
    if not room.teaches:
        return None
    if peer in room.desk:
        return room.users[0] if room.users and peer.person == room.session.user else None
    if any(each in json.dumps(data) for each in _SENDING):
        raise Misbehaved("a lesson shows the engineer's screen only")
    return room.page_of(room.session.user)


# The user's helper, or their page


async def _answer(room: Room, peer: Peer, message: Message) -> None:
    ask, number = room.ask, _number(message, "ask")
    if ask is None or ask.number != number or not room.is_judge(peer):
        return  # it was withdrawn, or is shown elsewhere
    room.acted()
    ask.answered(peer, yes=message.get("yes") is True, rights=_rights(message))


async def _stop(room: Room, _peer: Peer, message: Message) -> None:
    failed = message.get("by") == "recorder"
    room.finish(Ending.RECORDER if failed else Ending.STOPPED, REQUESTER)


async def _started(_room: Room, _peer: Peer, _message: Message) -> None:
    """The VNC server runs; its bytes say so, too."""


async def _leg_ended(room: Room, _peer: Peer, message: Message) -> None:
    live = room.legs.get(_number(message, "leg"))
    if live is not None:
        room.lost(live)


async def _switch(room: Room, _peer: Peer, message: Message) -> None:
    room.acted()
    await room.switch_rights(_rights(message))


async def _clipboard_of_user(room: Room, _peer: Peer, message: Message) -> None:
    text, live = _text(message, "text", MESSAGE_BYTES), room.helping
    if live is not None and room.ask is None and room.passes(live, Right.CLIPBOARD):
        page = room.page_of(live.leg.user)
        if page is not None:
            page.tell({"type": "clipboard", "text": text})


# Engineers


async def _end(room: Room, peer: Peer, _message: Message) -> None:
    if peer.person == REQUESTER:
        room.finish(Ending.STOPPED, REQUESTER)
        return
    live = room.leg_of(peer.person)
    if peer.person == room.session.user:
        room.finish(Ending.DONE, _actor(peer))
    elif live is not None:
        room.leave(live, Ending.DONE)


async def _clipboard(room: Room, peer: Peer, message: Message) -> None:
    text, live = _text(message, "text", MESSAGE_BYTES), room.leg_of(peer.person)
    if live is None or room.helper is None or not room.passes(live, Right.CLIPBOARD):
        peer.tell({"type": "error", "text": "not_allowed"})
        return
    told = {"type": "clipboard", "text": text}
    if len(json.dumps(told)) > MESSAGE_BYTES:
        peer.tell({"type": "error", "text": "too_long"})
    elif room.ask is None and not live.views_only:
        room.acted()
        room.helper.tell(told)


async def _view_only(room: Room, peer: Peer, message: Message) -> None:
    live = room.leg_of(peer.person)
    if live is not None:
        live.views_only = message.get("on") is True
        room.shut()


async def _teach(room: Room, peer: Peer, message: Message) -> None:
    if peer.person != room.session.user or room.state is State.INVITED:
        peer.tell({"type": "error", "text": "not_allowed"})
        return
    room.acted()
    room.teaches = message.get("on") is True
    room.tell_state()


async def _look(room: Room, peer: Peer, _message: Message) -> None:
    """Ask whether a supervisor may watch."""
    # A call in by the repeater is one VNC connection: there is no second one to look through.
    can = room.state is State.ACTIVE and room.mode is not Mode.REPEATER
    may = peer.may_look and can and room.leg_of(peer.person) is None
    asked = may and room.put(
        Kind.LOOK, person=peer.person, name=peer.name, rights=frozenset({Right.VIEW}),
        purpose=Purpose.LOOK,
    )  # fmt: skip
    _told(peer, asked=asked, may=may)


async def _ask(room: Room, peer: Peer, message: Message) -> None:
    act = {"rights": _ask_rights, "hand_over": _hand_over}.get(str(message.get("kind")))
    if act is None:
        raise Misbehaved("a question of no known kind")
    room.acted()
    await act(room, peer, message)


async def _ask_rights(room: Room, peer: Peer, message: Message) -> None:
    live, rights = room.leg_of(peer.person), _rights(message) & OFFERED[room.mode]
    may = live is not None and live is room.helping and bool(rights)
    asked = may and room.put(
        Kind.RIGHTS, person=peer.person, name=room.session.engineer, rights=rights
    )
    _told(peer, asked=asked, may=may)


async def _hand_over(room: Room, peer: Peer, message: Message) -> None:
    """Ask whether a colleague may go on; they must be there already."""
    colleague = room.page_of(_text(message, "to", 80))
    may = (
        room.helping is not None
        and peer.person == room.helping.leg.user
        and colleague is not None
        and colleague.person != peer.person
    )
    asked = may and colleague is not None and room.put(
        Kind.HAND_OVER, person=colleague.person, name=colleague.name, rights=OFFERED[room.mode]
    )  # fmt: skip
    _told(peer, asked=asked, may=may)


def _told(peer: Peer, *, asked: bool, may: bool) -> None:
    if not asked:
        peer.tell({"type": "error", "text": "asked" if may else "not_allowed"})


HELPER: Final[Mapping[str, Act]] = {
    "answer": _answer,
    "started": _started,
    "leg_ended": _leg_ended,
    "rights": _switch,
    "stop": _stop,
    "clipboard": _clipboard_of_user,
}
SHARE: Final[Mapping[str, Act]] = {
    "answer": _answer,
    "stop": _stop,
    "end": _end,
    "chat": _chat,
    "signal": _signal,
    "alive": _alive,
}
DESK: Final[Mapping[str, Act]] = {
    "chat": _chat,
    "end": _end,
    "ask": _ask,
    "look": _look,
    "clipboard": _clipboard,
    "view_only": _view_only,
    "teach": _teach,
    "signal": _signal,
    "alive": _alive,
}


def _actor(peer: Peer) -> str:
    return REQUESTER if peer.person == REQUESTER else f"user:{peer.person}"


# What messages hold


def _text(message: Message, name: str, most: int) -> str:
    found = message.get(name)
    if not isinstance(found, str) or len(found) > most:
        raise Misbehaved(f"no {name}, or too much")
    return found


def _number(message: Message, name: str) -> int:
    found = message.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 31:
        raise Misbehaved(f"no {name}")
    return found


def _rights(message: Message) -> frozenset[Right]:
    found = message.get("rights", [])
    try:
        return frozenset(Right(each) for each in found)
    except (ValueError, TypeError):
        raise Misbehaved("no rights") from None
