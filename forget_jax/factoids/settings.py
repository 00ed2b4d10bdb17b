"""What is memorised in which order, and what is mixed in: the fields of `factoids`."""

import dataclasses
from collections.abc import Collection

from forget_jax.settings import names, setting


def _arms() -> Collection[str]:
    from forget_jax.factoids.mitigations import ARMS

    return ARMS


@dataclasses.dataclass(frozen=True)
class Facts:
    """Two stages of memorisation with mixing (arXiv 2411.07175)."""

    stage_a: str = names("rows", setting("", "facts memorised first"))
    stage_b: str = names("rows", setting("", "facts trained on afterwards"))
    mix: str = names("rows", setting("", "unrelated rows to mix in"))
    ratio: float = setting(2.0, "mixed rows per fact", least=0, most=1e6)
    arms: tuple[str, ...] = setting(
        ("naive", "mix in A", "mix in B", "mix in both"),
        "what to compare, by name",
        choices=_arms,
    )
    epochs: int = setting(20, "passes over the facts in each stage", least=1, most=10_000)
    max_new_tokens: int = setting(16, "the most tokens of a recited answer", least=1, most=2**22)
    seeds: int = setting(1, "repetitions under other seeds", least=1, most=100)
