"""Which upstream examples are replayed, and how many: the `replay` fields."""

import dataclasses
from collections.abc import Collection

from forget_jax.replay.strategies import STRATEGIES
from forget_jax.settings import setting


def _methods() -> Collection[str]:
    from forget_jax.associations.completion import METHODS

    return METHODS


@dataclasses.dataclass(frozen=True)
class Replay:
    """A comparison of strategies on the matrix of `associate` (arXiv 2406.14026 §5)."""

    strategies: tuple[str, ...] = setting(
        ("none", "random", "predicted", "ground_truth"),
        f"what to compare: {', '.join(STRATEGIES)}",
        choices=STRATEGIES,
    )
    ratio: float = setting(0.125, "replayed examples per task example", above=0, below=1)
    temperature: float = setting(
        1.0, "softmax temperature in standard deviations of the row", least=1e-6, most=1e6
    )
    observed: int = setting(
        30, "measured entries of the task's row that the prediction may see", least=1
    )
    method: str = setting("auto", "completion method of the prediction", choices=_methods)
    pool: float = setting(
        0.5,
        "share of the upstream examples that may be replayed; the rest is measured",
        above=0,
        below=1,
    )
    seeds: int = setting(1, "fine-tunes of each task under each strategy", least=1, most=100)
    task_heldout: float = setting(
        0.2, "share of the task's examples kept for its held-out loss", above=0, below=1
    )
