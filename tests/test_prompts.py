"""The prompt builder: what it plans, and that real files come out (needs espeak-ng and sox)."""

import importlib.util
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = (
    "consent welcome your-ticket-is joined-ticket menu connecting key-in-ticket "
    "ticket-unknown progress-is state-new state-in-progress state-pending state-resolved "
    "state-closed state-cancelled engineer-is an-engineer nobody-yet promise-is promise-none "
    "promise-arrival promise-resolution promise-overdue "
    "today tomorrow on-day month day oclock minutes am pm voicemail thanks "
    "goodbye offer-call-from offer-vip offer-ticket offer-keys offer-gone page-voicemail "
    "page-new page-keys page-key-conference page-pin page-taken page-late confirm-keys tell-code "
    "site-gz site-sz site-zh site-fs site-zq site-desk site-unknown n-0 n-59"
)


@pytest.fixture(scope="module")
def prompts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prompts", ROOT / "scripts" / "prompts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prompts"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(prompts: ModuleType, tmp_path: Path) -> Path:
    """Return a table of one prompt in place of etc/prompts.toml; it takes a second less."""
    for program in ("espeak-ng", "sox"):
        assert shutil.which(program), f"apt-get install {program}"
    table = tmp_path / "table.toml"
    table.write_text('[contactd.hello]\nzh = "您好。"\nen = "en:Hello."\n', encoding="utf-8")
    return table


def test_the_table_has_every_prompt_in_both_languages(prompts: ModuleType) -> None:
    wanted = prompts.plan([prompts.TABLE], None)
    missing = [
        f"{language}/contactd/{name}"
        for language in ("zh", "en")
        for name in REQUIRED.split()
        if f"{language}/contactd/{name}" not in wanted
    ]
    assert missing == []
    assert {f"zh/digits/{digit}" for digit in range(10)} <= wanted.keys()


def test_every_sound_that_the_dialplan_names_exists(prompts: ModuleType) -> None:
    wanted = prompts.plan([prompts.TABLE], None)
    dialplan = (ROOT / "etc" / "asterisk" / "contactd.conf").read_text(encoding="utf-8")
    for word in dialplan.replace("&", " ").replace(",", " ").replace("(", " ").split():
        name = word.strip(")}").removeprefix("contactd/")
        if word.startswith("contactd/") and name and name[0] != "$" and "$" not in name:
            assert f"zh/contactd/{name}" in wanted, word


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "零"), (9, "九"), (10, "十"), (15, "十五"), (20, "二十"), (59, "五十九")],
)
def test_numbers_are_read_as_hours_and_minutes_are(
    prompts: ModuleType, number: int, words: str
) -> None:
    assert prompts.number_in_words(number) == words


def test_a_second_run_makes_nothing_and_a_changed_text_only_itself(
    prompts: ModuleType, sources: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wanted = prompts.read_table(sources)
    assert prompts.build(out, wanted, workers=2) == 2
    assert prompts.build(out, wanted, workers=2) == 0

    sources.write_text(sources.read_text().replace("您好。", "再见。"), encoding="utf-8")
    assert prompts.build(out, prompts.read_table(sources), workers=2) == 1


def test_files_are_what_a_telephone_carries_and_can_be_heard(
    prompts: ModuleType, sources: Path, tmp_path: Path
) -> None:
    prompts.build(tmp_path / "out", prompts.read_table(sources), workers=2)
    with wave.open(str(tmp_path / "out/zh/contactd/hello.wav"), "rb") as sound:
        form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
    assert form == (8000, 1, 2)
    assert 0.2 < prompts.check_sound(tmp_path / "out/zh/contactd/hello.wav") < 3


def test_a_recorded_file_replaces_its_prompt_alone(
    prompts: ModuleType, sources: Path, tmp_path: Path
) -> None:
    recorded = tmp_path / "mine" / "en" / "contactd"
    recorded.mkdir(parents=True)
    tone = ["sox", "-n", "-r", "44100", "-c", "2", str(recorded / "hello.flac")]
    subprocess.run([*tone, "synth", "1.5", "sine", "500"], check=True)

    wanted = prompts.read_table(sources) | prompts.overrides(tmp_path / "mine")
    prompts.build(tmp_path / "out", wanted, workers=2)

    assert prompts.check_sound(tmp_path / "out/en/contactd/hello.wav") == pytest.approx(1.5)
    assert prompts.check_sound(tmp_path / "out/zh/contactd/hello.wav") < 1.5


def test_a_silent_file_is_refused_by_name(
    prompts: ModuleType, sources: Path, tmp_path: Path
) -> None:
    recorded = tmp_path / "mine" / "zh" / "contactd"
    recorded.mkdir(parents=True)
    subprocess.run(["sox", "-n", str(recorded / "hello.wav"), "trim", "0", "2"], check=True)
    with pytest.raises(prompts.PromptError, match=r"zh/contactd/hello.*nothing to hear"):
        prompts.build(tmp_path / "out", prompts.overrides(tmp_path / "mine"), workers=1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[contactd.hello]\nzh = "您好。"\n', "hello.en: a text is missing"),
        ("[typo.hello]\n", "unknown section 'typo'"),
        ("not toml", "table.toml"),
    ],
)
def test_a_bad_table_is_refused_with_the_place(
    prompts: ModuleType, tmp_path: Path, text: str, complaint: str
) -> None:
    table = tmp_path / "table.toml"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(prompts.PromptError, match=complaint):
        prompts.read_table(table)


def test_the_names_of_the_desk_files_engineers_are_spoken_by_a_voice_that_can(
    prompts: ModuleType, tmp_path: Path
) -> None:
    desk = tmp_path / "desk.toml"
    desk.write_text(
        '[[engineers]]\nkey = "wang"\nname = "王伟"\n[[engineers]]\nkey = "li"\nname = "Ann Li"\n',
        encoding="utf-8",
    )
    wanted = prompts.plan([prompts.TABLE], None, desk)
    for language in ("zh", "en"):
        assert wanted[f"{language}/contactd/person-wang"].language == "zh"
        assert wanted[f"{language}/contactd/person-li"].language == "en"
    desk.write_text('[[engineers]]\nkey = "wang"\n', encoding="utf-8")
    with pytest.raises(prompts.PromptError, match="needs a key and a name"):
        prompts.read_people(desk)


def test_two_recordings_of_one_prompt_are_refused(prompts: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "zh"
    folder.mkdir()
    (folder / "beep.wav").touch()
    (folder / "beep.mp3").touch()
    with pytest.raises(prompts.PromptError, match="another file for zh/beep"):
        prompts.overrides(tmp_path)
