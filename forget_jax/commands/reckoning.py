"""Reckons what computing on data sets takes, for a model whose weights need not be here.

Rows that are here are tokenised, a sample of each data set; others count as rows of the longest
length.
"""

import contextlib
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from forget_jax.data import reading
from forget_jax.data.reading import Reader
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.fleet.fitting import Wants
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import flops
from forget_jax.lm.hf.known import Shape
from forget_jax.lm.hf.layout import shapes
from forget_jax.lm.lora import LoRAConfig

SAMPLE = 64  # rows of a data set that are tokenised


class Rows(NamedTuple):
    """Rows of tokens.

    Attributes:
      total: how many there are.
      lengths: tokens of each row of a sample.
      targets: that the sample predicts.
    """

    total: int
    lengths: tuple[int, ...]
    targets: int

    def work(self, config: DecoderConfig, rows: float) -> flops.Work:
        """The work of so many rows like these."""
        one = flops.work(config, self.lengths, self.targets)
        scale = rows / len(self.lengths)
        return flops.Work(*(round(scale * x) for x in dataclasses.astuple(one)))


class Part(NamedTuple):
    """One thing that is done: its tokens, and FLOPs of the model."""

    what: str
    tokens: float
    flops: float


class Workload(NamedTuple):
    """What a command comes to.

    Attributes:
      shape: of the model.
      parts: in the order they are done.
      wants: of a device; None where the stages of a command want different things.
      together: fine-tunes that train at once; 0 for as many as fit.
      files: what is written beside config.json, metrics.jsonl, summary.json and report.html, and
        its bytes; 0 where they are few.
      guessed: data sets that are not here or not tokenised.
      fine_tunes: how many.
    """

    shape: Shape
    parts: Sequence[Part]
    wants: Wants | None
    together: int
    files: Mapping[str, float]
    guessed: Sequence[str]
    fine_tunes: int = 1


@dataclasses.dataclass(frozen=True)
class Reckoner:
    """Turns data sets into rows, and rows into parts, for one model.

    Attributes:
      guessed: gets the data sets that were not read.
    """

    shape: Shape
    data: Data
    guessed: list[str] = dataclasses.field(default_factory=list)

    @property
    def context(self) -> int:
        """The most tokens of a row."""
        longest = self.shape.config.context
        return Reader(self.data, None, longest, self.shape.config.vocab_size).context

    def rows(self, specs: Sequence[str], scored: bool = False) -> Rows:
        """The rows of data sets."""
        each = [self._of(spec, scored) for spec in specs]
        lengths = [n for one in each for n in one.lengths]
        return Rows(sum(o.total for o in each), tuple(lengths), sum(o.targets for o in each))

    def _of(self, spec: str, scored: bool) -> Rows:
        name, _, limit = reading.split_slice(spec)
        kind = name.partition(":")[0]
        here = kind == "builtin" or (kind not in ("hf", "tfds") and Path(name).exists())
        longest = Rows(limit or 0, (self.context,), self.context)
        if not here:
            if limit is None:
                raise UserError(
                    f"{spec} is not here, so its rows cannot be counted: give them as {name}[0:N]"
                )
            self.guessed.append(spec)
            return longest
        examples = reading.load((spec,), self.data)
        if self.shape.tokenizer is None:
            self.guessed.append(spec)
            return longest._replace(total=len(examples))
        config = self.shape.config
        reader = Reader(self.data, self.shape.tokenizer, config.context, config.vocab_size)
        sample = examples[:SAMPLE]
        with contextlib.redirect_stderr(io.StringIO()):  # it speaks of a sample
            encoded, _ = reader.encode(sample, scored)
        count = round(len(examples) * len(encoded) / len(sample))
        return Rows(count, tuple(len(e.ids) for e in encoded), sum(e.tokens for e in encoded))

    def trained(self, what: str, rows: Rows, count: float, lora: LoRAConfig | None) -> Part:
        """Training on so many rows."""
        work = rows.work(self.shape.config, count)
        return Part(what, work.tokens, flops.training(self.shape.config, work, lora))

    def scored(self, what: str, rows: Rows, count: float) -> Part:
        """Scoring so many rows, adapters left out: they are little."""
        work = rows.work(self.shape.config, count)
        return Part(what, work.tokens, flops.scoring(self.shape.config, work))

    def written(self, what: str, texts: float, tokens: int) -> Part:
        """Texts that a model writes: each token is computed once, with a cache of those before."""
        config = self.shape.config
        work = Rows(0, (tokens,), tokens).work(config, texts)
        return Part(what, work.tokens, flops.scoring(config, work))

    def kept(self, lora: LoRAConfig | None) -> float:
        """Bytes of one fine-tune that is kept: its adapter, or the whole model, in fp32."""
        if lora is not None:
            return 4 * flops.adapter_parameters(self.shape.config, lora)
        return 4 * parameters(self.shape.config)


def parameters(config: DecoderConfig) -> int:
    """How many numbers a model holds."""
    return sum(math.prod(shape) for shape in shapes(config).values())


def together(what: str, parts: Sequence[Part]) -> Part:
    """Several parts as one."""
    tokens, total = (float(np.sum([part[i] for part in parts])) for i in (1, 2))
    return Part(what, tokens, total)
