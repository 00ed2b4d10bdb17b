"""Fitting a law to measured points: the best fit, its uncertainty, and how far to trust it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.scaling import resample
from forget_jax.scaling.diagnose import criteria, warn
from forget_jax.scaling.fitted import Fit, expanded_tail, natural_values, predictions
from forget_jax.scaling.laws import LAWS, NULLS, Law, get_law
from forget_jax.scaling.points import Points, read_points
from forget_jax.scaling.solve import (
    LANES,
    LOSSES,
    Solution,
    coefficients,
    draw_starts,
    solve,
    terms_SxNxJ,
)

_FOLD_LIMIT = 16
_POLISH = 3  # further rounds for a best start that has not converged


def _deming(
    law: Law, weight_SxN: np.ndarray, y_SxN: np.ndarray, x_N: np.ndarray, ratio: float
) -> Solution:
    """Closed-form line with errors in both variables; `ratio` is var(error in y)/var(error in x).

    Source: Deming 1943; ratio 1 is orthogonal regression.
    """
    w = weight_SxN**2
    w = w / w.sum(axis=1, keepdims=True)
    x_mean, y_mean = (w * x_N).sum(axis=1), (w * y_SxN).sum(axis=1)
    dx, dy = x_N - x_mean[:, None], y_SxN - y_mean[:, None]
    xx, yy, xy = (w * dx**2).sum(axis=1), (w * dy**2).sum(axis=1), (w * dx * dy).sum(axis=1)
    gap = yy - ratio * xx
    # The larger root's stable form; without covariance the line is level.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (gap + np.sqrt(gap**2 + 4 * ratio * xy**2)) / (2 * xy)
    slope = np.where(xy == 0, 0.0, slope)
    coef = np.stack([y_mean - slope * x_mean, -slope], axis=1)
    residual = (dy - slope[:, None] * dx) * weight_SxN
    empty = np.zeros((len(w), 0))
    return Solution(empty, empty, coef, (residual**2).sum(axis=1), np.isfinite(coef).all(axis=1))


def _solve(
    law: Law,
    loss: str,
    z: np.ndarray,
    weight: np.ndarray,
    y: np.ndarray,
    cols: dict[str, np.ndarray],
    options: dict[str, float],
) -> Solution:
    """The right solver for a law: closed forms where there are any."""
    if law.name == "deming":
        return _deming(law, weight, y, cols["l_ft"], options["noise_ratio"])
    if loss == "mse" and not law.shape:
        coef = coefficients(law, z, cols, weight, y)
        fitted = np.einsum("snj,sj->sn", terms_SxNxJ(law, z, cols), coef)
        total = (((y - fitted) * weight) ** 2).sum(axis=1)
        return Solution(z, z, coef, total, np.isfinite(total))
    return solve(law, loss, z, weight, y, cols, options["delta"])


def _take(lanes: Solution, rows: Any) -> Solution:
    return Solution(
        lanes.z_SxZ[rows],
        lanes.shape_SxK[rows],
        lanes.coef_SxJ[rows],
        lanes.loss_S[rows],
        lanes.converged_S[rows],
    )


def _best_of(lanes: Solution, groups: int) -> Solution:
    """The best lane of each of `groups` equal blocks."""
    loss = lanes.loss_S.reshape(groups, -1)
    rows = np.arange(groups) * loss.shape[1] + loss.argmin(axis=1)
    return _take(lanes, rows)


def _heldout(
    law: Law,
    loss: str,
    data: Points,
    warm: np.ndarray,
    options: dict[str, float],
) -> float:
    """Mean absolute error of the main target on groups left out, each refitted from warm starts.

    NaN where the table cannot spare a group.
    """
    keep_FxN = resample.leave_out(data.fold_N, _FOLD_LIMIT)
    folds = len(keep_FxN)
    if folds < 2 or (keep_FxN.sum(axis=1) < len(law.parameters)).any():
        return float("nan")
    each = max(1, LANES // folds) if len(law.shape) else 1
    z = np.tile(np.resize(warm, (each, len(law.shape))), (folds, 1))
    weight = np.repeat(keep_FxN * _root_weight(data, loss), each, axis=0)
    y = np.broadcast_to(data.y_N, weight.shape)
    lanes = _best_of(_solve(law, loss, z, weight, y, data.cols, options), folds)
    error = np.abs(predictions(law, lanes, data.cols) - data.y_N)
    out = (keep_FxN == 0) & data.main_N
    return float(error[out].mean())


def _heldout_nulls(
    points: Any, target: str, options: dict[str, float], rng: np.random.Generator
) -> dict[str, float]:
    """Held-out errors, on the same folds, of the nulls that have their columns (least squares)."""
    errors = {}
    for name in NULLS:
        null = LAWS[name]
        try:
            data = read_points(null, points, target, "mse")
        except UserError:  # no such column, or it never changes: then this null says nothing
            continue
        errors[name] = _heldout(null, "mse", data, draw_starts(null, LANES, rng), options)
    return errors


def _root_weight(data: Points, loss: str) -> np.ndarray:
    """Factor of each residual: loss "mse" is then the share of variance, between 0 and 1."""
    scale_N = data.scale_N if loss == "mse" else np.ones_like(data.scale_N)
    return 1.0 / (scale_N * np.sqrt(len(scale_N)))


def fit(
    law: str,
    points: Any,
    *,
    target: str | None = None,
    loss: str = "mse",
    delta: float = 1e-3,
    noise_ratio: float = 1.0,
    starts: int = LANES,
    bootstraps: int = 2 * LANES,
    level: float = 0.95,
    heldout: bool = True,
    seed: int = 0,
) -> Fit:
    """Fit one law of `LAWS` to a table of measured points.

    `points`: a mapping, pandas table or structured array with the columns the law reads among `P`
    (trained parameters), `steps`, `l_ft`, `mix`, and its target (`l_f`, or `kl` for kl_origin;
    `target` names another), in nats; or a 2-D array of those columns in order, target last.
    Optional `run` and `seed` say which rows belong to one training run; without `run`, rows of one
    (P, seed) are a run.

    `loss` is "mse", "huber-raw" or "huber-log", the last two with threshold `delta` (in nats and
    in log units). `noise_ratio` is for law "deming": the variance of errors in the target over that
    of errors in l_ft. Intervals at `level` come from `bootstraps` draws of whole runs, each
    refitted from the best answer; the best answer from `starts` random ones.

    Raises UserError for an unknown law or option, missing columns, NaN, non-positive P or steps,
    too few points, or a column that never changes.
    """
    chosen = get_law(law)
    if loss not in LOSSES:
        raise UserError(f"scaling: unknown loss {loss!r}: use one of {', '.join(LOSSES)}")
    if chosen.name == "deming" and loss != "mse":
        raise UserError("scaling: law 'deming' has a closed form, for loss mse only")
    if not (delta > 0 and noise_ratio > 0 and 0 < level < 1 and starts > 0 and bootstraps >= 0):
        raise UserError(
            "scaling: delta, noise_ratio and starts must be positive, level between 0 and 1"
        )
    target = target or chosen.target
    data = read_points(chosen, points, target, loss)
    options = {"delta": delta, "noise_ratio": noise_ratio}
    rng = np.random.default_rng(seed)
    n = len(data.y_N)
    root_N = _root_weight(data, loss)

    def run(z: np.ndarray, weight: np.ndarray, y: np.ndarray) -> Solution:
        shape = (len(z), n)
        return _solve(
            chosen,
            loss,
            z,
            np.broadcast_to(weight, shape),
            np.broadcast_to(y, shape),
            data.cols,
            options,
        )

    z = draw_starts(chosen, starts if chosen.shape else 1, rng)
    lanes = run(z, root_N, data.y_N)
    if not np.isfinite(lanes.loss_S).any():
        raise UserError(f"scaling: no start of law {law!r} gave a finite loss; check the table")
    for _ in range(_POLISH):
        if lanes.converged_S[lanes.loss_S.argmin()]:
            break
        lanes = run(lanes.z_SxZ, root_N, data.y_N)
    order = np.argsort(lanes.loss_S)
    best = _take(lanes, order[:1])
    fitted_N = predictions(chosen, best, data.cols)[0]

    clusters = int(data.cluster_N.max()) + 1
    samples = None
    if bootstraps and clusters > 1:
        weight_B = resample.draw_runs(data.cluster_N, bootstraps, rng)
        z_B = np.repeat(best.z_SxZ, bootstraps, axis=0)
        samples = run(z_B, np.sqrt(weight_B) * root_N, data.y_N)
        samples = _take(samples, np.isfinite(samples.loss_S))

    params = natural_values(chosen, best, data.centre)
    ci = {}
    if samples is not None:
        tail = expanded_tail(level, clusters)
        ci = {
            name: (float(np.quantile(values, tail)), float(np.quantile(values, 1.0 - tail)))
            for name, values in natural_values(chosen, samples, data.centre).items()
        }
    held: dict[str, float] = {}
    if heldout:
        held = _heldout_nulls(points, target, options, rng)
        held[law] = _heldout(chosen, loss, data, lanes.z_SxZ[order], options)
        held = {name: error for name, error in held.items() if np.isfinite(error)}
    r2, bic, aicc, noise = criteria(chosen, data, fitted_N)
    return Fit(
        law=law,
        target=target,
        loss=loss,
        delta=None if loss == "mse" else delta,
        params={name: float(v[0]) for name, v in params.items()},
        ci=ci,
        level=level,
        r2=r2,
        bic=bic,
        aicc=aicc,
        n=int(data.main_N.sum()),
        n_eff=data.n_eff,
        clusters=clusters,
        heldout_error=held.get(law),
        heldout=held,
        heldout_by=data.fold_name,
        noise=noise,
        converged=bool(best.converged_S[0]),
        warnings=data.warnings + warn(chosen, data, _take(lanes, order), samples),
        valid={name: (float(c.min()), float(c.max())) for name, c in data.raw.items()},
        _centre=data.centre,
        _best=best,
        _samples=samples,
    )


def compare(
    points: Any, laws: Iterable[str] | None = None, **options: Any
) -> tuple[dict[str, Fit], dict[str, str]]:
    """Fit several laws (all of `LAWS` if none are named) to one table, with the options of `fit`.

    Returns the fits, lowest BIC first within one target, and for each law that the table does not
    serve the reason. An unknown law is still a UserError.
    """
    fits: dict[str, Fit] = {}
    refused: dict[str, str] = {}
    for name in LAWS if laws is None else laws:
        get_law(name)
        try:
            fits[name] = fit(name, points, **options)
        except UserError as error:
            refused[name] = str(error)
    ordered = sorted(fits, key=lambda name: (fits[name].target != "l_f", fits[name].bic))
    return {name: fits[name] for name in ordered}, refused
