"""Names and texts of any kind on a page: shown, never markup, never the end of it."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from forget_jax import report
from forget_jax.errors import one_line, printable
from forget_jax.files import Path, write_text
from tests.report.test_report_page import Reader, all_sections

NAMES = {
    "a script": "<script>alert(1)</script>",
    "the end of a script": "</script><img src=x onerror=alert(1)>",
    "quotes": '" \' ` onmouseover=alert(1) x="',
    "the end of an attribute": "'\"><svg onload=alert(1)>",
    "the end of a section": "]]><b>x</b><![CDATA[",
    "a comment": "--><b>x</b><!-- -- -",
    "a doctype": "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    "references": "&lt;b&gt; &#60;b&#62; &amp;lt; &#0; &bogus",
    "a template": "{{ 7*7 }} {% raw %} ${7*7} #{7} <%= 7 %>",
    "style": "</style><style>*{display:none}</style> url(javascript:alert(1))",
    "the end of a page": "</body></html>",
    "right to left": "\u202eevil\u202c \u2067x \u200f\u05d0",
    "NUL and others": "a\x00b\x01\x08\x0b\x0c\x1b[31m\x7f\x9b",
    "lone surrogates": "a\ud800 b\udfff",
    "no characters": "\ufffe\uffff\U0010ffff",
    "lines": "a\nb\r\nc\u2028d\u2029e\x85f",
    "mathematics": r"$\frac{1}{2}$ \N{GREEK} _x ^y",
    "nothing": "",
    "spaces": " \t ",
    "long": "long " * 2000,
    "one long word": "w" * 10_000,
    "marks": "e" + "\u0301" * 300,
}
# A page of every section takes a second: the others are left to the slow tests.
ALWAYS = ("the end of a script", "quotes", "a comment", "NUL and others", "one long word")


class Parts(HTMLParser):
    """Every tag with the names of its attributes, and those values that a browser acts on."""

    def __init__(self, html: str):
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.acted: set[str] = set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.add((tag, *sorted(name for name, _ in attrs)))
        self.acted |= {
            re.sub(r"[\d.]+|base64,.*", "", f"{tag} {name} {value}")
            for name, value in attrs
            if name in ("src", "href", "style", "type", "class", "xlink:href", "role")
        }

    handle_startendtag = handle_starttag

    def handle_decl(self, decl):
        self.found.add(("!", decl))

    def handle_comment(self, data):
        self.found.add(("!--", data))

    def handle_pi(self, data):
        self.found.add(("?", data))

    def unknown_decl(self, data):
        self.found.add(("![", data))


def page_of(name: str) -> str:
    return report.page(name, all_sections(name), {name: name})


@pytest.fixture(scope="module")
def plain() -> Parts:
    return Parts(page_of("a name"))


@pytest.mark.fault("names and texts on a page", "as it should be")
@pytest.mark.parametrize(
    "kind", [k if k in ALWAYS else pytest.param(k, marks=pytest.mark.slow) for k in NAMES]
)
def test_a_name_is_never_more_than_text(plain, tmp_path, kind):
    name = NAMES[kind]
    html = page_of(name)
    write_text(Path(tmp_path / "page.html"), html)
    read = (tmp_path / "page.html").read_bytes().decode()
    assert read == html
    parts = Parts(html)
    assert parts.found == plain.found
    assert parts.acted == plain.acted
    page = Reader(html)
    assert len(set(page.ids)) == len(page.ids) and page.tags.count("script") == 2
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        ElementTree.fromstring(svg)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    shown = one_line(name, 400)
    assert shown in " ".join(page.text.split()) or len(name) > 400
    assert len(html) < 500_000


def test_what_is_printable_stays():
    for text in ("忘却 🙂 é \u200d \u05d0\u200f a\tb\nc", "", "<b>"):
        assert printable(text) == text
    assert printable("\x1b[31m \u202e \ud800") == r"\x1b[31m \u202e \ud800"
    assert one_line(" a\n b ") == "a b" and one_line("x" * 50, 10) == "x" * 9 + "…"
