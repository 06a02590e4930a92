#!/usr/bin/env python3
"""Make the sound files of the hotline: speak `etc/prompts.toml`, convert recordings, play music.

    scripts/prompts.py OUT [--override DIR] [--table FILE]... [--people DESK_FILE]

OUT becomes Asterisk's sounds folder: `OUT/{zh,en}/contactd/*.wav`, `OUT/{zh,en}/digits/*.wav`,
what Asterisk itself asks for in `OUT/{zh,en}/`, and the waiting music in `OUT/moh/`. DIR has the
same layout, in any format that sox reads; a file there replaces the spoken prompt, and may add one
(say `zh/contactd/person-wang.mp3`). With a desk file the names of its engineers are spoken too.
Only what changed since the last run is made again.

Needs espeak-ng and sox. Exit codes: 0 done, 65 bad table or override, 69 a program is missing,
70 failed.
"""
# ruff: noqa: S603, T201 - a script: runs programs that shutil.which found, and prints progress

import argparse
import array
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import wave
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = ("zh", "en")
VOICES = {"zh": "cmn", "en": "en"}  # espeak-ng's names
SPEED = {"zh": 270, "en": 160}  # words a minute, as espeak-ng counts them
RATE = 8000  # Hz: what a telephone carries (G.711)
RECIPE = "1"  # raise it when the way of making files changes: everything is made again
MANIFEST = ".prompts.json"
TABLE = Path(__file__).resolve().parent.parent / "etc" / "prompts.toml"
FOLDERS = {"contactd": "contactd/", "asterisk": ""}  # section of the table -> folder
HAN_DIGITS = "零一二三四五六七八九"
SHORTEST_SECONDS = 0.08
QUIETEST_PEAK = 1000  # of 32767

# Both ends trimmed, then level: voices differ, and prompts are strung together.
TRIM = ("silence", "1", "0.01", "0.3%", "reverse", "silence", "1", "0.01", "0.3%", "reverse")
LEVEL = ("norm", "-3")
PAD = ("pad", "0.02", "0.12")

# Arpeggios, one a chord: notes as sox names them.
CHORDS = (
    ("C3", "G3", "C4", "E4"),
    ("A2", "E3", "A3", "C4"),
    ("F2", "C3", "F3", "A3"),
    ("G2", "D3", "G3", "B3"),
)


class PromptError(Exception):
    """The table or an override cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """A text to be spoken."""

    language: str
    text: str

    def digest(self) -> str:
        return _digest("speech", self.language, str(SPEED[self.language]), self.text)

    def make(self, target: Path) -> None:
        spoken = target.with_suffix(".spoken.wav")
        try:
            voice, speed = VOICES[self.language], str(SPEED[self.language])
            run("espeak-ng", "-v", voice, "-s", speed, "-w", str(spoken), "--", self.text)
            sox(str(spoken), output=target, effects=(*TRIM, *LEVEL, *PAD))
        finally:
            spoken.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file that somebody recorded: converted, otherwise left as it is."""

    source: Path

    def digest(self) -> str:
        return _digest("recording", hashlib.sha256(self.source.read_bytes()).hexdigest())

    def make(self, target: Path) -> None:
        sox(str(self.source), output=target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """A sound made of sine waves (Asterisk's beeps)."""

    hertz: int
    seconds: float

    def digest(self) -> str:
        return _digest("tone", str(self.hertz), str(self.seconds))

    def make(self, target: Path) -> None:
        shape = ("synth", str(self.seconds), "sine", str(self.hertz), "fade", "0.01", "-0", "0.01")
        sox("-n", output=target, effects=(*shape, "norm", "-9"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Music:
    """Plucked chords to wait by, low so that they do not drown a word."""

    def digest(self) -> str:
        return _digest("music", repr(CHORDS))

    def make(self, target: Path) -> None:
        bars = [target.with_suffix(f".bar{number}.wav") for number in range(len(CHORDS))]
        try:
            for bar, chord in zip(bars, CHORDS, strict=True):
                strings = [word for note in chord for word in ("pluck", note)]
                delays = [str(index * 0.5) for index in range(len(chord))]
                shape = ("synth", "4", *strings, "delay", *delays, "remix", "-", "trim", "0", "4")
                sox("-n", output=bar, effects=(*shape, "fade", "0", "4", "0.3", "norm", "-15"))
            sox(*(str(bar) for bar in bars), output=target)
        finally:
            for bar in bars:
                bar.unlink(missing_ok=True)


Source = Speech | Recording | Tone | Music


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join((RECIPE, str(RATE), *parts)).encode()).hexdigest()[:24]


def number_in_words(number: int) -> str:
    """Return 0-99 in Chinese, as hours and minutes are read."""
    tens, ones = divmod(number, 10)
    if tens == 0:
        return HAN_DIGITS[ones]
    head = "十" if tens == 1 else HAN_DIGITS[tens] + "十"
    return head + (HAN_DIGITS[ones] if ones else "")


def read_table(path: Path) -> dict[str, Source]:
    """Return what the table asks for: path below OUT without ending -> how to make it.

    Raises:
        PromptError: a section is unknown, or a prompt lacks a language.
    """
    wanted: dict[str, Source] = {}
    for section, prompts in _toml(path).items():
        if section not in FOLDERS:
            raise PromptError(f"{path}: unknown section {section!r}; known: {', '.join(FOLDERS)}")
        for name, texts in prompts.items():
            for language in LANGUAGES:
                where = f"{path}: {section}.{name}.{language}"
                speech = _speech(texts, language, where)
                wanted[f"{language}/{FOLDERS[section]}{name}"] = speech
    return wanted


def read_people(path: Path) -> dict[str, Source]:
    """Return the spoken names of a desk file's engineers; a Chinese name is one in English too.

    Raises:
        PromptError: an engineer has no key or no name.
    """
    wanted: dict[str, Source] = {}
    for engineer in _toml(path).get("engineers", []):
        key, name = engineer.get("key"), engineer.get("name")
        if not key or not name:
            raise PromptError(f"{path}: an engineer needs a key and a name: {engineer}")
        chinese = any("\u4e00" <= sign <= "\u9fff" for sign in name)
        speech = Speech(language="zh" if chinese else "en", text=name)
        wanted |= {f"{language}/contactd/person-{key}": speech for language in LANGUAGES}
    return wanted


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PromptError(f"{path}: {error}") from error


def _speech(texts: object, language: str, where: str) -> Speech:
    text = texts.get(language) if isinstance(texts, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise PromptError(f"{where}: a text is missing")
    voice, colon, rest = text.partition(":")
    if colon and voice in VOICES:
        return Speech(language=voice, text=rest.strip())
    return Speech(language=language, text=text.strip())


def built_in() -> dict[str, Source]:
    """Return what needs no entry in the table: digits, numbers, beeps, music."""
    wanted: dict[str, Source] = {"moh/contactd": Music()}
    for language in LANGUAGES:
        wanted[f"{language}/beep"] = Tone(hertz=1000, seconds=0.3)
        wanted[f"{language}/beeperr"] = Tone(hertz=350, seconds=0.4)
        for number in range(60):
            words = number_in_words(number) if language == "zh" else str(number)
            wanted[f"{language}/contactd/n-{number}"] = Speech(language=language, text=words)
        for digit in range(10):
            wanted[f"{language}/digits/{digit}"] = wanted[f"{language}/contactd/n-{digit}"]
    return wanted


def overrides(folder: Path) -> dict[str, Source]:
    """Return the recorded files in `folder`.

    Raises:
        PromptError: the folder is not there, or two files claim one prompt.
    """
    if not folder.is_dir():
        raise PromptError(f"{folder}: no such folder")
    found: dict[str, Source] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in below.parts):
            continue
        if below.parts[0] not in (*LANGUAGES, "moh"):
            raise PromptError(f"{path}: must be below zh/, en/ or moh/")
        name = below.with_suffix("").as_posix()
        if name in found:
            raise PromptError(f"{path}: there is another file for {name}")
        found[name] = Recording(source=path)
    return found


def plan(
    tables: list[Path], override: Path | None, people: Path | None = None
) -> dict[str, Source]:
    """Return everything that OUT shall hold; later sources win over earlier ones."""
    wanted = built_in()
    if people is not None:
        wanted |= read_people(people)
    for table in tables:
        wanted |= read_table(table)
    if override is not None:
        recorded = overrides(override)
        if any(name.startswith("moh/") for name in recorded):
            del wanted["moh/contactd"]  # own music replaces ours, whatever it is called
        wanted |= recorded
    return wanted


def run(program: str, *arguments: str) -> None:
    """Run `program`; a failure carries what it said."""
    found = shutil.which(program) or program
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PromptError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")


def sox(*inputs: str, output: Path, effects: tuple[str, ...] = ()) -> None:
    # -R: the same input makes the same file; -D: no dither, silence stays silent.
    start = ("-r", "48000", "-n") if inputs == ("-n",) else inputs  # pluck asks for that rate
    shape = ("-r", str(RATE), "-c", "1", "-b", "16", "-e", "signed-integer", str(output))
    run("sox", "-R", "-D", "-V1", *start, *shape, *effects)


def check_sound(path: Path) -> float:
    """Return the seconds `path` lasts.

    Raises:
        PromptError: it is not 8 kHz mono 16 bit, or one cannot hear anything.
    """
    with wave.open(str(path), "rb") as sound:
        form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
        samples = array.array("h", sound.readframes(sound.getnframes()))
    if form != (RATE, 1, 2):
        raise PromptError(f"{path}: is {form}, not {RATE} Hz, mono, 16 bit")
    seconds = len(samples) / RATE
    peak = max(map(abs, samples), default=0)
    if seconds < SHORTEST_SECONDS or peak < QUIETEST_PEAK:
        raise PromptError(f"{path}: nothing to hear ({seconds:.2f} s, peak {peak})")
    return seconds


def make(name: str, source: Source, out: Path) -> None:
    """Make one file; it appears complete or not at all."""
    target = out / f"{name}.wav"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as scratch:
        made = Path(scratch) / "sound.wav"
        source.make(made)
        try:
            check_sound(made)
        except PromptError as error:
            raise PromptError(f"{name}: {error}") from error
        made.replace(target)


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Let one run at a time work in `out`."""
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stale(wanted: Mapping[str, Source], made: Mapping[str, str], out: Path) -> list[str]:
    """Return the names that must be made: new, changed, or gone from the disk."""
    return [
        name
        for name, source in wanted.items()
        if made.get(name) != source.digest() or not (out / f"{name}.wav").is_file()
    ]


def build(out: Path, wanted: Mapping[str, Source], *, workers: int) -> int:
    """Bring `out` to what is wanted; return how many files were made."""
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        manifest = out / MANIFEST
        made: dict[str, str] = json.loads(manifest.read_text()) if manifest.is_file() else {}
        for name in made.keys() - wanted.keys():
            (out / f"{name}.wav").unlink(missing_ok=True)
            del made[name]
        todo = stale(wanted, made, out)
        try:
            with ThreadPoolExecutor(workers) as pool:
                jobs = {pool.submit(make, name, wanted[name], out): name for name in todo}
                try:
                    for count, job in enumerate(as_completed(jobs), start=1):
                        job.result()
                        name = jobs[job]
                        made[name] = wanted[name].digest()
                        progress(count, len(todo), name)
                finally:
                    pool.shutdown(cancel_futures=True)
        finally:  # what was made stays made, also after Ctrl-C
            fresh = manifest.with_suffix(".new")
            fresh.write_text(json.dumps(made, indent=0, sort_keys=True))
            fresh.replace(manifest)
        return len(todo)


def progress(count: int, total: int, name: str) -> None:
    if sys.stderr.isatty():
        end = "\n" if count == total else ""
        print(f"\r\033[Kprompts: {count}/{total} {name}", end=end, file=sys.stderr, flush=True)
    elif count % 50 == 0 or count == total:
        print(f"prompts: {count}/{total}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the sound files of the hotline.")
    parser.add_argument("out", type=Path, help="folder to fill; becomes Asterisk's sounds folder")
    parser.add_argument("--override", type=Path, help="folder of recorded files, same layout")
    parser.add_argument(
        "--table", type=Path, action="append", default=[], help=f"more texts, after {TABLE.name}"
    )
    parser.add_argument("--people", type=Path, help="desk file whose engineers' names are spoken")
    given = parser.parse_args(arguments)
    missing = [program for program in ("espeak-ng", "sox") if shutil.which(program) is None]
    if missing:
        print(f"prompts: install {' and '.join(missing)} (apt-get install)", file=sys.stderr)
        return os.EX_UNAVAILABLE
    try:
        wanted = plan([TABLE, *given.table], given.override, given.people)
    except PromptError as error:
        print(f"prompts: {error}", file=sys.stderr)
        return os.EX_DATAERR
    try:
        count = build(given.out, wanted, workers=min(2, os.cpu_count() or 1))
    except PromptError as error:
        print(f"prompts: {error}", file=sys.stderr)
        return os.EX_SOFTWARE
    print(f"prompts: {len(wanted)} files in {given.out}, {count} made", file=sys.stderr)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
