"""Which lines of a mail quote earlier ones: they are shown folded, never cut (pure).

A quote that is not folded costs a glance, new text that is folded costs its reader the matter:
in doubt nothing is folded. What is recognised is listed in tables, by language.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

LINES_LIMIT: Final = 50_000  # of one text; what is below them is not folded
LINE_LIMIT: Final = 500  # characters of a line that are looked at
WRAPPED: Final = 4  # lines over which an attribution line may be wrapped
LONG_QUOTE: Final = 12  # lines of a quote in the middle that stands for itself

# "Bob wrote": what ends an attribution line, or stands before the writer's name.
_WROTE: Final = (
    "wrote", "writes", "a écrit", "schrieb", "schreibt", "hat geschrieben", "escribió",
    "escribio", "ha scritto", "scrive", "schreef", "geschreven", "escreveu", "napisał",
    "napisała", "napisał(a)", "napisal(a)", "pisze", "написал", "написала", "написал(а)",
    "пишет", "пише", "написав", "написала(в)", "пишет в своём письме", "skrev", "kirjoitti",
    "napsal", "napsal(a)", "napísal", "napísal(a)", "ezt írta", "írta", "yazdı", "şunu yazdı",
    "şunları yazdı", "a scris", "έγραψε", "写道", "寫道", "書きました", "のメール", "님이 작성",
    "작성", "đã viết", "viết", "כתב", "כתב/ה", "كتب", "va escriure", "je napisao", "написа",
)  # fmt: skip
# What it may begin with; at least a date and a name or an address stand in between.
_ON: Final = (
    "on", "at", "le", "am", "el", "il giorno", "il", "op", "em", "den", "dnia", "w dniu", "dne",
    "dňa", "pe", "la data", "в", "στις", "在", "于", "於", "ngày", "vào", "a", "kl", "tarihinde",
)  # fmt: skip
_SEPARATORS: Final = (
    "original message", "original appointment", "forwarded message", "reply message",
    "forwarded by", "begin forwarded message", "ursprüngliche nachricht", "original-nachricht",
    "originalnachricht", "weitergeleitete nachricht", "message d'origine", "message original",
    "message transféré", "courriel original", "e-mail d'origine", "mensaje original",
    "mensaje reenviado", "messaggio originale", "messaggio inoltrato", "messaggio reinviato",
    "oorspronkelijk bericht", "origineel bericht", "doorgestuurd bericht", "mensagem original",
    "mensagem encaminhada", "oprindelig meddelelse", "original meddelelse",
    "videresendt meddelelse", "opprinnelig melding", "ursprungligt meddelande",
    "vidarebefordrat meddelande", "alkuperäinen viesti", "wiadomość oryginalna",
    "oryginalna wiadomość", "wiadomość przekazana dalej", "původní zpráva", "pôvodná správa",
    "eredeti üzenet", "mesaj original", "orijinal mesaj", "исходное сообщение",
    "пересылаемое сообщение", "пересланное сообщение", "перенаправленное сообщение",
    "оригінальне повідомлення", "原始邮件", "原邮件", "原始信件", "原始郵件", "原始訊息",
    "回复的原邮件",
    "转发邮件信息", "转发邮件", "转发的邮件", "轉寄郵件", "轉寄的郵件", "转发自", "来自", "原文",
    "original mail", "元のメッセージ", "転送メッセージ", "転送されたメッセージ", "원본 메시지",
    "원본 메일", "전달된 메시지", "tin nhắn gốc", "thư gốc",
)  # fmt: skip
_FORWARDED: Final = (
    "begin forwarded message", "anfang der weitergeleiteten nachricht",
    "anfang der weitergeleiteten e-mail", "début du message réexpédié",
    "début du message transféré", "inicio del mensaje reenviado", "inizio messaggio inoltrato",
    "begin doorgestuurd bericht", "início da mensagem encaminhada", "vidarebefordrat brev",
    "videresendt besked", "videresendt melding", "початок листа, що пересилається",
    "начало переадресованного сообщения", "下面是被转发的邮件", "开始转发的邮件", "開始轉寄郵件",
    "以下是轉寄的郵件", "転送されたメッセージ", "전달된 메시지",
)  # fmt: skip
# What a header that mail programs copy into the text has; by its meaning.
_KEYS: Final = {
    "from": "from von de da van från fra od от від expéditeur remitente mittente afzender"
    " lähettäjä kimden feladó odesílatel 发件人 发件者 寄件者 寄件人 發件人 来自 差出人 送信者"
    " 보낸사람 보낸이 từ",
    "date": "sent date gesendet datum envoyé date_:_ enviado enviado_el enviado_em fecha data"
    " inviato inviato_il verzonden verzonden_op skickat sendt dato wysłano отправлено дата"
    " відправлено lähetetty päivämäärä gönderilme gönderildi tarih elküldve odesláno 发送时间"
    " 发送日期 发件时间 日期 时间 發送時間 傳送日期 寄件日期 送信日時 日時"
    " 보낸날짜 보낸시간 날짜 ngày",
    "to": "to an à para a aan till til do кому destinataire destinatario vastaanottaja kime"
    " címzett komu 收件人 收件者 宛先 받는사람 받는이 đến",
    "subject": "subject betreff objet asunto oggetto onderwerp ämne emne temat тема assunto aihe"
    " konu tárgy předmět predmet 主题 主題 主旨 件名 제목 标题 chủ_đề",
    "other": "cc bcc reply-to kopie copie copia kopia antwort_an répondre_à responder_a risposta"
    " rispondi_a importance priority organization attachments 抄送 副本 回复 回覆 附件 重要性"
    " копия копія 참조",
}
# The first word of a header in a text; written so in some of the programs' languages.
_FIELDS: Final = {
    word.replace("_", " "): kind for kind, names in _KEYS.items() for word in names.split()
}

# What every line has that is not plainly text; most have nothing of it.
_TELLING: Final = re.compile(r"[>＞»|¦:：<&@]|[-_=~—─]{2}|\d\D*\d")
_QUOTED: Final = re.compile(r"[ \t]{0,3}(?:[>＞»]|&gt;)")
_BARRED: Final = re.compile(r"[ \t]{0,3}(?:[|¦]|[A-Za-z][\w.]{0,30}>)(?:[ \t]|\Z)")
_MARKS: Final = re.compile(r"^[ \t>＞|*_]+")
_FIELD: Final = re.compile(
    r"[*_\s]*([^\s:：*][^:：*]{0,22}?)[ \t]?[*_]*[ \t]?[:：][*_]*(?:\s|(?=\S)|\Z)"
)
_RULER: Final = re.compile(r"[ \t*]*[-_=—─]{3,}[ \t*]*\Z")
_SEPARATOR: Final = re.compile(
    r"[ \t>*]*[-_=~—─]{2,}[ \t]*(?:" + "|".join(map(re.escape, _SEPARATORS)) + r")\b.{0,200}\Z"
    r"|[ \t>*]*[-_=~—─]{2,}[ \t]*(?:" + "|".join(map(re.escape, _SEPARATORS)) + r").{0,40}"
    r"[-_=~—─]{2,}[ \t*]*\Z"
    r"|[ \t>*]*(?:" + "|".join(map(re.escape, _FORWARDED)) + r")[ \t]*[:：]?[ \t*]*\Z",
    re.IGNORECASE,
)
_ATTRIBUTION: Final = re.compile(
    r"(?:.*[\s\d)\]>\"”,，、:：]|.*(?=[\u0e80-\uffff])|)(?:"
    + "|".join(sorted(map(re.escape, _WROTE), key=len, reverse=True))
    + r")(?![a-zа-я]).{0,160}?[:：]?[ \t]*-*\Z",
    re.IGNORECASE | re.DOTALL,
)
_ENDS: Final = re.compile(r"[:：][ \t*_]*\Z|-{3,}\Z")
_BEGINS: Final = re.compile(
    r"[-\s*]*(?:(?:" + "|".join(sorted(map(re.escape, _ON), key=len, reverse=True)) + r")\b"
    r"|[在于於]|\d|[^\W\d]{2,12}[.,]?,?\s+\d)",
    re.IGNORECASE,
)
_SENDER: Final = re.compile(r"[\"']?[^<>@:]{0,80}?[\"']?\s*<[^<>@\s]+@[^<>@\s]+>")
_NAMED: Final = re.compile(
    _SENDER.pattern + r"\s+(?:" + "|".join(map(re.escape, _WROTE)) + r")\s*[:：]\s*\Z",
    re.IGNORECASE,
)
_TIME: Final = re.compile(r"\d{1,2}[:.h：]\d{2}|\d{1,2}\s?(?:am|pm|uhr|时|點|点)", re.IGNORECASE)
_DATE: Final = re.compile(
    r"\b(?:19|20)\d\d\b|\d{4}年|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2}\s*月|"
    r"\b\d{1,2}\.?\s+(?:de\s+)?[^\W\d]{3,12}|[^\W\d]{3,12}\.?\s+\d{1,2}\b"
)
_ADDRESS: Final = re.compile(r"[^\s<>@]+@[^\s<>@]+\.[^\s<>@]+")
# What Gmail wrote in languages without a verb for it: 2016-10-24 15:36 GMT+02:00 Foo <a@b>:
_DATED: Final = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:,?\s+\d{1,2}:\d{2}(?::\d{2})?)?(?:\s+(?:GMT|UTC)\S*)?"
    r"[ ,]+[^:\n]{2,200}(?:<\s*[^<>\s]+@[^<>\s]+>\s*:?|:)\s*\Z"
    r"|\d{4}年\d{1,2}月\d{1,2}日[^:\n]{0,20}\d{1,2}:\d{2}\s[^:\n]{2,200}<[^<>@\s]+@[^<>@\s]+>\s*:\s*\Z"
    r"|\d{4}-\d{1,2}-\d{1,2}\s+\d{1,2}:\d{2}\s+(?:GMT|UTC)\S*\s+\S.{0,100}\Z"
)


class _Kind(Enum):
    """What a line, or a few, are."""

    TEXT = auto()
    BLANK = auto()
    QUOTED = auto()  # begins with >
    ATTRIBUTION = auto()  # "On … Bob wrote:"
    HEADER = auto()  # From:, Sent:, …, or what announces them


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines from `first` up to `after`, of one kind."""

    kind: _Kind
    first: int
    after: int


def folds(text: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of `text` that quote earlier mails: in order, disjoint, never all of it.

    Where nothing would be left to read (a forwarded mail without a word), only what introduces
    the quote is folded.
    """
    lines = text.split("\n", LINES_LIMIT)[:LINES_LIMIT]
    blocks = list(_blocks([line[:LINE_LIMIT] for line in lines]))
    if all(block.kind in {_Kind.TEXT, _Kind.BLANK} for block in blocks):
        return ()
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    end_of_all = len(text)
    ranges = _merged(list(_quotes(blocks)), blocks)
    found = ((starts[first], min(starts[after] - 1, end_of_all)) for first, after in ranges)
    whole = len(lines)
    return tuple(
        (start, end_of_all if after >= whole and whole < LINES_LIMIT else end)
        for (start, end), (_, after) in zip(found, ranges, strict=True)
        if end > start
    )


# Lines into blocks


def _blocks(lines: Sequence[str]) -> Iterator[_Block]:
    at = 0
    is_reply = False  # below an attribution line other marks than > are quotes, too
    while at < len(lines):
        block = _block(lines, at)
        if is_reply and block.kind is _Kind.TEXT and _BARRED.match(lines[at]):
            block = _Block(_Kind.QUOTED, at, at + 1)
        is_reply = is_reply or block.kind is _Kind.ATTRIBUTION
        yield block
        at = block.after


def _block(lines: Sequence[str], at: int) -> _Block:
    line = lines[at]
    if not line.strip():
        return _Block(_Kind.BLANK, at, at + 1)
    if _TELLING.search(line) is None:
        return _Block(_Kind.TEXT, at, at + 1)
    bare = _MARKS.sub("", line)
    if (after := _header(lines, at)) is not None:
        kind = _Kind.QUOTED if _QUOTED.match(line) else _Kind.HEADER
        return _Block(kind, at, at + 1 if kind is _Kind.QUOTED else after)
    if _QUOTED.match(line):
        return _Block(_Kind.QUOTED, at, at + 1)
    if (after := _attribution(lines, at, bare)) is not None:
        return _Block(_Kind.ATTRIBUTION, at, after)
    return _Block(_Kind.TEXT, at, at + 1)


def _attribution(lines: Sequence[str], at: int, bare: str) -> int | None:
    """Return where an attribution line that begins at `at` ends, None if it is none.

    Where it could begin after an empty line, too, what stands before that is text.
    """
    after = _attribution_from(lines, at, bare)
    if after is None:
        return None
    later = [each for each in range(at + 1, after) if not lines[each - 1].strip()]
    starts = any(_attribution_from(lines, each, lines[each].strip()) == after for each in later)
    return None if starts else after


def _attribution_from(lines: Sequence[str], at: int, bare: str) -> int | None:
    if not _may_begin(bare):
        return None
    joined = ""
    taken = 0
    for number in range(at, min(at + WRAPPED + 2, len(lines))):
        line = lines[number].strip()
        if not line:
            continue
        joined = f"{joined} {line}".strip()
        taken += 1
        if _is_attribution(joined, lines, number + 1):
            return number + 1
        # A wrapped address can begin a line with its closing bracket.
        is_quote = taken > 1 and _QUOTED.match(line) and not line.startswith((">:", "> "))
        if taken == WRAPPED or is_quote or _ENDS.search(line):
            break
    return None


def _may_begin(bare: str) -> bool:
    """Return whether a line can begin an attribution: with a date, or naming who wrote."""
    if _ENDS.search(bare) or _SENDER.match(bare):
        return True
    return _BEGINS.match(bare) is not None and _DATE.search(bare) is not None


def _is_attribution(joined: str, lines: Sequence[str], after: int) -> bool:
    if len(joined) > LINE_LIMIT:
        return False
    if _DATED.match(joined):
        return True
    if not _ENDS.search(joined) or not _ATTRIBUTION.match(joined):
        return False
    if _NAMED.match(joined):
        return True
    signs = sum(
        (
            _DATE.search(joined) is not None,
            _TIME.search(joined) is not None,
            _ADDRESS.search(joined) is not None,
            _is_quoted_below(lines, after),
        )
    )
    return signs >= 2


def _is_quoted_below(lines: Sequence[str], at: int) -> bool:
    for line in lines[at : at + 3]:
        if line.strip():
            return _QUOTED.match(line) is not None or _BARRED.match(line) is not None
    return False


def _header(lines: Sequence[str], at: int) -> int | None:
    """Return where a header copied into the text ends that begins at `at`, None if none does."""
    line = lines[at]
    if _SEPARATOR.match(line):
        below = _after_blanks(lines, at + 1)
        return _fields_end(lines, below) or at + 1
    if _RULER.match(line):
        below = _after_blanks(lines, at + 1)
        return _fields_end(lines, below)
    return _fields_end(lines, at)


def _after_blanks(lines: Sequence[str], at: int) -> int:
    while at < len(lines) and not lines[at].strip(" \t>*"):
        at += 1
    return at


def _fields_end(lines: Sequence[str], at: int) -> int | None:
    """Return where the fields end that begin at `at` with From; None if they are too few."""
    if at >= len(lines) or _meaning(lines[at]) != "from":
        return None
    kinds: set[str] = set()
    end = at
    blanks = strange = 0
    for number in range(at, min(at + 24, len(lines))):
        if not lines[number].strip(" \t>*"):
            blanks += 1
            if blanks > 1 or {"date", "subject"} <= kinds:
                break
            continue
        if number - at > 6 and len(kinds) < 2:
            break
        meaning = _meaning(lines[number])
        if meaning is None:
            strange += 1  # a long value goes on here
            if blanks or strange > 3:
                break
            continue
        blanks = strange = 0
        kinds.add(meaning)
        end = number + 1
    return end if len(kinds) >= 3 and kinds & {"date", "subject"} else None


def _meaning(line: str) -> str | None:
    found = _FIELD.match(_MARKS.sub("", line))
    if found is None:
        return None
    return _FIELDS.get(re.sub(r"[ \u3000\xa0]+", " ", found[1]).strip().lower()) or _FIELDS.get(
        re.sub(r"\s+", "", found[1]).lower()
    )


# Blocks into ranges


def _quotes(blocks: Sequence[_Block]) -> Iterator[tuple[int, int]]:
    """Yield the lines to fold, (first, after), in order; they may touch."""
    last = max(index for index, block in enumerate(blocks) if block.kind is not _Kind.BLANK)
    said = False  # whether somebody said something new above
    number = 0
    is_open_above = False  # a quote without marks began above: where it ends, nobody knows
    while number < len(blocks):
        block = blocks[number]
        match block.kind:
            case _Kind.TEXT:
                said = True
            case _Kind.HEADER | _Kind.ATTRIBUTION:
                quoted = _quoted_after(blocks, number + 1)
                if quoted > number + 1:
                    yield block.first, blocks[quoted - 1].after
                    number = quoted
                    continue
                if said and not is_open_above:
                    yield block.first, blocks[-1].after
                    return
                yield block.first, block.after
                is_open_above = True
            case _Kind.QUOTED:
                after = _quoted_after(blocks, number)
                # At the end it repeats what everybody has; a few lines in between are what an
                # answer refers to.
                lines = blocks[after - 1].after - block.first
                if after > last or lines >= LONG_QUOTE:
                    yield block.first, blocks[after - 1].after
                number = after
                continue
            case _:
                pass
        number += 1


def _quoted_after(blocks: Sequence[_Block], number: int) -> int:
    """Return the number of the block after the quoted lines at `number`, blank ones between."""
    after = number
    for index in range(number, len(blocks)):
        if blocks[index].kind is _Kind.QUOTED:
            after = index + 1
        elif blocks[index].kind is not _Kind.BLANK:
            break
    return after


def _merged(ranges: list[tuple[int, int]], blocks: Sequence[_Block]) -> list[tuple[int, int]]:
    """Join ranges with only blank lines between; keep them from being all there is to read."""
    blank = {block.first for block in blocks if block.kind is _Kind.BLANK}
    covered = {line for first, after in ranges for line in range(first, after)}
    last = blocks[-1].after
    if all(line in covered or line in blank for line in range(last)):
        return []
    merged: list[tuple[int, int]] = []
    for first, after in ranges:
        if merged and all(line in blank for line in range(merged[-1][1], first)):
            merged[-1] = (merged[-1][0], after)
        else:
            merged.append((first, after))
    return merged
