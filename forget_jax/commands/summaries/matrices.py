"""Summaries of what makes or reads a forgetting matrix: associate, evaluate, predict, probes."""

from dataclasses import dataclass, field
from typing import ClassVar

from forget_jax.commands.summaries.codec import FLAT, SPARSE
from forget_jax.commands.summaries.runs import OverContext, Training


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A task that stopped because its loss, or what an update makes of it, was not finite.

    Attributes:
      step: counted from 1.
      loss: nats a token; NaN where it was not finite.
      examples: names of the task's rows of that step.
      checkpoint: the last step saved before it, if there is one.
    """

    step: int
    loss: float
    examples: tuple[str, ...]
    checkpoint: int | None


@dataclass(frozen=True, kw_only=True)
class Associate:
    """The forgetting matrix.

    Attributes:
      metric: nll (z in nats a token) or exact_match (z is 0 or 1).
      tasks, examples: rows and columns.
      mean_z, share_positive: over all measured entries.
      mean_z_by_task: None for a task without a measured entry.
      r2_rank: R² of the matrix's truncation to ranks 1, 2, …; empty where no column is complete.
      r2_additive, r2_row, r2_column: R² of means by task and example, by task, and by example.
      f1_rank: with exact_match, F1 of logistic factors of ranks 1, 2, …
      test_retest, seed_rmse: correlation and distance of the same tasks' z under two seeds.
      missing: entries without a figure.
      improved: mean z of the sources that improved strongly (`associations.improved`), which the
        base did not know.
      columns_improved: columns of these that were left out.
      columns_dropped: with exact_match, examples that the base answers wrongly.
      em, f1: with exact_match, mean exact match and F1 of each model's answers.
      prompts_cut: with exact_match, prompts that were over the context.
      base_nll_mean: nats a token.
      useful_fraction: real tokens over tokens computed in training; None where nothing was trained.
      failed: tasks left out, by name.
      over_context: by task, and of `upstream`.
    """

    command: ClassVar[str] = "associate"
    metric: str
    tasks: int
    examples: int
    mean_z: float
    share_positive: float
    mean_z_by_task: dict[str, float | None]
    r2_rank: tuple[float, ...]
    r2_additive: float | None
    r2_row: float | None
    r2_column: float | None
    f1_rank: tuple[float, ...] | None = field(default=None, metadata=SPARSE)
    test_retest: float | None
    seed_rmse: float | None
    missing: int
    improved: dict[str, float]
    columns_improved: int
    columns_dropped: int | None = field(default=None, metadata=SPARSE)
    em: dict[str, float] | None = field(default=None, metadata=SPARSE)
    f1: dict[str, float] | None = field(default=None, metadata=SPARSE)
    prompts_cut: int | None = field(default=None, metadata=SPARSE)
    training: Training = field(metadata=FLAT)
    base_nll_mean: float
    useful_fraction: float | None
    failed: dict[str, Failed]
    over_context: dict[str, OverContext]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Entries of about one probability.

    Attributes:
      predicted: their mean probability of being 1.
      observed: the share of them that are 1.
      entries: how many they are, over all draws.
    """

    predicted: float
    observed: float
    entries: int


@dataclass(frozen=True, kw_only=True)
class Method:
    """How well a method completes rows: means over seeds, `_std` the deviation over seeds.

    Attributes:
      rmse, mae: in the matrix's unit, over all entries that were not observed.
      spearman, precision_at_k: means over rows; of the k entries of a row that are predicted
        highest, the share that are among its k highest (of zeros and ones: that are 1).
      precision_at_k_low, precision_at_k_high: 95 % t interval over test tasks; None with one.
      f1, precision, recall, auc: of predicting which entries are forgotten.
      row_mean_error: root mean squared error of the rows' means, in the matrix's unit.
      brier: of calibrated probabilities, in a matrix of zeros and ones: their mean squared error.
      brier_clipped: of the estimates themselves, cut to 0 and 1.
      brier_base: of the share of ones in the train rows.
      reliability: from the least probable entries to the most probable.
      per_seed: by metric, its value under each seed.
      settings: of the method, where they are not its defaults.
      seconds: wall time, compilation included.
    """

    rmse: float
    rmse_std: float
    mae: float
    mae_std: float
    spearman: float
    spearman_std: float
    f1: float
    f1_std: float
    precision: float
    precision_std: float
    recall: float
    recall_std: float
    auc: float
    auc_std: float
    precision_at_k: float
    precision_at_k_std: float
    precision_at_k_low: float | None
    precision_at_k_high: float | None
    row_mean_error: float
    row_mean_error_std: float
    brier: float | None = field(default=None, metadata=SPARSE)
    brier_std: float | None = field(default=None, metadata=SPARSE)
    brier_clipped: float | None = field(default=None, metadata=SPARSE)
    brier_base: float | None = field(default=None, metadata=SPARSE)
    reliability: tuple[ReliabilityBin, ...] | None = field(default=None, metadata=SPARSE)
    per_seed: dict[str, tuple[float, ...]]
    settings: dict[str, object]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MethodsDiffer:
    """A metric of one method less another's, paired by seed.

    Attributes:
      mean, low, high: of the differences, with the 95 % t interval.
      p: two-sided, of the paired t test.
      seeds: pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """How well rows are completed from a few entries.

    Attributes:
      methods: by name.
      best: the name of the lowest RMSE.
      paired: its RMSE against that of each other one, by `best − other`.
      k: of `precision_at_k`.
      best_at_k: the name of the highest precision at k; None where there is none.
      paired_at_k: its precision against that of each other one, by `best − other`.
      observed: entries known of each row.
      seeds: draws of these entries.
      train_tasks, test_tasks: names.
    """

    command: ClassVar[str] = "evaluate"
    methods: dict[str, Method]
    best: str
    paired: dict[str, MethodsDiffer]
    k: int
    best_at_k: str | None
    paired_at_k: dict[str, MethodsDiffer]
    observed: int
    seeds: int
    train_tasks: tuple[str, ...]
    test_tasks: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RobustMean:
    """A mean that random probes correct: right on average however wrong the predictions are.

    Attributes:
      z: in the matrix's unit.
      low, high: of the interval, which holds where probes were drawn at random.
    """

    z: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MeanForgetting:
    """Mean z over examples, those measured as they were measured and the others predicted.

    Attributes:
      z: in the matrix's unit.
      low, high: of the interval.
      examples, measured: how many of them, and how many were measured.
      robust: the doubly robust estimate; None with fewer than three measured.
    """

    z: float
    low: float
    high: float
    examples: int
    measured: int
    robust: RobustMean | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """An example that is predicted, or was measured, to be forgotten.

    Attributes:
      z: in the matrix's unit.
      low, high: of the interval; z itself where it was measured.
      text: its beginning; empty where that is not known.
      probability: of being 1 (lost), in a matrix of zeros and ones; z itself where it was measured.
    """

    example: str
    source: str
    z: float
    low: float
    high: float
    measured: bool
    text: str
    probability: float | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """How good probabilities of held-out tasks' entries were; no task counts for its own.

    Attributes:
      brier: mean squared difference of probability and outcome.
      brier_base: the same of one probability for all, the share of ones.
      reliability: from the least probable entries to the most probable.
    """

    brier: float
    brier_base: float
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, kw_only=True)
class PredictedTask:
    """A task's row, filled.

    Attributes:
      mean: over all examples.
      sources: over those of each source; empty where the matrix has no sources.
      most_forgotten: the examples of the largest z.
      expected_rmse: of entries of held-out train rows, predicted from as many.
      learned_from: rows that it was predicted from.
      side: by what is known of the examples beside (`loss and length`, `source`), the share of the
        weight that estimates by it were given.
      training_losses: whether the losses of its training helped to predict it.
      probabilities: in a matrix of zeros and ones, from held-out train rows.
    """

    mean: MeanForgetting
    sources: dict[str, MeanForgetting]
    most_forgotten: tuple[Forgotten, ...]
    expected_rmse: float
    learned_from: int
    side: dict[str, float] = field(default_factory=dict)
    training_losses: bool = False
    probabilities: Probabilities | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Rows with gaps, filled; predicted.parquet holds every entry.

    Attributes:
      tasks: by name.
      method: of completion.
      coverage: share of the entries that intervals are to hold.
      examples: columns.
      predicted: entries that were not measured.
    """

    command: ClassVar[str] = "predict"
    tasks: dict[str, PredictedTask]
    method: str
    coverage: float
    examples: int
    predicted: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ExpectedMean:
    """What error to expect of the mean of a source's examples.

    Attributes:
      rmse: over held-out tasks, in the matrix's unit.
      bound: a new task stays below it with 90 % probability; not finite where there is none.
    """

    rmse: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class ExpectedError:
    """What error to expect of a new task's row.

    Attributes:
      observed: random probes.
      rmse: over all entries of held-out tasks, in the matrix's unit.
      low, high: the central 90 % of held-out tasks lie between.
      bound: a new task stays below it with 90 % probability; not finite where there is none.
      means: of the means of each source, and of all examples under the empty name.
    """

    observed: int
    rmse: float
    low: float
    high: float
    bound: float
    means: dict[str, ExpectedMean] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProbesDiffer:
    """A metric with chosen probes less that with random ones, on columns that neither may probe.

    Attributes:
      metric: what the aim is judged by: `rmse`, `row_mean_error` or `precision_at_k`.
      chosen, random: its means.
      mean, low, high: of the differences, with the 95 % t interval.
      p: two-sided, of the paired t test.
      seeds: pairs, each with its own half of the columns.
    """

    metric: str
    chosen: float
    random: float
    mean: float
    low: float
    high: float
    p: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Which examples to measure for the next task.

    Attributes:
      columns: the names of those in probes.jsonl, as `aim` has it; the most telling first.
      columns_by_aim: names chosen for every aim.
      expected_errors: by number of random probes.
      against_random: by aim; None where the matrix is too small to tell.
      observed: how many were chosen.
      aim: row, mean, top or random.
      texts: whether probes.jsonl holds their texts, for `score`; else it lists their names.
      tasks: rows that they were learned from.
    """

    command: ClassVar[str] = "probes"
    columns: tuple[str, ...]
    columns_by_aim: dict[str, tuple[str, ...]]
    expected_errors: tuple[ExpectedError, ...]
    against_random: dict[str, ProbesDiffer] | None = field(default=None, metadata=SPARSE)
    observed: int
    aim: str
    texts: bool
    tasks: int
    seconds: float
