"""What `mix` draws from: the candidates, and by what each is weighed."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from forget_jax import associations
from forget_jax.associations.matrix import Matrix
from forget_jax.commands import matrices
from forget_jax.commands.settings import Mix
from forget_jax.data import reading
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.errors import UserError
from forget_jax.lm.hf import peft
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Adapters
from forget_jax.randomness import generator
from forget_jax.replay.strategies import Known, coverage
from forget_jax.runs.progress import Progress
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout


def strategy(settings: Mix) -> str:
    """How candidates are weighed: as said, or the best that what is given allows."""
    if settings.mix.strategy != "auto":
        return settings.mix.strategy
    if settings.matrix.path and settings.adapter:
        return "predicted"
    if settings.matrix.path:
        return "column_mean"
    return "measured" if settings.adapter and settings.pool else "random"


def generates(settings: Mix) -> bool:
    return not settings.pool and not settings.matrix.path


def pool_of(settings: Mix) -> list[Example]:
    """The candidates: those given, or the columns of the matrix where its run kept their rows."""
    if settings.pool:
        return reading.load(settings.pool, settings.data)
    if not settings.matrix.path:
        return []
    matrix = matrices.load(settings.matrix.path)
    where = matrices.place(settings.matrix.path).parent / matrices.EXAMPLES
    if not where.exists():
        raise UserError(
            f"beside {settings.matrix.path} lie no texts of its examples: give pool, the rows that "
            "its columns are"
        )
    plain = dataclasses.replace(settings.data, columns=(), shuffle=-1)
    rows = {e.name: e for e in reading.load((str(where),), plain)}
    return [rows[name] for name in matrix.examples if name in rows]


def without(pool: Sequence[Example], task: Sequence[Example]) -> list[Example]:
    """The candidates that are no rows of the task; says how many are.

    Raises:
      UserError: all are.
    """
    own = {reading.whole(e) for e in task}
    left = [e for e in pool if reading.whole(e) not in own]
    if not left:
        raise UserError("all candidates are rows of the task: give other rows as pool")
    if len(left) < len(pool):
        print(f"{len(pool) - len(left)} candidates are rows of the task: left out", file=sys.stderr)
    return left


@dataclasses.dataclass(frozen=True)
class Weighed:
    """What is known of the candidates.

    Attributes:
      value_J: by which they are drawn; NaN for never.
      z_J: expected forgetting of each without replay, nats a token; None where nothing says.
    """

    value_J: np.ndarray
    z_J: np.ndarray | None = None


def weigh(
    settings: Mix,
    strategy: str,
    pool: Sequence[Example],
    base: Base | None,
    reader: Reader | None,
) -> Weighed:
    """The value of every candidate under a strategy."""
    if strategy == "random":
        return Weighed(np.zeros(len(pool)))
    if strategy == "measured":
        assert base is not None and reader is not None
        measured = _measured(settings, base, reader, pool)
        return Weighed(measured.z.to_numpy(), measured.z.to_numpy())
    matrix = matrices.load(settings.matrix.path)
    columns = _columns(matrix, pool)
    others_MxJ = np.asarray(columns.z_MxN)
    if strategy == "column_mean":
        mean_J = np.nanmean(others_MxJ, axis=0)
        return Weighed(mean_J, mean_J)
    assert base is not None and reader is not None
    rng, wanted = generator(settings.mix.seed, "random probes"), settings.mix.observed
    probes = rng.choice(len(pool), min(wanted, len(pool)), replace=False)
    measured = _measured(settings, base, reader, [pool[j] for j in probes])
    _check_same_base(settings, measured)
    options: dict[str, Any] = {}
    if settings.mix.method == "auto":
        options["side"] = tuple(matrices.side(settings.matrix.path, columns).values())
    given = probes[None], measured.z.to_numpy()[None]
    z_J = associations.predict_rows(others_MxJ, *given, settings.mix.method, **options)[0]
    if strategy == "predicted":
        return Weighed(z_J, z_J)
    return Weighed(coverage(Known(np.full(len(pool), np.nan), others_MxJ, z_J)), z_J)


def _columns(matrix: Matrix, pool: Sequence[Example]) -> Matrix:
    """The candidates' columns of the matrix.

    Raises:
      UserError: a candidate that is no column.
    """
    where = {name: j for j, name in enumerate(matrix.examples)}
    if missing := [e.name for e in pool if e.name not in where]:
        raise UserError(
            f"{len(missing)} of {len(pool)} candidates are no columns of the matrix, {missing[0]} "
            "first; give the upstream (and data.shuffle) that the matrix was made with, or leave "
            "pool empty to take its columns"
        )
    return matrix.columns([where[e.name] for e in pool])


def _measured(
    settings: Mix, base: Base, reader: Reader, examples: Sequence[Example]
) -> pd.DataFrame:
    """By example: forgetting under the adapter `z`, the base's `nll` (nats a token), `tokens`."""
    adapter = peft.load(settings.adapter, base.model, base.path)
    stacked = jax.tree.map(lambda x: x[None], adapter.tree)
    encoded, _ = reader.encode(examples, scored=True)
    if len(encoded) < len(examples):
        raise UserError(
            "candidates are scored whole: set data.too_long=truncate or left, and data.context so "
            "that none is dropped"
        )
    tokens = sum(len(e.ids) for e in encoded)
    print(
        f"scores {len(encoded)} candidates ({tokens:,} tokens) under the base and the adapter",
        file=sys.stderr,
    )
    layout = Layout.of(encoded, Buckets.of(encoded, settings.score.buckets), settings.score.rows)
    both = Adapters(adapter.config, stacked).with_base()
    with Progress("score candidates", len(encoded), unit="example") as progress:
        merge = likelihood.merges(base.model)
        nll_2xJ = likelihood.score(base.model, both, encoded, layout, progress.at, merge)
    targets = np.array([e.tokens for e in encoded])
    base_J, tuned_J = nll_2xJ / targets
    columns = {"z": tuned_J - base_J, "nll": base_J, "tokens": targets}
    return pd.DataFrame(columns, index=[e.name for e in encoded])


def _check_same_base(settings: Mix, measured: pd.DataFrame) -> None:
    """Refuses a matrix whose base read other tokens of the same examples, or gave them other NLLs.

    Raises:
      UserError: says how many, or by how much.
    """
    moved = matrices.base_moved(settings.matrix.path, measured[["nll", "tokens"]])
    if moved is None:
        return
    if others := len(moved.retokenised):
        raise UserError(
            f"{others} of {len(measured)} candidates have other numbers of target tokens than "
            "where the matrix was made; give the fields of data and the model it was made with"
        )
    if moved.is_another:
        raise UserError(
            f"the matrix is of another base: NLLs of the same examples differ by {moved.nll:.3f} "
            "nats a token (median); give the matrix of this base, or the data fields it was made "
            "with"
        )
