"""What a notification says: the words of a text and of a mail, in two languages (pure).

Each reason has one sentence and one line that says how to answer; texts and mails are made of the
same two. Every text carries the ticket's number: a reply can be tied to one of several texts by
nothing else (China's gateways change the sender's number). The answers are those that
`tickets.replies` reads. For mails an installation may have words of its own: `Wording`.

A notification's `facts` may hold, besides what its reason needs: `site_name` (in the recipient's
language; without it the key in `site` is said), `title`, `priority`, `zone` (IANA, of the site;
without it UTC).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from html import escape
from typing import Final
from zoneinfo import ZoneInfo

from contactd.routing.closing import Stage
from contactd.routing.notify import ASKS, OFFERS, REQUESTER, Notification, Reason
from contactd.tickets.contact import Medium

LONGEST_SITE_NAME: Final = 12  # in a text; a mail has it whole
LONGEST_NOTE: Final = (20, 60)  # in a text, by language
LONGEST_TITLE: Final = 40

_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip

# {of} is " at <site>: <title>" as far as there is room.
_ZH: Final[Mapping[Reason, str]] = {
    Reason.NEW: "{vip}新工单{ticket}{of}。",
    Reason.MISSED: "{vip}来电未接通，工单{ticket}{of}。",
    Reason.VOICEMAIL: "{vip}语音留言，工单{ticket}{of}。",
    Reason.REOPENED: "{vip}工单{ticket}未解决，已重开{of}。",
    Reason.ASSIGNED: "{vip}工单{ticket}已转交给您{of}。",
    Reason.DISPATCH: "{vip}请到现场处理工单{ticket}{of}。",
    Reason.WARNING: "{vip}工单{ticket}的{metric}时限已用{percent}%，{due}到期{of}。",
    Reason.BREACH: "{vip}工单{ticket}的{metric}已超时，应于{due}前完成{of}。",
    Reason.CALLED_OFF: "工单{ticket}不再需要您前往现场{of}。",
    Reason.DECLINED: "{vip}{engineer}无法前往工单{ticket}的现场，请另行安排{of}。",
    Reason.RECEIVED: "已收到您的报修，工单{ticket}{of}。",
    Reason.PROGRESS: "{news}。工单{ticket}{of}。",
    Reason.HEARD: "{news}。工单{ticket}{of}。",
    Reason.CODE: "工程师{engineer}将上门处理工单{ticket}。到场码{code}，请当面告知对方。",
    Reason.SOLVED: "您的工单{ticket}已处理完毕{of}。",
    Reason.REMINDER: "请确认您的工单{ticket}是否已解决{of}。",
    Reason.CLOSED: "您的工单{ticket}已关闭{of}。",
    Reason.SURVEY: "请为工单{ticket}的服务打分{of}。",
    Reason.SAID: "工单{ticket}：{note}。",
    Reason.LOGIN: "验证码{code}，用于查看您的工单（{ticket}等），请勿告诉他人。",
    Reason.REMOTE: "工单{ticket}远程协助，{minutes}分钟内打开{link}",
}
_EN: Final[Mapping[Reason, str]] = {
    Reason.NEW: "{vip}New ticket {ticket}{of}.",
    Reason.MISSED: "{vip}A caller reached nobody: ticket {ticket}{of}.",
    Reason.VOICEMAIL: "{vip}Voicemail: ticket {ticket}{of}.",
    Reason.REOPENED: "{vip}Not solved, reopened: ticket {ticket}{of}.",
    Reason.ASSIGNED: "{vip}Ticket {ticket} was handed over to you{of}.",
    Reason.DISPATCH: "{vip}Please go to the site for ticket {ticket}{of}.",
    Reason.WARNING: "{vip}Ticket {ticket}: {percent}% of the time for the {metric} is spent,"
    " due {due}{of}.",
    Reason.BREACH: "{vip}Ticket {ticket}: the {metric} is late, it was due {due}{of}.",
    Reason.CALLED_OFF: "Ticket {ticket} no longer needs you on site{of}.",
    Reason.DECLINED: "{vip}{engineer} cannot go to the site for ticket {ticket}: please send"
    " somebody else{of}.",
    Reason.RECEIVED: "We have received your request: ticket {ticket}{of}.",
    Reason.PROGRESS: "{news}. Ticket {ticket}{of}.",
    Reason.HEARD: "{news}. Ticket {ticket}{of}.",
    Reason.CODE: "{engineer} is coming about your ticket {ticket}. Arrival code {code}:"
    " say it when they are there.",
    Reason.SOLVED: "Your ticket {ticket} is solved{of}.",
    Reason.REMINDER: "Please tell us whether your ticket {ticket} is solved{of}.",
    Reason.CLOSED: "Your ticket {ticket} is closed{of}.",
    Reason.SURVEY: "How was our service for your ticket {ticket}{of}?",
    Reason.SAID: "Ticket {ticket}: {note}.",
    Reason.LOGIN: "{code} is the code to see your tickets ({ticket} and others). Tell it nobody.",
    Reason.REMOTE: "Remote help for ticket {ticket}: open it within {minutes} minutes{link}",
}

# In front of what somebody of the desk writes by mail.
_ABOUT: Final = ("关于您的工单{ticket}：", "About your ticket {ticket}:")

_TAKE_ZH: Final = "{send}“1 {ticket}”接单，“2 {ticket}”转下一位"
_GO_ZH: Final = "{send}“1 {ticket}”接受，“2 {ticket}”不去"
_ASK_ZH: Final = "{send}“进度 {ticket}”查询"
_CONFIRM_ZH: Final = "{send}“解决 {ticket}”确认，“未解决 {ticket}”重开"
_AGAIN_ZH: Final = "如仍有问题请再联系我们"
_MARK_ZH: Final = "{send}“5 {ticket}”，1至5分，5分最满意"
_KEEP_ZH: Final = "{send}请带工单号{ticket}"
_TAKE_EN: Final = '{send} "1 {ticket}" to take it, "2 {ticket}" to pass'
_GO_EN: Final = '{send} "1 {ticket}" to go, "2 {ticket}" if you cannot'
_ASK_EN: Final = '{send} "STATUS {ticket}" to ask'
_CONFIRM_EN: Final = '{send} "OK {ticket}" to confirm, "NO {ticket}" if it is not'
_AGAIN_EN: Final = "Contact us again if it is not solved"
_MARK_EN: Final = '{send} "5 {ticket}", from 1 (bad) to 5 (very good)'
_NOT_ME_ZH: Final = "如非本人操作，请联系我们"
_NOT_ME_EN: Final = "Contact us if it was not you who asked"
_KEEP_EN: Final = "{send} with the number {ticket}"
_ASK_US_ZH: Final = "有疑问联系我们"
_ASK_US_EN: Final = "Contact us if you are not sure"

_ANSWERS: Final[Mapping[Reason, tuple[str, str]]] = {
    Reason.NEW: (_TAKE_ZH, _TAKE_EN),
    Reason.MISSED: (_TAKE_ZH, _TAKE_EN),
    Reason.VOICEMAIL: (_TAKE_ZH, _TAKE_EN),
    Reason.REOPENED: (_TAKE_ZH, _TAKE_EN),
    Reason.ASSIGNED: (_TAKE_ZH, _TAKE_EN),
    Reason.DISPATCH: (_GO_ZH, _GO_EN),
    Reason.WARNING: (_ASK_ZH, _ASK_EN),
    Reason.BREACH: (_ASK_ZH, _ASK_EN),
    Reason.CALLED_OFF: (_ASK_ZH, _ASK_EN),
    Reason.DECLINED: (_ASK_ZH, _ASK_EN),
    Reason.RECEIVED: (_ASK_ZH, _ASK_EN),
    Reason.PROGRESS: (_ASK_ZH, _ASK_EN),
    Reason.HEARD: (_ASK_ZH, _ASK_EN),
    Reason.CODE: (_ASK_ZH, _ASK_EN),
    Reason.SOLVED: (_CONFIRM_ZH, _CONFIRM_EN),
    Reason.REMINDER: (_CONFIRM_ZH, _CONFIRM_EN),
    Reason.CLOSED: (_AGAIN_ZH, _AGAIN_EN),
    Reason.SURVEY: (_MARK_ZH, _MARK_EN),
    Reason.SAID: (_KEEP_ZH, _KEEP_EN),
    Reason.LOGIN: (_NOT_ME_ZH, _NOT_ME_EN),
    Reason.REMOTE: (_ASK_US_ZH, _ASK_US_EN),
}

_METRICS: Final[Mapping[str, tuple[str, str]]] = {  # the keys are those of clocks.Metric
    "answer": ("响应", "answer"),
    "first_update": ("首次反馈", "first update"),
    "remote": ("远程支持", "remote help"),
    "offer": ("派工", "offer of a visit"),
    "arrival": ("到场", "arrival"),
    "resolution": ("解决", "resolution"),
}

# {news} of HEARD, by its fact `heard`: how the ticket stands, or why a reply changed nothing.
_HEARD: Final[Mapping[str, tuple[str, str]]] = {
    "new": ("您的报修已受理，正在联系工程师", "Your request is in, an engineer is being told"),
    "in_progress": ("您的报修正在处理", "Your request is being worked on"),
    "pending": ("您的报修暂停处理", "Your request is on hold"),
    "resolved": ("您的报修已处理完毕，请确认", "Your request is solved, please confirm"),
    "closed": ("您的报修已关闭", "Your request is closed"),
    "cancelled": ("您的报修已取消", "Your request was cancelled"),
    "late": (
        "回复未生效：工单已由他人接手，或状态已变化",
        "Your reply changed nothing: somebody else has it, or it has moved on",
    ),
    "wrong_code": ("到场码不正确", "That is not the arrival code"),
    "which": (
        "您有多个工单，请在回复中带上工单号",
        "You have several tickets: please add the number to your reply",
    ),
    "rated": ("谢谢您的评价", "Thank you for your mark"),
    "no_ticket": ("回复中的工单号不存在或不属于您", "There is no such ticket of yours"),
}

# {news} of PROGRESS: with what there is to say, and without.
_NEWS: Final[Mapping[Stage, tuple[tuple[str, str], tuple[str, str]]]] = {
    Stage.TAKEN: (
        ("{engineer}已接手您的报修", "已有工程师接手您的报修"),
        ("{engineer} has taken your request", "An engineer has taken your request"),
    ),
    Stage.ON_WAY: (
        ("{engineer}正在前往您处", "工程师正在前往您处"),
        ("{engineer} is on the way to you", "An engineer is on the way to you"),
    ),
    Stage.ARRIVED: (
        ("{engineer}已到场", "工程师已到场"),
        ("{engineer} has arrived", "The engineer has arrived"),
    ),
    Stage.HELD: (
        ("您的报修暂停处理：{note}", "您的报修暂停处理"),
        ("Your request is on hold: {note}", "Your request is on hold"),
    ),
    Stage.RESUMED: (
        ("您的报修已恢复处理", "您的报修已恢复处理"),
        ("Work on your request goes on", "Work on your request goes on"),
    ),
    Stage.UPDATED: (
        ("您的报修有新进展：{note}", "您的报修有新进展"),
        ("News of your request: {note}", "There is news of your request"),
    ),
}

_BUTTONS: Final[Mapping[str, tuple[str, str]]] = {  # by key: see notify.OFFERS
    "1": ("接单", "Take it"),
    "4": ("接单并出发", "Take it, on my way"),
    "2": ("转下一位", "Pass it on"),
}
_VISIT_BUTTONS: Final[Mapping[str, tuple[str, str]]] = {
    "1": ("接受", "I will go"),
    "4": ("已出发", "On my way"),
    "2": ("不去", "I cannot go"),
}
_WORD_BUTTONS: Final[Mapping[str, tuple[str, str]]] = {
    "1": ("已解决", "Solved"),
    "2": ("未解决", "Not solved"),
}

_REMOTE_BUTTON: Final = ("打开远程协助", "Open remote help")
_FIELDS: Final[Mapping[str, tuple[str, str]]] = {  # what a mail lists, in this order
    "ticket": ("工单", "Ticket"),
    "site": ("地点", "Site"),
    "priority": ("优先级", "Priority"),
    "title": ("主题", "Subject"),
    "due": ("到期", "Due"),
}


# What a sentence or an answer may name. `tests/unit/test_words.py` walks all of them.
PLACES: Final = frozenset(
    {
        "ticket", "vip", "of", "site", "title", "priority", "metric", "percent", "due",
        "engineer", "code", "news", "note", "name", "service", "send", "minutes", "link",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Words of a mail that replace ours, "" ours; places in braces are those of `PLACES`."""

    sentence: str = ""
    answer: str = ""
    subject: str = ""  # the number comes in front by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a mail says beside the notification's own facts.

    `service` is what the installation is called. `link` is the page where the message is answered,
    "" if there is none; `can_reply` whether an answer by mail reaches us; `subject` what the
    requester's own mail is about.
    """

    service: str
    link: str = ""
    can_reply: bool = False
    subject: str = ""
    progress: str = ""  # the ticket's page, for its requester; "" if there is none
    wording: Wording = field(default_factory=Wording)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail's words; `subject` is one line."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What stands in a mail, in its order, before it is text or HTML."""

    sentence: str
    listed: tuple[tuple[str, str], ...]
    buttons: tuple[tuple[str, str, bool], ...]  # what it says, where it leads, is it the usual one
    progress: str
    answer: str
    footer: str
    tag: str  # language tag of BCP 47
    colon: str
    words: str = ""  # somebody's own, with their lines


def texts(notification: Notification) -> tuple[str, ...]:
    """Return the same text in several lengths, the one that says most first.

    The gateway sends the first that fits one segment, or else the last.
    """
    language = _language(notification)
    answer = _answer(notification, language, "")
    stop = ("。", ".")[language]
    site = _cut(_site(notification), LONGEST_SITE_NAME)
    title = _cut(_fact(notification, "title"), LONGEST_TITLE)
    # A sign outside of GSM 7-bit would halve the room of an English text.
    dots = ("…", "...")[language]
    note = _note(notification)
    if notification.reason is not Reason.SAID:  # that is all that it says
        note = _cut(note, LONGEST_NOTE[language], dots)
    some = [(site, title), (site, ""), ("", title), ("", "")]
    made = [_sentence(notification, language, of, note=note) for of in some]
    spaces = ("", " ")[language]
    return tuple(dict.fromkeys(f"{sentence}{spaces}{answer}{stop}" for sentence in made))


def letter(notification: Notification, setting: Setting) -> Letter:
    """Return the mail of a notification."""
    notification = replace(notification, medium=Medium.MAIL)
    language = _language(notification)
    own = setting.wording
    full = (_site(notification), _fact(notification, "title"))
    words = ""
    if notification.reason is Reason.SAID and "{note}" not in own.sentence:
        words = notification.facts.get("note", "").strip()
        own = replace(own, sentence=own.sentence or _ABOUT[language])
    sentence = (
        _filled(own.sentence, notification, language, full, service=setting.service)
        if own.sentence
        else _sentence(notification, language, full)
    )
    said = _Said(
        sentence=sentence,
        listed=tuple(
            (label[language], value)
            for key, label in _FIELDS.items()
            if (value := _field(notification, key, language))
        ),
        buttons=_buttons(notification, language, setting.link),
        progress=setting.progress,
        answer=_how_to_answer(notification, language, setting),
        footer=_footer(notification, language, setting),
        tag=("zh-CN", "en")[language],
        colon=("：", ": ")[language],
        words=words,
    )
    subject = _subject(notification, language, setting)
    return Letter(subject=subject, text=_text(said), html=_html(said))


def offers(reason: Reason, language: str) -> tuple[tuple[str, str], ...]:
    """Return the keys by which a message is answered, and what stands on their buttons."""
    table = _BUTTONS
    if reason is Reason.DISPATCH:
        table = _VISIT_BUTTONS
    elif reason in ASKS:
        table = _WORD_BUTTONS
    place = _place(language)
    return tuple((key, table[key][place]) for key in OFFERS.get(reason, ()))


def _subject(notification: Notification, language: int, setting: Setting) -> str:
    """Return e.g. `[26112200172] VIP 新工单，广州：打印机`, the number once and in front.

    A requester reads what they wrote themselves: all mails of a ticket are one conversation, as
    mail programs see it.
    """
    of = (_site(notification), _cut(_fact(notification, "title"), LONGEST_TITLE))
    theirs = _stripped(setting.subject) if notification.recipient == REQUESTER else ""
    if subject := _fact(notification, "subject"):  # as somebody wrote it
        return f"[{notification.ticket}] {_stripped(subject)}"
    if notification.reason is Reason.SAID and not theirs:
        theirs = _fact(notification, "title")
    if setting.wording.subject:
        words = setting.wording.subject
        told = _filled(words, notification, language, of, service=setting.service)
    else:
        told = theirs or _sentence(notification, language, of).rstrip("。.")
    return f"[{notification.ticket}] {_line(told)}"


_PREFIXES: Final = re.compile(
    r"(\s|\[\d{10,20}\]|(re|fw|fwd|aw|wg|答复|回复|转发)\s*(\[\d+\])?\s*[:：])*", re.IGNORECASE
)


def _stripped(subject: str) -> str:
    """Return a subject without what mail programs and we have put in front of it."""
    line = _line(subject)
    return line[_PREFIXES.match(line).end() :]  # type: ignore[union-attr]  # it matches ""


def _sentence(
    notification: Notification, language: int, of: tuple[str, str], *, note: str | None = None
) -> str:
    words = (_ZH, _EN)[language][notification.reason]
    return _filled(words, notification, language, of, note=note)


def _filled(  # noqa: PLR0913 - what a sentence is made of
    words: str,
    notification: Notification,
    language: int,
    of: tuple[str, str],
    *,
    note: str | None = None,
    service: str = "",
) -> str:
    """Return words with everything in its place that a notification tells."""
    told = _note(notification) if note is None else note
    known = {
        **{
            name: _fact(notification, name)
            for name in ("percent", "engineer", "code", "title", "priority")
        },
        "ticket": notification.ticket,
        "vip": "VIP" + ("", " ")[language] if notification.facts.get("vip") == "1" else "",
        "metric": _metric(_fact(notification, "metric"), language),
        "due": _due(notification, language),
        "site": _site(notification),
        "of": _of(*of, language),
        "note": told,
        "news": _news(notification, language, told),
        "name": _line(notification.name),
        "service": _line(service),
        "send": ("回复", "Reply")[language],
        "minutes": _fact(notification, "minutes") or "10",
        "link": _link_in_text(notification, language),
    }
    return words.format_map(known)


def _link_in_text(notification: Notification, language: int) -> str:
    """Return the address in a text, with the blank by which a phone knows its end.

    A mail has a button: the address must not be in its subject.
    """
    link = _fact(notification, "link") if notification.medium is Medium.TEXT else ""
    return f"{('：', ': ')[language]}{link}{(' ', '')[language]}" if link else ("。", ".")[language]


def _news(notification: Notification, language: int, note: str) -> str:
    """Return how a ticket goes on; a stage that nobody knows is news all the same."""
    if heard := _HEARD.get(_fact(notification, "heard")):
        return heard[language]
    told = _fact(notification, "stage")
    stage = Stage(told) if told in set(Stage) else Stage.UPDATED
    known = {"engineer": _fact(notification, "engineer"), "note": note}
    full, bare = _NEWS[stage][language]
    has_all = all(value for name, value in known.items() if f"{{{name}}}" in full)
    return (full if has_all else bare).format_map(known)


def _answer(notification: Notification, language: int, send: str) -> str:
    """Return how to answer by sending words; `send` is said for "Reply"."""
    words = _ANSWERS[notification.reason][language]
    return words.format(ticket=notification.ticket, send=send or ("回复", "Reply")[language])


def _how_to_answer(notification: Notification, language: int, setting: Setting) -> str:
    """Return the line below a mail's list: what to write back, where that reaches us."""
    send = "" if setting.can_reply else ("发送短信", "Text")[language]
    if setting.wording.answer:
        known = {"ticket": notification.ticket, "send": send or ("回复", "Reply")[language]}
        return setting.wording.answer.format_map(known)
    answer = _answer(notification, language, send) + ("。", ".")[language]
    if not setting.can_reply or notification.recipient != REQUESTER:
        return answer
    more = (
        "需要补充说明或截图，直接回复本邮件即可。",
        " To add anything, a screenshot for instance, just reply to this mail.",
    )[language]
    return answer + more


def _footer(notification: Notification, language: int, setting: Setting) -> str:
    service = _line(setting.service)
    if setting.can_reply:
        return (f"{service} 自动发送。", f"Sent automatically by {service}.")[language]
    return (
        f"{service} 自动发送。工单号请保留在回复中。",
        f"Sent automatically by {service}. Keep the ticket's number in any answer.",
    )[language]


def _buttons(
    notification: Notification, language: int, link: str
) -> tuple[tuple[str, str, bool], ...]:
    """Return what can be clicked: each leads to the page behind, with its answer chosen."""
    if notification.reason is Reason.REMOTE and (page := _fact(notification, "link")):
        return ((_REMOTE_BUTTON[language], page, True),)
    if not link:
        return ()
    found = offers(notification.reason, ("zh", "en")[language])
    return tuple((label, f"{link}?do={key}", key == "1") for key, label in found)


def _of(site: str, title: str, language: int) -> str:
    comma, colon = (("，", "："), (", ", ": "))[language]
    return (f"{comma}{site}" if site else "") + (f"{colon}{title}" if title else "")


def _field(notification: Notification, key: str, language: int) -> str:
    match key:
        case "ticket":
            return notification.ticket
        case "site":
            return _site(notification)
        case "due":
            return _due(notification, language)
        case _:
            return _fact(notification, key)


def _language(notification: Notification) -> int:
    return _place(notification.language)


def _place(language: str) -> int:
    """Return the place of a language in the tables above: 0 Chinese, 1 English."""
    return int(not language.startswith("zh"))


def _fact(notification: Notification, name: str) -> str:
    return _line(notification.facts.get(name, ""))


def _note(notification: Notification) -> str:
    """Return somebody's words without the stop at their end: the sentence has its own."""
    return _fact(notification, "note").rstrip("。.")


def _line(told: str) -> str:
    """Return strangers' text, a title or a name, on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in told).split())


def _site(notification: Notification) -> str:
    return _fact(notification, "site_name") or _fact(notification, "site")


def _cut(value: str, most: int, dots: str = "…") -> str:
    return value if len(value) <= most else value[: most - len(dots)].rstrip() + dots


def _metric(key: str, language: int) -> str:
    return _METRICS[key][language] if key in _METRICS else key


def _due(notification: Notification, language: int) -> str:
    """Return `due` to the minute on the clocks of the site, with the zone if that is unknown."""
    told = _fact(notification, "due")
    if not told:
        return ""
    zone, called = _zone(_fact(notification, "zone"))
    at = datetime.fromisoformat(told).astimezone(zone)
    if language:
        return f"{at.day} {_MONTHS[at.month - 1]} {at:%H:%M}{called}"
    return f"{at.month}月{at.day}日{at:%H:%M}{called}"


def _zone(key: str) -> tuple[tzinfo, str]:
    return (ZoneInfo(key), "") if key else (UTC, " UTC")


_PROGRESS: Final[Mapping[str, str]] = {"zh-CN": "查看进度", "en": "See how it stands"}


def _text(said: _Said) -> str:
    lines = [said.sentence, ""]
    lines += [said.words, ""] if said.words else []
    lines += [f"{name}{said.colon}{value}" for name, value in said.listed]
    if said.buttons:
        lines += ["", *(f"{label}{said.colon}{link}" for label, link, _ in said.buttons)]
    if said.progress:
        lines += ["", f"{_PROGRESS[said.tag]}{said.colon}{said.progress}"]
    return "\n".join([*lines, "", said.answer, "", "-- ", said.footer, ""])


# Text has the colour of the reader's program, quiet text less of it: no other colour can be read on
# white and on black, and mail programs turn one into the other.
_ACCENT: Final = "#0b6bcb"
_QUIET: Final = "opacity:0.7"
_FONT: Final = "font-family:'PingFang SC','Microsoft YaHei',system-ui,sans-serif"
_BUTTON: Final = (
    "display:inline-block;margin:0 10px 10px 0;padding:10px 20px;border-radius:6px;"
    f"border:1px solid {_ACCENT};font-weight:bold;text-decoration:none"
)


def _html(said: _Said) -> str:
    """Return a plain page: no picture, no script, no style that a mail program would drop.

    It is 560 pixels wide at most and says nothing of the ground's colour: on a dark one its text
    is light because the reader's program says so.
    """
    cell = "padding:3px 0;vertical-align:top"
    rows = "".join(
        f'<tr><td style="{cell};padding-right:16px;{_QUIET};white-space:nowrap">'
        f'{escape(name)}</td><td style="{cell};word-break:break-word">{escape(value)}</td></tr>'
        for name, value in said.listed
    )
    buttons = "".join(_link(*button) for button in said.buttons)
    return (
        f'<!DOCTYPE html><html lang="{said.tag}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="supported-color-schemes" content="light dark">'
        f"<title>{escape(said.sentence)}</title></head>"
        f'<body style="margin:0;padding:0;{_FONT};font-size:15px;line-height:1.6">'
        '<div style="max-width:560px;padding:20px 16px">'
        f'<p style="margin:0 0 14px;font-size:17px;font-weight:bold">{escape(said.sentence)}</p>'
        + _paragraphs(said.words)
        + f'<table role="presentation" style="border-collapse:collapse;margin:0 0 18px;{_FONT};'
        f'font-size:15px;line-height:1.5">{rows}</table>'
        + (f'<p style="margin:0 0 8px">{buttons}</p>' if buttons else "")
        + (
            f'<p style="margin:0 0 18px"><a href="{escape(said.progress)}" style="color:inherit">'
            f"{_PROGRESS[said.tag]}</a></p>"
            if said.progress
            else ""
        )
        + f'<p style="margin:0 0 18px">{escape(said.answer)}</p>'
        f'<p style="margin:0;padding-top:10px;border-top:1px solid #888888;{_QUIET};'
        f'font-size:13px">{escape(said.footer)}</p></div></body></html>'
    )


def _paragraphs(words: str) -> str:
    return "".join(
        f'<p style="margin:0 0 14px">{"<br>".join(map(escape, each.splitlines()))}</p>'
        for each in re.split(r"\n{2,}", words)
        if each.strip()
    )


def _link(label: str, link: str, is_usual: bool) -> str:
    colours = f"background-color:{_ACCENT};color:#ffffff" if is_usual else "color:inherit"
    return f'<a href="{escape(link)}" style="{_BUTTON};{colours}">{escape(label)}</a>'
