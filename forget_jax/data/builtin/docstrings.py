"""Docstrings of the standard library, read with `ast`; no module is imported.

A scan of everything takes some seconds, so its result is kept in the user's cache folder
(`$XDG_CACHE_HOME/forget_jax`, else `~/.cache/forget_jax`), one file for each Python.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from forget_jax import files
from forget_jax.data.examples import Example
from forget_jax.data.passages import split_passages
from forget_jax.errors import UserError, nearest

LONGEST = 900  # characters of a passage; longer docstrings are cut at paragraph ends
SHORTEST = 80  # shorter docstrings and leftovers say too little to be documents
SHORTEST_ANSWER = 15

# Tests, vendored code, tables of codecs and toys.
_LEFT_OUT = {
    "antigravity", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
    "dist-packages", "test", "this", "turtledemo",
}  # fmt: skip
_TESTS = {"test", "tests"}


class _Docstring(NamedTuple):
    module: str  # json.decoder
    kind: str  # module, class, function or method
    name: str  # JSONDecoder.decode; empty for a module
    text: str  # cleaned, as inspect.getdoc gives it


def docstrings(modules: Iterable[str] = ()) -> list[Example]:
    """Documents `docstrings/json.dumps`, one a docstring, long ones cut into passages.

    Args:
      modules: top-level modules to take; or, each with a leading `-`, to leave out; none is all.

    The source is `docstrings/<top-level module>`. Texts of under 80 characters, and texts that an
    earlier document has already, are left out. Raises UserError for an unknown module.
    """
    examples = []
    seen: set[str] = set()
    names = _Names()
    for top, found in _chosen(modules):
        for doc in found:
            passages = [p for p in split_passages(doc.text, LONGEST) if len(p) >= SHORTEST]
            for n, passage in enumerate(passages, 1):
                if passage in seen:
                    continue
                seen.add(passage)
                part = f" ({n})" if len(passages) > 1 else ""
                name = names.unique(f"docstrings/{_dotted(doc)}{part}")
                examples.append(Example(name, f"docstrings/{top}", text=passage))
    return examples


def docstring_task(modules: Iterable[str] = ()) -> list[Example]:
    """Rows `Module json, function dumps:` -> the first paragraph of its docstring, on one line.

    Args:
      modules: as for `docstrings`.

    Paragraphs of under 15 or over 900 characters, and those that an earlier row has already, are
    left out. The source is `docstring_task/<top-level module>`.
    """
    examples = []
    names = _Names()
    seen: set[str] = set()
    for top, found in _chosen(modules):
        for doc in found:
            prompt = (
                f"Module {doc.module}" + (f", {doc.kind} {doc.name}" if doc.name else "") + ":\n"
            )
            answer = " ".join(doc.text.split("\n\n")[0].split())
            if {prompt, answer} & seen or not SHORTEST_ANSWER <= len(answer) <= LONGEST:
                continue
            seen |= {prompt, answer}
            name = names.unique(f"docstring_task/{_dotted(doc)}")
            source = f"docstring_task/{top}"
            examples.append(Example(name, source, prompt=prompt, completion=answer))
    return examples


def _dotted(doc: _Docstring) -> str:
    return f"{doc.module}.{doc.name}" if doc.name else doc.module


class _Names:
    """Gives the second bearer of a name (a property's setter, an overload) a number."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def unique(self, name: str) -> str:
        n, candidate = 1, name
        while candidate in self._given:
            n += 1
            candidate = f"{name} [{n}]"
        self._given.add(candidate)
        return candidate


def _chosen(modules: Iterable[str]) -> list[tuple[str, list[_Docstring]]]:
    """The docstrings of the chosen top-level modules, by module in alphabetical order."""
    modules = list(modules)
    known = _module_files()
    without = {m[1:] for m in modules if m.startswith("-")}
    wanted = {m for m in modules if not m.startswith("-")}
    if without and wanted:
        raise UserError("docstrings: name the modules to take or, with '-', to leave out, not both")
    for module in sorted(without | wanted):
        if module not in known:
            raise UserError(
                f"docstrings: there is no top-level standard module {module!r}"
                f"{nearest(module, known)}"
            )
    cached = _cached()
    if wanted and cached is None:  # a few modules are quick to read
        return [(top, _scan(top)) for top in sorted(wanted)]
    everything = _all_docstrings() if cached is None else cached
    return [(t, d) for t, d in everything.items() if (t in wanted if wanted else t not in without)]


@functools.cache
def _module_files() -> dict[str, list[Path]]:
    """Top-level public modules in alphabetical order, each with its source files."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        name = path.name.removesuffix(".py")
        if name.startswith("_") or name in _LEFT_OUT or not name.isidentifier():
            continue
        if path.suffix == ".py":
            found.setdefault(name, []).append(path)
        elif (path / "__init__.py").exists():
            inner = sorted(path.rglob("*.py"))
            found[name] = [p for p in inner if not _TESTS & set(p.relative_to(root).parts)]
    return found


def _scan(top: str) -> list[_Docstring]:
    """The docstrings of one top-level module, submodules included, in the order of the source."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[_Docstring] = []
    for path in _module_files()[top]:
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue  # a template, or a file this user may not read: no docstrings from it
        found += _of_node(tree, module, "module", "")
    return found


def _of_node(node: ast.AST, module: str, kind: str, name: str) -> Iterator[_Docstring]:
    """The docstring of a module, class or function, and of the public ones within it."""
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    text = ast.get_docstring(node, clean=False)
    if text:
        yield _Docstring(module, kind, name, inspect.cleandoc(text).strip())
    if kind in ("function", "method"):
        return
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        inner = "class" if isinstance(child, ast.ClassDef) else ("method" if name else "function")
        yield from _of_node(child, module, inner, f"{name}.{child.name}" if name else child.name)


def _cache_path() -> Path:
    key = f"1 {sys.version} {sysconfig.get_path('stdlib')}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return files.cache() / f"docstrings-{sys.implementation.cache_tag}-{digest}.json"


@functools.cache
def _all_docstrings() -> dict[str, list[_Docstring]]:
    """Every module's docstrings, scanned, and cached where the user has a cache folder."""
    found = {top: _scan(top) for top in _module_files()}
    with contextlib.suppress(UserError):  # not writable: scans again
        files.write_json(_cache_path(), found)
    return found


@functools.cache
def _cached() -> dict[str, list[_Docstring]] | None:
    """What an earlier scan by this Python has left, or None."""
    try:
        stored = files.read_json(_cache_path())
        return {top: [_Docstring(*doc) for doc in found] for top, found in stored.items()}
    except (UserError, OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return None  # absent, or not what this version writes
