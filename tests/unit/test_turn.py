"""STUN and TURN for view only: what pages are told."""

from datetime import UTC, datetime, timedelta

from contactd.remote import turn
from contactd.settings import RemoteSettings

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def settings(**more: object) -> RemoteSettings:
    return RemoteSettings.model_validate(more)


def test_credentials_are_those_that_coturn_computes() -> None:
    # openssl dgst -sha1 -hmac s3cret -binary <<< 1700000000:12 | base64 (without the line's end)
    until = datetime.fromtimestamp(1_700_000_000, UTC)
    assert turn.credentials("s3cret", "12", until) == (
        "1700000000:12", "8I4GI8EYkDyJrcBaSw4TFAqNAfk=",
    )  # fmt: skip


def test_without_servers_nothing_is_told() -> None:
    assert turn.ice_servers(settings(), 7, NOW) == ()


def test_stun_needs_no_credentials() -> None:
    told = turn.ice_servers(settings(stun=["stun:a.example:3478", "stun:b.example"]), 7, NOW)
    assert told == ({"urls": ["stun:a.example:3478", "stun:b.example"]},)


def test_a_relay_is_told_with_credentials_that_outlast_the_session() -> None:
    given = settings(
        stun=["stun:a.example"], turn=["turn:a.example:3478?transport=udp"], turn_secret="s3cret",
        wait_s=60, frozen_s=30, total_s=600,
    )  # fmt: skip
    _, relay = turn.ice_servers(given, 7, NOW)
    until = NOW + timedelta(seconds=690)
    name, password = turn.credentials("s3cret", "7", until)
    assert relay == {
        "urls": ["turn:a.example:3478?transport=udp"], "username": name, "credential": password,
    }  # fmt: skip
    assert name == f"{int(until.timestamp())}:7"
    assert "s3cret" not in str(relay)


def test_every_session_has_its_own_credentials() -> None:
    given = settings(turn=["turn:a.example"], turn_secret="s3cret")
    (one,), (other,) = turn.ice_servers(given, 7, NOW), turn.ice_servers(given, 8, NOW)
    assert one["credential"] != other["credential"]
