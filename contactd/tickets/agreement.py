"""What users of remote help agree to, word for word, in every version that was ever shown (pure).

A consent keeps the version, the language and the hash of what was on the screen. A text is never
changed once users have seen it: what is new gets the next version, and `CURRENT` names it. The
helper on the user's computer carries a copy of this file, so it imports nothing of contactd.
"""

import hashlib
from collections.abc import Mapping
from typing import Final, TypeVar

T = TypeVar("T")

CURRENT: Final = "2026-11"

_ZH_2026_11: Final = """\
远程协助只能由您发起：您点“同意”之前，没有人能看到您的屏幕。
每位要看您屏幕的工程师，都会先显示姓名并征求您的同意。您可以只允许查看，也可以允许操作键盘和鼠标、共享剪贴板；\
每一项随时都可以收回。
您可以随时停止：按停止热键，点提示条上或本页的“停止”，或者关闭窗口。停止立即生效，之后不会再传送任何画面。
协助过程会录像：屏幕上显示的一切（包括其他窗口和弹出的消息）、聊天内容、互传的文件都会保存。\
工程师按键和点击只记次数，不记内容。录像和记录保存在工单里，只供服务台有权限的人员查看，每次查看都有记录。
请先关闭与故障无关的、私人的或保密的内容。密码请您自己输入，不要告诉任何人。
协助结束后，您的电脑上不会装有任何程序；下载的文件只能用一次。您不在场时，任何人都不能连接。
您不同意也没有关系：我们会用其他方式继续处理您的工单。"""
_EN_2026_11: Final = """\
Only you can start remote help: before you choose “I agree”, nobody can see your screen.
Each engineer who would see your screen is named to you first and needs your yes. You can let \
them only watch, or also use your keyboard and mouse, or share the clipboard; you can take each \
of these back at any time.
You can stop at any time: with the hot key, with “Stop” on the bar or on this page, or by closing \
the window. The end is immediate; no picture is sent after it.
The session is recorded: everything that your screen shows (also other windows, and messages that \
pop up), the chat, and files that are handed over. Of what the engineer types and clicks only the \
number is kept, not what it was. Recording and record are kept with the ticket, only for people \
of the service desk who may see them; each time somebody looks is noted.
Please close first what has nothing to do with the fault, what is private and what is \
confidential. Type passwords yourself, and tell them to nobody.
When it is over, nothing stays installed on your computer; the file that you download works once. \
Nobody can connect while you are away.
You need not agree: we go on with your ticket in another way."""

# Of each version, by language: paragraphs, one a line.
AGREEMENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "2026-11": {"zh": _ZH_2026_11, "en": _EN_2026_11},
}

# What is asked of the user when somebody wants something, by the question's kind.
_QUESTIONS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "2026-11": {
        "zh": {
            "consent": "允许{engineer}查看您的屏幕吗？请勾选您允许的操作。"
            "过程会录像，您可以随时停止。",
            "hand_over": "{engineer}要接替继续为您提供远程协助。允许{engineer}查看您的屏幕吗？"
            "请勾选您允许的操作。",
            "look": "{engineer}想旁观这次远程协助：只能看，不能操作。允许吗？",
            "rights": "{engineer}需要更多权限。请勾选您允许的操作。",
            "file": "{engineer}要传给您文件“{file}”。接收吗？",
        },
        "en": {
            "consent": "Let {engineer} see your screen? Tick what you allow. It is recorded, and"
            " you can stop at any time.",
            "hand_over": "{engineer} is to go on with the remote help. Let {engineer} see your"
            " screen? Tick what you allow.",
            "look": "{engineer} would like to watch this session: they see it and can do nothing."
            " Do you allow it?",
            "rights": "{engineer} needs to do more. Tick what you allow.",
            "file": "{engineer} would like to hand you the file “{file}”. Do you take it?",
        },
    },
}
QUESTIONS: Final = frozenset(_QUESTIONS[CURRENT]["en"])
# The rights as they stand beside their boxes, by `tickets.remote.Right`.
RIGHTS: Final[Mapping[str, Mapping[str, str]]] = {
    "zh": {"view": "查看屏幕", "control": "操作键盘和鼠标", "clipboard": "共享剪贴板里的文字"},
    "en": {
        "view": "See the screen",
        "control": "Use keyboard and mouse",
        "clipboard": "Share the clipboard’s text",
    },
}
LANGUAGES: Final = frozenset(RIGHTS)
_OTHER: Final = "en"  # for a language that we do not have


def text_of(version: str, language: str) -> str:
    """Return the agreement, a paragraph a line.

    Raises:
        KeyError: there never was such a version.
    """
    return _of(AGREEMENTS[version], language)


def question_of(version: str, language: str, kind: str, *, engineer: str, file: str = "") -> str:
    """Return what the user is asked: `kind` is one of `QUESTIONS`.

    Raises:
        KeyError: there never was such a version, or such a question.
    """
    # Names are put in last and once: a name with braces in it is a name.
    asked = _of(_QUESTIONS[version], language)[kind]
    parts = asked.split("{engineer}")
    return engineer.join(part.replace("{file}", file) for part in parts)


def hash_of(text: str) -> str:
    """Return the SHA-256 of what was shown, in hexadecimal: what a consent keeps."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _of(texts: Mapping[str, T], language: str) -> T:
    return texts.get(language) or texts[_OTHER]
