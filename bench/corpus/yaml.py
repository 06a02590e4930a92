"""As much YAML as the SPF suite is written in (pure): no anchors, tags or flow mappings.

Source: YAML 1.2 chapters 7 (flow) and 8 (block). Every scalar is a string.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_KEY: Final = re.compile(
    r"""(?P<key>"[^"]*"|'[^']*'|[^\s\#\["'|>-](?:(?!:\s|:$|\s\#).)*):(?:\s+|$)"""
)
_COMMENT: Final = re.compile(r"\s+#.*$")
_BLOCK: Final = re.compile(r"(?P<style>[|>])(?P<chomp>[-+]?)$")
_FLOW_ITEM: Final = re.compile(
    r"""\s*(?P<item>"(?:\\.|[^"\\])*"|'(?:''|[^'])*'|[^,\[\]"']*)\s*(?:,|$)"""
)
_ESCAPE: Final = re.compile(r"\\(?:x(?P<hex>[0-9a-fA-F]{2})|(?P<sign>.))")
_SIGNS: Final = {"0": "\0", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(slots=True)
class _Reader:
    lines: Sequence[str]
    at: int = 0

    def peek(self) -> tuple[int, str] | None:
        """Return indentation and content of the next line that says something."""
        while self.at < len(self.lines):
            line = self.lines[self.at].rstrip()
            content = line.lstrip(" ")
            if content and not content.startswith("#"):
                return len(line) - len(content), content
            self.at += 1
        return None


def documents(text: str) -> list[Any]:
    """Return what each document of `text` holds: mappings, lists and strings.

    Raises:
        ValueError: it is written in a way this reader does not know.
    """
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.rstrip() == "---":
            parts.append([])
        else:
            parts[-1].append(line)
    readers = [_Reader(part) for part in parts]
    return [_node(reader, 0) for reader in readers if reader.peek() is not None]


def _node(reader: _Reader, least: int) -> Any:
    """Read what is indented by at least `least`; nothing there is an empty string."""
    ahead = reader.peek()
    if ahead is None or ahead[0] < least:
        return ""
    indent, content = ahead
    if content == "-" or content.startswith("- "):
        return _items(reader, indent)
    if _KEY.match(content):
        return _mapping(reader, indent)
    raise ValueError(f"line {reader.at + 1}: neither a list nor a mapping: {content}")


def _items(reader: _Reader, indent: int) -> list[Any]:
    items: list[Any] = []
    while (ahead := reader.peek()) is not None:
        found, content = ahead
        if found != indent or not content.startswith("-"):
            break
        rest = content[1:].lstrip(" ")
        if _KEY.match(rest):
            # a mapping that begins on the line of its dash
            inner = indent + len(content) - len(rest)
            lines = list(reader.lines)
            lines[reader.at] = " " * inner + rest
            reader.lines = lines
            items.append(_mapping(reader, inner))
        else:
            reader.at += 1
            items.append(_value(reader, rest, indent))
    return items


def _mapping(reader: _Reader, indent: int) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    while (ahead := reader.peek()) is not None:
        found, content = ahead
        if found < indent or (found == indent and content.startswith("- ")):
            break
        match = _KEY.match(content)
        if found > indent or match is None:
            raise ValueError(f"line {reader.at + 1}: not a key: {content}")
        reader.at += 1
        mapping[str(_scalar(match["key"]))] = _value(reader, content[match.end() :], indent)
    return mapping


def _value(reader: _Reader, rest: str, indent: int) -> Any:
    """Read the value whose first line is `rest`, of a key or dash at `indent`."""
    block = _BLOCK.match(rest)
    if block:
        return _block(reader, indent, is_folded=block["style"] == ">", chomp=block["chomp"])
    if not rest or rest.startswith("#"):
        ahead = reader.peek()
        is_list_below = ahead is not None and ahead[0] == indent and ahead[1].startswith("- ")
        return _node(reader, indent if is_list_below else indent + 1)
    if rest[0] not in "\"'[":
        rest = _continued(reader, rest, indent)
    return _scalar(rest)


def _continued(reader: _Reader, rest: str, indent: int) -> str:
    """Join the lines of a plain scalar: those that are indented further."""
    while (ahead := reader.peek()) is not None and ahead[0] > indent:
        rest = f"{_COMMENT.sub('', rest)} {ahead[1]}"
        reader.at += 1
    return rest


def _block(reader: _Reader, indent: int, *, is_folded: bool, chomp: str) -> str:
    found: list[str] = []
    while reader.at < len(reader.lines):
        line = reader.lines[reader.at].rstrip()
        if line and len(line) - len(line.lstrip(" ")) <= indent:
            break
        found.append(line.strip())
        reader.at += 1
    text = (" " if is_folded else "\n").join(found).rstrip()
    return text if chomp == "-" else f"{text}\n"


def _scalar(text: str) -> Any:
    text = text.strip()
    match text[:1]:
        case '"':
            return _ESCAPE.sub(_unescaped, text[1 : _closing(text)])
        case "'":
            return text[1 : text.rindex("'")].replace("''", "'")
        case "[":
            return _flow(text[1 : text.rindex("]")])
        case _:
            return _COMMENT.sub("", text)


def _closing(text: str) -> int:
    match = re.match(r'"(?:\\.|[^"\\])*', text)
    if match is None or match.end() >= len(text):
        raise ValueError(f"a quoted scalar does not end on its line: {text}")
    return match.end()


def _unescaped(match: re.Match[str]) -> str:
    if match["hex"]:
        return chr(int(match["hex"], 16))
    return _SIGNS.get(match["sign"], match["sign"])


def _flow(text: str) -> list[Any]:
    items, at = [], 0
    while at < len(text.rstrip()):
        match = _FLOW_ITEM.match(text, at)
        if match is None:
            raise ValueError(f"not a flow sequence: {text}")
        items.append(_scalar(match["item"]))
        at = match.end()
    return items
