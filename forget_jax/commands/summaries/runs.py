"""Summaries of what runs one model: pretrain, finetune, score, export, bench."""

from dataclasses import dataclass, field
from typing import ClassVar

from forget_jax.commands.summaries.codec import FLAT, SPARSE


@dataclass(frozen=True, kw_only=True)
class Training:
    """The headline figures of a training; they stand among the summary's own.

    Attributes:
      loss_first, loss_last: nats a token, means over runs and over the first and the last tenth of
        the steps.
      tokens_per_second: real tokens of the median step.
      real_tokens: their share of the tokens computed.
      flops_per_second: of real tokens, in the median step.
      mfu: the share of the matrix products measured on this machine.
      peak_memory: bytes of the fullest device, or of the process on CPU.
      steps: logged.
    """

    loss_first: float
    loss_last: float
    tokens_per_second: float
    real_tokens: float
    flops_per_second: float
    mfu: float
    peak_memory: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class OverContext:
    """What became of the examples that are longer than the context.

    Attributes:
      truncated: examples that were cut.
      tokens_cut: tokens that they lost.
      windowed: examples read in windows.
      windows: how many windows these make.
      dropped: examples left out.
    """

    truncated: int
    tokens_cut: int
    windowed: int
    windows: int
    dropped: int


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """A small base from scratch.

    Attributes:
      parameters: count.
      train_tokens_available: in the training blocks.
      heldout_loss: nats a token.
      unigram_loss: nats a held-out token under the training tokens' frequencies.
      heldout_tokens: that the losses are of.
      seconds: over all starts of the run, as in all summaries.
    """

    command: ClassVar[str] = "pretrain"
    training: Training = field(metadata=FLAT)
    parameters: int
    train_tokens_available: int
    heldout_loss: float
    unigram_loss: float
    heldout_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """One fine-tune.

    Attributes:
      trained_parameters: count, of the adapter or of the whole model.
      updates: steps whose result was kept.
      examples: trained on or held out.
      useful_fraction: real tokens over tokens computed.
    """

    command: ClassVar[str] = "finetune"
    training: Training = field(metadata=FLAT)
    trained_parameters: int
    updates: int
    examples: int
    over_context: OverContext
    useful_fraction: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NotFinite:
    """One example without a finite score, and the model that gave none."""

    model: str
    example: str


@dataclass(frozen=True, kw_only=True)
class OrderDependence:
    """How far scores move when the same examples are batched otherwise, in nats a token.

    Attributes:
      examples: how many were scored twice.
      nll_moved_most, nll_moved_median: change of an NLL.
      z_moved_most, z_moved_median: change of a forgetting z, where adapters were scored.
      z_median: median |z|, to read these against.
    """

    examples: int
    nll_moved_most: float
    nll_moved_median: float
    z_moved_most: float | None = field(default=None, metadata=SPARSE)
    z_moved_median: float | None = field(default=None, metadata=SPARSE)
    z_median: float | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Examples under a base and other models.

    Attributes:
      examples: scored under each model.
      tokens: targets among theirs.
      nll_mean: of the base, nats a token, over examples with a finite score.
      nll_mean_by_model: the same of every model.
      mean_z_by_model: mean forgetting under each model but the base, nats a token; None where no
        example has a finite score.
      tokens_per_second: of this start; None where all was scored before.
      useful_fraction: real tokens over tokens computed.
      not_finite: how many pairs of model and example have no finite score.
      not_finite_names: the first of them.
      order_dependence: measured in half precision only.
    """

    command: ClassVar[str] = "score"
    examples: int
    tokens: int
    nll_mean: float
    nll_mean_by_model: dict[str, float]
    mean_z_by_model: dict[str, float | None]
    tokens_per_second: float | None
    useful_fraction: float
    not_finite: int
    not_finite_names: tuple[NotFinite, ...]
    over_context: OverContext
    order_dependence: OrderDependence | None = field(default=None, metadata=SPARSE)
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Export:
    """A model or an adapter for other programs.

    Attributes:
      path: the folder written.
      base: the base model's.
      format: merged or adapter.
      bytes: of the arrays.
    """

    command: ClassVar[str] = "export"
    path: str
    base: str
    format: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One benchmark.

    Attributes:
      what: its name.
      rows: by system and setting, with columns of the benchmark's own.
      ratio: our speed as a multiple of each peer's.
      tokens_per_second, mfu, peak_bytes, matmul_flops: of the first row, where it has them.
    """

    command: ClassVar[str] = "bench"
    what: str
    rows: tuple[dict[str, object], ...]
    ratio: dict[str, float]
    notes: tuple[str, ...]
    tokens_per_second: float | None = field(default=None, metadata=SPARSE)
    mfu: float | None = field(default=None, metadata=SPARSE)
    peak_bytes: int | None = field(default=None, metadata=SPARSE)
    matmul_flops: float | None = field(default=None, metadata=SPARSE)
    seconds: float
