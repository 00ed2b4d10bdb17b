"""Summaries of what compares many fine-tunes: replay, scaling, factoids, and quickstart of all."""

from dataclasses import dataclass, field
from typing import ClassVar

from forget_jax.commands.summaries.codec import FLAT
from forget_jax.commands.summaries.laws import Checks
from forget_jax.commands.summaries.matrices import Method
from forget_jax.commands.summaries.runs import OverContext, Training

TOTAL = "total"  # of Quickstart.seconds


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What a strategy of replay comes to.

    Attributes:
      upstream_nll: mean NLL of held-out upstream examples, nats a token.
      task_loss: mean loss on held-out rows of the tasks, nats a token.
      mean_z: mean forgetting of the held-out upstream examples, nats a token.
      z: the same for each pair of task and seed, tasks outermost.
    """

    upstream_nll: float
    task_loss: float
    mean_z: float
    z: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class StrategiesDiffer:
    """Forgetting under one strategy less another's, paired by task and seed; nats a token.

    Attributes:
      pairs: one is a task under a seed.
      mean, low, high: of the differences, with the 95 % t interval.
      p: two-sided, of the paired t test.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Strategies of replay compared.

    Attributes:
      replay: by strategy.
      paired_test: two strategies' forgetting, by `one − other`.
      base_upstream_nll: of the held-out upstream examples, nats a token.
      tasks, seeds: each is trained under every strategy.
      evaluated: upstream examples held out of replay.
      candidates: upstream examples to replay.
      observed: candidates whose forgetting the prediction sees.
    """

    command: ClassVar[str] = "replay"
    replay: dict[str, Strategy]
    paired_test: dict[str, StrategiesDiffer]
    base_upstream_nll: float
    tasks: int
    seeds: int
    evaluated: int
    training: Training = field(metadata=FLAT)
    useful_fraction: float | None
    over_context: OverContext
    candidates: int
    observed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law.

    Attributes:
      params: of the law's formula.
      ci: by parameter, the bounds of its interval.
      r2, bic: of the fit, about the target in nats.
      heldout_error: mean absolute error on runs left out of the fit, nats.
      heldout: the same for this law and the simplest ones.
      converged: whether the solver did.
      warnings: what the fit warns of.
    """

    params: dict[str, float]
    ci: dict[str, tuple[float, float]]
    r2: float
    bic: float
    heldout_error: float | None
    heldout: dict[str, float]
    converged: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A law's prediction over a grid of sizes and steps.

    Attributes:
      P: K counts of trained parameters.
      steps: S numbers of steps.
      l_f: K × S, forgetting loss in nats.
    """

    P: tuple[float, ...]
    steps: tuple[float, ...]
    l_f: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Laws of forgetting over trained parameters and steps.

    Attributes:
      laws: those fitted, by name.
      not_fitted: by name, why.
      points: measurements.
      runs: that they come from; None for a table that does not say.
      seeds: a setting.
      curves: by law, its prediction over the grid, where it takes sizes and steps.
      checks: how the laws were tried.
    """

    command: ClassVar[str] = "scaling"
    laws: dict[str, Law]
    not_fitted: dict[str, str]
    points: int
    runs: int | None
    seeds: int
    curves: dict[str, Surface]
    checks: Checks
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What an arm knows of facts A and B after stages A and B: means over seeds.

    Attributes:
      accuracy_a_after_a, accuracy_a_after_b, accuracy_b: share of the facts recited exactly.
      answer_nll_a_after_a, answer_nll_a_after_b, answer_nll_b: of the answers, nats a token.
    """

    accuracy_a_after_a: float
    answer_nll_a_after_a: float
    accuracy_a_after_b: float
    answer_nll_a_after_b: float
    accuracy_b: float
    answer_nll_b: float


@dataclass(frozen=True, kw_only=True)
class ArmBySeed:
    """The figures of an `Arm`, one for each seed."""

    accuracy_a_after_a: tuple[float, ...]
    answer_nll_a_after_a: tuple[float, ...]
    accuracy_a_after_b: tuple[float, ...]
    answer_nll_a_after_b: tuple[float, ...]
    accuracy_b: tuple[float, ...]
    answer_nll_b: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Factoids:
    """Facts memorised, and others after them.

    Attributes:
      factoids: by arm, means over seeds.
      by_seed: by arm, each seed's figures.
      facts_a, facts_b: counts.
    """

    command: ClassVar[str] = "factoids"
    factoids: dict[str, Arm]
    by_seed: dict[str, ArmBySeed]
    seeds: int
    facts_a: int
    facts_b: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Headlines of all stages; the fields are those of the stages' own summaries.

    Attributes:
      heldout_loss, unigram_loss: None where the base was given.
      seconds: by stage, of what lies between them, and the `TOTAL`.
    """

    command: ClassVar[str] = "quickstart"
    parameters: int
    heldout_loss: float | None
    unigram_loss: float | None
    tasks: int
    examples: int
    mean_z: float
    share_positive: float
    r2_rank: tuple[float, ...]
    r2_additive: float | None
    test_retest: float | None
    useful_fraction: float | None
    methods: dict[str, Method]
    best: str
    replay: dict[str, Strategy]
    paired_test: dict[str, StrategiesDiffer]
    laws: dict[str, Law]
    points: int
    runs: int | None
    factoids: dict[str, Arm]
    facts_a: int
    facts_b: int
    seconds: dict[str, float]
