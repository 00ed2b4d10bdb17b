"""Reading a table of measured points: which columns a law needs, and what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.scaling import groups, mistakes
from forget_jax.scaling.laws import Law, log_columns

_POSITIVE = ("P", "steps")


@dataclass(frozen=True)
class Points:
    """A checked table for one law, ready to fit.

    Rows of a companion target follow those of the main one.

    Attributes:
      cols: what the law's terms read (N each), logs centred by `centre`.
      centre: what was subtracted from each log.
      raw: the law's columns as given.
      y_N: the target.
      scale_N: the standard deviation of the target that each row belongs to.
      cluster_N: the run of each row, numbered from 0.
      fold_N: the rank (or run) that is held out together with others of its kind, from 0.
      fold_name: `rank`, `run` or `point`: what a fold is.
      main_N: False on rows of the companion target.
      n_eff: how many independent points the target is worth.
      warnings: what the table cannot identify.
    """

    cols: dict[str, np.ndarray]
    centre: dict[str, float]
    raw: dict[str, np.ndarray]
    y_N: np.ndarray
    scale_N: np.ndarray
    cluster_N: np.ndarray
    fold_N: np.ndarray
    fold_name: str
    main_N: np.ndarray
    n_eff: float
    warnings: tuple[str, ...]


def columns_of(points: Any) -> dict[str, np.ndarray]:
    """Columns by name, from a mapping, a pandas table or a structured array.

    Raises:
      UserError: none of these, or columns that are not flat and equally long.
    """
    if isinstance(points, Mapping):
        named = {str(k): np.asarray(v) for k, v in points.items()}
    elif hasattr(points, "columns"):
        named = {str(k): np.asarray(points[k]) for k in points.columns}
    else:
        array = np.asarray(points)
        if not array.dtype.names:
            raise UserError("points: this law needs a table with named columns")
        named = {k: array[k] for k in array.dtype.names}
    sizes = {k: v.shape for k, v in named.items()}
    if len(set(sizes.values())) > 1 or any(len(shape) != 1 for shape in sizes.values()):
        raise UserError(f"points: columns must be flat and equally long; got shapes {sizes}")
    return named


def table(points: Any, law: Law, target: str) -> dict[str, np.ndarray]:
    """Columns by name, of whatever `columns_of` takes, or of a plain 2-D array.

    A plain array's columns are the law's columns in order, then the target.
    """
    if isinstance(points, Mapping) or hasattr(points, "columns"):
        return columns_of(points)
    array = np.asarray(points)
    names = (*law.columns, target)
    if array.dtype.names:
        return columns_of(array)
    if array.ndim == 2 and array.shape[1] == len(names):
        return dict(zip(names, array.T, strict=True))
    raise UserError(
        f"points: law {law.name!r} reads an array with {len(names)} columns "
        f"({', '.join(names)}); got shape {array.shape}; or give a table with named columns"
    )


def _numbers(named: Mapping[str, np.ndarray], name: str, law: Law) -> np.ndarray:
    if name not in named:
        raise UserError(
            f"points: law {law.name!r} needs a column {name!r}; the table has {', '.join(named)}"
        )
    try:
        column = np.asarray(named[name]).astype(np.float64)
    except (TypeError, ValueError):
        row, cell = _first_text(named[name])
        raise UserError(
            f"points: column {name!r} is not numeric: row {row} holds {cell!r}"
        ) from None
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        raise UserError(
            f"points: column {name!r} has {len(bad)} missing or infinite values, first in row "
            f"{bad[0]}: drop these rows"
        )
    if name in _POSITIVE and (column <= 0).any():
        row = int(np.flatnonzero(column <= 0)[0])
        raise UserError(f"points: {name} must be positive, but row {row} has {column[row]:g}")
    return column


def _first_text(column: np.ndarray) -> tuple[int, str]:
    """The first entry that is no number, and its row."""
    for row, cell in enumerate(column):
        try:
            float(cell)
        except (TypeError, ValueError):
            return row, str(cell)[:40]
    return 0, str(column.dtype)


def _groups(named: Mapping[str, np.ndarray], count: int) -> tuple[np.ndarray, bool]:
    """Number of each row's run: its `run`, else its (P, seed), else the row; known or not."""
    keys = [named[k] for k in (("run",) if "run" in named else ("P", "seed")) if k in named]
    if not keys:
        return np.arange(count), False
    ids = np.zeros(count, int)
    for key in keys:
        _, inverse = np.unique(np.asarray(key).astype(str), return_inverse=True)
        ids = ids * (inverse.max() + 1) + inverse
    return np.unique(ids, return_inverse=True)[1], True


def _usable(named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns this law does not read but which tell runs and ranks apart, where they are sound."""
    found = {}
    for name in ("P", "steps", "l_ft"):
        if name in named and np.issubdtype(named[name].dtype, np.number):
            column = named[name].astype(np.float64)
            if np.isfinite(column).all() and (name == "l_ft" or (column > 0).all()):
                found[name] = column
    return found


def effective_points(
    named: Mapping[str, np.ndarray], y_N: np.ndarray, cluster_N: np.ndarray
) -> float:
    """How many independent points the table is worth, the same for every law fitted to it.

    Residuals of a quadratic in the log inputs (a reference no law owns) resemble one another within
    a run. Two design effects are estimated, and the larger divides n: (1 + r)/(1 - r) from the
    correlation r of consecutive steps, and the variance of run sums over that of independent
    residuals. Never fewer than the number of runs. Uses P and steps where the table has them, else
    l_ft.
    """
    inputs = [np.log(named[k]) for k in _POSITIVE if k in named]
    if not inputs and "l_ft" in named:
        inputs = [named["l_ft"]]
    inputs = [(x - x.mean()) / x.std() for x in inputs if x.std() > 0]
    n = len(y_N)
    design = [np.ones(n), *inputs]
    squares = [a * b for i, a in enumerate(inputs) for b in inputs[i:]]
    if n > 2 * (len(design) + len(squares)):
        design += squares
    matrix = np.stack(design, axis=1)
    residual = y_N - matrix @ np.linalg.lstsq(matrix, y_N, rcond=None)[0]
    order_key = named.get("steps", np.arange(n))
    order = np.lexsort((order_key, cluster_N))
    same = np.diff(cluster_N[order]) == 0
    ahead, behind = residual[order][1:][same], residual[order][:-1][same]
    clusters = len(np.unique(cluster_N))
    power = np.sqrt((ahead**2).sum() * (behind**2).sum())
    if not same.any() or power <= 1e-20 * (y_N.var() + 1e-300) * n:
        return float(n)
    r = float(np.clip((ahead * behind).sum() / power, 0.0, 0.999))
    sums = np.bincount(cluster_N, weights=residual)
    grouped = clusters / max(clusters - 1, 1) * (sums**2).sum() / (residual**2).sum()
    return float(np.clip(n / max((1 + r) / (1 - r), grouped), clusters, n))


def read_points(law: Law, points: Any, target: str, loss: str) -> Points:
    """Check a table against a law and lay it out for fitting; UserError says what is wrong."""
    named = table(points, law, target)
    y_N = _numbers(named, target, law)
    n = len(y_N)
    raw = {name: _numbers(named, name, law) for name in law.columns}
    if "P" in named:
        _numbers(named, "P", law)  # a table with impossible sizes is wrong for every law
    known_columns = {**_usable(named), **raw}
    for name, what in (("mix", "a share of the data"), ("kl_ft", "a divergence")):
        if name in raw and (raw[name] < 0).any():
            raise UserError(f"points: {name} is {what} and cannot be negative")
    mistakes.check(named)
    if loss == "huber-log" and (y_N <= 0).any():
        row = int(np.flatnonzero(y_N <= 0)[0])
        raise UserError(
            f"points: loss huber-log needs positive {target}, but row {row} has {y_N[row]:g}: "
            "use mse or huber-raw, or drop the row"
        )
    if np.ptp(y_N) == 0:
        raise UserError(f"points: {target} is {y_N[0]:g} in every row: there is nothing to fit")
    targets = [y_N]
    if law.companion:
        targets.append(_numbers(named, law.companion, law))
    if n * len(targets) <= len(law.parameters):
        raise UserError(
            f"points: law {law.name!r} has {len(law.parameters)} parameters and needs more points "
            f"than that; the table has {n}"
        )
    for name, column in raw.items():
        if len(np.unique(column)) < 2:
            what = "one rank only: all P" if name == "P" else f"all {name}"
            raise UserError(
                f"points: law {law.name!r} cannot be fitted to {what} equal to {column[0]:g}; "
                "measure more values or choose a law without this column"
            )
    cluster_N, known = _groups(named, n)
    ranks, rank_N = np.unique(known_columns.get("P", np.zeros(n)), return_inverse=True)
    if len(ranks) >= 3:
        fold_N, fold_name = rank_N, "rank"
    else:
        fold_N, fold_name = cluster_N, "run" if known else "point"
    notes = []
    for name, column in raw.items():
        distinct = len(np.unique(column))
        if law.shape and name in _POSITIVE and distinct < 3:
            notes.append(f"only {distinct} distinct {name}: its exponent is not identified")
    log_raw = log_columns(raw)
    centre = {k: float(c.mean()) for k, c in log_raw.items() if k in ("log_P", "log_steps")}
    if not law.centred:
        centre = dict.fromkeys(centre, 0.0)
    cols = log_columns(raw, centre) if raw or law.by else {"row": np.zeros(n)}
    if law.by:
        code_N = groups.codes(named[law.by], law)
        if empty := [x for i, x in enumerate(law.levels) if i not in code_N]:
            raise UserError(
                f"points: no row has {law.by} {empty[0]!r}, which the law has coefficients for"
            )
        cols[f"group {law.by}"] = code_N
    scale = [float(t.std()) or 1.0 for t in targets]
    copies = len(targets)
    cols = {k: np.tile(c, copies) for k, c in cols.items()}
    if law.companion:
        cols["is_companion"] = np.repeat([0.0, 1.0], n)
    return Points(
        cols=cols,
        centre=centre,
        raw=raw,
        y_N=np.concatenate(targets),
        scale_N=np.repeat(scale, n),
        cluster_N=np.tile(cluster_N, copies),
        fold_N=np.tile(fold_N, copies),
        fold_name=fold_name,
        main_N=np.repeat([True] + [False] * (copies - 1), n),
        n_eff=effective_points(known_columns, y_N, cluster_N),
        warnings=tuple(notes),
    )
