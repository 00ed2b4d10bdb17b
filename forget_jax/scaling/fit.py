"""Fitting a law to measured points: the best fit, its uncertainty, and how far to trust it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from forget_jax.errors import UserError, nearest
from forget_jax.scaling import profiles, resample
from forget_jax.scaling.diagnose import criteria, warn
from forget_jax.scaling.fitted import Fit, expanded_tail, natural_values, predictions
from forget_jax.scaling.formula import is_formula, parse
from forget_jax.scaling.groups import grouped, levels_of
from forget_jax.scaling.heldout import heldout_error, heldout_of_nulls
from forget_jax.scaling.lanes import distinct, root_weight, solve_law, take
from forget_jax.scaling.laws import LAWS, Law, get_law
from forget_jax.scaling.options import FitOptions, read_options
from forget_jax.scaling.points import Points, columns_of, read_points
from forget_jax.scaling.profiles import Profile
from forget_jax.scaling.solve import Solution, draw_starts, terms_SxNxJ

_POLISH = 3  # further rounds for a best start that has not converged
_CANDIDATES = 16  # different answers that a resampled table may start from


def fit(law: str | Law, points: Any, *, target: str | None = None, **options: Any) -> Fit:
    """Fits one law to a table of measured points.

    Args:
      law: a name in `LAWS`, a formula such as `s + K*P^-x*lr^y` (see `formula`), or a `Law`.
      points: a mapping, pandas table or structured array with the columns the law reads among `P`
        (trained parameters), `steps` (optimizer steps so far), `l_ft` (fine-tuning loss, nats) and
        `mix` (share of pre-training data), and its target; or a 2-D array of those columns in
        order, target last. Columns are flat and equally long, of any numeric dtype. Optional `run`
        and `seed` say which rows belong to one training run; without `run`, rows of one (P, seed)
        are a run.
      target: the column that is predicted; by default the law's own: `l_f`, or `kl` for kl_origin,
        in nats.
      **options: fields of `FitOptions`.

    Returns:
      The fit: parameters with intervals, criteria, held-out error, warnings; it predicts.

    Raises:
      UserError: an unknown law or option, missing columns, NaN, non-positive P or steps, too few
        points, a column that never changes, or no start with a finite loss.
    """
    settings = read_options(options)
    chosen = _chosen(law, points, settings)
    if chosen.name == "deming" and settings.loss != "mse":
        raise UserError("scaling: law 'deming' has a closed form, for loss mse only")
    target = target or chosen.target
    data = read_points(chosen, points, target, settings.loss)
    rng = np.random.default_rng(settings.seed)
    lanes = _search(chosen, data, settings, rng)
    best = take(lanes, slice(1))
    fitted_N = predictions(chosen, best, data.cols)[0]
    clusters = int(data.cluster_N.max()) + 1
    samples = None
    if settings.bootstraps and clusters > 1:
        samples = _resampled(chosen, data, lanes, settings, rng)
    held: dict[str, float] = {}
    if settings.heldout:
        held = heldout_of_nulls(points, target, settings, rng)
        held[chosen.name] = heldout_error(chosen, data, lanes.z_SxZ, settings)
        held = {name: error for name, error in held.items() if np.isfinite(error)}
    r2, bic, aicc, noise = criteria(chosen, data, fitted_N)
    params = natural_values(chosen, best, data.centre)
    return Fit(
        law=chosen.name,
        definition=chosen,
        target=target,
        loss=settings.loss,
        delta=None if settings.loss == "mse" else settings.delta,
        params={name: float(v[0]) for name, v in params.items()},
        ci={} if samples is None else _intervals(chosen, data, samples, settings.level),
        level=settings.level,
        r2=r2,
        bic=bic,
        aicc=aicc,
        n=int(data.main_N.sum()),
        n_eff=data.n_eff,
        clusters=clusters,
        heldout_error=held.get(chosen.name),
        heldout=held,
        heldout_by=data.fold_name,
        noise=noise,
        converged=bool(best.converged_S[0]),
        warnings=data.warnings
        + (warn(chosen, data, lanes, samples, settings.loss) if settings.warn else ()),
        valid={name: (float(c.min()), float(c.max())) for name, c in data.raw.items()},
        _centre=data.centre,
        _best=best,
        _samples=samples,
    )


def _chosen(law: str | Law, points: Any, options: FitOptions) -> Law:
    """The law that is meant, with the groups that it is to have."""
    named = None
    if isinstance(law, str) and is_formula(law):
        named = columns_of(points)
        law = parse(law, named)
    elif isinstance(law, str):
        law = get_law(law)
    if not options.by:
        if options.separate:
            raise UserError("scaling: separate names coefficients; by names the column of groups")
        return law
    named = columns_of(points) if named is None else named
    if options.by not in named:
        raise UserError(
            f"points: there is no column {options.by!r}{nearest(options.by, named)}; the table has "
            f"{', '.join(named)}"
        )
    return grouped(law, options.by, options.separate, levels_of(named[options.by], options.by))


def _search(law: Law, data: Points, options: FitOptions, rng: np.random.Generator) -> Solution:
    """Answers from random starts, the best first."""
    root_N = root_weight(data, options.loss)
    z_SxZ = draw_starts(law, options.starts if law.shape else 1, rng)
    lanes = solve_law(law, data, z_SxZ, root_N, options)
    if not np.isfinite(lanes.loss_S).any():
        raise UserError(
            f"scaling: no start of law {law.name!r} gave a finite loss; check the table"
        )
    for _ in range(_POLISH):
        if lanes.converged_S[lanes.loss_S.argmin()]:
            break
        lanes = solve_law(law, data, lanes.z_SxZ, root_N, options)
    return take(lanes, np.argsort(lanes.loss_S))


def _resampled(
    law: Law, data: Points, lanes: Solution, options: FitOptions, rng: np.random.Generator
) -> Solution:
    """Answers to draws of whole runs, each refitted from the answer that fits it best."""
    weight_SxN = resample.draw_runs(data.cluster_N, options.bootstraps, rng)
    root_N = root_weight(data, options.loss)
    apart = distinct(lanes, _CANDIDATES)
    start_S = np.zeros(options.bootstraps, int)
    if len(apart) > 1 and options.loss == "mse":
        terms_CxNxJ = terms_SxNxJ(law, lanes.shape_SxK[apart], data.cols) * root_N[:, None]
        basis_CxNxJ = np.linalg.qr(np.nan_to_num(terms_CxNxJ))[0]
        start_S = resample.pick_starts(basis_CxNxJ, weight_SxN, data.y_N * root_N, data.cluster_N)
    z_SxZ = lanes.z_SxZ[apart[start_S]]
    samples = solve_law(law, data, z_SxZ, np.sqrt(weight_SxN) * root_N, options)
    return take(samples, np.isfinite(samples.loss_S))


def _intervals(
    law: Law, data: Points, samples: Solution, level: float
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval of each parameter at `level`."""
    tail = expanded_tail(level, int(data.cluster_N.max()) + 1)
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1.0 - tail)))
        for name, values in natural_values(law, samples, data.centre).items()
    }


def profile(
    law: str | Law, points: Any, parameter: str, *, target: str | None = None, **options: Any
) -> Profile:
    """The profile likelihood of one of a law's searched parameters, by squared loss.

    Args:
      law, points, target: as for `fit`.
      parameter: such as the `rho` of `joint_rho`: one of the names in the law's `shape`.
      **options: fields of `FitOptions`; `level` is that of the interval.

    Raises:
      UserError: as `fit` does; a parameter that is not searched; another loss than mse.
    """
    settings = read_options(options)
    if settings.loss != "mse":
        raise UserError("profile: only of loss mse")
    chosen = _chosen(law, points, settings)
    profiles.grid(chosen, parameter)
    data = read_points(chosen, points, target or chosen.target, settings.loss)
    lanes = _search(chosen, data, settings, np.random.default_rng(settings.seed))
    return profiles.made(chosen, data, lanes, parameter, settings.level)


def compare(
    points: Any, laws: Iterable[str | Law] | None = None, **options: Any
) -> tuple[dict[str, Fit], dict[str, str]]:
    """Fits several laws to one table.

    Args:
      points: as for `fit`.
      laws: as for `fit`; all that have names if none are given.
      **options: as for `fit`, `target` among them.

    Returns:
      The fits by law, lowest BIC first within one target; and, for each law that the table does not
      serve, the reason in one line.

    Raises:
      UserError: an unknown law or option.
    """
    read_options({name: value for name, value in options.items() if name != "target"})
    fits: dict[str, Fit] = {}
    refused: dict[str, str] = {}
    for law in LAWS if laws is None else laws:
        name = law.name if isinstance(law, Law) else law
        if not is_formula(name) and not isinstance(law, Law):
            get_law(name)
        try:
            fits[name] = fit(law, points, **options)
        except UserError as error:
            refused[name] = str(error)
    ordered = sorted(fits, key=lambda name: (fits[name].target != "l_f", fits[name].bic))
    return {name: fits[name] for name in ordered}, refused
