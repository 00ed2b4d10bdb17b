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
    """What a way of replaying comes to: a strategy at a ratio and a cost.

    Attributes:
      strategy, ratio, cost: what it is; ratio 0 without replay.
      matched: `steps` are added for replayed rows, or they displace the task's at equal `compute`.
      upstream_nll: mean NLL of held-out upstream examples, nats a token.
      task_loss: mean loss on held-out rows of the tasks, nats a token.
      mean_z: mean forgetting of the held-out upstream examples, nats a token.
      z: the same for each pair of task and seed, tasks outermost.
      loss: of the tasks, for the same pairs.
      z_pool: mean forgetting of the candidates for replay; None where it was not measured.
      em: share of the tasks' held-out rows of short answers that are answered right; None where
        none is recited.
      em_forgotten: share of upstream examples that the base answers right and the fine-tune does
        not.
      z_by_kind: mean_z, by kind of the examples (their source up to its first slash).
      recovered: share of (none − random) that it saves beyond random replay, and its 95 %
        bootstrap interval over tasks; None without both.
      extra_forward, extra_training: FLOPs beyond those of the fine-tune without replay, as a share
        of these; mean of tasks.
    """

    strategy: str
    ratio: float
    cost: str
    matched: str
    upstream_nll: float
    task_loss: float
    mean_z: float
    z: tuple[float, ...]
    loss: tuple[float, ...]
    z_pool: float | None
    em: float | None
    em_forgotten: float | None
    z_by_kind: dict[str, float]
    recovered: tuple[float, float, float] | None
    extra_forward: float
    extra_training: float


@dataclass(frozen=True, kw_only=True)
class StrategiesDiffer:
    """Forgetting under one way less under another, paired by task and seed; nats a token.

    Attributes:
      pairs, tasks: one pair is a task under a seed; tasks are the clusters.
      mean, low, high: of the tasks' differences, with the 95 % t interval.
      p: two-sided sign-flip permutation test, whole tasks flipped; None for one task.
      p_holm: the same, corrected over the comparisons with the same other.
      tasks_needed: at which such an effect would be found at 5 % in 4 of 5 comparisons.
    """

    pairs: int
    tasks: int
    mean: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    tasks_needed: int | None


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """Whether strategies can be told apart in this setting.

    Attributes:
      mean: forgetting without replay less that under random replay, nats a token.
      noise: standard deviation of that difference between seeds of a task; None for one seed.
      enough: whether the first is at least five times the second.
    """

    mean: float
    noise: float | None
    enough: bool


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Strategies of replay compared.

    Attributes:
      replay: by strategy, and ratio and cost where there are several.
      paired_test: two ways' forgetting, by `one − other`.
      headroom: of each ratio and cost, by the name of its random replay.
      base_upstream_nll: of the held-out upstream examples, nats a token.
      tasks, seeds: each is trained under every strategy.
      evaluated: upstream examples held out of replay.
      candidates: upstream examples to replay.
      observed: candidates whose forgetting the prediction sees.
    """

    command: ClassVar[str] = "replay"
    replay: dict[str, Strategy]
    paired_test: dict[str, StrategiesDiffer]
    headroom: dict[str, Headroom]
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
class MixedRow:
    """A row that is replayed.

    Attributes:
      weight: it was drawn by.
      value: of the strategy, by which candidates are weighed.
      why: in words.
      text: its beginning.
    """

    name: str
    source: str
    weight: float
    value: float
    why: str
    text: str


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One ratio of a measured curve; means over tasks with half their 95 % intervals, nats a token.

    Attributes:
      ratio: replayed rows per task row; 0 for none.
      z, loss: forgetting, and the tasks' own loss.
    """

    ratio: float
    z: float
    z_half: float | None
    loss: float
    loss_half: float | None


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What to replay for one task.

    Attributes:
      strategy: by which candidates are weighed.
      ratio: replayed rows per task row.
      task_rows, replayed, candidates: counts.
      rows: the first of those that are replayed.
      expected_z: mean forgetting of the candidates without replay, nats a token; None where nothing
        says.
      expected_z_by_source: the same by source.
      curve: what was measured at several ratios, on the same model.
      saved: the share of forgetting that the curve's nearest ratio takes away.
      trainers: by trainer, what to paste.
    """

    command: ClassVar[str] = "mix"
    strategy: str
    ratio: float
    task_rows: int
    replayed: int
    candidates: int
    rows: tuple[MixedRow, ...]
    expected_z: float | None
    expected_z_by_source: dict[str, float]
    curve: tuple[CurvePoint, ...]
    saved: float | None
    trainers: dict[str, str]
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
      failed: by run of the sweep, why it has no points from some step on.
      points: measurements.
      runs: that they come from; None for a table that does not say.
      seeds: a setting.
      curves: by law, its prediction over the grid, where it takes sizes and steps.
      checks: how the laws were tried.
    """

    command: ClassVar[str] = "scaling"
    laws: dict[str, Law]
    not_fitted: dict[str, str]
    failed: dict[str, str]
    points: int
    runs: int | None
    seeds: int
    curves: dict[str, Surface]
    checks: Checks
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What an arm knows of facts A and B after stages A and B: means over sequences and seeds.

    Attributes:
      accuracy_a_after_a, accuracy_a_after_b, accuracy_b: share of the facts recited exactly.
      answer_nll_a_after_a, answer_nll_a_after_b, answer_nll_b: of the answers, nats a token.
      right_a_after_b: share that the set's own rule accepts, with its aliases.
      prefix_a_after_b: share that begins with the answer.
      rouge_l_a_after_b: ROUGE-L's F1.
      known_a_after_b: of the facts that the base knew and that are not trained on, the share that
        is still known; None where they were not looked for.
      accuracy_a_after_last: after the last stage, which is B where there are two.
      asked_before_recovery, asked_after_recovery: of the facts of A that are asked again, before
        and after some others were trained on; None where that was not done.
      steps_a, steps_b: optimizer updates of the stages: with `stop=loss` arms differ in them.
    """

    accuracy_a_after_a: float
    answer_nll_a_after_a: float
    accuracy_a_after_b: float
    answer_nll_a_after_b: float
    accuracy_b: float
    answer_nll_b: float
    right_a_after_b: float
    prefix_a_after_b: float
    rouge_l_a_after_b: float
    known_a_after_b: float
    accuracy_a_after_last: float
    asked_before_recovery: float
    asked_after_recovery: float
    steps_a: float
    steps_b: float


@dataclass(frozen=True, kw_only=True)
class ArmBySeed:
    """The figures of an `Arm`, one for each sequence and seed, sequences outermost."""

    accuracy_a_after_a: tuple[float, ...]
    answer_nll_a_after_a: tuple[float, ...]
    accuracy_a_after_b: tuple[float, ...]
    answer_nll_a_after_b: tuple[float, ...]
    accuracy_b: tuple[float, ...]
    answer_nll_b: tuple[float, ...]
    right_a_after_b: tuple[float, ...]
    prefix_a_after_b: tuple[float, ...]
    rouge_l_a_after_b: tuple[float, ...]
    known_a_after_b: tuple[float, ...]
    accuracy_a_after_last: tuple[float, ...]
    asked_before_recovery: tuple[float, ...]
    asked_after_recovery: tuple[float, ...]
    steps_a: tuple[float, ...]
    steps_b: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ArmsDiffer:
    """What one arm keeps of A after the last stage less what another does, as a share of the facts.

    Attributes:
      pairs, clusters: clusters are sequences of sets, or seeds where there is one sequence.
      mean, low, high: of the clusters' differences, with the 95 % t interval.
      p: two-sided sign-flip permutation test, whole clusters flipped; None for one cluster.
      p_holm: the same, corrected over its family of comparisons.
      clusters_needed: at which such an effect would be found at 5 % in 4 of 5 comparisons.
      facts_more, facts_less: facts that the one keeps in more of these trainings than the other,
        and in fewer.
      facts_low, facts_high: 95 % t interval over facts: of these trainings, not of others.
      facts_p, facts_p_holm: exact sign test over facts, and corrected over its family.
    """

    pairs: int
    clusters: int
    mean: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    clusters_needed: int | None
    facts_more: int
    facts_less: int
    facts_low: float
    facts_high: float
    facts_p: float
    facts_p_holm: float


@dataclass(frozen=True, kw_only=True)
class Factoids:
    """Facts memorised, and others after them.

    Attributes:
      factoids: by arm, means over sequences and seeds.
      by_seed: by arm, the figures of each sequence and seed.
      after: by arm, stage and set, the share recited exactly.
      paired_test: what two arms keep, by `one − other`.
      headroom: in words, whether arms could differ.
      sequences: of sets, as they were written.
      facts_a, facts_b: counts, of the first sequence.
      facts, dropped, known: by set, how many facts are trained on, were left out as double, and
        were known to the base.
    """

    command: ClassVar[str] = "factoids"
    factoids: dict[str, Arm]
    by_seed: dict[str, ArmBySeed]
    after: dict[str, dict[str, dict[str, float]]]
    paired_test: dict[str, ArmsDiffer]
    headroom: str
    sequences: tuple[str, ...]
    seeds: int
    facts_a: int
    facts_b: int
    facts: dict[str, int]
    dropped: dict[str, int]
    known: dict[str, int]
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
