"""Users, sessions and tokens on both databases."""

import asyncio
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from contactd.errors import NotFound, PermanentFailure
from contactd.store.accounts import Accounts, Identity
from contactd.store.engine import Database
from contactd.store.schema import sessions, tokens, users
from contactd.tickets.people import Role
from tests.fakes.clock import FakeClock

PASSWORD = "correct horse"


@pytest.fixture
def accounts(database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    accounts = Accounts(database, clock)
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=64))
    return accounts


async def test_a_token_tells_who_uses_it(accounts: Accounts) -> None:
    secret = await accounts.create_token("oa", Role.DESK)
    assert secret.startswith("cd_")
    assert len(secret) > 40
    assert await accounts.find_token(secret) == Identity(name="oa", role=Role.DESK)
    assert await accounts.find_token(secret + "x") is None
    assert await accounts.find_token("") is None


async def test_the_database_does_not_hold_a_tokens_secret(
    accounts: Accounts, database: Database
) -> None:
    secret = await accounts.create_token("oa", Role.DESK)
    async with database.reading() as connection:
        row = (await connection.execute(select(tokens))).one()
    assert secret[3:] not in repr(row)
    assert len(row.hash) == 32


async def test_a_revoked_token_is_nobody_and_its_name_can_be_used_again(
    accounts: Accounts,
) -> None:
    old = await accounts.create_token("oa", Role.DESK)
    with pytest.raises(PermanentFailure, match="there is a token 'oa'"):
        await accounts.create_token("oa", Role.ADMIN)
    await accounts.revoke_token("oa")
    assert await accounts.find_token(old) is None
    with pytest.raises(NotFound):
        await accounts.revoke_token("oa")
    new = await accounts.create_token("oa", Role.ADMIN)
    assert await accounts.find_token(old) is None
    assert await accounts.find_token(new) == Identity(name="oa", role=Role.ADMIN)


@pytest.mark.parametrize("name", ["", " x", "a\nb", "x" * 81])
async def test_a_name_is_something_to_read(accounts: Accounts, name: str) -> None:
    with pytest.raises(PermanentFailure, match="a name has"):
        await accounts.create_token(name, Role.DESK)
    with pytest.raises(PermanentFailure, match="a name has"):
        await accounts.add_user(name, PASSWORD, Role.DESK)


async def test_a_user_is_known_by_name_and_password(accounts: Accounts) -> None:
    await accounts.add_user("陈静", PASSWORD, Role.DESK)
    assert await accounts.check_password("陈静", PASSWORD) == Identity(name="陈静", role=Role.DESK)
    assert await accounts.check_password("陈静", PASSWORD + " ") is None
    for wrong in ("", "\x00", "\ud800"):
        assert await accounts.check_password("陈静", wrong) is None
    for stranger in ("nobody", "", "\x00", "\ud800"):
        assert await accounts.check_password(stranger, PASSWORD) is None


async def test_a_password_is_kept_as_argon2id(accounts: Accounts, database: Database) -> None:
    await accounts.add_user("chen", PASSWORD, Role.DESK)
    async with database.reading() as connection:
        row = (await connection.execute(select(users))).one()
    assert row.password_hash.startswith("$argon2id$")


async def test_a_short_password_is_refused(accounts: Accounts) -> None:
    with pytest.raises(PermanentFailure, match="at least 8"):
        await accounts.add_user("chen", "1234567", Role.DESK)


async def test_adding_a_user_again_changes_password_and_role_and_ends_the_sessions(
    accounts: Accounts,
) -> None:
    await accounts.add_user("chen", PASSWORD, Role.DESK)
    session = await accounts.open_session("chen", lasts=timedelta(hours=1))
    await accounts.add_user("chen", "battery staple", Role.SUPERVISOR)
    assert await accounts.check_password("chen", PASSWORD) is None
    found = await accounts.check_password("chen", "battery staple")
    assert found == Identity(name="chen", role=Role.SUPERVISOR)
    assert await accounts.find_session(session) is None


async def test_a_user_who_is_removed_is_logged_out(accounts: Accounts) -> None:
    await accounts.add_user("li", PASSWORD, Role.DESK)
    await accounts.add_user("wang", PASSWORD, Role.DESK)
    secret = await accounts.open_session("li", lasts=timedelta(hours=1))
    await accounts.remove_user("li")
    assert await accounts.find_session(secret) is None
    assert await accounts.check_password("li", PASSWORD) is None
    assert await accounts.check_password("wang", PASSWORD) is not None
    with pytest.raises(NotFound):
        await accounts.remove_user("li")


async def test_checking_passwords_does_not_hold_the_event_loop(
    database: Database, clock: FakeClock
) -> None:
    accounts = Accounts(database, clock)  # with passwords as expensive as they are
    await accounts.add_user("chen", PASSWORD, Role.DESK)
    loop, late = asyncio.get_running_loop(), [0.0]

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            late.append(loop.time() - before - 0.005)

    async with asyncio.TaskGroup() as tasks:
        ticker = tasks.create_task(tick())
        await asyncio.gather(*(accounts.check_password("chen", "wrong password") for _ in range(4)))
        ticker.cancel()
    assert max(late) < 0.25


async def test_a_session_lasts_until_it_is_over_or_closed(
    accounts: Accounts, clock: FakeClock, database: Database
) -> None:
    await accounts.add_user("chen", PASSWORD, Role.DESK)
    first = await accounts.open_session("chen", lasts=timedelta(hours=12))
    second = await accounts.open_session("chen", lasts=timedelta(hours=13))
    assert await accounts.find_session(first) == Identity(name="chen", role=Role.DESK)
    assert await accounts.find_session("") is None
    clock.advance(timedelta(hours=12))
    assert await accounts.find_session(first) is None
    assert await accounts.find_session(second) is not None
    await accounts.close_session(second)
    await accounts.close_session(second)
    assert await accounts.find_session(second) is None
    third = await accounts.open_session("chen", lasts=timedelta(hours=1))
    async with database.reading() as connection:  # what is over has been cleared away
        assert len((await connection.execute(select(sessions))).all()) == 1
    assert await accounts.find_session(third) is not None
