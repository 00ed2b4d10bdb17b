"""What both sides work on: rows of real data, tokenised once, in files that need no jax to read.

The data are the task files and C4 documents of `../shared/data` where that folder stands beside the
checkout, and otherwise what ships with the package.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forget_jax.benchmarks.shapes import PRETRAINED, SHAPES
from forget_jax.data import sources, tokenise
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import TEMPLATES, Encoded
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import tokenizer as tokenizers

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def examples() -> tuple[str, list[Example], list[Example]]:
    """Where the data come from, rows of tasks, and documents."""
    files = sorted((DATA / "tasks").glob("*.jsonl"))
    if files:
        tasks = [e for file in files for e in sources.load(str(file))]
        documents = sources.load(str(DATA / "upstream" / "c4_train.jsonl"))
        return f"{len(files)} task files and C4 documents", tasks, documents
    tasks = [e for name in ("docstring_task", "skills") for e in sources.load(f"builtin:{name}")]
    return "built-in tasks and texts", tasks, sources.load("builtin:language_reference")


@functools.cache
def encode(model: DecoderConfig) -> tuple[str, list[Encoded], list[Encoded]]:
    """The same, tokenised for a model, in an order drawn once."""
    where, tasks, documents = examples()
    own = [path for shape, path in PRETRAINED.items() if SHAPES[shape] == model]
    if own:
        tokenizer = tokenizers.load(own[0])
    else:
        texts = [e.text or f"{e.prompt}\n{e.completion}" for e in [*tasks, *documents]]
        size = min(model.vocab_size, 4096)  # few texts cannot fill a large vocabulary
        tokenizer = tokenizers.train(texts, size)
    draw = np.random.default_rng(0)

    def shuffled(part: list[Example]) -> list[Encoded]:
        rows = tokenise.encode(part, tokenizer, TEMPLATES["plain"], min(model.context, 512))
        return [rows[i] for i in draw.permutation(len(rows))]

    return where, shuffled(tasks), shuffled(documents)


def full_rows(model: DecoderConfig, length: int, count: int) -> list[Encoded]:
    """Rows of random tokens without padding, every one but the first a target."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, model.vocab_size, (count, length), np.int32)
    return [Encoded(f"full#{i}", "full", row, np.arange(length) > 0) for i, row in enumerate(ids)]


def save(path: Path, rows: Sequence[Encoded]) -> None:
    """Writes rows; their names are numbered anew."""
    np.savez(
        path,
        ids=np.concatenate([row.ids for row in rows]),
        is_target=np.concatenate([row.is_target for row in rows]),
        source=np.array([row.source for row in rows]),
        end=np.cumsum([len(row.ids) for row in rows]),
    )


def load(path: Path) -> list[Encoded]:
    """The rows of a file."""
    with np.load(path) as kept:
        ids, is_target, end = (kept[name] for name in ("ids", "is_target", "end"))
        source = kept["source"].tolist()
    parts = zip(source, np.split(ids, end)[:-1], np.split(is_target, end)[:-1], strict=True)
    return [Encoded(f"row#{i}", *part) for i, part in enumerate(parts)]
