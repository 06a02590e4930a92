"""Who may use contactd: users with passwords, their sessions, and API tokens.

Secrets of tokens and sessions are 256 random bits, of which only the SHA-256 is kept: guessing is
hopeless, so that a slow hash would protect nothing. Passwords are people's: Argon2id. Every change
is on the journal of acts, in the same transaction.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Row, bindparam, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.store.acts import SYSTEM, note_act
from contactd.store.engine import Database
from contactd.store.schema import people, sessions, sites, tokens, users
from contactd.tickets.people import Role

TOKEN_PREFIX: Final = "cd_"  # noqa: S105 - so that leaked tokens can be searched for
SHORTEST_PASSWORD: Final = 8  # NIST SP 800-63B section 5.1.1.1
LONGEST_NAME: Final = 80
LONGEST_AGENT: Final = 200
ENGINEER: Final = "engineer"  # role of people of the desk file
# Each takes 64 MiB and 50 ms of a core: guessers must not take them all.
_HASHES_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody who proved to be it."""

    name: str
    role: Role
    sites: frozenset[str] = frozenset()  # whose tickets they see; empty: all
    engineer: str = ""  # key of the engineer of the desk file that this user is


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What somebody may do, and where."""

    role: Role
    sites: frozenset[str] = frozenset()  # empty: all
    engineer: str = ""  # key of the desk file, "" if they are none


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """What can be said of a user: nothing that proves to be them."""

    name: str
    grant: Grant
    created_at: datetime
    disabled_at: datetime | None
    has_password: bool
    has_factor: bool  # a second one
    is_external: bool  # logs in at the OIDC provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What can be said of a token afterwards."""

    name: str
    role: Role
    sites: frozenset[str]
    created_at: datetime
    expires_at: datetime | None  # None: never
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A session as its user sees it; `id` names it and opens nothing."""

    id: str
    created_at: datetime | None
    expires_at: datetime
    agent: str
    is_this: bool


_NOW: Final = bindparam("now", type_=sessions.c.expires_at.type)
_ACTIVE: Final = users.c.disabled_at.is_(None)
_FIND_TOKEN: Final = select(tokens.c.name, tokens.c.role, tokens.c.sites).where(
    tokens.c.hash == bindparam("secret"),
    tokens.c.revoked_at.is_(None),
    or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > _NOW),
)
_TOKEN_BY_NAME: Final = select(tokens).where(tokens.c.name == bindparam("token"))
_TOKENS: Final = select(
    *(tokens.c[name] for name in Token.__dataclass_fields__)  # not its hash
).order_by(tokens.c.name)
_WHO: Final = (users.c.name, users.c.role, users.c.sites, users.c.engineer)
_FIND_SESSION: Final = (
    select(*_WHO)
    .select_from(sessions.join(users, users.c.name == sessions.c.user_name))
    .where(sessions.c.hash == bindparam("secret"), sessions.c.expires_at > _NOW, _ACTIVE)
)
_USER: Final = select(users).where(users.c.name == bindparam("user"))
_USERS: Final = select(users).order_by(users.c.name)
_BY_SUBJECT: Final = select(users).where(users.c.subject == bindparam("subject"))
_ADMINS: Final = select(users.c.name).where(users.c.role == Role.ADMIN.value, _ACTIVE)
_SESSIONS: Final = (
    select(sessions)
    .where(sessions.c.user_name == bindparam("user"), sessions.c.expires_at > _NOW)
    .order_by(sessions.c.expires_at.desc())
)
_SITES: Final = select(sites.c.key)
_ENGINEERS: Final = select(people.c.key, people.c.name).where(
    people.c.role == ENGINEER, people.c.key.is_not(None)
)
_USE_STEP: Final = (
    update(users)
    .where(users.c.name == bindparam("user"), users.c.totp_step < bindparam("step"))
    .values(totp_step=bindparam("step"))
)


class Accounts:
    """Every method raises `TemporaryFailure` when the database is away.

    `actor` is who does it, for the journal of acts: `user:<name>`, or `system`.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._hasher = PasswordHasher()
        self._turns = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._nobody = ""  # hash to compare with when there is no such user

    # Tokens

    async def create_token(  # noqa: PLR0913 - the columns of a row
        self,
        name: str,
        role: Role,
        *,
        sites: Collection[str] = (),
        expires_at: datetime | None = None,
        replaces: bool = False,
        actor: str = SYSTEM,
    ) -> str:
        """Return a new token's secret, which nobody can show again.

        With `replaces` one of this name that is in use is revoked by it.

        Raises:
            PermanentFailure: the name is in use, or is no name; there is no such site.
        """
        _check_name(name)
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now()
        values = {
            "name": name,
            "role": role.value,
            "hash": _digest(secret),
            "created_at": now,
            "expires_at": expires_at,
            "revoked_at": None,
            "sites": sorted(sites),
        }
        told = {"role": role.value, "sites": sorted(sites)}
        if expires_at is not None:
            told["expires_at"] = expires_at.isoformat()
        async with self._database.writing() as connection:
            await _check_sites(connection, sites)
            if (await connection.execute(_USER, {"user": name})).one_or_none() is not None:
                raise PermanentFailure(f"there is a user {name!r}: acts would be taken for theirs")
            known = (await connection.execute(_TOKEN_BY_NAME, {"token": name})).one_or_none()
            if known is None:
                await connection.execute(insert(tokens), values)
            elif _is_in_use(known, now) and not replaces:
                raise PermanentFailure(f"there is a token {name!r}: revoke it, or take a new name")
            else:
                await connection.execute(
                    update(tokens).where(tokens.c.id == known.id).values(values)
                )
            await self._note(connection, actor, "token.created", name, told)
        return secret

    async def find_token(self, secret: str) -> Identity | None:
        """Return whose token it is; None if it is unknown, revoked or expired."""
        asked = {"secret": _digest(secret), "now": self._clock.now()}
        async with self._database.reading() as connection:
            row = (await connection.execute(_FIND_TOKEN, asked)).one_or_none()
        if row is None:
            return None
        return Identity(name=row.name, role=Role(row.role), sites=frozenset(row.sites))

    async def revoke_token(self, name: str, *, actor: str = SYSTEM) -> None:
        """Make the token useless.

        Raises:
            NotFound: there is no such token in use.
        """
        async with self._database.writing() as connection:
            done = await connection.execute(
                update(tokens)
                .where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
                .values(revoked_at=self._clock.now())
            )
            if not done.rowcount:
                raise NotFound(f"there is no token {name!r} in use")
            await self._note(connection, actor, "token.revoked", name)

    async def tokens(self) -> tuple[Token, ...]:
        """Return all tokens by name, revoked ones too."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_TOKENS)).mappings().all()
        return tuple(
            Token(**{**row, "role": Role(row["role"]), "sites": frozenset(row["sites"])})
            for row in rows
        )

    # Users

    async def add_user(  # noqa: PLR0913 - the columns of a row
        self,
        name: str,
        password: str,
        role: Role,
        *,
        sites: Collection[str] | None = None,
        engineer: str | None = None,
        replaces: bool = True,
        actor: str = SYSTEM,
    ) -> None:
        """Add a user, or give one that exists a new password and role and end their sessions.

        Of one that exists `sites` and `engineer` None stay as they are. Without `replaces` nobody
        of this name may exist.

        Raises:
            PermanentFailure: the password is too short, or the name is no name or is taken; there
                is no such site or engineer.
        """
        _check_name(name)
        values: dict[str, Any] = {
            "role": role.value,
            "password_hash": await self._hash(checked(password)),
            "disabled_at": None,
        }
        if sites is not None:
            values["sites"] = sorted(sites)
        if engineer is not None:
            values["engineer"] = engineer
        async with self._database.writing() as connection:
            await _check_grant(connection, sites or (), engineer or "")
            is_known = (await connection.execute(_USER, {"user": name})).one_or_none() is not None
            if is_known and not replaces:
                raise PermanentFailure(f"there is a user {name!r} already")
            await self._check_tokens(connection, name)
            if is_known:
                await connection.execute(delete(sessions).where(sessions.c.user_name == name))
                await connection.execute(update(users).where(users.c.name == name).values(values))
            else:
                row = {"name": name, "created_at": self._clock.now(), **values}
                await connection.execute(insert(users).values(row))
            told = {"role": role.value, "sites": sorted(sites or ()), "engineer": engineer or ""}
            action = "user.changed" if is_known else "user.added"
            await self._note(connection, actor, action, name, told)

    async def change_user(self, name: str, grant: Grant, *, actor: str = SYSTEM) -> None:
        """Say what a user may do and where; their open pages obey from the next click on.

        Raises:
            NotFound: there is no such user.
            PermanentFailure: there is no such site or engineer; nobody could administer any more.
        """
        values = {
            "role": grant.role.value,
            "sites": sorted(grant.sites),
            "engineer": grant.engineer,
        }
        async with self._database.writing() as connection:
            await _check_grant(connection, grant.sites, grant.engineer)
            if grant.role is not Role.ADMIN:
                await _check_admins(connection, without=name)
            await self._change(connection, name, values)
            await self._note(connection, actor, "user.changed", name, values)

    async def disable_user(self, name: str, *, actor: str = SYSTEM) -> None:
        """Let somebody in no more and end their sessions; what they did keeps their name.

        Raises:
            NotFound: there is no such user.
            PermanentFailure: nobody could administer any more.
        """
        async with self._database.writing() as connection:
            await _check_admins(connection, without=name)
            await self._change(connection, name, {"disabled_at": self._clock.now()})
            await connection.execute(delete(sessions).where(sessions.c.user_name == name))
            await self._note(connection, actor, "user.disabled", name)

    async def enable_user(self, name: str, *, actor: str = SYSTEM) -> None:
        """Let somebody in again.

        Raises:
            NotFound: there is no such user.
        """
        async with self._database.writing() as connection:
            await self._change(connection, name, {"disabled_at": None})
            await self._note(connection, actor, "user.enabled", name)

    async def remove_user(self, name: str, *, actor: str = SYSTEM) -> None:
        """Remove a user and end their sessions.

        Raises:
            NotFound: there is no such user.
        """
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.user_name == name))
            done = await connection.execute(delete(users).where(users.c.name == name))
            if not done.rowcount:
                raise NotFound(f"there is no user {name!r}")
            await self._note(connection, actor, "user.removed", name)

    async def users(self) -> tuple[User, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_USERS)).all()
        return tuple(map(_user, rows))

    async def user(self, name: str) -> User:
        """Return what can be said of a user.

        Raises:
            NotFound: there is no such user.
        """
        async with self._database.reading() as connection:
            row = (await connection.execute(_USER, {"user": _storable(name)})).one_or_none()
        if row is None:
            raise NotFound(f"there is no user {name!r}")
        return _user(row)

    async def engineers(self) -> Mapping[str, str]:
        """Return the names of the desk file's engineers by key."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_ENGINEERS.order_by(people.c.name))).all()
        return {row.key: row.name for row in rows}

    async def check_password(self, name: str, password: str) -> Identity | None:
        """Return who that is, or None; it takes as long for a name that nobody has."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_USER, {"user": _storable(name)})).one_or_none()
        if row is None or not row.password_hash or row.disabled_at is not None:
            self._nobody = self._nobody or await self._hash(secrets.token_urlsafe())
            await self._verify(self._nobody, password)
            return None
        if not await self._verify(row.password_hash, password):
            return None
        return _identity(row)

    async def set_password(
        self, name: str, password: str, *, keeps: str = "", actor: str = SYSTEM
    ) -> None:
        """Give a user a new password and end their sessions but the one of the secret `keeps`.

        Raises:
            NotFound: there is no such user.
            PermanentFailure: the password is too short.
        """
        values = {"password_hash": await self._hash(checked(password))}
        async with self._database.writing() as connection:
            await self._change(connection, name, values)
            await connection.execute(_others(name, keeps))
            await self._note(connection, actor, "user.password_changed", name)

    # The second factor (RFC 6238): what the codes are is `web.factor`'s

    async def factor_key(self, name: str) -> bytes | None:
        """Return the secret that a user's device shares with us; None: none, or disabled."""
        asked = {"user": _storable(name)}
        async with self._database.reading() as connection:
            row = (await connection.execute(_USER.where(_ACTIVE), asked)).one_or_none()
        return None if row is None else row.totp_key

    async def use_step(self, name: str, step: int) -> bool:
        """Return whether a code of this time step may be used: each once, never an older one."""
        async with self._database.writing() as connection:
            done = await connection.execute(_USE_STEP, {"user": name, "step": step})
        return done.rowcount == 1

    async def set_factor(
        self, name: str, key: bytes | None, *, step: int = 0, actor: str = SYSTEM
    ) -> None:
        """Ask for codes of `key` from now on, the one of `step` being used; None: ask for none.

        Raises:
            NotFound: there is no such user.
        """
        action = "user.factor_removed" if key is None else "user.factor_set"
        async with self._database.writing() as connection:
            await self._change(connection, name, {"totp_key": key, "totp_step": step})
            await self._note(connection, actor, action, name)

    # Sessions

    async def open_session(self, name: str, *, lasts: timedelta, agent: str = "") -> str:
        """Return the secret of a new session of a user; clear away those that are over.

        Raises:
            NotFound: there is no such user who may come in.
        """
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        row = {
            "hash": _digest(secret),
            "user_name": name,
            "expires_at": now + lasts,
            "created_at": now,
            "agent": _storable(agent)[:LONGEST_AGENT],
        }
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            known = await connection.execute(_USER.where(_ACTIVE), {"user": name})
            if known.one_or_none() is None:
                raise NotFound(f"there is no user {name!r} who may log in")
            await connection.execute(insert(sessions), row)
        return secret

    async def find_session(self, secret: str) -> Identity | None:
        """Return whose session it is; None if it is unknown or over, or they are disabled."""
        asked = {"secret": _digest(secret), "now": self._clock.now()}
        async with self._database.reading() as connection:
            row = (await connection.execute(_FIND_SESSION, asked)).one_or_none()
        return None if row is None else _identity(row)

    async def close_session(self, secret: str) -> None:
        """End the session; harmless twice."""
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.hash == _digest(secret)))

    async def open_sessions(self, name: str, secret: str) -> tuple[OpenSession, ...]:
        """Return the sessions of a user, of which `secret` opens one."""
        asked = {"user": name, "now": self._clock.now()}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_SESSIONS, asked)).all()
        return tuple(
            OpenSession(
                id=_session_id(row.hash),
                created_at=row.created_at,
                expires_at=row.expires_at,
                agent=row.agent,
                is_this=row.hash == _digest(secret),
            )
            for row in rows
        )

    async def end_session(self, name: str, session_id: str) -> None:
        """End one of a user's own sessions.

        Raises:
            NotFound: they have none of this id.
        """
        async with self._database.writing() as connection:
            rows = (
                await connection.execute(_SESSIONS, {"user": name, "now": self._clock.now()})
            ).all()
            found = [row.hash for row in rows if _session_id(row.hash) == session_id]
            if not found:
                raise NotFound("there is no such session")
            await connection.execute(delete(sessions).where(sessions.c.hash.in_(found)))
            await self._note(connection, f"user:{name}", "session.ended", name)

    async def end_sessions(self, name: str, *, keeps: str = "", actor: str = SYSTEM) -> int:
        """End a user's sessions but the one of the secret `keeps`; return how many."""
        async with self._database.writing() as connection:
            done = await connection.execute(_others(name, keeps))
            if done.rowcount:
                told = {"sessions": done.rowcount}
                await self._note(connection, actor, "session.ended", name, told)
        return done.rowcount

    # People who are known elsewhere (OpenID Connect)

    async def admit(self, subject: str, name: str, grant: Grant) -> Identity:
        """Return whom the provider knows as `subject`, with what it says of them; add them if new.

        Raises:
            PermanentFailure: they are disabled here, or somebody else has their name.
        """
        values = {
            "role": grant.role.value,
            "sites": sorted(grant.sites),
            "engineer": grant.engineer,
        }
        async with self._database.writing() as connection:
            row = (await connection.execute(_BY_SUBJECT, {"subject": subject})).one_or_none()
            if row is None:
                _check_name(name)
                await self._add_external(connection, subject, name, values)
            elif row.disabled_at is not None:
                raise PermanentFailure(f"user {row.name!r} is disabled")
            elif any(getattr(row, key) != value for key, value in values.items()):
                await self._change(connection, row.name, values)
                await self._note(connection, SYSTEM, "user.changed", row.name, values)
            found = (await connection.execute(_BY_SUBJECT, {"subject": subject})).one()
        return _identity(found)

    async def _add_external(
        self, connection: AsyncConnection, subject: str, name: str, values: Mapping[str, Any]
    ) -> None:
        """Never join a user who is there: the provider's names are not ours to believe."""
        if (await connection.execute(_USER, {"user": name})).one_or_none() is not None:
            raise PermanentFailure(f"there is a user {name!r} already who logs in with a password")
        await self._check_tokens(connection, name)
        row = {
            "name": name, "subject": subject, "password_hash": "", "created_at": self._clock.now(),
            **values,
        }  # fmt: skip
        await connection.execute(insert(users).values(row))
        await self._note(connection, SYSTEM, "user.added", name, {**values, "by": "oidc"})

    async def _check_tokens(self, connection: AsyncConnection, name: str) -> None:
        """Refuse a user of a token's name: what one does would be taken for the other's."""
        known = (await connection.execute(_TOKEN_BY_NAME, {"token": name})).one_or_none()
        if known is not None and _is_in_use(known, self._clock.now()):
            raise PermanentFailure(f"there is a token {name!r}: revoke it, or take a new name")

    async def _change(
        self, connection: AsyncConnection, name: str, values: Mapping[str, Any]
    ) -> None:
        done = await connection.execute(
            update(users).where(users.c.name == name).values(dict(values))
        )
        if not done.rowcount:
            raise NotFound(f"there is no user {name!r}")

    async def _note(
        self,
        connection: AsyncConnection,
        actor: str,
        action: str,
        subject: str,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        await note_act(
            connection, self._clock, actor=actor, action=action, subject=subject, body=body
        )

    # Argon2 takes 50 ms of a core: never in the event loop.

    async def _hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, _bytes(password))

    async def _verify(self, known: str, password: str) -> bool:
        async with self._turns:
            try:
                return await asyncio.to_thread(self._hasher.verify, known, _bytes(password))
            except (VerificationError, InvalidHashError):
                return False


def checked(password: str) -> str:
    """Return a password that is long enough.

    Raises:
        PermanentFailure: it is not.
    """
    if len(password) < SHORTEST_PASSWORD:
        raise PermanentFailure(f"a password has at least {SHORTEST_PASSWORD} characters")
    return password


def _identity(row: Any) -> Identity:
    return Identity(
        name=row.name, role=Role(row.role), sites=frozenset(row.sites), engineer=row.engineer
    )


def _user(row: Row[Any]) -> User:
    return User(
        name=row.name,
        grant=Grant(role=Role(row.role), sites=frozenset(row.sites), engineer=row.engineer),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        has_password=bool(row.password_hash),
        has_factor=row.totp_key is not None,
        is_external=row.subject is not None,
    )


def _is_in_use(token: Row[Any], now: datetime) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def _others(name: str, keeps: str) -> Any:
    return delete(sessions).where(sessions.c.user_name == name, sessions.c.hash != _digest(keeps))


def _session_id(digest: bytes) -> str:
    return digest[:8].hex()


async def _check_sites(connection: AsyncConnection, wanted: Iterable[str]) -> None:
    known = set((await connection.execute(_SITES)).scalars())
    if strangers := sorted(set(wanted) - known):
        there = ", ".join(sorted(known)) or "none yet"
        raise PermanentFailure(f"there is no site {strangers[0]!r}; there are: {there}")


async def _check_grant(connection: AsyncConnection, wanted: Collection[str], engineer: str) -> None:
    await _check_sites(connection, wanted)
    if engineer:
        found = await connection.execute(_ENGINEERS.where(people.c.key == _storable(engineer)))
        if found.one_or_none() is None:
            raise PermanentFailure(f"there is no engineer {engineer!r} in the desk file")


async def _check_admins(connection: AsyncConnection, *, without: str) -> None:
    """Refuse what would leave nobody who administers."""
    admins = set((await connection.execute(_ADMINS)).scalars())
    if admins == {without}:
        raise PermanentFailure(f"{without!r} is the last administrator: name another one first")


def _storable(value: str) -> str:
    """Return a value, "" when no row can hold it (PostgreSQL refuses NUL)."""
    return value if value.isprintable() else ""


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")  # whatever a form sends is compared


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _check_name(name: str) -> None:
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise PermanentFailure(f"a name has 1 to {LONGEST_NAME} printable characters")
