"""HTML of mails becomes text that reads well, and HTML that can do nothing."""

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contactd.mail.htmltext import SAFE_LIMIT, content_ids, safe, text_from


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a<p>b", "a\n\nb"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("a\n  b\t c", "a b c"),
        ("x&nbsp;&lt;b&gt; &#24320; &amp;amp;", "x <b> 开 &amp;"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>d", "- a\n- b\n  - c\n\nd"),
        ("<ol start=3><li>a</li><li>b</li></ol>", "3. a\n4. b"),
        ("<table><tr><td>a<td>b<tr><td>c</td></table>", "a\tb\nc"),
        ('<a href="https://a.example/">a.example</a>', "a.example"),
        ('<a href="https://a.example/x?y=1&amp;z=2">here</a>', "here <https://a.example/x?y=1&z=2>"),
        ('<a href="mailto:a@b.c">a@b.c</a>', "a@b.c"),
        ('<a href="javascript:x">here</a>', "here"),
        ("a<blockquote>b<br>c<blockquote>d</blockquote></blockquote>e",
         "a\n\n> b\n> c\n>\n> > d\n\ne"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ("a<style>b</style><script>c</script><title>d</title>e", "ae"),
        ("a<!-- b --><!doctype x><?y?>c", "ac"),
        ("a<!-- never ends", "a never ends"),
        ("1 < 2 <3", "1 < 2 <3"),
        ('<img src="x" alt="Logo">', "[Logo]"),
        ("a<span style='display: none'>b<span>c</span></span>d", "ad"),
        ("<h1>a</h1>b", "a\n\nb"),
        ("</div></p></li>a", "a"),
        ("", ""),
    ],
)  # fmt: skip
def test_text_reads_as_the_page_looks(html: str, expected: str) -> None:
    assert text_from(html) == expected


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>", "<a href='java&Tab;script:alert(1)'>x</a>",
        "<a href='data:text/html,x'>x</a>", "<iframe src=//x></iframe>", "<base href=//x>",
        "<form action=//x><input></form>", "<meta http-equiv=refresh content='0;//x'>",
        "<link rel=stylesheet href=//x>", "<style>@import '//x'</style>",
        "<p style='background:url(//x)'>a</p>", "<p style='background-color:url(//x)'>a</p>",
        "<table background=//x><tr><td background=//x>a</table>", "<img srcset='//x 1x'>",
        "<img src='https://x/y.png'>", "<img src='//x'>", "<img src='data:text/html,x'>",
        "<img src='data:image/svg+xml;base64,AAAA'>", "<video poster=//x><source src=//x></video>",
        "<p style='position:fixed;top:0'>a</p>", "<math><a xlink:href=javascript:x>a</math>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
        "<object data=//x></object>", "<embed src=//x>", "<p id=x class=y onclick=z>a</p>",
    ],
)  # fmt: skip
def test_nothing_that_acts_or_fetches_is_left(html: str) -> None:
    assert_harmless(safe(html))


class _Tags(HTMLParser):
    """Collects what a reader of the HTML would meet."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def assert_harmless(html: str | None) -> None:
    parser = _Tags()
    parser.feed(html or "")
    for tag, attributes in parser.tags:
        assert tag not in {"script", "style", "iframe", "form", "input", "svg", "math", "object"}
        assert tag not in {"embed", "link", "meta", "base", "video", "audio", "template", "button"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"id", "class", "background", "srcset", "poster", "action"}
            if name == "src":
                assert re.match(r"cid:|data:image/(png|gif|jpeg|webp);base64,", value or "", re.I)
            if name == "href":
                assert re.match(r"https?:|mailto:|tel:", value or "", re.IGNORECASE)
                assert "noopener" in (attributes["rel"] or "")
            if name == "style":
                assert not re.search(r"url|position|expression|\\", value or "", re.IGNORECASE)


def test_what_is_harmless_stays() -> None:
    html = (
        '<p style="color:red">a <b>b</b> <img src="cid:i@x" width="10"> <a href="https://x">c</a>'
    )
    shown = safe(html) or ""
    assert '<p style="color:red">a <b>b</b> <img ' in shown
    assert 'width="10"' in shown
    assert 'href="https://x"' in shown
    assert content_ids(shown) == {"i@x"}


def test_a_remote_image_leaves_its_place_and_its_text() -> None:
    assert safe('<img src="https://x/y.png" alt="Chart">') == '<img alt="Chart">'


@pytest.mark.parametrize(
    "unit",
    ["<div>", "<div><!--</div>-->", "<div><table><tr><td></div></td></tr></table>", "<span>",
     "<svg><![CDATA[></svg>]]>", "<button><svg><script></button>", "<ul><li>", "<blockquote>",
     "<div><template></div></template>", "<table><tr><td>", "<b><p>"],
)  # fmt: skip
def test_deep_html_is_not_shown_and_takes_no_time(unit: str) -> None:
    html = unit * (600_000 // len(unit))
    began = time.process_time()
    assert safe(html) is None
    text_from(html)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "html",
    ["<" * 500_000, "<a " * 200_000, '<a "' * 150_000, "<!--" * 150_000, "&" * 500_000,
     "&nbsp;" * 100_000, "<style>" * 80_000, "<a href=http://x>" * 30_000, "x" * (SAFE_LIMIT + 1),
     "".join(f"<b id={n}>" for n in range(100)) + "<p>x" * 50_000, "<a" + " x=1" * 100_000 + ">",
     "<img src=cid:x>" * 30_000, "<![CDATA[" * 60_000],
)  # fmt: skip
def test_hostile_html_takes_no_time(html: str) -> None:
    began = time.process_time()
    safe(html)
    text_from(html)
    assert time.process_time() - began < 2


def test_sloppy_html_of_real_mails_is_shown() -> None:
    row = "<tr><td><font color=red><p>cell<td><b>x<p>y</td></tr>"
    html = f"<html><body><table>{row * 300}</table>" + "<p><font size=2>line</font>" * 300
    assert safe(html) is not None
    assert safe("<a name=x>" * 20 + "<div><b><p>t</b></p></div>" * 300 + "<li>a" * 300) is not None


def test_tags_that_each_paragraph_opens_again_are_counted_outside_of_cells() -> None:
    tags = [f"<font size={number}>x" for number in range(100)]
    assert safe("".join(f"<p>{tag}</p>" for tag in tags)) is None
    assert safe("".join(f"<table><tr><td><p>{tag}</p></table>" for tag in tags)) is not None


SOUP = st.lists(
    st.sampled_from(
        ["<script>", "</script>", "<svg>", "<style>", "<img src=", "https://x", "cid:x", "'", '"',
         ">", "<", "</", "<!--", "-->", "<![CDATA[", "]]>", " onerror=", "alert(1)", "javascript:",
         "<a href=", "<p style=", "url(//x)", "<table>", "<td>", "<math>", "<noscript>", "&#106;",
         "&Tab;", "\0", "<template>", "<title>", "<textarea>", "<mglyph>", "<select>", "=", "/"]
    )
    | st.text(max_size=8),
    max_size=25,
).map("".join)  # fmt: skip


@given(SOUP)
@settings(max_examples=300)
def test_no_soup_of_tags_is_harmful(html: str) -> None:
    assert_harmless(safe(html))
    text_from(html).encode("utf-8", "surrogatepass")
