"""A fitted law: its parameters, its predictions and their intervals."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from forget_jax.errors import UserError
from forget_jax.scaling import groups
from forget_jax.scaling.laws import Law, log_columns
from forget_jax.scaling.solve import Solution, terms_SxNxJ

_SUMMARY = (
    *("target", "loss", "delta", "params", "level", "r2", "bic", "aicc", "n", "n_eff"),
    *("clusters", "heldout_error", "heldout", "heldout_by", "noise", "converged"),
)


def expanded_tail(level: float, clusters: int) -> float:
    """The quantile to read on each side of a bootstrap of few runs, for intervals at `level`.

    Percentiles of G runs are too narrow, by sqrt((G-1)/G) and by the normal against Student's t.
    Source: the expanded percentile interval of Hesterberg 2015, arXiv 1411.5279.
    """
    spread = np.sqrt(clusters / (clusters - 1)) * stats.t.ppf((1 + level) / 2, clusters - 1)
    return float(stats.norm.cdf(-spread))


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
      law, target: what was fitted to which column, the law by its name or formula.
      definition: the law itself.
      loss, delta: the fit's loss and its threshold (None for `mse`).
      params: the parameters of the law's formula.
      ci: their bootstrap intervals at `level` (percentiles, expanded for few runs: see
        `expanded_tail`); empty without bootstraps.
      r2, bic, aicc: about the target in nats, whatever the loss; the criteria use `n_eff` points.
      n: points of the target.
      n_eff: how many independent points they are worth, the same for all laws of one table.
      clusters: training runs.
      heldout_error: mean absolute error, nats, on ranks (or runs: `heldout_by`) left out of the
        fit; None where the table cannot spare any.
      heldout: the same for this law and the nulls.
      noise: standard deviation of residuals, nats.
      converged: whether the best start ended at a vanishing gradient.
      warnings: one line for each reason to distrust the parameters.
      valid: least and most of each column that the law was fitted on.
    """

    law: str
    definition: Law = field(repr=False)
    target: str
    loss: str
    delta: float | None
    params: dict[str, float]
    ci: dict[str, tuple[float, float]]
    level: float
    r2: float
    bic: float
    aicc: float
    n: int
    n_eff: float
    clusters: int
    heldout_error: float | None
    heldout: dict[str, float]
    heldout_by: str
    noise: float
    converged: bool
    warnings: tuple[str, ...]
    valid: dict[str, tuple[float, float]]
    _centre: dict[str, float] = field(repr=False)
    _best: Solution = field(repr=False)
    _samples: Solution | None = field(repr=False)

    def predict(self, *values: Any, **columns: Any) -> np.ndarray:
        """Predicted target, nats: `predict(P, steps)`, `predict(l_ft)`, or by column name.

        Args:
          *values: the law's columns in order: numbers or arrays, which broadcast together.
          **columns: columns by name. Those that the law does not read are ignored, so
            `predict(P=.., steps=..)` serves power_P and power_N too.

        Returns:
          float64, of the columns' common shape.

        Raises:
          UserError: a column is missing, or P or steps not positive.
        """
        return self._evaluate(self._best, self._columns(values, columns))[0]

    def interval(
        self, *values: Any, kind: str = "curve", **columns: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bounds at `level`, nats.

        Args:
          *values, **columns: as for `predict`.
          kind: `curve`, of the law's mean; or `point`, of one new measurement, for which the
            residual spread is added to every bootstrap curve.

        Returns:
          The lower and the upper bound, float64, of the columns' common shape.

        Raises:
          UserError: the fit was made without bootstraps, an unknown kind, or as `predict`.
        """
        if self._samples is None:
            raise UserError("scaling: this fit has no intervals; fit with bootstraps > 0")
        if kind not in ("curve", "point"):
            raise UserError(f"scaling: interval kind {kind!r}: use 'curve' or 'point'")
        pred = self._evaluate(self._samples, self._columns(values, columns))
        if kind == "point":
            pred = pred + self.noise * np.random.default_rng(0).standard_normal(pred.shape)
        tail = expanded_tail(self.level, self.clusters)
        low, high = np.quantile(pred, [tail, 1.0 - tail], axis=0)
        return low, high

    def samples(self, *values: Any, **columns: Any) -> np.ndarray:
        """Bootstrap curves at the given columns, nats, bootstraps along the first axis.

        Args:
          *values, **columns: as for `predict`.

        Raises:
          UserError: the fit was made without bootstraps, or as `predict`.
        """
        if self._samples is None:
            raise UserError("scaling: this fit has no bootstraps; fit with bootstraps > 0")
        return self._evaluate(self._samples, self._columns(values, columns))

    def draws(self) -> dict[str, np.ndarray]:
        """Each parameter of the law's formula over the bootstraps; empty without any."""
        if self._samples is None:
            return {}
        return natural_values(self.definition, self._samples, self._centre)

    def summary(self) -> dict[str, Any]:
        """What summary.json holds, ready for JSON: a figure that is not finite becomes None."""
        return _finite(
            {
                "formula": self.definition.formula,
                **{name: getattr(self, name) for name in _SUMMARY},
                "ci": {name: list(bounds) for name, bounds in self.ci.items()},
                "warnings": list(self.warnings),
            }
        )

    def _columns(self, values: tuple[Any, ...], columns: dict[str, Any]) -> dict[str, np.ndarray]:
        law = self.definition
        if values:
            if len(values) != len(law.columns):
                raise UserError(
                    f"scaling: law {law.name!r} is evaluated at ({', '.join(law.columns)}); "
                    f"got {len(values)} values"
                )
            columns = {**columns, **dict(zip(law.columns, values, strict=True))}
        wanted = (*law.columns, *((law.by,) if law.by else ()))
        missing = [name for name in wanted if name not in columns]
        if missing:
            raise UserError(f"scaling: law {law.name!r} needs {', '.join(missing)} to predict")
        coded = {
            name: groups.codes(c, law) if law.by and name == law.by else np.asarray(c, np.float64)
            for name, c in columns.items()
            if name in wanted or name in ("P", "steps")
        }
        arrays = np.broadcast_arrays(*coded.values(), 0.0)
        given = dict(zip(coded, arrays[:-1], strict=True))
        for name in ("P", "steps"):
            growth = name == "steps" and law.name == "kl_origin"  # exactly 0 before the first step
            if name in law.columns and ((given[name] < 0) | ((given[name] == 0) & ~growth)).any():
                raise UserError(f"scaling: law {law.name!r} needs a positive {name} to predict")
        read = {name: given[name] for name in law.columns}
        if law.by:
            read[f"group {law.by}"] = given[law.by]
        return read or {"row": np.zeros(arrays[-1].shape)}

    def _evaluate(self, lanes: Solution, columns: dict[str, np.ndarray]) -> np.ndarray:
        law = self.definition
        shape = next(iter(columns.values())).shape
        cols = log_columns({k: c.reshape(-1) for k, c in columns.items()}, self._centre)
        if law.companion:
            cols["is_companion"] = np.zeros(int(np.prod(shape)))
        return predictions(law, lanes, cols).reshape(-1, *shape)


def predictions(law: Law, lanes: Solution, cols: dict[str, np.ndarray]) -> np.ndarray:
    """Each lane's prediction (S × N) at columns laid out as the lanes were fitted."""
    return np.einsum("snj,sj->sn", terms_SxNxJ(law, lanes.shape_SxK, cols), lanes.coef_SxJ)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def natural_values(law: Law, lanes: Solution, centre: dict[str, float]) -> dict[str, np.ndarray]:
    """Each lane's parameters (S each) as in the printed formula."""
    values = dict(zip(law.linear, lanes.coef_SxJ.T, strict=True))
    values |= {s.name: lanes.shape_SxK[:, k] for k, s in enumerate(law.shape)}
    with np.errstate(over="ignore", invalid="ignore"):
        natural = law.natural(values, centre)
    return {name: natural[name] for name in law.parameters}
