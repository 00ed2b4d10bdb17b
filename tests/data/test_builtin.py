"""The built-in corpora read well, are unique and disjoint where they say so, and never change."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from forget_jax.data import builtin, sources
from forget_jax.data.builtin import docstrings
from forget_jax.data.builtin.random_words import random_words
from forget_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def fails(name, *needles):
    with pytest.raises(UserError) as caught:
        builtin.load(name)
    for needle in needles:
        assert needle in str(caught.value), caught.value


@pytest.mark.parametrize("name", builtin.names())
def test_every_corpus_is_clean(name):
    examples = sources.load(f"builtin:{name}")
    assert len(examples) >= 300
    contents = [(e.text, e.prompt, e.completion) for e in examples]
    assert len(set(contents)) == len(contents)
    assert len({e.name for e in examples}) == len(examples)
    for e in examples:
        assert (e.text is None) != (e.completion is None)
        target = e.text if e.completion is None else e.completion
        assert target and target == target.strip(), e
        assert e.text is None or 80 <= len(e.text) <= 900, e
        assert e.prompt is None or (e.prompt.strip() and e.prompt == e.prompt.lstrip()), e


def test_language_reference_covers_its_topics():
    examples = builtin.load("language_reference")
    groups = Counter(e.source for e in examples)
    assert len(groups) >= 10
    assert groups["language_reference/other"] <= 0.1 * len(examples)
    lengths = sorted(len(e.text) for e in examples)
    assert lengths[len(lengths) // 2] > 450
    paragraphs = Counter(p for e in examples for p in e.text.split("\n\n") if len(p) > 200)
    assert max(paragraphs.values()) == 1


def test_docstrings_by_module():
    everything = builtin.load("docstrings")
    by_source = Counter(e.source for e in everything)
    assert len(by_source) > 100
    some = builtin.load("docstrings/json,logging")
    assert {e.source for e in some} == {"docstrings/json", "docstrings/logging"}
    others = builtin.load("docstrings/-json,-logging")
    assert not {e.text for e in some} & {e.text for e in others}
    assert {e.text for e in some} | {e.text for e in others} == {e.text for e in everything}
    named = {e.name: e for e in some}
    assert named["docstrings/json.load"].text.startswith("Deserialize ``fp``")


def test_docstring_task():
    rows = {e.prompt: e for e in builtin.load("docstring_task/json,textwrap")}
    row = rows["Module json.decoder, method JSONDecoder.decode:\n"]
    assert row.completion.startswith("Return the Python representation of ``s``")
    assert all("\n" not in e.completion for e in rows.values())
    assert len({e.completion for e in rows.values()}) == len(rows)
    assert row.source == "docstring_task/json"
    assert {e.source for e in rows.values()} == {"docstring_task/json", "docstring_task/textwrap"}


def test_facts_halves_share_no_key():
    for name in ("facts", "short_facts"):
        a, b = builtin.load(name), builtin.load(f"{name}/B")
        assert a == builtin.load(f"{name}/A")
        assert len(a) == len(b) == 2000
        assert len({e.prompt for e in a} | {e.prompt for e in b}) == 4000
        assert not {e.name for e in a} & {e.name for e in b}
    key = builtin.load("facts")[0].prompt.removeprefix("The value of key ").removesuffix(" is?")
    assert len(key) == 8
    assert set("".join(e.completion for e in builtin.load("facts"))) == set(
        "abcdefghijklmnopqrstuvwxyz0123456789"
    )


def test_random_words(tmp_path):
    prompt = "Memorize the following random-string passage: "
    for name, count in (("random_words", 50), ("random_words/25", 25)):
        example = builtin.load(name)[7]
        assert example.prompt.startswith(prompt)
        assert len(example.prompt.removeprefix(prompt).split()) == count
        assert len(example.completion.split()) == count
    path = tmp_path / "words"
    path.write_text("maladministrator\nrevindicate\n")
    row = random_words(10, rows=3, words_file=path)[2]
    assert set(row.completion.split()) == {"maladministrator", "revindicate"}
    with pytest.raises(UserError, match="cannot read the words file"):
        random_words(words_file=tmp_path / "absent")


def test_skills_may_be_chosen_or_left_out():
    every = {e.source for e in builtin.load("skills")}
    assert {e.source for e in builtin.load("skills/parity,addition")} == {
        "skill/parity",
        "skill/addition",
    }
    assert {e.source for e in builtin.load("skills/-parity")} == every - {"skill/parity"}


def test_unknown_names_say_the_nearest_and_list_all():
    fails("docstrngs", "did you mean docstrings?", "language_reference, docstrings")
    fails("skills/adition", "no skill 'adition'", "addition")
    fails("skills/addition,-parity", "not both")
    fails("skill/adition", "did you mean addition?")
    fails("skill", "addition", "no such skill")
    fails("facts/C", "facts/B")
    fails("random_words/many", "from 1 to 1000")
    fails("docstrings/jsn", "did you mean json?")
    fails("docstrings/json,-os", "not both")
    fails("", "does not exist")
    with pytest.raises(UserError, match="columns"):
        sources.load("builtin:facts", columns={"prompt": "x"})


def digest() -> str:
    every = hashlib.sha256()
    for name in builtin.names():
        every.update(repr(sources.load(f"builtin:{name}", seed=1, limit=300)).encode())
    return every.hexdigest()


def test_processes_with_other_hash_seeds_and_caches_agree(tmp_path):
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['digest']())"
    (tmp_path / "file").write_text("")  # nothing can be written below it
    for changed in ({"PYTHONHASHSEED": "1"}, {"XDG_CACHE_HOME": str(tmp_path / "file" / "x")}):
        env = os.environ | {"PYTHONHASHSEED": "2", "PYTHONPATH": str(ROOT)} | changed
        command = [sys.executable, "-c", code, __file__]
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == digest()


def forget_cached():
    docstrings._cached.cache_clear()
    docstrings._all_docstrings.cache_clear()


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of two modules and an empty cache folder."""
    some = {top: docstrings._module_files()[top] for top in ("json", "textwrap")}
    monkeypatch.setattr(docstrings, "_module_files", lambda: some)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_cached()
    yield docstrings._cache_path()
    forget_cached()


def test_the_scan_is_cached(small_library, monkeypatch):
    scanned = builtin.load("docstrings")
    assert small_library.exists()
    forget_cached()
    monkeypatch.setattr(docstrings, "_scan", None)  # from here on only the cache can answer
    assert builtin.load("docstrings") == scanned
    only = builtin.load("docstrings/json")
    assert only == [e for e in scanned if e.source == "docstrings/json"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"json": [[1]]}', '{"json": 3}'])
def test_a_broken_cache_is_replaced(small_library, content):
    scanned = builtin.load("docstrings")
    good = small_library.read_text()
    small_library.write_text(content)
    forget_cached()
    assert builtin.load("docstrings") == scanned
    assert small_library.read_text() == good
