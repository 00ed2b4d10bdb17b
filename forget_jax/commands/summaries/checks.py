"""The summary of `check`: what fine-tunes lost of named sets, against limits and noise."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class AdjustedFlips:
    """Shares of answers without guesses (`associations.changes.flips`)."""

    lost: float
    gained: float
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Flipped:
    """Answers of a set before and after.

    Attributes:
      answers: known under both models.
      lost, gained: right ones that became wrong, and the reverse.
      p: exact McNemar test, two-sided.
      before, after: shares of right answers.
      adjusted: for chance, of answers chosen from options.
    """

    answers: int
    lost: int
    gained: int
    p: float
    before: float
    after: float
    adjusted: AdjustedFlips | None


@dataclass(frozen=True, kw_only=True)
class WorstExample:
    """One of the examples whose loss rose most, or whose answer was lost, with its beginning."""

    example: str
    z: float
    lost: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """One fine-tune on one set.

    Attributes:
      examples, tokens: scored under both models; `tokens` is None where they are not counted.
      z: mean over examples of loss after less loss before, in the summary's unit; None without any
        loss.
      low, high: its interval over examples.
      z_tokens: mean over tokens.
      worse: share of examples with z > 0.
      noise: the |mean z| that no forgetting can give, measured here; None where it was not.
      noise_example: the largest |z| of one example of that kind.
      flips: answers; None where there are none.
      limit, limit_lost: what was allowed of z and of the share of answers lost.
      over: which of the limits is passed: z, lost.
      sure: whether the intervals lie on the same side of the limits as the figures.
    """

    examples: int
    tokens: int | None
    z: float | None
    low: float | None
    high: float | None
    z_tokens: float | None
    worse: float | None
    noise: float | None
    noise_example: float | None
    flips: Flipped | None
    limit: float | None
    limit_lost: float | None
    over: tuple[str, ...]
    sure: bool
    worst: tuple[WorstExample, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of a set's prompts, with its interval (Wilson's)."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ChangedAnswer:
    """An answer that is not the base's, with what became of it and the beginnings of the texts."""

    example: str
    fate: str
    prompt: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class AnswersChanged:
    """One fine-tune's greedy answers to one set of prompts, against the base's.

    Attributes:
      same: answers that are the base's letter by letter.
      alike: those that are the base's in the normal form of `exact_match.normaliser`.
      right: answers that match the prompts' completions; None without completions.
      refused: refusals in place of right answers; None where none are looked for.
      limit: what was allowed of refusals lost, as a share of the base's.
      over: whether it is passed.
      changed: the first few changed answers, lost refusals and lost answers first.
    """

    prompts: int
    same: Share
    alike: Share
    right: Flipped | None
    refused: Flipped | None
    limit: float | None
    over: bool
    changed: tuple[ChangedAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Verdict on fine-tunes.

    Attributes:
      unit: of z: nats/token, or nats/example where tokens are not counted.
      level: of the intervals.
      before: name of the base, or the file of its scores.
      sets: by fine-tune, each set's figures.
      behaviour: by fine-tune, the figures of each set of prompts.
      over: fine-tune and set of every limit passed, in words; empty: all is within limits.
    """

    command: ClassVar[str] = "check"
    unit: str
    level: float
    before: str
    sets: dict[str, dict[str, CheckedSet]]
    behaviour: dict[str, dict[str, AnswersChanged]]
    over: tuple[str, ...]
    seconds: float
