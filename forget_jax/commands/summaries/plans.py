"""The summary of `plan`: what is advised, what it rests on, and how that law has been tried."""

from dataclasses import dataclass, field
from typing import ClassVar

from forget_jax.commands.summaries.codec import FLAT
from forget_jax.commands.summaries.laws import Tried


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One setting and what it comes to; nats.

    Attributes:
      P: trained parameters.
      rank: of the adapter, where the table says; lr: the learning rate, where it does.
      steps: those asked about, or the most that keep the limit.
      steps_low, steps_high: the interval of the most steps; NaN where the limit is not reached.
      forgetting: predicted after these steps, less the baseline.
      forgetting_low, forgetting_high: interval of the curve.
      run_low, run_high: interval of one new run's figure.
      l_ft: the fine-tuning loss predicted there; NaN where the table has none.
      budget_left: whether the limit is still kept at the most steps measured.
    """

    P: float
    rank: float | None
    lr: float | None
    steps: float
    steps_low: float
    steps_high: float
    forgetting: float
    forgetting_low: float
    forgetting_high: float
    run_low: float
    run_high: float
    l_ft: float
    budget_left: bool


@dataclass(frozen=True)
class Candidate:
    """A law that was fitted: in-sample R² and BIC, and the error on ranks or runs left out."""

    r2: float
    bic: float
    heldout_error: float | None


@dataclass(frozen=True, kw_only=True)
class UnseenRun:
    """A run against the law fitted to all others; nats less the baseline.

    Attributes:
      P: trained parameters; points: its measurements.
      coverage: share of them within the interval of one new run.
      signed, error: mean prediction less measurement, and mean absolute value.
      steps: its last mark; measured: forgetting there; predicted, low, high: what was said of it.
      limit: forgetting at the mark in its middle, asked as a limit; reached: that mark.
      planned, planned_low, planned_high: the most steps that were allowed under this limit; NaN
        where the planner refused.
    """

    P: float
    points: int
    coverage: float
    signed: float
    error: float
    steps: float
    measured: float
    predicted: float
    low: float
    high: float
    limit: float
    reached: float
    planned: float
    planned_low: float
    planned_high: float


@dataclass(frozen=True)
class Curve:
    """Forgetting over steps at the answer's size, with the curve's interval; nats."""

    steps: tuple[float, ...]
    forgetting: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An answer from measured points.

    Attributes:
      ask: which question.
      answer: the best setting; others: the rest of those that keep the limit, best first.
      law, formula: what was fitted to which `target` column.
      limit: of forgetting, nats; None where none was given.
      baseline: the target before training.
      level: of all intervals.
      laws: the candidates; not_fitted: why others could not be.
      nulls: held-out error of the simplest laws.
      tried: the law on ranks left out, on the last steps, and on each run left out in turn.
      unseen: by run of the answer's learning rate, what would have been said of it without it.
      valid: by column, the measured range, outside which nothing is answered.
      curve: for the picture.
      warnings: what the fit warns of.
      points: rows of the table that were asked about.
    """

    command: ClassVar[str] = "plan"
    ask: str
    answer: Answer = field(metadata=FLAT)
    others: tuple[Answer, ...]
    law: str
    formula: str
    target: str
    limit: float | None
    baseline: float
    level: float
    laws: dict[str, Candidate]
    not_fitted: dict[str, str]
    nulls: dict[str, float]
    tried: dict[str, Tried]
    unseen: dict[str, UnseenRun]
    valid: dict[str, tuple[float, float]]
    curve: Curve
    warnings: tuple[str, ...]
    points: int
    seconds: float
