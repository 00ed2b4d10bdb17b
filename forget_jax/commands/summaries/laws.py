"""What was tried on fitted laws: rows left out of the fits, Eq. 4 by rank, residuals, rho."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """A law on rows left out of its fit: prediction less measurement, nats.

    Attributes:
      signed, error: mean, and mean absolute value.
      coverage: share of the rows within the law's interval for one new run.
      points: rows left out.
    """

    signed: float
    error: float
    coverage: float
    points: int


@dataclass(frozen=True)
class Eq4:
    """L_f = s - c*L_ft with errors in both, and whether ranks differ given L_ft.

    Attributes:
      c, s: of orthogonal regression; ci: their intervals.
      ranks, slopes, levels: P of each rank, the mean slope of its runs' lines, and their mean value
        at the table's mean L_ft.
      p_level, p_slope: that ranks do not differ; None where runs are too few.
      test, runs: how, and of how many runs.
    """

    c: float
    s: float
    ci: dict[str, tuple[float, float]]
    ranks: tuple[float, ...]
    slopes: tuple[float, ...]
    levels: tuple[float, ...]
    p_level: float | None
    p_slope: float | None
    test: str
    runs: int


@dataclass(frozen=True)
class Fan:
    """A law fitted to the steps up to `cut` and drawn beyond them, at one size; nats."""

    law: str
    P: float
    cut: float
    steps: tuple[float, ...]
    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class RhoProfile:
    """The profile likelihood of rho of the joint law; a side of the interval may be open (null)."""

    values: tuple[float, ...]
    deviance: tuple[float, ...]
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Draws:
    """A law's parameters, fitted and over tables of runs drawn with replacement (one a row)."""

    law: str
    names: tuple[str, ...]
    fitted: tuple[float, ...]
    draws: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Of all laws together.

    Attributes:
      tried: by what was left out, and by law (nulls among them); `rank of kl` is of laws that
        predict the column kl, where others predict another.
      eq4: None for a table without both losses.
      best: the law with the least held-out error, whose residuals are drawn.
      residuals: P, steps, and measurement less prediction (nats) of each row.
      fan: the law of P and steps that predicts best, from the first 60 % of steps, by size.
      rho: None where the table does not serve the joint law.
      draws: of the best law; None where its parameters have no intervals.
    """

    tried: dict[str, dict[str, Tried]]
    eq4: Eq4 | None
    best: str
    residuals: tuple[tuple[float, float, float], ...]
    fan: tuple[Fan, ...]
    rho: RhoProfile | None
    draws: Draws | None
