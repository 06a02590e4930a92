"""What is kept of remote help: sessions, consents, legs, chat, files.

The table of `tickets.remote` says what may become of a session; what happens is written into the
ticket's journal in the same commit. Codes and secrets are kept as an HMAC only. Whoever changes a
session waits for the others: what was read stays true until the commit.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, insert, select, update

from contactd.clock import Clock
from contactd.errors import ActionNotAllowed, NotFound
from contactd.log import get_logger
from contactd.settings import RemoteSettings
from contactd.signals import Topic
from contactd.store.engine import Database
from contactd.store.remotecodes import digits, hash_of, network
from contactd.store.remoterows import (
    ADD_CONSENT,
    BY_CLAIM,
    BY_CODE,
    BY_SHARE,
    CHAT,
    HAS_LIVE,
    KEY,
    LIVE,
    LIVE_OF,
    OF_TICKET,
    OLD_KEYS,
    SESSIONS,
    UNSETTLED,
    conditions,
    files,
    first,
    leg_row,
    name_of,
    one,
    sessions,
)
from contactd.store.remotework import RemoteWork, opened
from contactd.store.schema import (
    remote_chat,
    remote_files,
    remote_keys,
    remote_legs,
    remote_sessions,
)
from contactd.tickets import model
from contactd.tickets.contact import Blob
from contactd.tickets.events import RemoteDue, TicketDue
from contactd.tickets.journal import REQUESTER, SYSTEM
from contactd.tickets.remote import Action, Ending, Leg, Mode, Purpose, Right, State, next_state
from contactd.tickets.sharing import (
    Agreed,
    Consent,
    Counts,
    FileState,
    Filters,
    Invitation,
    Kind,
    Line,
    Session,
    SharedFile,
    Shown,
    Taken,
)
from contactd.tickets.states import OPEN

log = get_logger()

KEY_LASTS: Final = timedelta(minutes=10)  # of a helper that was downloaded and not started
MOST_KEYS: Final = 5  # helpers of one session that were downloaded and not started
MOST_LEGS: Final = 250  # the helper's frames have one byte for the number
MOST_CHAT: Final = 1000  # lines of one session …
LONGEST_LINE: Final = 2000  # … and characters of one
MOST_FILES: Final = 50  # of one session
LONGEST_PAGE: Final = 200
_SHOWN_FOR: Final = timedelta(hours=1)  # after the end: its user may read how it went
_GRACE: Final = timedelta(minutes=1)  # the broker ends what is too long; this is if it did not


class RemoteSessions:
    """Every method raises `TemporaryFailure` when the database is away: nothing was stored.

    `key` is the installation's (`Keys.signing`). Those that change a session raise `NotFound` if
    there is none of this id, and `ActionNotAllowed` if its state has no such transition.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        key: Callable[[], Awaitable[bytes]],
        raise_: Callable[[Topic], None] = lambda _topic: None,
        settings: RemoteSettings | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._key = key
        self._raise = raise_
        self._settings = settings or RemoteSettings()

    # The invitation

    async def invite(
        self, number: str, *, actor: str, language: str, medium: str = ""
    ) -> Invitation:
        """Make a code with which the ticket's requester can begin; older ones open nothing more.

        If the requester asks for it themselves, that is `remote.asked`, too (C2).

        Raises:
            NotFound: there is no such ticket.
            ActionNotAllowed: it is over, or somebody sees its requester's screen just now.
        """
        if not self._settings.enabled:
            raise ActionNotAllowed("remote help is switched off")
        key, now = await self._key(), self._clock.now()
        until = now + timedelta(seconds=self._settings.code_s)
        async with self._work() as work:
            ticket = await work.open_ticket(number)
            await self._replace_older(work, ticket.id)
            code, hashed = await work.new_code(key)
            row = {
                "ref": secrets.token_hex(8), "ticket_id": ticket.id, "state": State.INVITED.value,
                "since": now, "language": language[:8], "medium": medium[:8],
                "invited_by": actor[:80], "invited_at": now, "code_hash": hashed,
                "claim_hash": hashed, "code_until": until,
            }  # fmt: skip
            added = insert(remote_sessions).returning(remote_sessions.c.id)
            session = int((await work.connection.execute(added, row)).scalar_one())
            if actor == REQUESTER:
                await work.ask(ticket.id, REQUESTER)
            body = {"session": row["ref"], **({"medium": medium} if medium else {})}
            await work.note(ticket.id, "remote.invited", actor, body)
            work.arm(session, until)
            await work.commit()
        self._signal()
        log.info("remote.invited", ticket=number, session=session, medium=medium)
        return Invitation(session=session, ticket=number, code=code, expires_at=until)

    async def _replace_older(self, work: RemoteWork, ticket_id: int) -> None:
        for session in await sessions(work.connection, LIVE_OF, {"ticket": ticket_id}):
            if session.state is State.ACTIVE:
                raise ActionNotAllowed("a remote session of this ticket is under way")
            await self._end(work, session, Ending.REPLACED, SYSTEM)

    async def shown(self, code: str, peer: str) -> Shown | None:
        """Return whom a code invites; None if it opens nothing: wrong, used, too late, locked.

        `peer` is the network address that shows it: wrong codes are counted, by address and in
        all, and too many lock the door for the rest of the hour.
        """
        key = await self._key()
        async with self._database.writing() as connection:
            session = await opened(connection, self._clock.now(), BY_CODE, key, code, network(peer))
            name = await name_of(connection, session) if session else ""
        if session is None:
            return None
        return Shown(
            session=session.id, ticket=session.ticket, engineer=name, language=session.language,
            expires_at=session.code_until,
        )  # fmt: skip

    async def agree(self, code: str, peer: str, answer: Agreed) -> str | None:
        """Take the user's word that they want remote help; None as `shown` says.

        Return the secret of who agreed, for their cookie. The code opens nothing any more.
        """
        secret = secrets.token_urlsafe(32)
        key = await self._key()
        async with self._work() as work:
            session = await opened(
                work.connection, self._clock.now(), BY_CODE, key, code, network(peer)
            )
            if session is not None:
                await self._agree(work, session, answer, hash_of(key, "share", secret))
            await work.commit()
        if session is None:
            return None
        self._signal()
        log.info("remote.agreed", session=session.id, ticket=session.ticket, mode=answer.mode.value)
        return secret

    async def _agree(
        self, work: RemoteWork, session: Session, answer: Agreed, share: bytes
    ) -> None:
        now = self._clock.now()
        await work.connection.execute(ADD_CONSENT, _agreement(session, answer, now, yes=True))
        values = {"mode": answer.mode.value, "language": answer.language[:8], "agreed_at": now,
                  "code_hash": None, "share_hash": share}  # fmt: skip
        await work.move(session, Action.AGREE, **values)
        body = {"session": session.ref, "mode": answer.mode.value, "version": answer.version}
        await work.note(session.ticket_id, "remote.agreed", REQUESTER, body)
        work.arm(session.id, now + timedelta(seconds=self._settings.wait_s))

    async def refuse(self, code: str, peer: str, answer: Agreed) -> bool:
        """Take the user's word that they want none; False as `shown` says None."""
        key, now = await self._key(), self._clock.now()
        async with self._work() as work:
            session = await opened(
                work.connection, self._clock.now(), BY_CODE, key, code, network(peer)
            )
            if session is not None:
                said = _agreement(session, answer, now, yes=False)
                await work.connection.execute(ADD_CONSENT, said)
                await self._end(work, session, Ending.REFUSED, REQUESTER)
            await work.commit()
        if session is not None:
            self._signal()
            log.info("remote.refused", session=session.id, ticket=session.ticket)
        return session is not None

    async def of_share(self, secret: str) -> Session | None:
        """Return the session of who agreed; for an hour after its end, too."""
        asked = {"hash": hash_of(await self._key(), "share", secret)}
        async with self._database.reading() as connection:
            session = await first(connection, BY_SHARE, asked)
        if session is None or _is_gone(session, self._clock.now()):
            return None
        return session

    # Keys of the user's helper

    async def helper_key(self, session_id: int) -> str:
        """Return a key for one more download of the helper; the first that is used ends the others.

        Raises:
            ActionNotAllowed: the user has not agreed to be controlled, or it is over.
        """
        return await self._add_key(session_id, Mode.CONTROL, "helper", secrets.token_urlsafe(32))

    async def repeater_id(self, session_id: int) -> str:
        """Return digits with which the user's own VNC server calls in, once.

        Raises:
            ActionNotAllowed: the user has not agreed to that, or it is over.
        """
        return await self._add_key(session_id, Mode.REPEATER, "repeater", digits(10))

    async def _add_key(self, session_id: int, mode: Mode, kind: str, made: str) -> str:
        now, hashed = self._clock.now(), hash_of(await self._key(), kind, made)
        async with self._work() as work:
            session = await work.held(session_id)
            if session.mode is not mode or session.state is State.ENDED:
                raise ActionNotAllowed("the user has not agreed to this")
            old = (
                await work.connection.execute(
                    OLD_KEYS, {"session": session_id, "kept": MOST_KEYS - 1}
                )
            ).scalars()
            await work.drop_keys(remote_keys.c.hash.in_(list(old)))
            await work.drop_keys(remote_keys.c.expires_at <= now)
            row = {"hash": hashed, "session_id": session_id, "kind": kind,
                   "expires_at": now + KEY_LASTS}  # fmt: skip
            await work.connection.execute(insert(remote_keys), row)
            await work.commit()
        return made

    async def take_key(self, key: str, kind: str = "helper") -> Taken | None:
        """Let a helper in, once with each key; None if the key opens nothing.

        `kind` is `helper` (of a download, or to come back) or `repeater`.
        """
        signing, now = await self._key(), self._clock.now()
        names = {"helper": ("helper", "resume")}.get(kind, (kind,))
        made = secrets.token_urlsafe(32)
        async with self._work() as work:
            row = None
            for name in names:
                asked = {"hash": hash_of(signing, name, key), "now": now}
                row = row or (await work.connection.execute(KEY, asked)).mappings().first()
            session = await one(work.connection, row["session_id"]) if row else None
            if row is None or session is None or session.state is State.ENDED:
                return None
            await work.drop_keys(remote_keys.c.session_id == session.id)
            resume = {"hash": hash_of(signing, "resume", made), "session_id": session.id,
                      "kind": "resume", "expires_at": now + _longest(self._settings)}  # fmt: skip
            await work.connection.execute(insert(remote_keys), resume)
            await work.commit()
        return Taken(session=session, resume_key=made, resumed=row["kind"] == "resume")

    # Who helps

    async def claim(self, session_id: int, *, user: str, engineer: str) -> Session:
        """Make `user` the one who helps; harmless twice. Who may, the caller has seen to.

        Raises:
            ActionNotAllowed: somebody else does, or it is over.
        """
        async with self._work() as work:
            session = await work.held(session_id)
            await self._claim(work, session, user, engineer)
            await work.commit()
        self._signal()
        return await self._present(session_id)

    async def claim_code(self, code: str, *, user: str, engineer: str) -> Session | None:
        """Do the same with a code that the user reads out, once; None as `shown` says.

        Raises:
            ActionNotAllowed: somebody else helps.
        """
        key = await self._key()
        async with self._work() as work:
            session = await opened(
                work.connection, self._clock.now(), BY_CLAIM, key, code, f"user:{user}"
            )
            if session is not None:
                await self._claim(work, session, user, engineer)
                await work.set(session.id, claim_hash=None)
            await work.commit()
        if session is None:
            return None
        self._signal()
        return await self._present(session.id)

    async def peek_code(self, code: str, *, user: str) -> Session | None:
        """Return the session of a code that the user reads out, without claiming it."""
        key = await self._key()
        async with self._database.writing() as connection:
            return await opened(connection, self._clock.now(), BY_CLAIM, key, code, f"user:{user}")

    async def _claim(self, work: RemoteWork, session: Session, user: str, engineer: str) -> None:
        if session.state is State.ENDED:
            raise ActionNotAllowed("the remote session is over")
        if session.user not in ("", user):
            raise ActionNotAllowed("somebody else helps in this remote session")
        if session.user == user and session.engineer == engineer:
            return
        now = self._clock.now()
        await work.set(session.id, user_name=user, engineer=engineer[:120], claimed_at=now)
        body = {"session": session.ref, "engineer": engineer}
        await work.note(session.ticket_id, "remote.claimed", f"user:{user}", body)

    async def release(self, session_id: int, *, user: str) -> bool:
        """Let somebody else help; False if `user` does not, or sees the screen just now."""
        async with self._work() as work:
            session = await work.held(session_id)
            helps = any(each.purpose is Purpose.HELP for each in session.open_legs)
            if session.user != user or not user or helps or session.state is State.ENDED:
                return False
            await work.set(session_id, user_name="", engineer="", claimed_at=None)
            await work.commit()
        self._signal()
        return True

    # Legs

    async def open_leg(self, session_id: int, consent: Consent) -> Leg | None:
        """Keep what the user said of somebody who would see their screen; yes opens a leg.

        Return None if they said no (or not to view). A hand-over ends the leg of who helped. A look
        only views, and so does every leg of the bare browser.

        Raises:
            ActionNotAllowed: nobody has claimed that, or the session or its ticket is over.
        """
        async with self._work() as work:
            session = await work.held(session_id)
            await work.open_ticket(session.ticket_id)
            next_state(session.state, Action.SHOW)
            _check_comes(session, consent)
            rights = _allowed(session, consent.purpose, consent.rights)
            consent = replace(consent, rights=rights, yes=consent.yes and Right.VIEW in rights)
            number = await work.keep_consent(session, consent)
            leg = await self._answered(work, session, consent, number)
            await work.commit()
        self._signal()
        log.info("remote.asked_user", session=session_id, kind=consent.kind.value, yes=consent.yes)
        return leg

    async def _answered(
        self, work: RemoteWork, session: Session, consent: Consent, number: int
    ) -> Leg | None:
        body = {"session": session.ref, "engineer": consent.engineer}
        if not consent.yes:
            declined = {**body, "asked": consent.kind.value}
            await work.note(session.ticket_id, "remote.declined", REQUESTER, declined)
            return None
        now = self._clock.now()
        leg = Leg(
            number=len(session.legs) + 1, user=consent.user, engineer=consent.engineer,
            purpose=consent.purpose, rights=consent.rights, consent=number, opened_at=now,
        )  # fmt: skip
        if consent.purpose is Purpose.HELP:
            await work.end_legs(session, Ending.HANDED_OVER, purpose=Purpose.HELP)
        await work.connection.execute(insert(remote_legs), leg_row(session.id, leg))
        values: dict[str, Any] = {}
        if consent.purpose is Purpose.HELP:
            values |= {"user_name": consent.user, "engineer": consent.engineer[:120]}
            values |= {} if session.started_at else {"started_at": now}
        await work.move(session, Action.SHOW, **values)
        action = _OPENS[consent.kind] if session.started_at else "remote.started"
        told = {**body, "leg": leg.number, "rights": sorted(leg.rights),
                "mode": session.mode.value if session.mode else ""}  # fmt: skip
        await work.note(session.ticket_id, action, f"user:{consent.user}", told)
        if session.state is not State.ACTIVE:
            started = session.started_at or now
            work.arm(session.id, started + _total(self._settings))
        return leg

    async def change_rights(
        self,
        session_id: int,
        number: int,
        rights: frozenset[Right],
        by: str,
        consent: Consent | None = None,
    ) -> Leg:
        """Give or take rights on an open leg; more of them only with the user's recorded yes.

        Raises:
            ActionNotAllowed: the leg is over, or the user has not said yes to that.
        """
        async with self._work() as work:
            session = await work.held(session_id)
            leg = session.leg(number)
            if leg is None or leg.ended_at is not None:
                raise ActionNotAllowed("this leg of the remote session is over")
            rights = _allowed(session, leg.purpose, rights)
            if not rights <= leg.rights and not _allows(consent, leg):
                raise ActionNotAllowed("the user has not allowed that")
            kept = leg.consent
            if consent is not None:
                kept = await work.keep_consent(session, replace(consent, rights=rights))
            changed = replace(leg, rights=rights, consent=kept)
            values = {"rights": sorted(rights), "consent_id": kept}
            await work.set_leg(session_id, number, **values)
            body = {"session": session.ref, "leg": number, "engineer": leg.engineer,
                    "rights": sorted(rights)}  # fmt: skip
            await work.note(session.ticket_id, "remote.rights", by, body)
            await work.commit()
        self._signal()
        return changed

    async def declined(self, session_id: int, consent: Consent) -> None:
        """Keep that the user said no to more rights."""
        async with self._work() as work:
            session = await work.held(session_id)
            await work.keep_consent(session, replace(consent, yes=False))
            body = {"session": session.ref, "engineer": consent.engineer,
                    "asked": consent.kind.value}  # fmt: skip
            await work.note(session.ticket_id, "remote.declined", REQUESTER, body)
            await work.commit()

    async def close_leg(  # noqa: PLR0913 - what is kept of a leg
        self,
        session_id: int,
        number: int,
        ending: Ending,
        counts: Counts,
        recording: Blob | None = None,
        note: str = "",
    ) -> bool:
        """End a leg and settle what is kept of it; False if that was done before.

        A leg that a freeze, a hand-over or the session's end has ended keeps that ending. Close
        the legs before the session: its last entry sums up what they counted.
        """
        async with self._work() as work:
            session = await work.held(session_id)
            record = next((each for each in session.legs if each.leg.number == number), None)
            if record is None:
                raise NotFound("there is no such leg")
            if record.settled:
                return False
            ended_at = record.leg.ended_at or self._clock.now()
            ending = record.leg.ending or ending
            kept = asdict(recording) if recording is not None else None
            values = {"ended_at": ended_at, "ending": ending.value, "settled": True,
                      "recording": kept, "note": note[:200], **asdict(counts)}  # fmt: skip
            await work.set_leg(session_id, number, **values)
            body = {
                "session": session.ref, "leg": number, "engineer": record.leg.engineer,
                "purpose": record.leg.purpose.value, "ending": ending.value,
                "lasted_s": _seconds(ended_at - record.leg.opened_at), **asdict(counts),
                "recording": recording.sha256 if recording is not None else "",
            }  # fmt: skip
            await work.note(session.ticket_id, "remote.left", f"user:{record.leg.user}", body)
            await work.commit()
        self._signal()
        return True

    # How it goes on, and ends

    async def freeze(self, session_id: int) -> bool:
        """Let nothing pass any more until the user says so; False if nothing passed anyway."""
        async with self._work() as work:
            frozen = await self._freeze(work, await work.held(session_id))
            await work.commit()
        self._signal()
        return frozen

    async def _freeze(self, work: RemoteWork, session: Session) -> bool:
        if session.state is not State.ACTIVE:
            return False
        await work.end_legs(session, Ending.LOST)
        await work.move(session, Action.FREEZE)
        await work.note(session.ticket_id, "remote.frozen", SYSTEM, {"session": session.ref})
        until = self._clock.now() + timedelta(seconds=self._settings.frozen_s)
        work.arm(session.id, until)
        return True

    async def end(self, session_id: int, ending: Ending, actor: str) -> bool:
        """End a session; False if it was over."""
        async with self._work() as work:
            session = await work.held(session_id)
            if session.state is State.ENDED:
                return False
            await self._end(work, session, ending, actor)
            await work.commit()
        self._signal()
        log.info("remote.ended", session=session_id, ending=ending.value)
        return True

    async def _end(self, work: RemoteWork, session: Session, ending: Ending, actor: str) -> None:
        now = self._clock.now()
        await work.end_legs(session, ending)
        await work.drop_keys(remote_keys.c.session_id == session.id)
        await work.move(session, Action.END, ending=ending.value, ended_at=now,
                         code_hash=None, claim_hash=None)  # fmt: skip
        if session.state is State.INVITED and ending is not Ending.REFUSED:
            return  # nobody ever came: that it was sent says enough
        action = "remote.refused" if session.state is State.INVITED else "remote.ended"
        await work.note(session.ticket_id, action, actor, _summary(session, ending, now))

    async def due(self, event: RemoteDue) -> None:
        """End a session whose time is over; nothing if its time was counted anew since."""
        async with self._work() as work:
            session = await one(work.connection, event.session_id)
            if session is None or session.state is State.ENDED:
                return
            until, ending = self._limit(session)
            if until > self._clock.now():
                return
            await self._end(work, session, ending, SYSTEM)
            await work.commit()
        self._signal()
        log.info("remote.timed_out", session=session.id, state=session.state.value)

    def _limit(self, session: Session) -> tuple[datetime, Ending]:
        lasts = self._settings
        match session.state:
            case State.INVITED:
                return session.code_until, Ending.EXPIRED
            case State.AGREED:
                return session.since + timedelta(seconds=lasts.wait_s), Ending.EXPIRED
            case State.FROZEN:
                return session.since + timedelta(seconds=lasts.frozen_s), Ending.LOST
            case _:
                return (session.started_at or session.since) + _total(lasts), Ending.TOO_LONG

    def and_then(
        self, follow: Callable[[TicketDue], Awaitable[None]]
    ) -> Callable[[TicketDue], Awaitable[None]]:
        """Return a handler that first ends the sessions of a ticket that is over."""

        async def ticket_due(event: TicketDue) -> None:
            await self.ticket_due(event)
            await follow(event)

        return ticket_due

    async def ticket_due(self, event: TicketDue) -> None:
        """End the sessions of a ticket that is over."""
        async with self._database.reading() as connection:
            found = await connection.execute(HAS_LIVE, {"ticket": event.ticket_id})
            if found.first() is None:
                return
        ended = []
        async with self._work() as work:
            if (await work.ticket(event.ticket_id)).state in OPEN:
                return
            for session in await sessions(work.connection, LIVE_OF, {"ticket": event.ticket_id}):
                await self._end(work, session, Ending.CLOSED, SYSTEM)
                ended.append(session.id)
            await work.commit()
        if ended:
            self._signal()
            log.info("remote.ended", sessions=ended, ending=Ending.CLOSED.value)

    async def settle(self) -> tuple[tuple[int, int], ...]:
        """Freeze what was under way when the daemon stopped.

        Return the legs, as session and number, of which nothing is settled yet: what was recorded
        of them may lie about. `close_leg` settles each.
        """
        async with self._work() as work:
            for session in await sessions(work.connection, LIVE, {}):
                await self._freeze(work, session)
            rows = (await work.connection.execute(UNSETTLED)).all()
            await work.commit()
        self._signal()
        return tuple((row.session_id, row.number) for row in rows)

    # Chat and files

    async def say(self, session_id: int, who: str, text: str) -> Line | None:
        """Keep a line of the chat; None if there is nothing in it, or too much of it.

        Raises:
            ActionNotAllowed: nobody has agreed yet, or it is over.
        """
        words = model.clean_text(text).strip()[:LONGEST_LINE]
        if not words:
            return None
        now = self._clock.now()
        async with self._work() as work:
            session = await work.held(session_id)
            _check_under_way(session)
            of = select(func.count()).where(remote_chat.c.session_id == session_id)
            if (await work.connection.execute(of)).scalar_one() >= MOST_CHAT:
                return None
            row = {"session_id": session_id, "at": now, "who": who[:80], "text": words}
            await work.connection.execute(insert(remote_chat), row)
            await work.commit()
        self._raise(Topic.REMOTE)
        return Line(at=now, who=who, text=words)

    async def chat(self, session_id: int) -> tuple[Line, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(CHAT, {"session": session_id})).mappings().all()
        return tuple(Line(**row) for row in rows)

    async def offer_file(self, session_id: int, *, sender: str, blob: Blob) -> SharedFile:
        """Offer a file to the other side; nobody may have it before that has said yes.

        Raises:
            ActionNotAllowed: nobody has agreed yet, it is over, or there are too many files.
        """
        async with self._work() as work:
            session = await work.held(session_id)
            _check_under_way(session)
            known = await files(work.connection, session_id)
            if len(known) >= MOST_FILES:
                raise ActionNotAllowed("too many files in one remote session")
            offered = SharedFile(
                number=len(known) + 1, sender=sender, blob=_storable(blob),
                state=FileState.OFFERED, offered_at=self._clock.now(), answered_at=None,
            )  # fmt: skip
            row = {"session_id": session_id, "number": offered.number, "sender": sender[:80],
                   "state": offered.state.value, "offered_at": offered.offered_at,
                   **asdict(offered.blob)}  # fmt: skip
            await work.connection.execute(insert(remote_files), row)
            await work.commit()
        self._raise(Topic.REMOTE)
        return offered

    async def answer_file(
        self, session_id: int, number: int, *, by: str, yes: bool, consent: Consent | None = None
    ) -> SharedFile:
        """Take a file, or not; `consent` is what the user was asked, if it is theirs to say.

        Raises:
            NotFound: there is no such file.
            ActionNotAllowed: it was answered, by its own sender, or the session is over.
        """
        now, state = self._clock.now(), FileState.ACCEPTED if yes else FileState.REFUSED
        async with self._work() as work:
            session = await work.held(session_id)
            _check_under_way(session)
            found = _numbered(await files(work.connection, session_id), number)
            if found.state is not FileState.OFFERED or _side(by) == _side(found.sender):
                raise ActionNotAllowed("this file cannot be answered")
            if consent is not None:
                await work.keep_consent(session, replace(consent, yes=yes))
            changed = update(remote_files).where(
                remote_files.c.session_id == session_id, remote_files.c.number == number
            )
            values = {"state": state.value, "answered_at": now}
            await work.connection.execute(changed.values(**values))
            body = {"session": session.ref, "name": found.blob.name, "accepted": yes,
                    "size": found.blob.size_bytes, "sha256": found.blob.sha256,
                    "from": found.sender}  # fmt: skip
            await work.note(session.ticket_id, "remote.file", by, body)
            await work.commit()
        self._signal()
        return replace(found, state=state, answered_at=now)

    async def files(self, session_id: int) -> tuple[SharedFile, ...]:
        async with self._database.reading() as connection:
            return await files(connection, session_id)

    async def file(self, session_id: int, number: int) -> SharedFile | None:
        found = await self.files(session_id)
        return next((each for each in found if each.number == number), None)

    # What was

    async def replayed(self, session_id: int, leg: int, actor: str) -> None:
        """Note that somebody looks at a recording."""
        async with self._work() as work:
            session = await work.held(session_id)
            body = {"session": session.ref, "leg": leg}
            await work.note(session.ticket_id, "remote.replayed", actor, body)
            await work.commit()
        log.info("remote.replayed", session=session_id, leg=leg)

    async def session(self, session_id: int) -> Session | None:
        async with self._database.reading() as connection:
            return await one(connection, session_id)

    async def live(self) -> tuple[Session, ...]:
        """Return the sessions that are not over."""
        async with self._database.reading() as connection:
            return await sessions(connection, LIVE, {})

    async def of_ticket(self, number: str) -> tuple[Session, ...]:
        """Return the sessions of a ticket in their order."""
        async with self._database.reading() as connection:
            return await sessions(connection, OF_TICKET, {"number": number})

    async def recording(self, session_id: int, leg: int) -> Blob | None:
        """Return what was recorded of a leg, if anything was and it is settled."""
        session = await self.session(session_id)
        legs = session.legs if session is not None else ()
        return next((each.recording for each in legs if each.leg.number == leg), None)

    async def page(
        self, filters: Filters, before: int | None, limit: int
    ) -> tuple[tuple[Session, ...], bool]:
        """Return sessions, the newest first, whose id is smaller than `before`; are there more?"""
        most = min(max(limit, 1), LONGEST_PAGE)
        query = SESSIONS.where(*conditions(filters))
        if before is not None:
            query = query.where(remote_sessions.c.id < before)
        query = query.order_by(remote_sessions.c.id.desc()).limit(most + 1)
        async with self._database.reading() as connection:
            found = await sessions(connection, query, {})
        return found[:most], len(found) > most

    async def _present(self, session_id: int) -> Session:
        found = await self.session(session_id)
        if found is None:
            raise NotFound("there is no such remote session")
        return found

    @asynccontextmanager
    async def _work(self) -> AsyncIterator[RemoteWork]:
        async with self._database.new_work() as work:
            yield RemoteWork(work, self._clock)

    def _signal(self) -> None:
        for topic in (Topic.OUTBOX, Topic.BOARD, Topic.REMOTE):
            self._raise(topic)


_OPENS: Final[Mapping[Kind, str]] = {
    Kind.CONSENT: "remote.resumed",
    Kind.HAND_OVER: "remote.handed_over",
    Kind.LOOK: "remote.looked",
}


def _check_comes(session: Session, consent: Consent) -> None:
    """Refuse whom nobody may let in so: not claimed, or not what was asked.

    Raises:
        ActionNotAllowed: that.
    """
    helping = [each for each in session.open_legs if each.purpose is Purpose.HELP]
    allowed = {
        Kind.CONSENT: consent.purpose is Purpose.HELP
        and consent.user == session.user
        and not helping,
        Kind.HAND_OVER: consent.purpose is Purpose.HELP and session.started_at is not None,
        Kind.LOOK: consent.purpose is Purpose.LOOK and bool(helping),
    }.get(consent.kind, False)
    if not allowed or not consent.user or len(session.legs) >= MOST_LEGS:
        raise ActionNotAllowed(f"cannot open a leg by {consent.kind} now")


def _allowed(session: Session, purpose: Purpose, rights: frozenset[Right]) -> frozenset[Right]:
    """Return the rights that can be given at all: a look, and a bare browser, only view."""
    only_views = purpose is Purpose.LOOK or session.mode is Mode.VIEW
    return rights & frozenset({Right.VIEW}) if only_views else rights


def _allows(consent: Consent | None, leg: Leg) -> bool:
    """Return whether the user has said that whose leg this is may do more."""
    if consent is None or not consent.yes:
        return False
    return consent.kind is Kind.RIGHTS and consent.user == leg.user


def _check_under_way(session: Session) -> None:
    if session.state in (State.INVITED, State.ENDED):
        raise ActionNotAllowed(f"cannot do that in a remote session that is {session.state}")


def _summary(session: Session, ending: Ending, now: datetime) -> dict[str, Any]:
    """Return the last entry's body. Who never saw anything has not lasted."""
    body: dict[str, Any] = {"session": session.ref, "ending": ending.value}
    if session.started_at is None:
        return body
    counts = [each.counts for each in session.legs]
    return {
        **body,
        "lasted_s": _seconds(now - session.started_at),
        "legs": len(session.legs),
        "keys": sum(each.keys for each in counts),
        "clicks": sum(each.clicks for each in counts),
        "bytes": sum(each.bytes for each in counts),
    }


def _agreement(session: Session, answer: Agreed, now: datetime, *, yes: bool) -> dict[str, Any]:
    return {
        "session_id": session.id, "at": now, "kind": Kind.AGREE.value, "yes": yes,
        "mode": answer.mode.value if yes else "", "rights": [], "language": answer.language[:8],
        "version": answer.version[:20], "text_hash": answer.text_hash[:64],
    }  # fmt: skip


def _seconds(length: timedelta) -> int:
    return max(round(length.total_seconds()), 0)


def _total(settings: RemoteSettings) -> timedelta:
    return timedelta(seconds=settings.total_s) + _GRACE


def _longest(settings: RemoteSettings) -> timedelta:
    """Return how long a session lives at most, so that nothing of it outlives it."""
    return timedelta(seconds=settings.wait_s + settings.frozen_s) + _total(settings)


def _is_gone(session: Session, now: datetime) -> bool:
    return session.ended_at is not None and session.ended_at + _SHOWN_FOR <= now


def _numbered(files: Sequence[SharedFile], number: int) -> SharedFile:
    for each in files:
        if each.number == number:
            return each
    raise NotFound("there is no such file")


def _side(who: str) -> bool:
    return who == REQUESTER


def _storable(blob: Blob) -> Blob:
    name = model.clean_line(blob.name, 200) or "file"
    return replace(blob, name=name, media_type=model.clean_line(blob.media_type, 80))
