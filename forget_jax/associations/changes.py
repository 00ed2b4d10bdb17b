"""How two models' scores of the same examples differ: mean z with an interval, answers that flip,
and the share that is the same.

Takes plain arrays, whoever measured them. A right answer that becomes wrong is lost (1 to 0), a
wrong one that becomes right gained (0 to 1).
"""

import dataclasses

import numpy as np
import scipy.stats

from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Change:
    """The change of a loss over a set of examples.

    Attributes:
      examples: those with a finite loss under both models.
      mean: mean z over them, in the unit of the losses; NaN without any.
      low, high: its interval over examples (Student's t); NaN with fewer than two.
      over_tokens: mean z weighted by target tokens; NaN where their numbers are not known.
      worse: share of examples whose loss rose.
    """

    examples: int
    mean: float
    low: float
    high: float
    over_tokens: float
    worse: float


@dataclasses.dataclass(frozen=True)
class Adjusted:
    """Shares as they would be without guesses (see `flips`); may be below 0 by chance."""

    lost: float
    gained: float
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Flips:
    """Answers before and after.

    Attributes:
      answers: those known under both models.
      lost, gained: how many flipped from right to wrong, and from wrong to right.
      p: exact McNemar test of as many lost as gained, two-sided; 1 where none flipped.
      before, after: shares of right answers.
      adjusted: for chance; None where no answer is chosen from options.
    """

    answers: int
    lost: int
    gained: int
    p: float
    before: float
    after: float
    adjusted: Adjusted | None


def change(z_N: np.ndarray, tokens_N: np.ndarray, level: float) -> Change:
    """The mean change of a loss.

    Args:
      z_N: loss after less loss before of each example; NaN where either is not known.
      tokens_N: target tokens of each, or NaN.
      level: of the interval.
    """
    known = np.isfinite(z_N)
    z, tokens = np.asarray(z_N, float)[known], np.asarray(tokens_N, float)[known]
    if not z.size:
        return Change(0, *[np.nan] * 5)
    mean, half = float(z.mean()), np.nan
    if z.size > 1:
        half = float(scipy.stats.t.ppf((1 + level) / 2, z.size - 1) * scipy.stats.sem(z))
    counted = np.isfinite(tokens).all() and tokens.sum() > 0
    over_tokens = float((z * tokens).sum() / tokens.sum()) if counted else np.nan
    return Change(z.size, mean, mean - half, mean + half, over_tokens, float((z > 0).mean()))


def flips(before_N: np.ndarray, after_N: np.ndarray, options_N: np.ndarray) -> Flips | None:
    """Lost and gained answers, also adjusted for chance where they were chosen from options.

    Adjusted shares hold under one assumption: an example is known or guessed, and guesses before
    and after are independent, each right with q = 1 / options. Then E[lost] = (1 - q) (L + q B) and
    E[wrong both times] = (1 - q)² B, with L known before and guessed after, and B guessed both
    times; so L = lost / (1 - q) - q wrong / (1 - q)², and an accuracy a becomes (a - q) / (1 - q).
    Guesses that are alike before and after make it too small.

    Args:
      before_N, after_N: 1 for a right answer, 0 for a wrong one, NaN where there is none.
      options_N: how many options each was chosen from; NaN for an open question.

    Returns:
      None where no answer is known under both.

    Raises:
      UserError: fewer than two options.
    """
    known = np.isfinite(before_N) & np.isfinite(after_N)
    before, after = before_N[known] > 0.5, after_N[known] > 0.5
    options = np.asarray(options_N, float)[known]
    if not before.size:
        return None
    if (options < 2).any():
        raise UserError("a question with one option has no wrong answer: give it two or more")
    lost, gained = before & ~after, ~before & after
    flipped = int(lost.sum() + gained.sum())
    p = scipy.stats.binomtest(int(lost.sum()), flipped).pvalue if flipped else 1.0
    adjusted = None
    if np.isfinite(options).any():
        q = np.where(np.isfinite(options), 1 / options, 0.0)
        chance = q * (~before & ~after) / (1 - q) ** 2
        adjusted = Adjusted(
            *(float((x / (1 - q) - chance).mean()) for x in (lost, gained)),
            *(float(((x - q) / (1 - q)).mean()) for x in (before, after)),
        )
    return Flips(
        before.size,
        int(lost.sum()),
        int(gained.sum()),
        float(p),
        float(before.mean()),
        float(after.mean()),
        adjusted,
    )


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of examples and its interval (Wilson's), between 0 and 1."""

    share: float
    low: float
    high: float


def share(is_N: np.ndarray, level: float) -> Share:
    """The share of N examples, at least one, of which something is so (bool)."""
    found = scipy.stats.binomtest(int(is_N.sum()), is_N.size)
    low, high = found.proportion_ci(level, method="wilson")
    return Share(float(is_N.mean()), float(low), float(high))


def floor(moved_N: np.ndarray, level: float) -> float:
    """The largest |mean| that scores which only moved by rounding leave possible, by an interval.

    Args:
      moved_N: how far each example's loss moved when nothing but the batches changed.
      level: of the interval.
    """
    found = change(moved_N, np.full(len(moved_N), np.nan), level)
    return float(np.nanmax(np.abs([found.mean, found.low, found.high]))) if found.examples else 0.0
