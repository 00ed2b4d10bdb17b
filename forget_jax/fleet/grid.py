"""A grid of ranks and steps on one task: the points that scaling laws are fitted to.

All ranks and seeds train together: a lower rank is a higher one whose other ranks stay zero. With a
learning rate that is constant after warm-up, every number of steps is a point of one trajectory.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import pandas as pd

from forget_jax import files
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.fleet.cells import Cell
from forget_jax.fleet.fleet import Fleet, all_trained, journal
from forget_jax.lm import lora
from forget_jax.lm.model import Adapters
from forget_jax.runs.once import keep, kept
from forget_jax.runs.progress import Progress
from forget_jax.scoring import divergence
from forget_jax.scoring.stream import Layout
from forget_jax.training.loop import train
from forget_jax.training.step import scale_updates
from forget_jax.types import Tree


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is measured at every mark.

    Attributes:
      task: held-out rows of the task, for l_ft.
      upstream: examples the base knew, for l_f.
      metric: which of `divergence.MEASURES` l_f is.
    """

    task: Sequence[Encoded]
    upstream: Sequence[Encoded]
    metric: str


def points(
    fleet: Fleet, cells: Sequence[Cell], marks: Sequence[int], measured: Measured
) -> pd.DataFrame:
    """Trains the cells together and measures them after each of the marks; resumes mark by mark.

    Args:
      fleet: its adapters have the highest rank of all cells, and a scaling of 1.
      cells: at `rank` and `seed`; the tasks' own ranks and scales, and the steps of the last mark.
      marks: numbers of steps, rising.

    Returns:
      A row a cell and mark: P (trained parameters), steps, rank, seed, run, and in nats a token
      l_ft, kl_ft (divergence from the base on the task's held-out rows), l_f and every measure.
    """
    per_rank = parameters_per_rank(fleet)
    tasks, found = [cell.task for cell in cells], []
    scale_M = jnp.array([task.scale for task in tasks], jnp.float32)
    paths = {mark: fleet.work / "points" / f"{mark}.json" for mark in marks}
    for mark, path in paths.items():
        points = kept(path)
        if points is None:
            for later in (m for m in marks if m > mark):  # lost in the middle: from there on again
                files.remove(paths[later])
            what = f"train {len(cells)} runs to {mark}"
            with journal(fleet, "scaling", what) as (checkpoints, listener):
                checkpoints.forget_after(mark)
                outcome = train(
                    fleet.base.model,
                    fleet.recipe,
                    tasks,
                    checkpoints,
                    until=mark,
                    listener=listener,
                )
            trained = scale_updates(all_trained(outcome), scale_M)
            figures = _figures(fleet, trained, measured, mark)
            points = keep(
                path,
                [
                    {
                        "P": per_rank * int(cell.at["rank"]),
                        "steps": mark,
                        **cell.at,
                        "run": f"r{cell.at['rank']}s{cell.at['seed']}",
                        **point,
                    }
                    for cell, point in zip(cells, figures, strict=True)
                ],
            )
            fleet.work.tick()
        found += points
    return pd.DataFrame(found)


def parameters_per_rank(fleet: Fleet) -> int:
    """Trained parameters of an adapter of rank 1."""
    config = fleet.recipe.lora
    assert config is not None
    params = fleet.base.model.params
    one = jax.eval_shape(lambda: lora.init(config, params, jax.random.key(0)))
    return sum(x.size for x in jax.tree.leaves(one)) // config.rank


def _figures(fleet: Fleet, trained: Tree, measured: Measured, mark: int) -> list[dict[str, float]]:
    """Every run's figures after `mark` steps, each a mean over tokens, in nats."""
    assert fleet.recipe.lora is not None
    model, score = fleet.base.model, fleet.score
    adapters_K = Adapters(fleet.recipe.lora, trained)
    tokens = sum(e.tokens for e in measured.upstream)

    def layout(encoded: Sequence[Encoded]) -> Layout:
        return Layout.of(encoded, Buckets.of(encoded, score.buckets), score.rows)

    N = len(measured.upstream)
    with Progress(f"measure at step {mark}", N, unit="example") as progress:
        learned = divergence.diverge(model, adapters_K, measured.task, layout(measured.task))
        own = sum(e.tokens for e in measured.task)
        l_ft, kl_ft = (learned[name].sum(1) / own for name in ("nll", "kl"))
        sums = divergence.diverge(
            model, adapters_K, measured.upstream, layout(measured.upstream), progress.at
        )
    means = {name: values.sum(1) / tokens for name, values in sums.items()}
    return [
        {
            "l_ft": float(l_ft[k]),
            "kl_ft": float(kl_ft[k]),
            "l_f": float(means[measured.metric][k]),
            **{name: float(values[k]) for name, values in means.items()},
        }
        for k in range(len(l_ft))
    ]
