"""Two stages of memorisation, every arm and seed, and what is still known after each.

Cells of stage A in which the same is done (an arm that does nothing in A, and the naive one) are
one run.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.reading import task_seed
from forget_jax.data.tokenise import Encoded
from forget_jax.factoids.mitigations import ARMS, Mitigation, StageObjective
from forget_jax.factoids.stages import StageConfig, task
from forget_jax.fleet.cells import Cell, check, gather, grid
from forget_jax.fleet.fleet import Fleet, all_trained, journal
from forget_jax.lm import generate
from forget_jax.lm.model import Adapters
from forget_jax.runs.once import once
from forget_jax.runs.progress import Progress
from forget_jax.scoring import likelihood
from forget_jax.scoring.exact_match import is_correct, spoken
from forget_jax.scoring.stream import Layout
from forget_jax.training.loop import train
from forget_jax.types import Tree

STAGES = "ab"
UNITS = {"accuracy": "share of the facts", "answer": "nats a token"}


@dataclasses.dataclass(frozen=True)
class Facts:
    """One set of facts.

    Attributes:
      examples: with prompt and completion.
      encoded: as they are trained on.
      prompts: token ids that each is recited from.
    """

    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    prompts: Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is memorised, and how.

    Attributes:
      facts: by stage, `a` and `b`.
      mix: unrelated rows to mix in.
      stage: how long a stage is.
      arms: names of `mitigations.ARMS`.
      seeds: how many.
      max_new_tokens: of a recited answer.
    """

    facts: Mapping[str, Facts]
    mix: Sequence[Encoded]
    stage: StageConfig
    arms: Sequence[str]
    seeds: int
    max_new_tokens: int


def cells(fleet: Fleet, experiment: Experiment, stage: str) -> list[Cell]:
    """One run for each seed and arm in a stage, `a` or `b`."""
    number, facts = STAGES.index(stage), experiment.facts[stage]
    found = []
    for at in grid(seed=range(experiment.seeds), arm=experiment.arms):
        seed = task_seed(fleet.recipe.train.seed, "factoids", int(at["seed"]))
        mixed = ARMS[str(at["arm"])][number].mixed
        one = task("", facts.encoded, experiment.mix, mixed, seed + number, experiment.stage)
        found.append(Cell({"arm": at["arm"], "stage": stage.upper(), "seed": at["seed"]}, one))
    check(found)
    return found


def shared(grid_a: Sequence[Cell]) -> list[int]:
    """For every cell of stage A, whose run it shares: the first in which the same is done."""
    first: dict[tuple[Mitigation, str | int], int] = {}
    return [
        first.setdefault((ARMS[str(cell.at["arm"])][0], int(cell.at["seed"])), i)
        for i, cell in enumerate(grid_a)
    ]


def measure(fleet: Fleet, experiment: Experiment) -> xr.Dataset:
    """Trains every arm through both stages and recites the facts after each; resumes.

    Returns:
      Figures over arm and seed: `accuracy_a_after_a`, `accuracy_a_after_b`, `accuracy_b` (shares
      recited exactly), and the answers' mean NLL in nats a token under the same names with
      `answer_nll` for `accuracy`.
    """
    grid_a, grid_b = cells(fleet, experiment, "a"), cells(fleet, experiment, "b")
    owner = shared(grid_a)
    unique = sorted(set(owner))
    trained_a = train_stage(fleet, "a", [grid_a[i] for i in unique], None)
    where = [unique.index(i) for i in owner]
    after_a = [trained_a[i] for i in where]
    after_b = train_stage(fleet, "b", grid_b, after_a)
    measured: dict[str, list[float]] = {}
    for key, trained, places, which in (
        ("accuracy_a_after_a", trained_a, where, "a"),
        ("accuracy_a_after_b", after_b, range(len(grid_b)), "a"),
        ("accuracy_b", after_b, range(len(grid_b)), "b"),
    ):

        def figures(
            key: str = key, trained: Sequence[Tree] = trained, which: str = which
        ) -> dict[str, list[float]]:
            facts = experiment.facts[which]
            exact = _recite(fleet, trained, facts, experiment.max_new_tokens, key)
            nll = _answer_nll(fleet, trained, facts.encoded)
            return {key: exact, key.replace("accuracy", "answer_nll"): nll}

        found = once(fleet.work / f"{key}.json", figures)
        measured |= {name: [values[i] for i in places] for name, values in found.items()}
    names = [cell.name for cell in grid_a]
    arrays = {
        key: gather(grid_a, dict(zip(names, values, strict=True)), unit=UNITS[key.split("_")[0]])
        for key, values in measured.items()
    }
    return xr.Dataset(arrays).squeeze("stage", drop=True)


def train_stage(
    fleet: Fleet, stage: str, grid: Sequence[Cell], initial: Sequence[Tree] | None
) -> list[Tree]:
    """Trains the cells of a stage, `a` or `b`; resumes.

    Args:
      initial: the tree that each cell starts from; None where the fleet's base is.

    Returns:
      Every cell's trained tree.
    """
    objectives = [ARMS[str(cell.at["arm"])][STAGES.index(stage)].objective for cell in grid]

    def stacked(trees: Sequence[Tree]) -> Tree:
        return jax.tree.map(lambda *x: jnp.stack(x), *trees)

    found: dict[int, Tree] = {}
    for group in _together(fleet, objectives):
        alone = fleet.full or group[0] > 0
        name = f"factoids/{stage}{group[0]}" if alone else f"factoids/{stage}"
        what = grid[group[0]].name if fleet.full else f"stage {stage.upper()}: {len(group)} runs"
        begin = None if initial is None else stacked([initial[m] for m in group])
        recipe = dataclasses.replace(fleet.recipe, objective=objectives[group[0]](begin))
        with journal(fleet, name, what) as (checkpoints, listener):
            outcome = train(
                fleet.base.model,
                recipe,
                [grid[m].task for m in group],
                checkpoints,
                initial=begin,
                listener=listener,
            )
        trained = all_trained(outcome)
        found |= {m: jax.tree.map(lambda x, i=i: x[i], trained) for i, m in enumerate(group)}
    return [found[m] for m in range(len(grid))]


def _together(fleet: Fleet, objectives: Sequence[StageObjective]) -> list[list[int]]:
    """Which cells train together: adapters that minimise the same; whole models one by one."""
    if fleet.full:
        return [[m] for m in range(len(objectives))]
    same = dict.fromkeys(objectives)
    return [[m for m, own in enumerate(objectives) if own is one] for one in same]


def _answer_nll(fleet: Fleet, trained: Sequence[Tree], facts: Sequence[Encoded]) -> list[float]:
    """Mean NLL of the answers' tokens under each model: forgetting that exact match cannot see."""
    buckets = Buckets.of(facts, fleet.recipe.train.buckets)
    layout = Layout.of(facts, buckets, 8)
    tokens, found = sum(e.tokens for e in facts), []
    for tree in trained:
        model, adapter = fleet.trained(tree)
        stack = None
        if adapter is not None:
            stack = Adapters(adapter.config, jax.tree.map(lambda x: x[None], adapter.tree))
        found.append(float(likelihood.score(model, stack, facts, layout).sum() / tokens))
    return found


def _recite(
    fleet: Fleet, trained: Sequence[Tree], facts: Facts, max_new_tokens: int, what: str
) -> list[float]:
    """Share of facts that each model completes exactly by greedy decoding."""
    found, tokenizer = [], fleet.base.tokenizer
    until = generate.until(tokenizer, max_new_tokens, fleet.base.eos_ids)
    with Progress(what, len(trained), unit="model") as progress:
        for i, tree in enumerate(trained):
            model, adapter = fleet.trained(tree)
            said = generate.answers(model, adapter, facts.prompts, until)
            right = [
                is_correct(text, spoken(tokenizer, (e.completion or "", *e.answers)))
                for text, e in zip(said, facts.examples, strict=True)
            ]
            found.append(float(np.mean(right)))
            progress.at(i + 1, f"{found[-1]:.0%} exact")
    return found
