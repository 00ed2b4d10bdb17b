"""Cuts long plain text into passages of even length, at paragraph or sentence ends where it can."""

import math
import re
import textwrap
from collections.abc import Iterator

# Where text may be cut, best first: between paragraphs, where a sentence ends a line, after a
# sentence, at a line end, between words. What is cut at is white space only.
_CUTS = (r"(\n\n)", r"((?<=[.!?])\n)", r"((?<=[.!?])\s+)", r"(\n)", r"(\s)")
_TOP_HEADING = re.compile(r" ?= (?!=).* = ?")  # WikiText's ` = Title = `: a new article
# A WikiText or Markdown heading, or a line of text underlined as reStructuredText does.
_HEADING = re.compile(r" ?=+ .* =+ ?|#+ .*|[^\n]+\n([=*^~\"'-])\1{2,}")

Piece = tuple[str, str]  # (white space before it, text)


def split_passages(text: str, most: int) -> list[str]:
    """Passages of at most `most` characters, with no blank ends and none of them empty.

    Text of more than `most` characters gives the fewest passages that could hold it, or a little
    more, of about equal length; so most are longer than half of `most`. A heading stays with what
    follows it, and a line with the indented block under it. The passages hold all of the text but
    white space at the cuts and indentation that all of a passage's lines share.
    """
    text = re.sub(r"[ \t]+$", "", text.replace("\r\n", "\n"), flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if not text:
        return []
    goal = len(text) / math.ceil(len(text) / most)
    passages: list[str] = []
    held: list[Piece] = []
    size = 0
    for space, piece in _pieces("", text, most, _CUTS):
        grown = size + len(space) + len(piece)
        if held and (grown > most or grown - goal > goal - size):
            last = len(held)
            while last > 1 and _leads_in(held[last - 1][1], (*held, (space, piece))[last][1]):
                last -= 1
            if _size(held[last:]) + len(space) + len(piece) > most:
                last = len(held)
            passages.append(_joined(held[:last]))
            held = held[last:]
        held.append((space, piece))
        size = _size(held)
    passages.append(_joined(held))
    return [p for p in passages if p]


def _pieces(space: str, text: str, most: int, cuts: tuple[str, ...]) -> Iterator[Piece]:
    """The text in order, in pieces of at most `most` characters, cut as coarsely as that allows."""
    if len(text) <= most:
        yield space, text
    elif not cuts:
        for start in range(0, len(text), most):
            yield (space if start == 0 else ""), text[start : start + most]
    else:
        first, *others = re.split(cuts[0], text)
        yield from _pieces(space, first, most, cuts[1:])
        for between, part in zip(others[::2], others[1::2], strict=True):
            yield from _pieces(between, part, most, cuts[1:])


def _leads_in(piece: str, following: str) -> bool:
    """Whether a piece says little without the next: a heading, or a line over an indented block."""
    indent = len(piece) - len(piece.lstrip(" "))
    return is_heading(piece) or ("\n" not in piece and following.startswith(" " * (indent + 2)))


def is_heading(paragraph: str) -> bool:
    """Whether a paragraph is a WikiText, Markdown or reStructuredText heading and nothing else."""
    return _HEADING.fullmatch(paragraph.strip("\n")) is not None


def _size(pieces: list[Piece]) -> int:
    return sum(len(space) + len(piece) for space, piece in pieces)


def _joined(pieces: list[Piece]) -> str:
    return textwrap.dedent("".join(s + p for s, p in pieces).strip("\n")).strip()


def split_articles(text: str, most: int) -> list[str]:
    """Passages of a text file: as `split_passages`, and none spans two WikiText articles."""
    articles: list[list[str]] = [[]]
    for line in text.split("\n"):
        if _TOP_HEADING.fullmatch(line.rstrip("\r")) and articles[-1]:
            articles.append([])
        articles[-1].append(line)
    return [p for lines in articles for p in split_passages("\n".join(lines), most)]
