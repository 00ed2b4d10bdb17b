"""Which rows to replay, given what is known of a task's forgetting.

A strategy says how much each candidate should be replayed, from what is known; a sampling makes a
choice of rows of that (arXiv 2406.14026 §5). No jax here: settings name both.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from forget_jax.errors import UserError
from forget_jax.randomness import generator

RANK = 5  # of the factors by which columns are called alike
MOST_DIVERSE = 1000  # candidates that are put in order one by one


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of one task's forgetting of the J candidates, in the matrix's unit.

    Attributes:
      own_J: measured; NaN where it was not.
      others_MxJ: of the matrix's other tasks.
      predicted_J: completed from the others and from the few of its own that may be seen.
      base_nll_J: of the base, nats a token.
      gradient_JxF: a sketch of each candidate's gradient at the base; None where it was not taken.
    """

    own_J: np.ndarray
    others_MxJ: np.ndarray
    predicted_J: np.ndarray
    base_nll_J: np.ndarray | None = None
    gradient_JxF: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How rows to replay are chosen.

    Attributes:
      value: value_J, the more the likelier a candidate is replayed; NaN for never. None where all
        are alike.
      knows: what it has to know: nothing, the `base`'s scores, a `matrix` of other tasks, `probes`
        of the task, or the task's whole `row`, which nobody has before the task is trained.
      rows: what is replayed: `upstream` examples, `other` text, text `generated` by the base, what
        the base `answered` to the task's prompts, or nothing.
      sampling: where the strategy's name says none.
    """

    value: Callable[[Known], np.ndarray] | None = None
    knows: str = "nothing"
    rows: str = "upstream"
    sampling: str = "softmax"

    @property
    def needs_matrix(self) -> bool:
        """Whether it asks what tasks were measured to forget."""
        return self.knows not in ("nothing", "base")


def _surprise(known: Known) -> np.ndarray:
    assert known.base_nll_J is not None
    return known.base_nll_J


def _alike(others_MxJ: np.ndarray) -> np.ndarray:
    """How alike two columns are, J x J (0 to 1): the cosine of their factors, above zero.

    Factors are those of the train matrix after each task's mean was taken off.
    """
    centred = np.nan_to_num(others_MxJ - np.nanmean(others_MxJ, axis=1, keepdims=True))
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    factor_JxR = (s[:RANK, None] * vt[:RANK]).T
    factor_JxR /= np.maximum(np.linalg.norm(factor_JxR, axis=1, keepdims=True), 1e-12)
    return np.maximum(factor_JxR @ factor_JxR.T, 0)


def coverage(known: Known) -> np.ndarray:
    """Σ_j s_ij · max(ẑ_j, 0): the predicted forgetting that a candidate stands for.

    s_ij says how alike the two columns are (`_alike`). Sums over like columns are less noisy than
    single entries.
    """
    return _alike(known.others_MxJ) @ np.maximum(np.nan_to_num(known.predicted_J), 0)


def diverse(known: Known) -> np.ndarray:
    """The order, highest first, in which each next candidate covers what those before leave.

    Replaying i is taken to leave e^(-s_ij) of j's forgetting, so that the next candidate is that
    of the largest Σ_j max(ẑ_j, 0) e^(-Σ_before s_kj) (1 - e^(-s_ij)): a greedy choice for a
    submodular sum. Beyond `MOST_DIVERSE` candidates go by what they would cover then.
    """
    alike_JxJ = _alike(known.others_MxJ).astype(np.float32)
    left_J = np.maximum(np.nan_to_num(known.predicted_J), 0).astype(np.float32)
    covers_JxJ, J = 1 - np.exp(-alike_JxJ), len(left_J)
    value_J, is_left = np.zeros(J), np.ones(J, bool)
    for place in range(min(J, MOST_DIVERSE)):
        gain_J = np.where(is_left, covers_JxJ @ left_J, -1.0)
        chosen = int(np.argmax(gain_J))
        value_J[chosen], is_left[chosen] = J - place, False
        left_J = left_J * (1 - covers_JxJ[chosen])
    rest = np.flatnonzero(is_left)
    value_J[rest[np.argsort(-(covers_JxJ @ left_J)[rest])]] = np.arange(len(rest), 0, -1)
    return value_J


def influence(known: Known) -> np.ndarray:
    """g_i · Σ_{j≠i} max(ẑ_j, 0) g_j: what a step on i takes off the rest, to first order.

    The gradients are sketches, at the base; the sum is over what is predicted to be forgotten.
    """
    g_JxF = known.gradient_JxF
    assert g_JxF is not None
    weight_J = np.maximum(np.nan_to_num(known.predicted_J), 0)
    return g_JxF @ (weight_J @ g_JxF) - weight_J * (g_JxF**2).sum(1)


STRATEGIES: Mapping[str, Strategy] = {
    "none": Strategy(rows=""),
    "pad": Strategy(rows="other"),
    "random": Strategy(),
    "generated": Strategy(rows="generated"),
    "answered": Strategy(rows="answered"),
    "surprise": Strategy(_surprise, "base"),
    "column_mean": Strategy(lambda known: _mean(known.others_MxJ), "matrix"),
    "predicted": Strategy(lambda known: known.predicted_J, "probes"),
    "coverage": Strategy(coverage, "probes"),
    "diverse": Strategy(diverse, "probes", sampling="top"),
    "influence": Strategy(influence, "probes"),
    "online": Strategy(lambda known: np.zeros(len(known.own_J)), "probes"),  # `online` goes on
    "mir": Strategy(lambda known: known.own_J, "row", sampling="best"),
    "ground_truth": Strategy(lambda known: known.own_J, "row"),
}
SAMPLINGS = ("softmax", "proportional", "top", "best")


def _mean(z_MxJ: np.ndarray) -> np.ndarray:
    """Over tasks, of what is known; NaN where nothing is."""
    known = ~np.isnan(z_MxJ)
    return np.where(known.any(0), np.nansum(z_MxJ, 0) / np.maximum(known.sum(0), 1), np.nan)


def parse(spec: str) -> tuple[Strategy, str]:
    """A strategy by its name, and its sampling: `NAME` or `NAME:SAMPLING`.

    Raises:
      UserError: no such strategy or sampling, or a sampling where all candidates are alike.
    """
    name, colon, sampling = spec.partition(":")
    if name not in STRATEGIES:
        raise UserError(f"no replay strategy {name!r}; there are {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name]
    if colon and strategy.value is None:
        raise UserError(f"{spec}: {name} replays all candidates alike and takes no sampling")
    if colon and sampling not in SAMPLINGS:
        raise UserError(f"{spec}: a sampling is one of {', '.join(SAMPLINGS)}")
    return strategy, sampling or strategy.sampling


def weights(value_J: np.ndarray, temperature: float, sampling: str = "softmax") -> np.ndarray:
    """Sampling weights: softmax(value / τ) with τ in standard deviations of the values.

    In units of their own spread because a fixed τ collapses onto a handful of examples for
    hard-trained tasks and is uniform for gently trained ones.

    Args:
      value_J: of each candidate by a strategy, such as its forgetting; NaN is never replayed.
      temperature: τ over the standard deviation of the known values.
      sampling: `proportional` takes what is above zero instead.

    Returns:
      Probabilities over the J candidates; uniform where all values are equal, or none is above
      zero where that counts.

    Raises:
      UserError: no known value, or a temperature that is not positive.
    """
    known = np.isfinite(value_J)
    if not known.any():
        raise UserError("no candidate for replay has a known forgetting value")
    if not temperature > 0:
        raise UserError(f"the replay temperature is {temperature}; it must be above 0")
    if sampling == "proportional":
        p = np.where(known, np.maximum(value_J, 0), 0)
        p = p if p.sum() > np.finfo(float).tiny else known.astype(float)
        return p / p.sum()
    scale = temperature * value_J[known].std()
    is_some = scale > np.finfo(float).tiny  # one may divide by it
    score = np.where(known, value_J / scale if is_some else 0.0, -np.inf)
    p = np.exp(score - score[known].max())
    return p / p.sum()


def draw(p_J: np.ndarray, count: int, seed: int, *more: int) -> np.ndarray:
    """`count` candidates drawn by weight, without replacement until all have been drawn.

    Args:
      more: tells draws of one seed apart, such as the step of a refresh.
    """
    rng = generator(seed, "replay draw", *more)
    possible = int((p_J > 0).sum())
    drawn = [
        rng.choice(len(p_J), min(possible, count - start), replace=False, p=p_J)
        for start in range(0, count, possible)
    ]
    return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a choice is made of values.

    Attributes:
      kind: `softmax` and `proportional` draw by weight; `top` takes the candidates of the highest
        values; `best` the highest of so many random ones, again and again (maximally interfered
        retrieval, arXiv 1908.04742).
      temperature: of the softmax.
      best_of: how many random ones.
    """

    kind: str = "softmax"
    temperature: float = 1.0
    best_of: int = 30


def choose(value_J: np.ndarray, count: int, seed: int, how: Sampling, *more: int) -> np.ndarray:
    """`count` candidates, none again before all others were chosen; otherwise as `draw`."""
    p_J = weights(value_J, how.temperature, how.kind)
    if how.kind in ("softmax", "proportional"):
        return draw(p_J, count, seed, *more)
    known = np.flatnonzero(np.isfinite(value_J))
    if how.kind == "top":
        best_first = known[np.argsort(-value_J[known], kind="stable")]
        return np.resize(best_first, count)
    rng, left, chosen = generator(seed, "replay draw", *more), known, np.zeros(count, np.int64)
    for i in range(count):
        left = left if len(left) else known
        some = rng.choice(left, min(how.best_of, len(left)), replace=False)
        chosen[i] = some[np.argmax(value_J[some])]
        left = left[left != chosen[i]]
    return chosen
