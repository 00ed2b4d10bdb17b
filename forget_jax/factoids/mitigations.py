"""What an arm does against forgetting in each stage, as values: the rows, and what is minimised."""

import dataclasses
from collections.abc import Callable, Mapping

from forget_jax.training.objective import Objective
from forget_jax.types import Tree

# What a stage minimises, from the trees (task axis first) that it starts from; None in stage A.
StageObjective = Callable[[Tree | None], Objective]


def plain(start: Tree | None) -> Objective:
    """The loss of the stage's rows and nothing else."""
    del start
    return Objective()


@dataclasses.dataclass(frozen=True)
class Mitigation:
    """What is done in one stage.

    Attributes:
      mixed: whether unrelated rows are mixed in (REMIX, arXiv 2411.07175).
      objective: a module-level function; adapters under the same one train together.
    """

    mixed: bool = False
    objective: StageObjective = plain


NOTHING = Mitigation()
MIX = Mitigation(mixed=True)

# By arm: what is done in stage A, and in stage B.
ARMS: Mapping[str, tuple[Mitigation, Mitigation]] = {
    "naive": (NOTHING, NOTHING),
    "mix in A": (MIX, NOTHING),
    "mix in B": (NOTHING, MIX),
    "mix in both": (MIX, MIX),
}
