"""Strategies side by side: every task fine-tuned again with other rows mixed in.

The candidates are a share of the matrix's columns; the others measure forgetting and are never
replayed. All fine-tunes train together.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from forget_jax import associations
from forget_jax.associations.matrix import Matrix
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import cells as grids
from forget_jax.fleet.cells import BASE, Cell
from forget_jax.fleet.fleet import ADVICE, NOTHING, Fleet, Revision, Scored, train_and_score
from forget_jax.randomness import generator
from forget_jax.replay.settings import Replay
from forget_jax.replay.strategies import Known


@dataclasses.dataclass(frozen=True)
class Upstream:
    """The upstream examples of a comparison, in three parts.

    Attributes:
      column_J: the matrix column of each example; its own number where there is no matrix.
      trained: as they are replayed.
      scored: as they are measured.
      pool: which may be replayed.
      held: which measure forgetting.
      observed: which of the pool the prediction may see.
      side: what `auto` may know of the examples beside, for each kind its features (p × J).
    """

    column_J: np.ndarray
    trained: Sequence[Encoded]
    scored: Sequence[Encoded]
    pool: np.ndarray
    held: np.ndarray
    observed: np.ndarray
    side: Sequence[np.ndarray] = ()

    @classmethod
    def split(
        cls,
        matrix: Matrix | None,
        trained: Sequence[Encoded],
        scored: Sequence[Encoded],
        replay: Replay,
        seed: int,
    ) -> "Upstream":
        """The parts, drawn by the seed.

        Args:
          matrix: whose columns the examples are; None where no strategy asks one.
          trained, scored: the same examples, as they are replayed and as they are measured.
          replay: the share that may be replayed, and how many of these are observed.

        Raises:
          UserError: an example that is no column of the matrix, or a text that would be replayed
            and measured.
        """
        columns = [e.name for e in trained] if matrix is None else matrix.examples
        where = {name: j for j, name in enumerate(columns)}
        missing = [e.name for e in trained if e.name not in where]
        if missing:
            raise UserError(
                f"{len(missing)} upstream examples are no columns of the matrix, {missing[0]} "
                "first; give the upstream (and data.shuffle) that the matrix was made with"
            )
        rng = generator(seed, "replay pool")
        pool, held = np.split(rng.permutation(len(trained)), [round(len(trained) * replay.pool)])
        observed = rng.choice(pool, min(replay.observed, len(pool)), replace=False)
        column_J = np.array([where[e.name] for e in trained])
        found = cls(column_J, trained, scored, pool, held, observed)
        found.check_apart()
        return found

    def check_apart(self) -> None:
        """Refuses a pool that shares a text with what measures forgetting.

        Raises:
          UserError: names two examples of one text, one on each side.
        """
        measured = {self.trained[i].ids.tobytes(): self.trained[i].name for i in self.held}
        for i in self.pool:
            one = self.trained[i]
            if one.ids.tobytes() in measured:
                raise UserError(
                    f"upstream examples {one.name} and {measured[one.ids.tobytes()]} are one text: "
                    "what is replayed must not measure forgetting; take one of them out"
                )

    @property
    def candidates(self) -> list[Encoded]:
        """The pool, as it is replayed."""
        return [self.trained[i] for i in self.pool]


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a comparison measured.

    Attributes:
      frame: a row a fine-tune: its coordinates, and `z`, `z_pool` (NaN where it was not measured)
        and one `z: KIND` for each kind of held-out examples (the source up to its first slash),
        means of examples in nats a token.
      base_nll: mean NLL of the base on the examples that measure forgetting, nats a token.
      scored: what the fleet left.
    """

    frame: pd.DataFrame
    base_nll: float
    scored: Scored


def known(
    matrix: Matrix | None,
    task: str,
    upstream: Upstream,
    method: str,
    base_nll_P: np.ndarray | None = None,
    gradient_PxF: np.ndarray | None = None,
) -> Known:
    """What is known of a task's forgetting of the P candidates.

    The prediction sees the task's own row at the observed examples only, and the other tasks' rows;
    without a matrix there is none.
    """
    pool = upstream.pool
    if matrix is None:
        nothing = np.full(len(pool), np.nan)
        return Known(nothing, nothing[None], nothing, base_nll_P, gradient_PxF)
    row = matrix.rows((task,))[0]
    own_J = np.asarray(matrix.z_MxN)[row, upstream.column_J]
    others, predicted_J = completed(matrix, task, upstream, own_J[upstream.observed], method)
    return Known(own_J[pool], others[:, pool], predicted_J[pool], base_nll_P, gradient_PxF)


def completed(
    matrix: Matrix, task: str, upstream: Upstream, seen_S: np.ndarray, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """The other tasks' rows, and the task's own as they and its observed entries predict it."""
    row = matrix.rows((task,))[0]
    others_MxJ = np.delete(np.asarray(matrix.z_MxN)[:, upstream.column_J], row, axis=0)
    given = upstream.observed[None], seen_S[None]
    side = upstream.side if method == "auto" else ()
    return others_MxJ, associations.predict_rows(others_MxJ, *given, method, side=side)[0]


def compare(
    fleet: Fleet,
    grid: Sequence[Cell],
    upstream: Upstream,
    measure_pool: bool = False,
    revision: Revision = NOTHING,
) -> Compared:
    """Trains every cell, and measures forgetting under each.

    Args:
      measure_pool: measure the candidates too.
      revision: of cells whose replayed rows are chosen while they train.

    Raises:
      UserError: a cell's loss was not finite.
    """
    held = [upstream.scored[i] for i in upstream.held]
    pool = [upstream.scored[i] for i in upstream.pool] if measure_pool else []
    tasks = [cell.task for cell in grid]
    done = train_and_score(fleet, "replay", tasks, [*held, *pool], revision)
    if done.failed:
        raise UserError(
            f"strategies cannot be compared without {grids.failed(grid, done.failed)}; {ADVICE}"
        )
    assert done.table is not None
    tokens = done.table.tokens.values[0]
    nll = dict(zip(done.table.model.values.tolist(), done.table.nll_sum.values, strict=True))
    H = len(held)
    base_N = nll[BASE] / tokens
    kinds = np.array([e.source.partition("/")[0] for e in held])

    def figures(cell: Cell) -> dict[str, float]:
        z_N = nll[cell.name] / tokens - base_N
        by_kind = {f"z: {k}": _mean(z_N[:H][kinds == k]) for k in dict.fromkeys(kinds)}
        return {"z": _mean(z_N[:H]), "z_pool": _mean(z_N[H:]), **by_kind}

    frame = pd.DataFrame([{**cell.at, "ratio": cell.arm.ratio, **figures(cell)} for cell in grid])
    if not np.isfinite(frame.z).any():
        raise UserError("no forgetting is finite: the base or every fine-tune gives no numbers")
    return Compared(frame, _mean(base_N[:H]), done)


def _mean(values: np.ndarray) -> float:
    """Over what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    return float(values[finite].mean()) if finite.any() else np.nan
