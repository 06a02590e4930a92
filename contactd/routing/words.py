"""What a notification says: the words of a text and of a mail, in two languages (pure).

Each reason has one sentence and one line that says how to answer; texts and mails are made of the
same two. Every text carries the ticket's number: a reply can be tied to one of several texts by
nothing else (China's gateways change the sender's number). The answers are those that
`tickets.replies` reads.

A notification's `facts` may hold, besides what its reason needs: `site_name` (in the recipient's
language; without it the key in `site` is said), `title`, `priority`, `zone` (IANA, of the site;
without it UTC).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from html import escape
from typing import Final
from zoneinfo import ZoneInfo

from contactd.routing.notify import Notification, Reason

LONGEST_SITE_NAME: Final = 12  # in a text; a mail has it whole
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
    Reason.CODE: "工程师{engineer}将上门处理工单{ticket}。到场码{code}，请当面告知对方。",
    Reason.SOLVED: "您的工单{ticket}已处理完毕{of}。",
    Reason.REMINDER: "请确认您的工单{ticket}是否已解决{of}。",
    Reason.CLOSED: "您的工单{ticket}已关闭{of}。",
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
    Reason.CODE: "{engineer} is coming about your ticket {ticket}. Arrival code {code}:"
    " say it when they are there.",
    Reason.SOLVED: "Your ticket {ticket} is solved{of}.",
    Reason.REMINDER: "Please tell us whether your ticket {ticket} is solved{of}.",
    Reason.CLOSED: "Your ticket {ticket} is closed{of}.",
}

_TAKE_ZH: Final = "{send}“1 {ticket}”接单，“2 {ticket}”转下一位"
_GO_ZH: Final = "{send}“1 {ticket}”接受，“2 {ticket}”不去"
_ASK_ZH: Final = "{send}“进度 {ticket}”查询"
_CONFIRM_ZH: Final = "{send}“解决 {ticket}”确认，“未解决 {ticket}”重开"
_AGAIN_ZH: Final = "如仍有问题请再联系我们"
_TAKE_EN: Final = '{send} "1 {ticket}" to take it, "2 {ticket}" to pass'
_GO_EN: Final = '{send} "1 {ticket}" to go, "2 {ticket}" if you cannot'
_ASK_EN: Final = '{send} "STATUS {ticket}" to ask'
_CONFIRM_EN: Final = '{send} "OK {ticket}" to confirm, "NO {ticket}" if it is not'
_AGAIN_EN: Final = "Contact us again if it is not solved"

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
    Reason.CODE: (_ASK_ZH, _ASK_EN),
    Reason.SOLVED: (_CONFIRM_ZH, _CONFIRM_EN),
    Reason.REMINDER: (_CONFIRM_ZH, _CONFIRM_EN),
    Reason.CLOSED: (_AGAIN_ZH, _AGAIN_EN),
}

_METRICS: Final[Mapping[str, tuple[str, str]]] = {  # the keys are those of clocks.Metric
    "answer": ("响应", "answer"),
    "first_update": ("首次反馈", "first update"),
    "remote": ("远程支持", "remote help"),
    "offer": ("派工", "offer of a visit"),
    "arrival": ("到场", "arrival"),
    "resolution": ("解决", "resolution"),
}

_FIELDS: Final[Mapping[str, tuple[str, str]]] = {  # what a mail lists, in this order
    "ticket": ("工单", "Ticket"),
    "site": ("地点", "Site"),
    "priority": ("优先级", "Priority"),
    "title": ("主题", "Subject"),
    "due": ("到期", "Due"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail's words; `subject` is one line."""

    subject: str
    text: str
    html: str


def texts(notification: Notification) -> tuple[str, ...]:
    """Return the same text in several lengths, the one that says most first.

    The gateway sends the first that fits one segment, or else the last.
    """
    language = _language(notification)
    answer = _answer(notification, language, ("回复", "Reply"))
    stop = ("。", ".")[language]
    site = _cut(_site(notification), LONGEST_SITE_NAME)
    title = _cut(_fact(notification, "title"), LONGEST_TITLE)
    some = [(site, title), (site, ""), ("", title), ("", "")]
    made = [_sentence(notification, language, of) for of in some]
    spaces = ("", " ")[language]
    return tuple(dict.fromkeys(f"{sentence}{spaces}{answer}{stop}" for sentence in made))


def letter(notification: Notification, *, service: str) -> Letter:
    """Return the mail of a notification; `service` is what the installation is called."""
    language = _language(notification)
    full = (_site(notification), _fact(notification, "title"))
    sentence = _sentence(notification, language, full)
    answer = _answer(notification, language, ("发送短信", "Text")) + ("。", ".")[language]
    listed = [
        (label[language], value)
        for key, label in _FIELDS.items()
        if (value := _field(notification, key, language))
    ]
    footer = (
        f"{service} 自动发送。工单号请保留在回复中。",
        f"Sent automatically by {service}. Keep the ticket's number in any answer.",
    )[language]
    colon = ("：", ": ")[language]
    lines = [sentence, "", *(f"{name}{colon}{value}" for name, value in listed), "", answer]
    return Letter(
        subject=_subject(notification, language),
        text="\n".join([*lines, "", "-- ", footer, ""]),
        html=_html(sentence, listed, answer, footer, lang=("zh-CN", "en")[language]),
    )


def _subject(notification: Notification, language: int) -> str:
    """Return e.g. `[26112200172] VIP 新工单，广州：打印机`, the number once and in front."""
    of = (_site(notification), _cut(_fact(notification, "title"), LONGEST_TITLE))
    sentence = _sentence(notification, language, of).rstrip("。.")
    return f"[{notification.ticket}] {sentence}"


def _sentence(notification: Notification, language: int, of: tuple[str, str]) -> str:
    words = (_ZH, _EN)[language][notification.reason]
    known = {
        **{name: _fact(notification, name) for name in ("percent", "engineer", "code")},
        "ticket": notification.ticket,
        "vip": "VIP" + ("", " ")[language] if notification.facts.get("vip") == "1" else "",
        "metric": _metric(_fact(notification, "metric"), language),
        "due": _due(notification, language),
        "of": _of(*of, language),
    }
    return words.format_map(known)


def _answer(notification: Notification, language: int, send: tuple[str, str]) -> str:
    words = _ANSWERS[notification.reason][language]
    return words.format(ticket=notification.ticket, send=send[language])


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
    """Return the place of the language in the tables above: 0 Chinese, 1 English."""
    return int(not notification.language.startswith("zh"))


def _fact(notification: Notification, name: str) -> str:
    """Return a fact on one line: titles and names are strangers' text."""
    told = notification.facts.get(name, "")
    return " ".join("".join(c if c.isprintable() else " " for c in told).split())


def _site(notification: Notification) -> str:
    return _fact(notification, "site_name") or _fact(notification, "site")


def _cut(value: str, most: int) -> str:
    return value if len(value) <= most else value[: most - 1].rstrip() + "…"


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


def _html(
    sentence: str, listed: list[tuple[str, str]], answer: str, footer: str, *, lang: str
) -> str:
    """Return a plain page: no picture, no link, no style that a mail program would drop."""
    cell = 'style="padding:2px 12px 2px 0;vertical-align:top"'
    rows = "".join(
        f"<tr><td {cell}>{escape(name)}</td><td {cell}>{escape(value)}</td></tr>"
        for name, value in listed
    )
    return (
        f'<!DOCTYPE html><html lang="{lang}"><head><meta charset="utf-8">'
        f"<title>{escape(sentence)}</title></head>"
        '<body style="font-family:sans-serif;font-size:15px;line-height:1.5">'
        f"<p><strong>{escape(sentence)}</strong></p><table>{rows}</table>"
        f"<p>{escape(answer)}</p>"
        f'<p style="color:#666;font-size:13px">{escape(footer)}</p></body></html>'
    )
