"""How many upstream examples to measure for a new task, and which.

Which: a greedy optimal design on the Gaussian factor model of the train rows. Measuring column c
turns the covariance C of a row's factors into C − C l lᵀ C / (noise_c + lᵀ C l), whatever its value
(l: the column's loadings); each step takes the column that lowers most the expected error of what
is to be decided: the whole row, its mean, or which examples are forgotten most.

How many: train rows, each predicted from the others with more and more entries known, show the
error to expect and how far it varies from task to task.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.associations import checks, evaluation, metrics
from forget_jax.associations.completion import complete, gaussian, resolve
from forget_jax.associations.nomination import held_out_errors, mean_squares
from forget_jax.errors import UserError

Array = jax.Array
# What a design can be for, and the metric (of `metrics.score`) that says how well it served.
AIMS = {"row": "rmse", "mean": "row_mean_error", "top": "precision_at_k"}


@functools.partial(jax.jit, static_argnames=("n_probes", "aim", "k"))
def _greedy(
    z_MxN: Array,
    allowed_N: Array,
    target_N: Array,
    options: gaussian.Settings,
    *,
    n_probes: int,
    aim: str,
    k: int,
) -> tuple[Array, Array]:
    """Numbers of the chosen columns (`n_probes` of them, int32), the most useful first.

    With them, whether all that they were chosen by is finite.
    """
    state = gaussian.prepare(z_MxN, options)
    load_kxN, noise_N = state.loadings_kxN, state.noise_N
    weight_N = target_N.astype(z_MxN.dtype)
    if aim == "mean":
        mean_k = load_kxN @ weight_N / weight_N.sum()
        wanted = jnp.outer(mean_k, mean_k)
    else:
        if aim == "top":
            # An entry matters by how probable it is to lie at the border of the k highest.
            deviation_N = jnp.sqrt((load_kxN**2).sum(0) + noise_N)
            masked_N = jnp.where(target_N, state.mean_N, -jnp.inf)
            border = jax.lax.top_k(masked_N, k)[0][-1]
            weight_N = weight_N * jax.scipy.stats.norm.pdf(border, state.mean_N, deviation_N)
        wanted = (load_kxN * weight_N) @ load_kxN.T

    def step(i: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        covariance, free_N, chosen = carry
        moved_kxN = covariance @ load_kxN
        total_N = noise_N + (moved_kxN * load_kxN).sum(0)
        gain_N = (moved_kxN * (wanted @ moved_kxN)).sum(0) / total_N
        best = jnp.argmax(jnp.where(free_N, gain_N, -1))
        moved_k = moved_kxN[:, best]
        covariance = covariance - jnp.outer(moved_k, moved_k) / total_N[best]
        return covariance, free_N.at[best].set(False), chosen.at[i].set(best)

    start = (jnp.eye(load_kxN.shape[0]), allowed_N, jnp.zeros(n_probes, jnp.int32))
    covariance, _, chosen = jax.lax.fori_loop(0, n_probes, step, start)
    return chosen, jnp.isfinite(covariance).all() & jnp.isfinite(wanted).all()


def choose_probes(
    train: Any,
    n_probes: int,
    aim: str = "row",
    allowed: Any = None,
    target: Any = None,
    k: int = 50,
    **options: Any,
) -> np.ndarray:
    """Which columns to measure for a new task, most useful first.

    Args:
      train: M × N train rows, float, in any unit; NaN entries are first completed.
      n_probes: how many.
      aim: what is to be decided: the whole `row`, its `mean`, or the `top` k most forgotten.
      allowed: boolean N, columns that may be measured (default: all).
      target: boolean N, columns the decision is about (default: all).
      k: of the aim `top`.
      **options: `rank`, `offset` and `pooled` of the `gaussian` method (by default 5, 4 and 10).

    Returns:
      `n_probes` column numbers (int32), all different.

    Raises:
      UserError: an unknown aim, more probes than allowed columns, or masks of another length.
    """
    z_MxN = checks.as_matrix(train, "the matrix of train rows")
    if aim not in AIMS:
        raise UserError(f"unknown aim {aim!r}: choose from {', '.join(AIMS)}")
    n = z_MxN.shape[1]
    masks = [
        np.ones(n, bool) if mask is None else np.asarray(mask, bool) for mask in (allowed, target)
    ]
    if any(mask.shape != (n,) for mask in masks) or not masks[1].any():
        raise UserError(f"`allowed` and `target` must be masks of {n} columns, with a target in it")
    if not 1 <= n_probes <= masks[0].sum():
        raise UserError(f"{n_probes} probes of {masks[0].sum()} columns that may be measured")
    if np.isnan(z_MxN).any():
        z_MxN = complete(z_MxN, ~np.isnan(z_MxN), "gaussian")
    options = {"rank": min(5, max(z_MxN.shape[0] - 2, 1)), "pooled": 10.0} | options
    chosen, finite = _greedy(
        jnp.asarray(z_MxN, jnp.float32),
        *map(jnp.asarray, masks),
        resolve("gaussian", options, *z_MxN.shape)[1],
        n_probes=n_probes,
        aim=aim,
        k=min(k, int(masks[1].sum())),
    )
    if not finite:
        raise UserError(
            "probes cannot be chosen from these train rows: look for entries that are far beyond "
            "the others, and set them to NaN (missing)"
        )
    return np.asarray(chosen)


def expected_errors(
    train: Any,
    counts: Sequence[int] = (5, 10, 20, 30, 50, 100),
    confidence: float = 0.9,
    seeds: int = 5,
    method: str = "mixture",
    groups: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """The error to expect of a new task's row for each number of random probes.

    Args:
      train: M × N train rows, float, in any unit, NaN where missing.
      counts: numbers of probes; those that are not below N are passed over.
      confidence: of the bound and the interval.
      seeds: draws of the columns.
      method, **options: as for `complete`.
      groups: by name boolean masks of columns, of whose means errors are wanted too.

    Returns:
      One record for each count: `observed`, `rmse` (over all held-out entries), `low` and `high`
      (the central `confidence` of held-out tasks lie between), and `bound`, which a new task like
      the train tasks stays below with probability `confidence` (the split-conformal quantile over
      tasks; infinite where there are too few train tasks to promise it). Errors are in the unit of
      the matrix; all are NaN where no entry is left to score or a prediction is not finite. With
      `groups` also `means`: by group `rmse` and `bound` of the error of its mean, in which probes
      count as measured; NaN without an entry to score.

    Raises:
      UserError: fewer than four train rows, or a confidence outside (0, 1).
    """
    train_MxN = checks.as_matrix(train, "the matrix of train rows")
    if train_MxN.shape[0] < 4:
        raise UserError(f"expected errors need at least 4 train rows, not {len(train_MxN)}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, not {confidence}")
    draws = range(30_000, 30_000 + seeds)
    masks = {name: np.asarray(mask, bool) for name, mask in (groups or {}).items()}
    if any(mask.shape != train_MxN.shape[1:] for mask in masks.values()):
        raise UserError(f"groups must be masks of {train_MxN.shape[1]} columns")
    records = []
    for count in counts:
        if count >= train_MxN.shape[1]:
            continue
        errors = held_out_errors(train_MxN, count, draws, method, options)
        square_M = mean_squares(errors)
        root_M = np.sqrt(square_M)
        tail = (1 - confidence) / 2
        finite = square_M.size and np.isfinite(square_M).all()
        low, high = np.quantile(root_M, (tail, 1 - tail)) if finite else (np.nan, np.nan)
        record: dict[str, Any] = {
            "observed": int(count),
            "rmse": float(np.sqrt(square_M.mean())) if finite else float("nan"),
            "low": float(low),
            "high": float(high),
            "bound": _bound(root_M, confidence) if finite else float("nan"),
        }
        if groups is not None:
            record["means"] = {
                name: _mean_error(errors[..., mask], train_MxN[:, mask], confidence)
                for name, mask in masks.items()
            }
        records.append(record)
    return records


def _bound(error_M: np.ndarray, confidence: float) -> float:
    """What a further task stays below (split conformal); infinite where tasks are too few."""
    place = int(np.ceil((error_M.size + 1) * confidence))
    return float(np.sort(error_M)[place - 1]) if place <= error_M.size else float("inf")


def _mean_error(errors_GxMxn: np.ndarray, z_Mxn: np.ndarray, confidence: float) -> dict[str, float]:
    """Errors of the mean of a group's columns; what is not missing and has no error was probed."""
    known_M = (~np.isnan(z_Mxn)).sum(1)
    scored_M = (known_M > 0) & ~np.isnan(errors_GxMxn).all((0, 2))
    error_GxM = np.nansum(errors_GxMxn[:, scored_M], 2, dtype=np.float64) / known_M[scored_M]
    square_M = (error_GxM**2).mean(0)
    if not square_M.size or not np.isfinite(square_M).all():
        return dict.fromkeys(("rmse", "bound"), float("nan"))
    bound = _bound(np.sqrt(square_M), confidence)
    return {"rmse": float(np.sqrt(square_M.mean())), "bound": bound}


def probes_needed(
    records: Sequence[Mapping[str, Any]], target_rmse: float, group: str | None = None
) -> int | None:
    """The smallest number of probes whose bound meets the target; None if none of them does.

    Args:
      records: as `expected_errors` returns, the fewest probes first.
      target_rmse: in the unit of the matrix.
      group: whose mean is to be that precise; None asks it of a row's entries.
    """
    bounds = [r if group is None else r["means"][group] for r in records]
    met = zip(records, bounds, strict=True)
    return next((int(r["observed"]) for r, b in met if b["bound"] <= target_rmse), None)


def compare_probes(
    train: Any,
    test: Any,
    n_probes: int,
    halves: Sequence[int],
    aim: str = "row",
    method: str = "mixture",
    k: int = 50,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Chosen against random probes, scored on a half of the columns that neither may probe.

    Probed columns leave the scored set, and a design likes the columns that are hardest to predict;
    only columns out of reach of both tell which design predicts better.

    Args:
      train: M × N train rows, float, in any unit, NaN where missing.
      test: T × N other rows of the same matrix, to be predicted from their probes.
      n_probes: how many of each kind, below N / 2.
      halves: seeds, one for each random half of the columns (and its random probes); at least two.
      aim: as for `choose_probes`, which chooses with its default settings.
      method, **options: what predicts, as for `complete`.
      k: of the aim `top` and of `precision_at_k`, at most a quarter of the columns.

    Returns:
      For each metric (`rmse`, `precision_at_k`, `row_mean_error`): the paired difference chosen −
      random over halves, as `mean` with its 95 % interval `low`, `high`, `p` and `seeds`, and both
      means as `chosen` and `random`.

    Raises:
      UserError: matrices of different widths, too many probes, one half only, an unknown aim,
        method or setting.
    """
    train, test = (
        checks.as_matrix(train, "the matrix of train rows"),
        checks.as_matrix(test, "the matrix of test rows"),
    )
    n = train.shape[1]
    if test.shape[1] != n:
        raise UserError(f"train rows of {n} columns, test rows of {test.shape[1]}")
    k = max(min(k, n // 4), 1)
    values: dict[str, list[dict[str, float]]] = {"chosen": [], "random": []}
    for half in halves:
        generator = np.random.default_rng(half)
        target_N = np.zeros(n, bool)
        target_N[generator.permutation(n)[: n // 2]] = True
        columns = {
            "chosen": choose_probes(train, n_probes, aim, ~target_N, target_N, k),
            "random": generator.choice(np.flatnonzero(~target_N), n_probes, replace=False),
        }
        truth_TxN = np.where(target_N, test, np.nan)
        for name, columns_S in columns.items():
            predicted = evaluation.predict_split(
                train, test, columns_S[None], [half], method, options
            )[0]
            values[name].append(metrics.score(truth_TxN, predicted, 0.0, k))
    found = {}
    for metric in AIMS.values():
        a, b = (np.array([v[metric] for v in values[name]]) for name in ("chosen", "random"))
        found[metric] = evaluation.interval(a - b) | {
            "chosen": float(a.mean()),
            "random": float(b.mean()),
        }
    return found
