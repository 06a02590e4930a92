"""The configuration: what may be written where, and what an operator is told about mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contactd.errors import ConfigurationError
from contactd.settings import Settings, load

PBX = '[[pbx]]\nsecret = "s3cret"\n'


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CONTACTD_"):
            monkeypatch.delenv(name)


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "contactd.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def errors(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    return str(caught.value).splitlines()


def test_an_empty_file_means_every_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()


def test_a_file_that_is_not_there_is_said_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: cannot be read"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("content", [b"[http\n", b"name = \xff\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "contactd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not TOML"):
        load(path)


def test_all_errors_are_reported_at_once_each_with_its_key(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        """
        [service]
        zone = "Asia/Guangzhou"
        drain_s = 0
        language = "fr"
        [http]
        port = 70000
        hots = "127.0.0.1"
        [servce]
        [database]
        url_file = "/nowhere/url"
        [[pbx]]
        name = "PBX 1"
        secret = "x"
        [[pbx]]
        name = "pbx2"
        """,
    )
    assert {line.partition(":")[0] for line in found} == {
        "service.zone",
        "service.drain_s",
        "service.language",
        "http.port",
        "http.hots",
        "servce",
        "database.url_file",
        "pbx.0.name",
        "pbx.1",
    }
    assert "http.hots: no such setting" in found
    assert "database.url_file: cannot read /nowhere/url: No such file or directory" in found
    assert any(line.startswith("pbx.1: secret or secret_file must be given") for line in found)


def test_two_pbxs_of_one_name_are_refused(tmp_path: Path) -> None:
    assert errors(tmp_path, PBX + PBX) == ["pbx: two PBXs have the same name"]


def test_a_secret_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "ami").write_text("  s3cret  \nsecond line\n", encoding="utf-8")
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n", encoding="utf-8")
    settings = read(
        tmp_path,
        f'[database]\nurl_file = "{tmp_path}/url"\n[[pbx]]\nsecret_file = "{tmp_path}/ami"\n',
    )
    assert settings.pbx[0].secret.get_secret_value() == "s3cret"
    assert settings.database_url == "postgresql://u:p@h/d"


def test_an_empty_secret_file_never_means_the_default_database(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("\n", encoding="utf-8")
    found = errors(tmp_path, f'[database]\nurl_file = "{tmp_path}/url"\n')
    assert found == [f"database.url_file: the first line of {tmp_path}/url is empty"]


def test_a_file_in_the_secrets_folder_sets_what_it_is_named_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "CONTACTD_DATABASE__URL").write_text("postgresql://u:p@h/d\n", encoding="utf-8")
    (folder / "somebody_elses").write_text("x", encoding="utf-8")
    monkeypatch.setenv("CONTACTD_SECRETS_DIR", str(folder))
    settings = read(tmp_path, '[database]\nurl = "sqlite:////tmp/x"\n')
    assert settings.database_url == "postgresql://u:p@h/d"


def test_a_secrets_folder_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTACTD_SECRETS_DIR", str(tmp_path / "nowhere"))
    (line,) = errors(tmp_path, "")
    assert line.startswith("CONTACTD_…: ")
    assert "nowhere" in line


def test_the_environment_wins_over_secret_files_and_both_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "contactd_http__port").write_text("2", encoding="utf-8")
    (folder / "contactd_agi__port").write_text("2", encoding="utf-8")
    monkeypatch.setenv("CONTACTD_SECRETS_DIR", str(folder))
    monkeypatch.setenv("CONTACTD_HTTP__PORT", "3")
    settings = read(tmp_path, '[http]\nport = 1\nhost = "::1"\n[agi]\nport = 1\n')
    assert (settings.http.port, settings.http.host, settings.agi.port) == (3, "::1", 2)


def test_a_mistake_in_the_environment_is_reported_like_one_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTACTD_HTTP__PORTT", "1")
    assert errors(tmp_path, "") == ["http.portt: no such setting"]


def test_a_list_of_pbxs_that_is_not_json_is_reported_and_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTACTD_PBX", "[oops")
    (line,) = errors(tmp_path, "")
    assert "pbx" in line


def test_no_secret_is_shown_by_the_settings_or_by_an_error(tmp_path: Path) -> None:
    text = '[database]\nurl = "postgresql://u:hidden@h/d"\n[[pbx]]\nsecret = "hidden"\n'
    assert "hidden" not in repr(read(tmp_path, text))
    assert not any("hidden" in line for line in errors(tmp_path, text + "port = 0\n"))


def test_the_default_database_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    settings = read(tmp_path, f'[service]\ndata_dir = "{tmp_path}"\n')
    assert settings.database_url == f"sqlite:///{tmp_path}/contactd.sqlite3"


MAIL = '[mail]\nhost = "smtp.example.cn"\n'


def test_mail_needs_a_sender_as_soon_as_it_has_a_smart_host(tmp_path: Path) -> None:
    assert errors(tmp_path, MAIL) == [
        "mail: sender must be given: the address that our mail comes from"
    ]
    assert read(tmp_path, MAIL + 'sender = "desk@example.cn"\n').mail.host == "smtp.example.cn"
    (line,) = errors(tmp_path, MAIL + 'sender = "Desk <desk@example.cn>"\n')
    assert line.startswith("mail.sender: ")


def test_the_password_of_the_smart_host_is_never_sent_in_clear(tmp_path: Path) -> None:
    given = 'sender = "d@e.cn"\nusername = "u"\npassword = "hidden"\nsecurity = "none"\n'
    (line,) = errors(tmp_path, MAIL + given)
    assert "in clear" in line
    assert "hidden" not in line
    here = f'[mail]\nhost = "127.0.0.1"\n{given}'
    assert read(tmp_path, here).mail.password.get_secret_value() == "hidden"


def test_the_password_of_the_smart_host_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("s3cret\n", encoding="utf-8")
    settings = read(tmp_path, f'[mail]\npassword_file = "{tmp_path}/mail"\n')
    assert settings.mail.password.get_secret_value() == "s3cret"


def test_a_relay_for_shared_screens_needs_its_secret(tmp_path: Path) -> None:
    given = '[remote]\nturn = ["turn:turn.example.cn:3478"]\n'
    (line,) = errors(tmp_path, given)
    assert "turn_secret" in line
    (tmp_path / "turn").write_text("s3cret\n", encoding="utf-8")
    settings = read(tmp_path, f'{given}turn_secret_file = "{tmp_path}/turn"\n')
    assert settings.remote.turn_secret.get_secret_value() == "s3cret"


@pytest.mark.parametrize("given", ['hotkey = "q"', 'hotkey = "ctrl+f1"', 'turn = ["http://x"]',
                                   "code_s = 601", "repeater_port = 70000"])  # fmt: skip
def test_what_makes_remote_help_unsafe_or_impossible_is_refused(tmp_path: Path, given: str) -> None:
    assert len(errors(tmp_path, f"[remote]\n{given}\n")) == 1


@pytest.mark.parametrize("gateway", ["twilio", "smpp", "aliyun", "sip", "log"])
def test_no_gateway_for_texts_is_waited_for_longer_than_half_a_minute(
    tmp_path: Path, gateway: str
) -> None:
    (line,) = errors(tmp_path, f"[sms.{gateway}]\ntimeout_s = 31\n")
    assert f"sms.{gateway}.timeout_s" in line


# asyncio's own start makes a pair of sockets: nothing of it may run before the file is known good.
WATCHED = """
import os, sys

def watch(event, arguments):
    if event.startswith("socket."):
        os.write(2, event.encode())
        os._exit(99)

sys.addaudithook(watch)
from contactd.__main__ import main
sys.exit(main(["serve", "-c", sys.argv[1]]))
"""


def test_a_wrong_configuration_ends_with_78_before_any_socket_opens(tmp_path: Path) -> None:
    path = tmp_path / "contactd.toml"
    path.write_text('[http]\nport = 0\n[service]\nlanguage = "fr"\n', encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == os.EX_CONFIG, ended.stderr
    assert "http.port: " in ended.stderr
    assert "service.language: " in ended.stderr
    assert "Traceback" not in ended.stderr
