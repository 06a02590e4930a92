"""HTML of mails: into text, and into HTML that is safe to show (pure).

`text_from` has its own tokenizer: `html.parser` of Python 3.11 is quadratic on unclosed tags and
comments. `safe` hands what is neither too long nor too deep to nh3, which parses as browsers do
and keeps what is on a list; deep nesting costs it minutes (31 s for 100,000 divs).
"""

import html as entities
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.entities import html5
from typing import Final

import nh3

SAFE_LIMIT: Final = 1 << 20  # characters
TEXT_LIMIT: Final = 2 << 20  # characters that are turned into text
TAGS_LIMIT: Final = 100_000  # of HTML that is shown; four times as many are turned into text
REFERENCES_LIMIT: Final = 20_000  # nh3 0.3.8 is quadratic in them
DEPTH_LIMIT: Final = 200  # tables in tables of newsletters reach 60
AGAIN_LIMIT: Final = 30  # unclosed tags that a browser opens again in each paragraph
ODD_LIMIT: Final = 10  # of `_ODD`
DATA_IMAGE_LIMIT: Final = 64 * 1024  # characters of a data: image


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# HTML Standard (WHATWG), sections 13.1.2 and 13.2.4.2.
VOID: Final = _names(
    "area base basefont bgsound br col embed frame hr img input keygen link meta param source track"
    " wbr"
)
RAW: Final = _names("script style title textarea xmp iframe noembed noframes")
FORMATTING: Final = _names("a b big code em font i nobr s small strike strong tt u")
_CELLS: Final = _names("table caption colgroup tbody tfoot thead tr td th")
_SCOPE: Final = _names("applet caption html table td th marquee object template select svg math")
BLOCKS: Final = _names(
    "address article aside blockquote body center dd details dialog dir div dl dt fieldset"
    " figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav"
    " ol p pre search section summary table tbody tfoot thead tr ul"
)
# Elements with rules of their own for what is in them: `_Tree` does not know these.
_ODD: Final = frozenset({"svg", "math", "script", "plaintext", "template", "frameset"})

_MARKUP: Final = re.compile(r"<(?=[a-zA-Z/!?])")
_NAME: Final = re.compile(r"(/?)([a-zA-Z][^\s/>]*)")
_ATTRIBUTE: Final = re.compile(
    r"[\s/]*([^\s/>=][^\s/>=]*|=[^\s/>=]*)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*)))?"
)
_SPACE: Final = re.compile(r"[ \t\n\r\f\xa0]+")
_HIDDEN: Final = re.compile(r"display\s*:\s*none|mso-hide\s*:\s*all", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Tag:
    """A start tag or an end tag; the names are lower-case."""

    name: str
    closes: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


def _tokens(html: str) -> Iterator[_Text | _Tag]:
    """Yield the text and the tags of `html`, in one pass (HTML Standard, section 13.2.5)."""
    at = 0
    comments_end = max(html.rfind("-->"), html.rfind("--!>"))
    while (found := _MARKUP.search(html, at)) is not None:
        bracket = found.start()
        if bracket > at:
            yield _Text(html[at:bracket])
        name = _NAME.match(html, bracket + 1)
        if name is None:
            at = _markup_end(html, bracket, comments_end)
            continue
        tag, at = _tag(html, name)
        yield tag
        if tag.name in RAW and not tag.closes:
            at = _raw_end(html, at, tag.name)
    if at < len(html):
        yield _Text(html[at:])


def _markup_end(html: str, at: int, comments_end: int) -> int:
    """Return where a comment or a declaration at `at` ends."""
    if html.startswith("<!--", at):
        if html.startswith(("<!-->", "<!--->"), at):
            return html.find(">", at) + 1
        if at + 4 > comments_end:  # all the rest would be a comment: rather show it
            return at + 4
        found = _COMMENT_END.search(html, at + 4)
        return found.end() if found else at + 4
    end = html.find(">", at)
    return end + 1 if end >= 0 else len(html)


_COMMENT_END: Final = re.compile(r"--!?>")


def _tag(html: str, name: re.Match[str]) -> tuple[_Tag, int]:
    attributes: dict[str, str] = {}
    at = name.end()
    while (found := _ATTRIBUTE.match(html, at)) is not None:
        at = found.end()
        key = found[1].lower()
        if key not in attributes and len(attributes) < 100:
            attributes[key] = found[2] or found[3] or found[4] or ""
    end = html.find(">", at)
    closed = len(html) if end < 0 else end + 1
    return _Tag(name[2].lower(), bool(name[1]), attributes), closed


def _raw_end(html: str, at: int, name: str) -> int:
    """Return where the content of a script, a style, … ends: at its end tag, or at the end."""
    found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(html, at)
    return found.start() if found else len(html)


# Text


def text_from(html: str) -> str:
    """Return what `html` says: lists with dashes, quotes with "> ", links with their address."""
    writer = _Writer()
    for token in itertools.islice(_tokens(html[:TEXT_LIMIT]), 4 * TAGS_LIMIT):
        if isinstance(token, _Text):
            writer.write(entities.unescape(token.text))
        elif token.closes:
            writer.close(token.name)
        else:
            writer.open(token)
    return writer.text()


@dataclass(slots=True)
class _List:
    number: int  # of the next item; 0: no numbers


class _Writer:
    """Builds the text: words on lines, lines below one another."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._quotes = 0
        self._lists: list[_List] = []
        self._links: list[tuple[str, int]] = []  # address, and where in the line its text begins
        self._kept = 0  # open pre elements
        self._hidden: list[str] = []  # the element that hides, and those of its name inside
        self._space = False  # white space is due before the next word

    def write(self, text: str) -> None:
        if self._hidden:
            return
        if self._kept:
            first, *others = text.replace("\r\n", "\n").split("\n")
            self._add(first)
            for line in others:
                self._end_line()
                self._add(line)
            return
        words = _SPACE.sub(" ", text)
        if words.startswith(" "):
            self._space = True
        if stripped := words.strip(" "):
            self._add(stripped)
            self._space = words.endswith(" ")

    def open(self, tag: _Tag) -> None:
        if self._hidden:
            if tag.name == self._hidden[0]:
                self._hidden.append(tag.name)
            return
        if tag.name not in VOID and _is_hidden(tag):
            self._hidden.append(tag.name)
            return
        if tag.name in BLOCKS:
            self._break(blank=tag.name in {"p", "blockquote"} or tag.name in _HEADINGS)
        opener = getattr(self, f"_open_{tag.name}", None) if tag.name in _OPENERS else None
        if opener is not None:
            opener(tag)

    def close(self, name: str) -> None:
        if self._hidden:
            if name == self._hidden[0]:
                self._hidden.pop()
            return
        if name == "a":
            self._close_link()
        if name in BLOCKS:
            self._break(blank=name in {"p", "ul", "ol", "table"} or name in _HEADINGS)
        if name in {"ul", "ol"} and self._lists:
            self._lists.pop()
        elif name == "pre":
            self._kept = max(0, self._kept - 1)
        elif name == "blockquote":
            self._close_blockquote()

    def text(self) -> str:
        self._close_link()
        self._end_line()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip("\n")

    # Elements

    def _open_br(self, _tag: _Tag) -> None:
        self._end_line()

    def _open_hr(self, _tag: _Tag) -> None:
        self._add("-" * 20)
        self._end_line()

    def _open_blockquote(self, _tag: _Tag) -> None:
        self._quotes = min(self._quotes + 1, 20)

    def _close_blockquote(self) -> None:
        while self._lines and not self._lines[-1].strip("> "):
            self._lines.pop()
        self._quotes = max(0, self._quotes - 1)
        self._break(blank=True)

    def _open_ul(self, _tag: _Tag) -> None:
        self._lists.append(_List(0))

    def _open_ol(self, tag: _Tag) -> None:
        start = tag.attributes.get("start", "1")
        self._lists.append(_List(int(start) if re.fullmatch(r"[1-9]\d{0,5}", start) else 1))

    def _open_li(self, _tag: _Tag) -> None:
        indent = "  " * (min(len(self._lists), 10) - 1)
        if self._lists and self._lists[-1].number:
            self._add(f"{indent}{self._lists[-1].number}.")
            self._lists[-1].number += 1
        else:
            self._add(f"{indent}-")
        self._space = True

    def _open_td(self, _tag: _Tag) -> None:
        if any(piece.strip() for piece in self._line):
            self._add("\t")
        self._space = False

    def _open_pre(self, _tag: _Tag) -> None:
        self._kept += 1

    def _open_img(self, tag: _Tag) -> None:
        alt = _SPACE.sub(" ", entities.unescape(tag.attributes.get("alt", ""))).strip()
        if alt:
            self.write(f"[{alt[:200]}]")

    def _open_a(self, tag: _Tag) -> None:
        self._close_link()
        address = entities.unescape(tag.attributes.get("href", "")).strip()
        if re.match(r"(?:https?|mailto|tel|ftp):", address, re.IGNORECASE):
            self._links.append((address[:2000], len(self._line)))

    def _close_link(self) -> None:
        """Write where a link leads, unless its text says so."""
        if not self._links:
            return
        address, start = self._links.pop()
        said = "".join(self._line[start:]).strip()
        bare = re.sub(r"^(?:mailto:|tel:|https?://)", "", address, flags=re.IGNORECASE).rstrip("/")
        if said and bare and bare.lower() not in said.lower().replace(" ", ""):
            self._add(f" <{address}>")

    # Lines

    def _add(self, text: str) -> None:
        if self._space and self._line:
            self._line.append(" ")
        self._space = False
        if text:
            self._line.append(text)

    def _end_line(self) -> None:
        line = "".join(self._line)
        self._line = []
        self._links = [(address, 0) for address, _ in self._links]
        self._space = False
        self._lines.append(("> " * self._quotes + line).rstrip(" \t"))

    def _break(self, *, blank: bool) -> None:
        """Begin a new line, after an empty one if `blank`."""
        if any(piece.strip() for piece in self._line):
            self._end_line()
        else:
            self._line = []
            self._space = False
        if blank and self._lines and self._lines[-1].strip("> "):
            self._lines.append(("> " * self._quotes).rstrip(" "))


_HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_OPENERS: Final = frozenset({"br", "hr", "blockquote", "ul", "ol", "li", "td", "pre", "img", "a"})


def _is_hidden(tag: _Tag) -> bool:
    """Return whether nobody sees what is inside: texts for the lists of mail programs."""
    return "hidden" in tag.attributes or bool(_HIDDEN.search(tag.attributes.get("style", "")))


# HTML

TAGS: Final = _names(
    "a abbr acronym address article aside b bdi big blockquote br caption center cite code col"
    " colgroup dd del details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6"
    " header hr i img ins kbd li main mark nav ol p pre q rp rt ruby s samp section small span"
    " strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var wbr"
)
_EVERYWHERE: Final = frozenset({"dir", "lang", "title", "style", "align", "valign", "bgcolor"})
_SIZED: Final = frozenset({"width", "height"})
ATTRIBUTES: Final[dict[str, set[str]]] = {
    "*": set(_EVERYWHERE),
    "a": {"href"},
    "img": {"src", "alt", *_SIZED},
    "font": {"color", "face", "size"},
    "table": {"border", "cellpadding", "cellspacing", *_SIZED},
    "td": {"colspan", "rowspan", "nowrap", *_SIZED},
    "th": {"colspan", "rowspan", "nowrap", *_SIZED},
    "col": {"span", "width"},
    "colgroup": {"span", "width"},
    "ol": {"start", "type"},
    "ul": {"type"},
    "li": {"value"},
    "blockquote": {"type"},
    "hr": {"size", "width"},
}
# None of these can leave its place, hide what is said or fetch something.
STYLES: Final = _names(
    "background-color border border-bottom border-collapse border-color border-left border-right"
    " border-spacing border-style border-top border-width color font-family font-style font-weight"
    " list-style-type padding padding-bottom padding-left padding-right padding-top"
    " text-align text-decoration vertical-align white-space"
)
SCHEMES: Final = frozenset({"http", "https", "mailto", "tel", "cid", "data"})
_DATA_IMAGE: Final = re.compile(r"data:image/(?:png|gif|jpeg|webp);base64,[A-Za-z0-9+/=\s]*")
_BAD_STYLE: Final = re.compile(r"url|expression|image|\\|/\*|@|behavior|var\(", re.IGNORECASE)
_AMPERSAND: Final = re.compile(r"&(?:([a-zA-Z][a-zA-Z0-9]{1,31};)|(?![a-zA-Z#]))")
_LINK: Final = re.compile(r"(?:https?|mailto|tel):", re.IGNORECASE)


def safe(html: str) -> str | None:
    """Return `html` with nothing in it that acts or fetches; None if it is too long or deep.

    Scripts, forms, frames and styles that leave their place are gone. Images have a source only
    if it is in the mail (`cid:`) or in the HTML itself; a remote one would tell its sender when
    and where the mail is read: what is left of it is an `img` without `src`.
    """
    if len(html) > SAFE_LIMIT or html.count("<") > TAGS_LIMIT or not _is_shallow(html):
        return None
    html = _AMPERSAND.sub(_referred, html)
    if html.count("&") > REFERENCES_LIMIT:
        return None
    cleaned = nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags={"script", "style", "title", "noscript", "template", "svg", "math"},
        attributes=ATTRIBUTES,
        attribute_filter=_filtered,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        url_schemes=set(SCHEMES),
        url_relative="deny",
        filter_style_properties=set(STYLES),
    )
    return cleaned.strip() if len(cleaned) <= 4 * SAFE_LIMIT else None


def _referred(found: re.Match[str]) -> str:
    """Return a character reference as the sign itself, or by its number if it means something."""
    sign = html5.get(found[1], "") if found[1] else "&"
    return sign if sign and sign not in "<>&\"'" else f"&#{ord(sign)};" if sign else found[0]


def _filtered(tag: str, attribute: str, value: str) -> str | None:
    match attribute:
        case "src":
            is_data = len(value) <= DATA_IMAGE_LIMIT and _DATA_IMAGE.fullmatch(value)
            return value if value[:4].lower() == "cid:" or is_data else None
        case "href":
            return value if _LINK.match(value) else None
        case "style":
            return None if _BAD_STYLE.search(value) else value
        case "width" | "height":
            return value if re.fullmatch(r"\d{1,4}%?", value.removesuffix("px").strip()) else None
        case "colspan" | "rowspan" | "span":
            return value if re.fullmatch(r"\d{1,3}", value) else None
        case _:
            return value


def content_ids(html: str) -> frozenset[str]:
    """Return the Content-IDs that the images of safe HTML refer to."""
    found = re.findall(r"src=\"cid:([^\"]*)\"", html, re.IGNORECASE)
    return frozenset(entities.unescape(name).strip("<> ") for name in found)


# Depth


def _is_shallow(html: str) -> bool:
    """Return whether a browser's tree of `html` stays below the limits; in doubt it does not."""
    tree = _Tree()
    for token in _tokens(html):
        if isinstance(token, _Tag):
            if token.closes:
                tree.close(token.name)
            else:
                tree.open(token)
            if tree.is_too_deep:
                return False
    return True


@dataclass(frozen=True, slots=True)
class _Open:
    """An open element; `key` tells formatting elements apart as browsers do, else it is ""."""

    name: str
    key: str = ""


class _Tree:
    """The open elements, after the rules of the HTML Standard (section 13.2.6), never fewer."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._odd = 0
        # Formatting elements that a block closed over: they are opened again in the next ones.
        self._again: list[_Open] = []
        self._marks: list[int] = []  # how many of those there were, for each open cell

    @property
    def is_too_deep(self) -> bool:
        again = len(self._again)
        return again > AGAIN_LIMIT or self._odd > ODD_LIMIT or len(self._open) > DEPTH_LIMIT - again

    def open(self, tag: _Tag) -> None:
        name = tag.name
        if name in RAW and self._odd:
            self._odd += ODD_LIMIT  # inside SVG it is an element like any other
        self._odd += name in _ODD
        if name in _ALONE:
            return
        if name in _CELLS:
            self._open_cell(name)
            return
        self._make_room(name)
        key = f"{name} {sorted(tag.attributes.items())}"[:1000] if name in FORMATTING else ""
        self._open.append(_Open(name, key))

    def _make_room(self, name: str) -> None:
        """Close what `name` ends by beginning."""
        if name in _CLOSES_P:
            self._close_to("p", _SCOPE | {"button"})
        for item in _ITEMS.get(name, ()):
            self._close_to(item, _SPECIAL - _ITEMS[name] - {"address", "div", "p"})
        if name == "option" and self._open and self._open[-1].name == "option":
            self._open.pop()
        elif name in {"a", "nobr"}:
            self._close_format(name)

    def close(self, name: str) -> None:
        if name in _CELLS:
            self._close_to(name, _TABLE_SCOPE - {name})
        elif name in FORMATTING:
            self._close_format(name)
        elif name in _SPECIAL:
            self._close_to(name, _SCOPE - {name})
        else:
            self._close_to(name, _SPECIAL)

    def _open_cell(self, name: str) -> None:
        """Open a table or a part of one, which closes all that cannot contain it."""
        if name == "table":
            self._open.append(_Open(name))
            return
        inside = _CELLS_INSIDE.get(name, frozenset({"table"}))
        if not any(one.name == "table" for one in self._open):
            return  # browsers leave it out, too
        while self._open[-1].name not in inside:
            self._pop()
        if name in {"td", "th"} and self._open[-1].name != "tr":
            self._open.append(_Open("tr"))
        if name in _MARKED:
            self._marks.append(len(self._again))
        self._open.append(_Open(name))

    def _close_to(self, name: str, boundary: frozenset[str]) -> None:
        """Close the innermost `name` and all that is in it, unless a boundary is in between."""
        for one in reversed(self._open):
            if one.name == name:
                while self._pop().name != name:
                    pass
                return
            if one.name in boundary:
                return

    def _pop(self) -> _Open:
        one = self._open.pop()
        if one.key and sum(other.key == one.key for other in self._again) < 3:
            self._again.append(one)  # three of a kind at most (section 13.2.4.3)
        if one.name in _MARKED and self._marks:
            del self._again[self._marks.pop() :]
        return one

    def _close_format(self, name: str) -> None:
        for index in range(len(self._open) - 1, -1, -1):
            one = self._open[index]
            if one.name == name:
                inside = self._open[index + 1 :]
                del self._open[index]
                if not any(other.name in _SPECIAL for other in inside):
                    for _ in inside:
                        self._pop()
                return
            if one.name in _SCOPE:
                break
        for index in range(len(self._again) - 1, -1, -1):
            if self._again[index].name == name:
                del self._again[index]
                return


_ALONE: Final = VOID | RAW | _ODD | {"html", "head", "body"}
_MARKED: Final = frozenset({"td", "th", "caption"})
_TABLE_SCOPE: Final = frozenset({"table", "html", "template"})
_SPECIAL: Final = _SCOPE | BLOCKS | _CELLS | {"button"}
_CLOSES_P: Final = BLOCKS - {"table", "tbody", "tfoot", "thead", "tr", "legend"}
_ITEMS: Final[Mapping[str, frozenset[str]]] = {
    "li": frozenset({"li"}), "dd": frozenset({"dd", "dt"}), "dt": frozenset({"dd", "dt"}),
}  # fmt: skip
_ROWS: Final = frozenset({"table", "tbody", "tfoot", "thead"})
_CELLS_INSIDE: Final[Mapping[str, frozenset[str]]] = {
    "td": _ROWS | {"tr"}, "th": _ROWS | {"tr"}, "tr": _ROWS,
}  # fmt: skip
