"""The helper's windows: a process of its own that shows what it is told and says what is pressed.

Lines of JSON come on the standard input and go on the standard output. When the input ends, the
helper is gone and nothing is shared: the windows go, too. A stuck window never delays a stop.
"""

import json
import os
import sys
import time
import tkinter as tk
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from contactd.share.words import say
from contactd.tickets.agreement import CURRENT, RIGHTS, question_of

# A question comes up under somebody's hands: its buttons wait until its reader has seen it.
BUTTONS_WAIT_MS: Final = 700
TICK_MS: Final = 500
FAREWELL_MS: Final = 4000
_READ: Final = 65536
_WIDTH: Final = 520  # pixels of a question's text
_DARK, _LIGHT, _RED = "#1b2430", "#ffffff", "#b3261e"
_SWITCHES: Final = ("control", "clipboard")
# What of a question stands ticked: who agreed to be helped lets them help; the rest is theirs.
_TICKED: Final = {"consent": {"view", "control"}, "hand_over": {"view", "control"}}


class Windows:
    """A bar that stays on top, and a question when there is one."""

    def __init__(self, root: tk.Tk) -> None:
        self._root = root
        self._input = b""
        self._told: dict[str, Any] = {"show": "connecting", "service": ""}
        self._language = "en"
        self._dialog: tk.Toplevel | None = None
        self._asked = 0
        self._areas: list[list[int]] = []
        self._clipboard: str | None = None
        self._watches_clipboard = False
        root.withdraw()
        self._bar = _Bar(root, self._say)
        os.set_blocking(0, False)
        root.tk.createfilehandler(sys.stdin, tk.READABLE, self._readable)
        root.report_callback_exception = _fail
        self._tick()

    # What comes and goes

    def _say(self, do: str, **more: Any) -> None:
        try:
            os.write(1, json.dumps({"do": do, **more}).encode() + b"\n")
        except OSError:
            self._root.destroy()

    def _readable(self, _file: object, _mask: int) -> None:
        try:
            data = os.read(0, _READ)
        except BlockingIOError:
            return
        if not data:
            self._root.tk.deletefilehandler(sys.stdin)
            self._leave()
            return
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        acts: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "show": self._show, "ask": self._ask, "withdraw": self._withdraw,
            "counts": self._bar.count, "clipboard": self._paste,
        }  # fmt: skip
        acts[told["tell"]](told)

    def _leave(self) -> None:
        self._withdraw({})
        if self._told["show"] in ("ended", "failed"):
            self._root.after(FAREWELL_MS, self._root.destroy)
        else:
            self._root.destroy()

    # The bar

    def _show(self, told: dict[str, Any]) -> None:
        self._told, self._language = told, told.get("language", self._language)
        rights = told.get("rights", [])
        self._watches_clipboard = told["show"] == "sharing" and "clipboard" in rights
        if not self._watches_clipboard:
            self._clipboard = None
        self._bar.show(told, self._language)
        self._measure()

    def _tick(self) -> None:
        self._bar.lift()
        if self._dialog is not None:
            self._dialog.lift()
        self._measure()
        if self._watches_clipboard:
            self._copy()
        self._root.after(TICK_MS, self._tick)

    def _measure(self) -> None:
        """Tell where our windows are: an engineer's clicks do nothing there."""
        self._root.update_idletasks()
        windows = [self._bar.window, *([self._dialog] if self._dialog is not None else [])]
        areas = [
            [each.winfo_rootx(), each.winfo_rooty(), each.winfo_width(), each.winfo_height()]
            for each in windows
        ]
        if areas != self._areas:
            self._areas = areas
            self._say("areas", areas=areas)

    # The clipboard

    def _copy(self) -> None:
        """Say what the user has copied since the clipboard is shared, and nothing older."""
        try:
            text = self._root.clipboard_get()
        except tk.TclError:
            text = ""
        if self._clipboard is not None and text and text != self._clipboard:
            self._say("clipboard", text=text)
        self._clipboard = text

    def _paste(self, told: dict[str, Any]) -> None:
        self._root.clipboard_clear()
        self._root.clipboard_append(told["text"])
        self._clipboard = told["text"]

    # Questions

    def _ask(self, told: dict[str, Any]) -> None:
        self._withdraw({})
        self._asked = told["ask"]
        ticked = _TICKED.get(told["kind"], set(told["rights"]))
        self._dialog = _dialog(self._root, told, self._language, ticked, self._answer)
        self._measure()

    def _answer(self, yes: bool, rights: list[str]) -> None:
        asked = self._asked
        self._withdraw({})
        self._say("answer", ask=asked, yes=yes, rights=rights)

    def _withdraw(self, _told: dict[str, Any]) -> None:
        if self._dialog is not None:
            self._dialog.destroy()
            self._dialog = None


class _Bar:
    """Says who sees the screen, and stops it."""

    def __init__(self, root: tk.Tk, say_it: Callable[..., None]) -> None:
        self.window = tk.Toplevel(
            root, name="bar", class_="ContactdShare", background=_DARK, padx=10, pady=6
        )
        self.window.overrideredirect(True)
        self.window.attributes("-topmost", True)
        self._say = say_it
        self._language = "en"
        self._since = 0.0
        self._counts: dict[str, Any] = {}
        self._place: tuple[int, int] | None = None  # where the user has put it
        self._words = _label(self.window, bold=True)
        self._words.pack(side="left", padx=(0, 10))
        self._more = _label(self.window)
        self._more.pack(side="left", padx=(0, 10))
        self._switches = {each: tk.BooleanVar(root) for each in _SWITCHES}
        self._boxes = {each: self._box(each) for each in _SWITCHES}
        self._again = _button(self.window, lambda: self._say("resume"))
        self._stop = _button(self.window, lambda: self._say("stop"), background=_RED)
        for part in (self.window, self._words, self._more):
            part.bind("<B1-Motion>", self._drag)
        self.window.bind("<Visibility>", lambda _: self.window.after(50, self.lift))

    def _box(self, right: str) -> tk.Checkbutton:
        return tk.Checkbutton(
            self.window, variable=self._switches[right], command=self._switched, takefocus=False,
            background=_DARK, foreground=_LIGHT, selectcolor=_DARK, activebackground=_DARK,
            activeforeground=_LIGHT, highlightthickness=0,
        )  # fmt: skip

    def _switched(self) -> None:
        given = [each for each, variable in self._switches.items() if variable.get()]
        self._say("rights", rights=["view", *given])

    def lift(self) -> None:
        self.window.lift()

    def _drag(self, event: "tk.Event[Any]") -> None:
        self._place = (event.x_root - 20, max(0, event.y_root - 10))
        self.window.geometry(f"+{self._place[0]}+{self._place[1]}")

    def show(self, told: Mapping[str, Any], language: str) -> None:
        kind, self._language = told["show"], language
        shares = kind == "sharing"
        self._words["text"] = _status(told, language)
        if not shares:
            self._since, self._counts = 0.0, {}
        elif not self._since:
            self._since = time.monotonic()
        self._again.pack_forget()
        self._stop.pack_forget()
        for right, box in self._boxes.items():
            box.pack_forget()
            box["text"] = RIGHTS.get(language, RIGHTS["en"])[right]
            self._switches[right].set(right in told.get("rights", ()))
            if shares and told.get("helping"):
                box.pack(side="left")
        if kind == "lost":
            self._again["text"] = say(language, "again")
            self._again.pack(side="left", padx=(0, 6))
        over = kind in ("ended", "failed")
        key = "+".join(each.capitalize() for each in str(told.get("hotkey", "")).split("+"))
        self._stop["text"] = (
            say(language, "close") if over or not key else say(language, "stop", hotkey=key)
        )
        self._stop.pack(side="left")
        self.count(self._counts)

    def count(self, counts: Mapping[str, Any]) -> None:
        self._counts = dict(counts)
        shown = ""
        if self._since:
            minutes, seconds = divmod(int(time.monotonic() - self._since), 60)
            shown = say(
                self._language, "counts", time=f"{minutes}:{seconds:02}",
                keys=counts.get("keys", 0), clicks=counts.get("clicks", 0),
            )  # fmt: skip
        self._more["text"] = shown
        if self._place is None:
            self.window.update_idletasks()
            left = (self.window.winfo_screenwidth() - self.window.winfo_reqwidth()) // 2
            self.window.geometry(f"+{max(0, left)}+0")


def _status(told: Mapping[str, Any], language: str) -> str:
    if told["show"] == "failed":
        return str(told["text"])
    parts = {
        "service": told.get("service", ""), "ticket": told.get("ticket", ""),
        "engineers": _names(told, "engineers"),
    }  # fmt: skip
    lines = [say(language, told["show"], **parts)]
    if told.get("lookers"):
        lines.append(say(language, "looking", lookers=_names(told, "lookers")))
    if told.get("unread"):
        lines.append(say(language, "unread", unread=told["unread"]))
    return "\n".join(lines)


def _names(told: Mapping[str, Any], key: str) -> str:
    return ", ".join(map(str, told.get(key, ())))


def _dialog(
    root: tk.Tk,
    told: Mapping[str, Any],
    language: str,
    ticked: set[str],
    answer: Callable[[bool, list[str]], None],
) -> tk.Toplevel:
    """Ask the user; closing the window is a no. No key answers by itself."""
    window = tk.Toplevel(root, name="question", class_="ContactdShare", padx=20, pady=16)
    window.title(say(language, "title"))
    window.attributes("-topmost", True)
    window.protocol("WM_DELETE_WINDOW", lambda: answer(False, []))
    tk.Label(window, text=_question(told, language), wraplength=_WIDTH, justify="left").pack(
        anchor="w"
    )
    asked = [each for each in RIGHTS["en"] if each in told["rights"]]
    boxes = {right: tk.BooleanVar(root, right in ticked | {"view"}) for right in asked}
    chooses = told["kind"] not in ("file", "look")
    for right, variable in boxes.items() if chooses else ():
        # With no view there is nothing to say yes to.
        state: Literal["normal", "disabled"] = "disabled" if right == "view" else "normal"
        words = RIGHTS.get(language, RIGHTS["en"])[right]
        box = tk.Checkbutton(window, variable=variable, text=words, state=state)
        box.pack(anchor="w")

    def given() -> list[str]:
        return [right for right, variable in boxes.items() if variable.get() or not chooses]

    row = tk.Frame(window, pady=10)
    row.pack(anchor="e")
    no = tk.Button(row, text=say(language, "no"), command=lambda: answer(False, []))
    yes = tk.Button(row, text=say(language, "yes"), command=lambda: answer(True, given()))
    for button in (no, yes):
        button["state"] = "disabled"
        button.pack(side="left", padx=6)

    def wake() -> None:
        for button in (no, yes):
            if button.winfo_exists():
                button["state"] = "normal"

    window.after(BUTTONS_WAIT_MS, wake)
    window.update_idletasks()
    left = (window.winfo_screenwidth() - window.winfo_reqwidth()) // 2
    top = (window.winfo_screenheight() - window.winfo_reqheight()) // 3
    window.geometry(f"+{max(0, left)}+{max(60, top)}")
    return window


def _question(told: Mapping[str, Any], language: str) -> str:
    file = told.get("file") or {}
    asked = question_of(
        CURRENT, language, told["kind"], engineer=told["engineer"], file=str(file.get("name", ""))
    )
    return asked + "\n" + say(language, "bytes", size=file.get("size", 0)) if file else asked


def _label(parent: tk.Toplevel, *, bold: bool = False) -> tk.Label:
    font = ("TkDefaultFont", 10, "bold" if bold else "normal")
    return tk.Label(parent, background=_DARK, foreground=_LIGHT, font=font, justify="left")


def _button(parent: tk.Toplevel, act: Callable[[], None], background: str = _DARK) -> tk.Button:
    return tk.Button(
        parent, command=act, background=background, foreground=_LIGHT, takefocus=False,
        activebackground=background, activeforeground=_LIGHT,
    )  # fmt: skip


def _fail(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Die of an error: the helper then stops. A window that lies is worse than none."""
    del kind, trace
    sys.stderr.write(f"contactd-share: {error!r}\n")
    os._exit(1)


def main() -> None:
    try:
        root = tk.Tk(className="contactd-share")
    except tk.TclError:
        sys.exit(1)
    Windows(root)
    root.mainloop()
