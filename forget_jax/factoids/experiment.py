"""Facts memorised stage after stage under every arm, and what is known of each set after each.

The runs are a tree (`tree`): what two arms do alike is done once. Every node is trained, asked and
scored, and what it said is kept; a whole model's weights go once all that follows it is done.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forget_jax.data import reading as data_reading
from forget_jax.data import tokenise
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.factoids import evaluation, filter, mixes, objectives, sets, stages
from forget_jax.factoids.evaluation import Answers
from forget_jax.factoids.mitigations import LETTERS, Mitigation, Mix
from forget_jax.factoids.sets import Facts
from forget_jax.factoids.settings import Facts as Settings
from forget_jax.factoids.stages import Length, Pool
from forget_jax.factoids.training import Job, Trainer
from forget_jax.factoids.tree import RECOVERY, Grid, Node, forests
from forget_jax.files import safe_name
from forget_jax.fleet.fleet import DONE, Fleet
from forget_jax.lm.cost import memory
from forget_jax.randomness import generator
from forget_jax.runs.once import kept, once
from forget_jax.runs.progress import Progress
from forget_jax.scoring import lens
from forget_jax.training import displacement
from forget_jax.training.loop import Task
from forget_jax.training.optimizer import Schedule

BESIDE = ("steps", "lens", "displacement")  # what a node may say beside its answers to sets
Known = tuple[Sequence[Example], Sequence[Sequence[int]]]  # facts with shots, and their prompts
NONE: Known = ((), ())
Knows = Callable[[str, filter.Asked], Sequence[bool]]  # of a set by its name, for each question


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is memorised, and how.

    Attributes:
      settings: of the command.
      facts: by the set's name as it was written.
      mixed: rows to mix in.
      grid: every run.
    """

    settings: Settings
    facts: Mapping[str, Facts]
    mixed: Mapping[Mix, Sequence[Encoded]]
    grid: Grid

    @property
    def paper(self) -> bool:
        """Whether all is done as in the authors' code."""
        return self.settings.protocol == "paper"


def read_facts(reader: Reader, spec: str, settings: Settings, knows: Knows) -> Facts:
    """A set, without questions of several answers, and without what the base knows if so asked.

    Args:
      knows: which of some questions the base answers; asked where `only` is `unknown`.

    Raises:
      UserError: a row that is no fact, one over the context, or a set of which nothing is left.
    """
    found, own, examples = sets.read(reader, spec)
    dropped: dict[str, str] = {}
    if settings.protocol == "clean" and found.form.rule != "none":
        examples, dropped = sets.one_answer_each(examples)
        sets.say_dropped(spec, dropped)
    rule, known = found.form.rule, NONE
    if settings.only == "unknown" and rule != "none":
        examples, known = _unknown(own, spec, examples, settings, knows)
    if not examples:
        raise UserError(f"{spec} has no row left: the base knows all of its facts")
    encoded, over = own.encode(examples, scored=False)
    if over["dropped"] or over["windowed"]:
        raise UserError(f"{spec}: facts over the context cannot be dropped; raise data.context")
    prompts: list[list[int]] = []
    if rule != "none":
        spaced = settings.protocol == "paper" and bool(found.form.suffix)
        prompts, cut = _prompts(own, examples, settings.max_new_tokens, spaced)
        if cut:
            raise UserError(
                f"{cut} facts leave no room for max_new_tokens={settings.max_new_tokens} in the "
                f"model's context of {own.longest}"
            )
    facts = Facts(spec, rule, examples, encoded, prompts, known, dropped)
    return sets.checked(facts, settings.max_new_tokens, own.data.eos)


def _prompts(
    reader: Reader, examples: Sequence[Example], most: int, spaced: bool
) -> tuple[list[list[int]], int]:
    """What answers are generated from, and how many were cut.

    Args:
      spaced: with the authors' blank behind the question, which is not trained on.
    """
    if not spaced:
        return reader.prompts(examples, most)
    chosen = data_reading.template(reader.data)
    chosen = dataclasses.replace(chosen, prompt=chosen.prompt.replace("{prompt}", "{prompt} "))
    return tokenise.prompts(examples, reader.tokenizer, chosen, reader.longest - most)


def _unknown(
    reader: Reader, spec: str, examples: Sequence[Example], settings: Settings, knows: Knows
) -> tuple[list[Example], Known]:
    asked = filter.with_shots(reader, examples, settings.shots, 0)
    answered = knows(spec, asked)
    left = [e for e, known in zip(examples, answered, strict=True) if not known]
    index = [i for i, known in enumerate(answered) if known]
    return left, ([asked.examples[i] for i in index], [asked.prompts[i] for i in index])


def wanted_mixes(grid: Grid, rows: Mapping[str, int]) -> dict[Mix, int]:
    """How many rows of each mix the largest stage takes that has it.

    Args:
      rows: facts of each set.
    """
    found: dict[Mix, int] = {}
    for node in grid.nodes.values():
        for mix in node.what.mixes if node.what else ():
            count = round(mix.ratio * rows[node.sets[-1]])
            found[mix] = max(found.get(mix, 0), count)
    return found


def read_all(
    reader: Reader, settings: Settings, grid: Grid, knows: Knows
) -> tuple[dict[str, Facts], dict[Mix, list[Encoded]]]:
    """Every set and every mix that the runs need; `knows` is that of `read_facts`."""
    names = list(dict.fromkeys(node.sets[-1] for node in grid.nodes.values()))
    facts = {spec: read_facts(reader, spec, settings, knows) for spec in names}
    wanted = wanted_mixes(grid, {spec: len(of.encoded) for spec, of in facts.items()})
    return facts, mixes.rows(reader, settings, wanted, 0)


def pool(experiment: Experiment, node: Node) -> Pool:
    """What a stage of a run is trained on."""
    what, own = node.what or Mitigation(), experiment.facts[node.sets[-1]].encoded
    mixed = [e for m in what.mixes for e in experiment.mixed[m][: round(m.ratio * len(own))]]
    return Pool(
        own,
        mixed,
        [e for spec in node.sets[:-1] for e in experiment.facts[spec].encoded],
        what.replay,
        what.redrawn,
        round(what.steps * len(own)),
    )


def job(fleet: Fleet, experiment: Experiment, node: Node) -> Job:
    """A node with its rows and their order."""
    settings, train = experiment.settings, fleet.recipe.train
    if node.what is None:
        return Job(node, _recovery(fleet, experiment, node), ())
    goal = settings.stop_loss if settings.stop == "loss" else 0.0
    length = Length(settings.epochs, train.batch_size, settings.protocol, goal)
    of = pool(experiment, node)
    pad = fleet.base.tokenizer.eos_token_id if experiment.paper else None
    task = stages.task(of, length, node.seed, pad)
    lr = train.lr * (settings.later_lr if node.stage else 1.0)
    task = dataclasses.replace(
        task,
        name=node.name,
        costs=objectives.costs(node.what, len(task.examples)),
        schedule=Schedule(lr, train.schedule, train.warmup, train.floor),
    )
    return Job(node, task, of.earlier)


def retrained(experiment: Experiment, node: Node) -> list[int]:
    """Which facts of A are trained on where it is asked whether they come back."""
    N = len(experiment.facts[node.sets[0]].encoded)
    count = min(experiment.settings.recover, N - 1)
    return sorted(generator(node.seed, "held-out split").permutation(N)[:count].tolist())


def _recovery(fleet: Fleet, experiment: Experiment, node: Node) -> Task:
    facts = experiment.facts[node.sets[0]].encoded
    own = [facts[i] for i in retrained(experiment, node)]
    train = fleet.recipe.train
    steps = experiment.settings.recover_steps
    order = np.resize(np.arange(len(own)), steps * train.batch_size)
    constant = Schedule(train.lr, "constant", 0)
    return Task(node.name, own, node.seed, steps, order, schedule=constant)


def measure(trainer: Trainer, experiment: Experiment) -> None:
    """Trains every node and asks it; resumes. What each said is read by `answers`."""
    fleet, grid = trainer.fleet, experiment.grid
    for levels in forests(grid, apart=fleet.full):
        for level in levels:
            left = [node for node in level if not _is_done(fleet, grid, node)]
            trainer.train([job(fleet, experiment, node) for node in left])
            with Progress("ask", len(left), unit="run") as progress:
                for i, node in enumerate(left):
                    _ask(trainer, experiment, node)
                    memory.give_back()
                    progress.at(i + 1)
            if fleet.full:
                _clear(trainer, grid, level)


def _is_done(fleet: Fleet, grid: Grid, node: Node) -> bool:
    """Whether a node and all that goes on from it were asked: its weights are not needed."""
    return all(kept(_said(fleet, one)) is not None for one in (node, *grid.below(node.name)))


def _clear(trainer: Trainer, grid: Grid, level: Sequence[Node]) -> None:
    """Removes the weights that nothing needs any more: of these nodes, and of those before them."""
    names = {name for node in level for name in grid.above(node)}
    for name in sorted(names):
        if _is_done(trainer.fleet, grid, grid.nodes[name]):
            trainer.forget(name)


def _said(fleet: Fleet, node: Node) -> Any:
    return fleet.work / "answers" / f"{safe_name(node.name)}.json"


def _ask(trainer: Trainer, experiment: Experiment, node: Node) -> dict[str, Answers]:
    """What a node's model says of every set it was trained on so far, and of known facts."""

    def ask() -> dict[str, Any]:
        loaded = trainer.load(node.name)
        base, most = trainer.fleet.base, experiment.settings.max_new_tokens
        asked = node.sets if node.what is not None else node.sets[:1]
        ended: Any = kept(trainer.fleet.folder(node.name) / DONE)
        found: dict[str, Any] = {"steps": ended["steps"]}
        for spec in dict.fromkeys(asked):
            facts = experiment.facts[spec]
            found[spec] = evaluation.ask(base, loaded, facts, most, experiment.paper)
            if facts.known[0]:
                right = filter.recited(base, loaded, filter.Asked(*facts.known))
                found[spec]["known"] = [float(x) for x in right]
        first = experiment.facts[node.sets[0]]
        if experiment.settings.lens and first.recited:
            found["lens"] = lens.of_answers(*loaded, first.encoded)
        if experiment.settings.displacement and node.parent and node.what is not None:
            start, own = trainer.load(node.parent), experiment.facts[node.sets[-1]]
            if displacement.comparable(start, loaded):
                found["displacement"] = displacement.displaced(
                    start, loaded, first.encoded, own.encoded
                )
        return found

    found: dict[str, Answers] = once(_said(trainer.fleet, node), ask)
    return found


def answers(fleet: Fleet, experiment: Experiment) -> dict[str, dict[str, Answers]]:
    """By node and set, what was said; after `measure`."""
    return {name: kept(_said(fleet, node)) or {} for name, node in experiment.grid.nodes.items()}


def cells(experiment: Experiment, said: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for every sequence, arm, seed, stage and set that was memorised up to it.

    Returns:
      Columns `sequence`, `arm`, `seed`, `after` (a letter, or `recovery`), `set` (a letter),
      `dataset`, `run` (the node's name), `steps` (of the stage it is after), the figures of
      `evaluation.figures`, and `known`: the share of the facts that the base knew and that are
      still known.
    """
    rows = []
    for path in experiment.grid.paths:
        for name in path.nodes:
            node = experiment.grid.nodes[name]
            rows += _rows(experiment, said, path.nodes, node, {
                "sequence": " > ".join(path.sequence), "arm": path.arm, "seed": path.seed,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _rows(
    experiment: Experiment,
    said: Mapping[str, Mapping[str, Any]],
    run: Sequence[str],
    node: Node,
    at: dict[str, Any],
) -> list[dict[str, Any]]:
    def row(after: str, k: int, of: Answers, without: Sequence[str] = ()) -> dict[str, Any]:
        known = of.get("known")
        trained = said[run[-2] if after.startswith("before") else node.name]
        return {
            **at,
            "after": after,
            "set": LETTERS[k],
            "dataset": node.sets[k],
            "run": node.name,
            "steps": trained.get("steps", float("nan")),  # not kept by earlier versions
            **evaluation.figures(of, without),
            "known": float(np.mean(known)) if known else float("nan"),
        }

    if node.what is not None:
        after = LETTERS[node.stage]
        return [row(after, k, said[node.name][spec]) for k, spec in enumerate(node.sets)]
    facts = experiment.facts[node.sets[0]].encoded
    without = [facts[i].name for i in retrained(experiment, node)]
    before, now = said[run[-2]][node.sets[0]], said[node.name][node.sets[0]]
    return [row("before " + RECOVERY, 0, before, without), row(RECOVERY, 0, now, without)]


def facts_kept(experiment: Experiment, said: Mapping[str, Mapping[str, Answers]]) -> pd.DataFrame:
    """Whether each fact of A is recited after the last stage, as `verdict.over_facts` takes it."""
    frames = []
    for path in experiment.grid.paths:
        nodes = [experiment.grid.nodes[name] for name in path.nodes]
        last = [node for node in nodes if node.what is not None][-1]
        exact = said[last.name][last.sets[0]]["exact"]
        at = {"sequence": " > ".join(path.sequence), "arm": path.arm, "seed": path.seed}
        frames.append(pd.DataFrame({**at, "fact": range(len(exact)), "exact": exact}))
    return pd.concat(frames, ignore_index=True)


def predictions(experiment: Experiment, said: Mapping[str, Mapping[str, Answers]]) -> pd.DataFrame:
    """A row for every run, set and fact: what was asked, wanted and said, and what it is worth."""
    frames = []
    for name, node in experiment.grid.nodes.items():
        for spec, of in said[name].items():
            if spec in BESIDE:
                continue
            columns = {key: values for key, values in of.items() if key != "known"}
            questions = [e.prompt or "" for e in experiment.facts[spec].examples]
            after = RECOVERY if node.what is None else LETTERS[node.stage]
            at = {"run": name, "after": after, "dataset": spec}
            frames.append(pd.DataFrame({**at, "question": questions, **columns}))
    return pd.concat(frames, ignore_index=True)


def layers(experiment: Experiment, said: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for every run and layer: what it would say of A, where the lens was asked for."""
    rows = []
    for name, node in experiment.grid.nodes.items():
        of = said[name].get("lens")
        if of is None:
            continue
        earliest = np.array(of["earliest"])
        for layer in range(1, len(of["top"]) + 1):
            rows.append({
                "run": name,
                "after": RECOVERY if node.what is None else LETTERS[node.stage],
                "layer": layer,
                **{key: of[key][layer - 1] for key in ("top", "rank", "p")},
                "earliest": float((earliest == layer).mean()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def displacements(experiment: Experiment, said: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for every run of a later stage: `displacement.displaced`, where it was asked for."""
    rows = []
    for name, node in experiment.grid.nodes.items():
        of = said[name].get("displacement")
        if of is not None:
            rows.append({"run": name, "after": LETTERS[node.stage], **of})
    return pd.DataFrame(rows)
