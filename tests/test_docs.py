"""README.md, BENCHMARKS.md and docs/ speak of files, modules and names that there are."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "BENCHMARKS.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = "|".join(["forget_jax", "configs", "launch", "benchmarks", "docs", "tests"])
IDS = [page.name for page in PAGES]


def code(page: Path) -> tuple[str, list[tuple[str, str]]]:
    """What stands between backticks in the text, and the blocks as (language, code)."""
    text = page.read_text()
    block = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", block.sub("", text))
    return "\n".join(inline), block.findall(text)


def imported(dotted: str) -> object:
    """A module, or a name inside one; AttributeError where there is none."""
    names = dotted.split(".")
    found: object = importlib.import_module(names[0])
    for i, name in enumerate(names[1:], 2):
        if not hasattr(found, name):
            try:
                importlib.import_module(".".join(names[:i]))
            except ModuleNotFoundError as e:
                raise AttributeError(f"{dotted}: there is no {'.'.join(names[:i])}") from e
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_are_there(page):
    inline, blocks = code(page)
    text = "\n".join([inline, *(block for _, block in blocks)])
    named = set(re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("folder", ["forget_jax", "configs", "benchmarks", "tests"])
def test_docstrings_and_comments_cite_pages_that_are_there(folder):
    for file in (ROOT / folder).rglob("*.py"):
        cited = re.findall(r"docs/\w+\.md|[\w/]+\.md(?= §)", file.read_text())
        assert [page for page in cited if not (ROOT / page).exists()] == [], file


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_modules_and_names_are_there(page):
    inline, blocks = code(page)
    for dotted in sorted(set(re.findall(r"\bforget_jax(?:\.\w+)+", inline))):
        imported(dotted)
    for language, block in blocks:
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("forget_jax"):
                for alias in node.names:
                    imported(f"{node.module}.{alias.name}")


def test_the_layout_names_every_room():
    """The tree of README.md: its entries are there, and no room is left out."""
    layout = (ROOT / "README.md").read_text().partition("## Layout")[2].split("```")[1]
    named, above = set(), {0: ROOT}
    for line in layout.strip().splitlines():
        indent, names = re.fullmatch(r"( *)(\S+(?:, \S+)*?)(?:  .*)?", line).groups()
        depth = len(indent) // 2
        for name in names.split(", "):
            above[depth + 1] = above[depth] / name
            assert above[depth + 1].exists(), name
            named.add(above[depth + 1])
    rooms = {init.parent for init in (ROOT / "forget_jax").glob("*/__init__.py")}
    assert rooms <= named
