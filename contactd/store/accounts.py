"""Who may use contactd: users with passwords, their sessions, and API tokens.

Secrets of tokens and sessions are 256 random bits, of which only the SHA-256 is kept: guessing is
hopeless, so that a slow hash would protect nothing. Passwords are people's: Argon2id.
"""

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import bindparam, delete, insert, select, update

from contactd.clock import Clock
from contactd.errors import NotFound, PermanentFailure
from contactd.store.engine import Database
from contactd.store.schema import sessions, tokens, users
from contactd.tickets.people import Role

TOKEN_PREFIX: Final = "cd_"  # noqa: S105 - so that leaked tokens can be searched for
SHORTEST_PASSWORD: Final = 8  # NIST SP 800-63B section 5.1.1.1
LONGEST_NAME: Final = 80
# Each takes 64 MiB and 50 ms of a core: guessers must not take them all.
_HASHES_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody who proved to be it."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What can be said of a token afterwards."""

    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


_NOW: Final = bindparam("now", type_=sessions.c.expires_at.type)
_FIND_TOKEN: Final = select(tokens.c.name, tokens.c.role).where(
    tokens.c.hash == bindparam("secret"), tokens.c.revoked_at.is_(None)
)
_TOKEN_BY_NAME: Final = select(tokens.c.id, tokens.c.revoked_at).where(
    tokens.c.name == bindparam("token")
)
_TOKENS: Final = select(
    tokens.c.name, tokens.c.role, tokens.c.created_at, tokens.c.revoked_at
).order_by(tokens.c.name)
_FIND_SESSION: Final = (
    select(users.c.name, users.c.role)
    .select_from(sessions.join(users, users.c.name == sessions.c.user_name))
    .where(sessions.c.hash == bindparam("secret"), sessions.c.expires_at > _NOW)
)
_PASSWORD: Final = select(users.c.name, users.c.role, users.c.password_hash).where(
    users.c.name == bindparam("user")
)


class Accounts:
    """Every method raises `TemporaryFailure` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._hasher = PasswordHasher()
        self._turns = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._nobody = ""  # hash to compare with when there is no such user

    # Tokens

    async def create_token(self, name: str, role: Role) -> str:
        """Return a new token's secret, which nobody can show again.

        Raises:
            PermanentFailure: the name is in use, or is no name.
        """
        _check_name(name)
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        values = {
            "name": name,
            "role": role.value,
            "hash": _digest(secret),
            "created_at": self._clock.now(),
            "revoked_at": None,
        }
        async with self._database.writing() as connection:
            known = (await connection.execute(_TOKEN_BY_NAME, {"token": name})).one_or_none()
            if known is None:
                await connection.execute(insert(tokens), values)
            elif known.revoked_at is None:
                raise PermanentFailure(f"there is a token {name!r}: revoke it, or take a new name")
            else:
                await connection.execute(
                    update(tokens).where(tokens.c.id == known.id).values(values)
                )
        return secret

    async def find_token(self, secret: str) -> Identity | None:
        """Return whose token it is; None if it is unknown or revoked."""
        async with self._database.reading() as connection:
            found = await connection.execute(_FIND_TOKEN, {"secret": _digest(secret)})
            row = found.one_or_none()
        return None if row is None else Identity(name=row.name, role=Role(row.role))

    async def revoke_token(self, name: str) -> None:
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

    async def tokens(self) -> tuple[Token, ...]:
        """Return all tokens by name, revoked ones too."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_TOKENS)).mappings().all()
        return tuple(Token(**{**row, "role": Role(row["role"])}) for row in rows)

    # Users

    async def add_user(self, name: str, password: str, role: Role) -> None:
        """Add a user, or give one that exists a new password and role and end their sessions.

        Raises:
            PermanentFailure: the password is too short, or the name is no name.
        """
        _check_name(name)
        if len(password) < SHORTEST_PASSWORD:
            raise PermanentFailure(f"a password has at least {SHORTEST_PASSWORD} characters")
        values = {"role": role.value, "password_hash": await self._hash(password)}
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.user_name == name))
            done = await connection.execute(
                update(users).where(users.c.name == name).values(values)
            )
            if not done.rowcount:
                await connection.execute(
                    insert(users), {"name": name, "created_at": self._clock.now(), **values}
                )

    async def remove_user(self, name: str) -> None:
        """Remove a user and end their sessions.

        Raises:
            NotFound: there is no such user.
        """
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.user_name == name))
            done = await connection.execute(delete(users).where(users.c.name == name))
        if not done.rowcount:
            raise NotFound(f"there is no user {name!r}")

    async def check_password(self, name: str, password: str) -> Identity | None:
        """Return who that is, or None; it takes as long for a name that nobody has."""
        asked = {"user": name if name.isprintable() else ""}  # PostgreSQL refuses NUL
        async with self._database.reading() as connection:
            row = (await connection.execute(_PASSWORD, asked)).one_or_none()
        if row is None:
            self._nobody = self._nobody or await self._hash(secrets.token_urlsafe())
            await self._verify(self._nobody, password)
            return None
        if not await self._verify(row.password_hash, password):
            return None
        return Identity(name=row.name, role=Role(row.role))

    # Sessions

    async def open_session(self, name: str, *, lasts: timedelta) -> str:
        """Return the secret of a new session of a user; clear away those that are over."""
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        row = {"hash": _digest(secret), "user_name": name, "expires_at": now + lasts}
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            await connection.execute(insert(sessions), row)
        return secret

    async def find_session(self, secret: str) -> Identity | None:
        """Return whose session it is; None if it is unknown or over."""
        asked = {"secret": _digest(secret), "now": self._clock.now()}
        async with self._database.reading() as connection:
            row = (await connection.execute(_FIND_SESSION, asked)).one_or_none()
        return None if row is None else Identity(name=row.name, role=Role(row.role))

    async def close_session(self, secret: str) -> None:
        """End the session; harmless twice."""
        async with self._database.writing() as connection:
            await connection.execute(delete(sessions).where(sessions.c.hash == _digest(secret)))

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


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")  # whatever a form sends is compared


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _check_name(name: str) -> None:
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise PermanentFailure(f"a name has 1 to {LONGEST_NAME} printable characters")
