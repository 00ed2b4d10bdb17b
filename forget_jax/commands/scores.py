"""The table of scores of a run: made once, filled chunk by chunk, checked before it is used."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands.workdir import Workdir
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.lm import decoder, lora
from forget_jax.progress import Progress
from forget_jax.scoring import scorer, store


class Table:
    """scores.zarr of one run and the examples that are its columns."""

    def __init__(
        self, work: Workdir, models: Sequence[str], encoded: Sequence[Encoded], score: ConfigDict
    ):
        self.path = work / "scores.zarr"
        self.models, self.encoded, self.score = models, encoded, score
        self.buckets = Buckets.of(encoded, score.buckets)
        made = work / "scores.json"  # marks a table made in full
        if not made.exists():
            names, sources = [e.name for e in encoded], [e.source for e in encoded]
            store.create(self.path, models, names, sources, score.chunk)
            files.write_json(made, {"models": len(models), "examples": len(encoded)})

    def fill(
        self,
        model: decoder.DecoderConfig,
        adapter: lora.LoRAConfig | None,
        params: Any,
        adapters_K: Any,
        names: Sequence[str],
    ) -> None:
        """Scores every chunk of the named models (adjacent rows) that is not scored yet."""
        first = list(self.models).index(names[0])
        rows = slice(first, first + len(names))
        done_N = (store.read(self.path).tokens.values[rows] >= 0).all(0)
        what = names[0] if len(names) == 1 else f"{len(names)} models"
        with Progress(f"score {what}", len(done_N), int(done_N.sum()), "example") as progress:
            for start in range(0, len(done_N), self.score.chunk):
                columns = slice(start, start + self.score.chunk)
                if done_N[columns].all():
                    continue
                chunk = self.encoded[columns]
                before = int(done_N.sum())
                nll_KxN = scorer.score(
                    model,
                    adapter,
                    params,
                    adapters_K,
                    chunk,
                    self.buckets,
                    self.score.rows,
                    self.score.packing,
                    on_batch=functools.partial(_moved, progress, before),
                )
                tokens_KxN = np.tile(np.array([e.tokens for e in chunk], np.int32), (len(names), 1))
                store.write(self.path, rows, columns, nll_KxN, tokens_KxN)
                done_N[columns] = True


def _moved(progress: Progress, before: int, done: int) -> None:
    progress.at(before + done)


def check_complete(scored: xr.Dataset) -> None:
    """Raises where an example lacks a score: no matrix is built from such a table."""
    missing = int((scored.tokens.values < 0).sum())
    if missing:
        raise UserError(f"{missing} scores are missing; start the same command again: it resumes")


def stack(adapters: Sequence[Any]) -> Any:
    """Adapters of one shape with a leading axis."""
    return jax.tree.map(lambda *x: np.stack(x), *adapters)
