"""The runs of an experiment as a tree: arms that did the same so far are one run until they part.

A node is a stage of a run. Its parent is the stage before it; a node of the last stage may have one
that asks whether facts of A were lost or only misaligned.
"""

import dataclasses
from collections.abc import Sequence

from forget_jax.data.reading import task_seed
from forget_jax.errors import UserError
from forget_jax.factoids.mitigations import LETTERS, Mitigation, parse

RECOVERY = "recovery"


@dataclasses.dataclass(frozen=True)
class Node:
    """One stage of one run.

    Attributes:
      name: of the first arm that has it, for people and files.
      parent: the name of the stage before it; empty for the first.
      sets: that were memorised up to here, in order.
      what: done in this stage; None where facts of A are asked to come back.
      seed: of initialisation and order.
    """

    name: str
    parent: str
    sets: tuple[str, ...]
    what: Mitigation | None
    seed: int

    @property
    def stage(self) -> int:
        """Its number, from 0."""
        return len(self.sets) - 1


@dataclasses.dataclass(frozen=True)
class Path:
    """One arm of a sequence under a seed.

    Attributes:
      nodes: names of its stages, in order; of the recovery last, where it is asked.
    """

    arm: str
    sequence: tuple[str, ...]
    seed: int
    nodes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every arm, sequence and seed, and the nodes that they are made of, parents first."""

    paths: tuple[Path, ...]
    nodes: dict[str, Node]

    def children(self, name: str) -> list[Node]:
        """The nodes that go on from one."""
        return [node for node in self.nodes.values() if node.parent == name]

    def above(self, node: Node) -> list[str]:
        """The names of a node and of those that it goes on from."""
        return [node.name, *(self.above(self.nodes[node.parent]) if node.parent else [])]

    def below(self, name: str) -> list[Node]:
        """All nodes that go on from one, parents first."""
        found: list[Node] = []
        for node in self.children(name):
            found += [node, *self.below(node.name)]
        return found


@dataclasses.dataclass(frozen=True)
class Axes:
    """What is compared.

    Attributes:
      sequences: of sets, by name.
      arms: as they are written.
      seeds: how many.
      ratio: of mixes that say none.
      recovery: whether it is asked.
    """

    sequences: tuple[tuple[str, ...], ...]
    arms: tuple[str, ...]
    seeds: int
    ratio: float
    recovery: bool = False


def grid(axes: Axes, seed: int) -> Grid:
    """All runs of an experiment.

    Args:
      seed: of the run; a run's own depends on the number of its repetition and of its stage alone.

    Raises:
      UserError: an arm that is not understood, or sequences of too many sets.
    """
    paths: list[Path] = []
    nodes: dict[str, Node] = {}
    at: dict[object, str] = {}  # what was done so far, by which nodes are shared
    for sequence in axes.sequences:
        if len(sequence) > len(LETTERS):
            raise UserError(f"a sequence has at most {len(LETTERS)} sets, not {len(sequence)}")
        for repeat in range(axes.seeds):
            own = task_seed(seed, "factoids", repeat)
            for arm in axes.arms:
                done = parse(arm, len(sequence), axes.ratio)
                names, parent = [], ""
                steps: list[tuple[tuple[str, ...], Mitigation | None]] = [
                    (sequence[: k + 1], what) for k, what in enumerate(done)
                ]
                if axes.recovery:
                    steps.append((sequence, None))
                for sets, what in steps:
                    key = (parent, sets, what, repeat)
                    if key not in at:
                        stage = RECOVERY if what is None else LETTERS[len(sets) - 1]
                        shown = " > ".join(sets) + f", {arm}, {stage}"
                        name = shown + (f", seed {repeat}" if repeat else "")
                        at[key] = name
                        number = len(sets) if what is None else len(sets) - 1
                        nodes[name] = Node(name, parent, sets, what, own + number)
                    parent = at[key]
                    names.append(parent)
                paths.append(Path(arm, sequence, repeat, tuple(names)))
    return Grid(tuple(paths), nodes)


def forests(whole: Grid, apart: bool) -> list[list[list[Node]]]:
    """Nodes in the order they are trained: groups of runs, each a list of levels.

    Args:
      apart: each first stage with all that goes on from it is a group of its own, so that few
        models are kept at a time; else all are one.
    """
    roots = [node for node in whole.nodes.values() if not node.parent]
    return [_levels(whole, [root]) for root in roots] if apart else [_levels(whole, roots)]


def _levels(whole: Grid, roots: Sequence[Node]) -> list[list[Node]]:
    found, level = [], list(roots)
    while level:
        found.append(level)
        level = [child for node in level for child in whole.children(node.name)]
    return found
