"""Training the nodes of the tree: adapters of one mitigation together, whole models one by one.

What was trained is kept in the run's folder and read again for the stages that go on from it, so
that memory holds one training at a time, however many arms there are.
"""

import dataclasses
import math
import shutil
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from forget_jax import distributed, files
from forget_jax.data.tokenise import Encoded
from forget_jax.factoids import objectives
from forget_jax.factoids.mitigations import Mitigation
from forget_jax.factoids.tree import Node
from forget_jax.fleet import fleet as fleets
from forget_jax.fleet.fleet import Fleet
from forget_jax.lm import lora, sharding
from forget_jax.lm.cost import memory
from forget_jax.lm.lora import LoRAConfig
from forget_jax.lm.model import Adapters, Model
from forget_jax.training.loop import Outcome, Recipe, Task, train
from forget_jax.types import Tree

Loaded = tuple[Model, Adapters | None]


@dataclasses.dataclass(frozen=True)
class Job:
    """A node with what it is trained on.

    Attributes:
      node: of the tree.
      task: under the node's name.
      earlier: facts of the stages before it.
    """

    node: Node
    task: Task
    earlier: Sequence[Encoded]

    @property
    def what(self) -> Mitigation:
        """What is done; nothing where facts are asked to come back."""
        return self.node.what or Mitigation()


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How nodes are trained.

    Attributes:
      fleet: the run's folder, base and recipe.
      together: adapters that train at a time at most.
      adapter: settings of the adapters of arms that train such in place of the whole model.
      dtype: of what is trained and of Adam's moments.
    """

    fleet: Fleet
    together: int
    adapter: LoRAConfig
    dtype: str = "float32"

    def load(self, name: str) -> Loaded:
        """A node's model, or the base where the name is empty."""
        model, adapter = self.fleet.load(name or fleets.BASE)
        return model.computing(dtype=self.fleet.base.model.config.dtype), adapter

    def train(self, jobs: Sequence[Job]) -> None:
        """Trains a level of the tree, but for what is kept already; resumes.

        Raises:
          UserError: a loss that is not finite.
        """
        for group in self.groups(jobs):
            if fleets.kept(self.fleet, [job.task for job in group]) is None:
                self._group(group)
                memory.give_back()
                self.fleet.work.tick()

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Which nodes train together: adapters that minimise the same, as many as fit."""
        if self.fleet.full:
            return [[job] for job in jobs]
        found: list[list[Job]] = []
        together: dict[object, list[Job]] = {}
        for job in jobs:
            # all but its rows; not together where these are held to a model of their own
            key = dataclasses.replace(job.what, mixes=(), steps=0.0, replay=0.0, redrawn=False)
            if job.what.kl or len(together.get(key, ())) >= self.together or key not in together:
                found.append([job])
                if not job.what.kl:
                    together[key] = found[-1]
            else:
                together[key].append(job)
        return found

    def forget(self, name: str) -> None:
        """Removes the weights of a node; its figures stay."""
        if distributed.is_writer():
            folder = self.fleet.folder(name)
            if folder.exists():
                (folder / fleets.DONE).unlink(missing_ok=True)  # first: what is left is not whole
                for file in files.walk(folder):
                    file.unlink()
        distributed.barrier("a model is removed")

    def _group(self, group: Sequence[Job]) -> None:
        fleet, what = self.fleet, group[0].what
        starts = [self.load(job.node.parent) for job in group]
        objective = objectives.of(
            what, starts, [job.earlier for job in group], fleet.base.model.config.layers
        )
        recipe = dataclasses.replace(_looking(fleet.recipe, group), objective=objective)
        base, initial = fleet.base.model, self._initial(starts)
        if what.lora and fleet.full:
            adapter = dataclasses.replace(self.adapter, rank=what.lora)
            recipe = dataclasses.replace(recipe, lora=adapter)
            base, initial = starts[0][0], None
        if not (what.kl or (what.lora and fleet.full)):
            del starts
        tasks, stage, shown = [job.task for job in group], _stage(group), group[0].node.name
        if len(group) > 1:
            shown = f"stage of {len(group)} runs"
        with fleets.journal(fleet, stage, shown) as (checkpoints, listener):
            outcome = train(base, recipe, tasks, checkpoints, initial=initial, listener=listener)
        fleets.all_trained(outcome)
        fleets.keep(fleet, tasks, _whole(outcome, base, recipe) if fleet.full else outcome)
        self._clear(stage)

    def _initial(self, starts: Sequence[Loaded]) -> Tree | None:
        """The tree that a group starts from; None for fresh adapters."""
        if not self.fleet.full:
            if any(adapter is None for _, adapter in starts):
                return None
            return jax.tree.map(lambda *x: jnp.stack(x), *(a.tree for _, a in starts if a))
        params = starts[0][0].params
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype)[None], params)

    def _clear(self, stage: str) -> None:
        """Removes the checkpoints of a training that was kept: thrice a model's size."""
        if distributed.is_writer():
            folder = self.fleet.work / "checkpoints" / files.safe_name(stage)
            if files.is_local(folder):
                shutil.rmtree(folder, ignore_errors=True)
        distributed.barrier("checkpoints are removed")


def _stage(group: Sequence[Job]) -> str:
    """Names a training's checkpoints and records: by all that train in it, which may change."""
    names = [job.node.name for job in group]
    if len(names) == 1:
        return f"factoids/{names[0]}"
    return f"factoids/{len(names)} runs {files.digest_of(repr(names).encode())[:16]}"


def _looking(recipe: Recipe, group: Sequence[Job]) -> Recipe:
    """The recipe that looks at the loss of a stage's facts after as many rows as there are facts.

    Of several runs, the fewest facts decide.
    """
    facts = [len(job.task.heldout) for job in group if job.task.goal]
    if not facts:
        return recipe
    every = math.ceil(min(facts) / recipe.train.batch_size)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, eval_every=every))


def _whole(outcome: Outcome, base: Model, recipe: Recipe) -> Outcome:
    """The outcome with whole models, where adapters were trained in their place."""
    if recipe.lora is None:
        return outcome
    single = jax.tree.map(lambda x: x[0], outcome.trainable)
    merged = lora.merge(recipe.lora, base.params, single)
    whole = jax.tree.map(lambda x: x[None], sharding.fetch(merged))
    return outcome._replace(trainable=whole)
