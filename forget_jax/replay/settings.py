"""Which rows are replayed, how many, and what they cost: the `replay` fields."""

import dataclasses
from collections.abc import Collection

from forget_jax.replay.strategies import SAMPLINGS, STRATEGIES
from forget_jax.settings import names, setting

COSTS = ("nll", "kl", "both")
MATCHED = ("steps", "compute")
CHOSEN_BY = ("random", "column_mean", "predicted", "coverage", "measured")  # of `mix`


def _methods() -> Collection[str]:
    from forget_jax.associations.completion import METHODS

    return METHODS


def _specs() -> Collection[str]:
    """Every strategy, by itself and with every sampling that it takes."""
    return [
        *STRATEGIES,
        *(f"{s}:{how}" for s, of in STRATEGIES.items() if of.value for how in SAMPLINGS),
    ]


@dataclasses.dataclass(frozen=True)
class Mix:
    """What to replay for one task, written out for any trainer."""

    strategy: str = setting(
        "auto",
        "how candidates are weighed: at random, by column means of the matrix, by predicted or "
        "covered forgetting, or measured on all of them; auto: the best that is known here",
        choices=("auto", *CHOSEN_BY),
    )
    ratio: float = setting(
        0.0, "replayed rows per task row; 0: as the curve recommends, or 1/8", least=0, below=1
    )
    keep: float = setting(
        0.8,
        "recommended is the smallest ratio of the curve that saves this share of the most saved",
        above=0,
        most=1,
    )
    observed: int = setting(
        30, "candidates that are scored under the adapter where there is a matrix", least=1
    )
    method: str = setting("auto", "completion method of the prediction", choices=_methods)
    temperature: float = setting(
        1.0, "softmax temperature in standard deviations of the values", least=1e-6, most=1e6
    )
    generated: int = setting(
        256, "texts that the base writes where there are no candidates", least=1, most=100_000
    )
    generated_tokens: int = setting(128, "most tokens of such a text", least=1, most=2**16)
    generated_from: str = setting(
        "start",
        "what the base goes on from: the start of a text, or prompts (those of the task, without "
        "their answers)",
        choices=("start", "prompts"),
    )
    seed: int = setting(0, "of all that is drawn", least=0)


@dataclasses.dataclass(frozen=True)
class Replay:
    """A comparison of strategies on the matrix of `associate` (arXiv 2406.14026 §5)."""

    strategies: tuple[str, ...] = setting(
        ("none", "random", "predicted", "ground_truth"),
        f"what to compare: {', '.join(STRATEGIES)}; after a colon one of {', '.join(SAMPLINGS)}",
        choices=_specs,
    )
    ratio: tuple[float, ...] = setting(
        (0.125,), "replayed rows per task row; each ratio is compared", above=0, below=1
    )
    cost: tuple[str, ...] = setting(
        ("nll",),
        "what a replayed row costs: its nll, the kl to the base (adapters only), or both; each is "
        "compared",
        choices=COSTS,
    )
    matched: tuple[str, ...] = setting(
        ("steps",),
        "what replay may take: steps (added for the replayed rows) or compute (they displace rows "
        "of the task, so that training takes no more FLOPs than without); each is compared",
        choices=MATCHED,
    )
    temperature: float = setting(
        1.0, "softmax temperature in standard deviations of the row", least=1e-6, most=1e6
    )
    best_of: int = setting(30, "random candidates of which sampling `best` takes the best", least=1)
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
    measure_pool: bool = setting(
        False, "measure forgetting of the examples that may be replayed too, apart from the rest"
    )
    pad: str = names(
        "rows",
        setting("builtin:random_words/24", "rows that strategy `pad` replays: other text"),
    )
    generated: int = setting(
        64,
        "texts that the base writes for the strategy `generated`, and for each task its answers to "
        "so many of the prompts for `answered`",
        least=1,
        most=100_000,
    )
    generated_tokens: int = setting(64, "most tokens of such a text", least=1, most=2**16)
    recite: int = setting(
        0,
        "also exact match, of rows whose answers have at most so many tokens: the tasks' own "
        "held-out rows, and upstream examples that measure forgetting; 0: none",
        least=0,
        most=2**16,
    )
    online_at: tuple[float, ...] = setting(
        (0.1,),
        "strategy `online`: after these shares of its steps, probes are scored and the rest of the "
        "replayed rows is chosen anew; before the first, at random",
        above=0,
        below=1,
    )
    seeds: int = setting(1, "fine-tunes of each task under each strategy", least=1, most=100)
    task_heldout: float = setting(
        0.2, "share of the task's examples kept for its held-out loss", above=0, below=1
    )
