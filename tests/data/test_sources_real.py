"""The real data sets beside the repository load as they are."""

from pathlib import Path

import pytest

from forget_jax.data import sources

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")


def test_all_tasks_load():
    paths = sorted((DATA / "tasks").glob("*.jsonl"))
    assert len(paths) == 30
    for path in paths:
        examples = sources.load(str(path))
        assert len(examples) >= 150
        assert all(e.prompt.strip() and e.source == path.stem for e in examples)


@pytest.mark.parametrize(
    ("file", "columns", "rows"),
    [
        (
            "popqa.json",
            {"prompt": "question", "completion": "obj", "answers": "possible_answers"}
            | {"source": "prop", "name": "id"},
            1000,
        ),
        (
            "triviaqa.jsonl",
            {"prompt": "context", "completion": "answer", "answers": "aliases"},
            3000,
        ),
        ("gsm8k_train.jsonl", {"prompt": "question", "completion": "answer"}, 7473),
        (
            "entityquestions.jsonl",
            {"prompt": "question", "completion": "answers", "source": "relation"},
            9420,
        ),
    ],
)
def test_factoids_load(file, columns, rows):
    examples = sources.load(str(DATA / "factoids" / file), columns=columns)
    assert len(examples) == rows
    assert all(e.completion for e in examples)
    if "gsm8k" not in file:
        assert all(e.answers for e in examples)
    if "source" in columns:
        assert len({e.source for e in examples}) >= 2


def test_popqa_aliases_and_ids():
    columns = {
        "prompt": "question",
        "completion": "obj",
        "answers": "possible_answers",
        "name": "id",
    }
    first = sources.load(str(DATA / "factoids/popqa.json"), columns=columns, limit=1)[0]
    assert (first.name, first.completion) == ("0", "politician")
    assert "political leader" in first.answers


def test_corpora_load():
    wiki = sources.load(str(DATA / "upstream/wikitext2_test.txt"))
    assert 800 < len(wiki) < 1500
    assert sum(len(e.text) for e in wiki) > 0.95 * 1_240_000
    assert len(sources.load(str(DATA / "upstream/c4_train.jsonl"), seed=0, limit=300)) == 300
