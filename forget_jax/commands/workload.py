"""What each command computes and writes, reckoned from its settings alone: what `--dry-run` shows.

Held-out losses on the way, probes of online replay and pages are too little to count.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from forget_jax.commands import factoids as experiments
from forget_jax.commands import mix_candidates, pretrain, quickstart, settings, values
from forget_jax.commands.reckoning import Part, Reckoner, Rows, Workload, together
from forget_jax.data import reading
from forget_jax.errors import UserError
from forget_jax.factoids import sets
from forget_jax.factoids.mitigations import Mitigation
from forget_jax.fleet import methods
from forget_jax.fleet import tasks as fleet_tasks
from forget_jax.fleet.fitting import Wants
from forget_jax.lm.hf import known
from forget_jax.lm.hf.known import Shape
from forget_jax.lm.lora import LoRAConfig
from forget_jax.replay.cells import arms
from forget_jax.training.loop import Recipe


def of(command: str, given: Any) -> Workload:
    """The workload of a command's settings.

    Raises:
      UserError: a command that neither trains nor scores, a model of unknown shape, or data sets
        that are not here and name no rows.
    """
    if command not in WORKLOADS:
        raise UserError(
            f"{command} neither trains nor scores, so there is nothing to plan: --print-config "
            "shows its fields"
        )
    if command == "quickstart":
        return _quickstart(given)
    if command == "pretrain":
        return _pretrain(given)
    return WORKLOADS[command](given, Reckoner(known.shape_of(given.model.path), given.data))


def _recipe(given: Any) -> Recipe:
    return Recipe(given.train, values.adapter(given.lora))


def _finetune(given: settings.Finetune, at: Reckoner) -> Workload:
    recipe, train = _recipe(given), given.train
    rows, count = at.rows(given.data.path), train.steps * train.batch_size
    part = at.trained(f"train: {count:,} rows", rows, count, recipe.lora)
    folder = "model/" if recipe.lora is None else "adapter/"
    wants = Wants(at.context, recipe)
    return Workload(at.shape, [part], wants, 1, {folder: at.kept(recipe.lora)}, at.guessed)


def _score(given: settings.Score, at: Reckoner) -> Workload:
    rows = at.rows(given.data.path, scored=True)
    models = 1 + len(given.adapters) + len(given.models)
    part = at.scored(f"score {rows.total:,} rows under {models} models", rows, rows.total * models)
    written = {"scores.zarr": 12 * rows.total * models, "scores.parquet": 0}
    return Workload(at.shape, [part], Wants(at.context, score=given.score), 1, written, at.guessed)


def _associate(given: settings.Associate, at: Reckoner) -> Workload:
    recipe, train = _recipe(given), given.train
    names = reading.task_names(given.tasks)
    own = fleet_tasks.own_values(train, names)
    again = min(given.repeat_tasks, len(names))
    count = len(names) + again
    parts = []
    for i, (name, spec) in enumerate(zip(names, given.tasks, strict=True)):
        times = 1 + (i < again)
        rows = times * own[name].get("steps", train.steps) * train.batch_size
        parts.append(at.trained("", at.rows((spec,)), rows, recipe.lora))
    upstream = at.rows(given.upstream, scored=True)
    found = [
        together(f"train {count} fine-tunes", parts),
        at.scored(
            f"score {upstream.total:,} rows under {count + 1} models",
            upstream,
            upstream.total * (count + 1),
        ),
    ]
    if given.metric == "exact_match":
        asked = upstream.total * (count + 1)
        found.append(at.scored("read their prompts", upstream, asked))
        most = given.exact_match.max_new_tokens
        found.append(at.written(f"write answers of at most {most} tokens", asked, most))
    written = {
        f"adapters/ ({count})": count * at.kept(recipe.lora),
        "scores.zarr": 12 * upstream.total * (count + 1),
        "forgetting.zarr": 8 * upstream.total * len(names),
        "examples.jsonl": 0,
    }
    wants = Wants(at.context, recipe, given.score)
    return Workload(at.shape, found, wants, given.tasks_together, written, at.guessed, count)


def _replay(given: settings.Replay, at: Reckoner) -> Workload:
    recipe, replay = _recipe(given), given.replay
    count = len(given.tasks) * replay.seeds * len(arms(replay))
    own = given.train.steps * given.train.batch_size
    upstream, each = at.rows(given.upstream, scored=True), [at.rows((t,)) for t in given.tasks]
    times = replay.seeds * len(arms(replay))
    plain = [at.trained("", rows, own * times, recipe.lora) for rows in each]
    added = [arm for arm in arms(replay) if arm.matched == "steps"]  # others cost what none costs
    again = sum(own * arm.ratio for arm in added) * replay.seeds * len(each)
    kl = sum(own * a.ratio for a in added if a.cost != "nll") * replay.seeds * len(each)
    held = upstream.total * (1.0 if replay.measure_pool else 1 - replay.pool)
    heldout = sum(max(1, round(rows.total * replay.task_heldout)) for rows in each)
    parts = [
        together(f"train {count} fine-tunes on their tasks' rows", plain),
        at.trained(f"train them on {again:,.0f} replayed rows", upstream, again, recipe.lora),
        at.scored(
            f"score {held:,.0f} upstream rows under {count + 1} models",
            upstream,
            held * (count + 1),
        ),
        together(
            f"score {heldout:,} rows of their tasks",
            [
                at.scored("", rows, max(1, round(rows.total * replay.task_heldout)) * times)
                for rows in each
            ],
        ),
    ]
    if kl:
        parts.insert(2, at.scored(f"the base's logits on {kl:,.0f} of them", upstream, kl))
    if replay.recite:
        asked = held * (count + 1) + heldout * times
        parts.append(at.scored(f"read the prompts of at most {asked:,.0f} rows", upstream, asked))
        parts.append(at.written("answer them", asked, replay.recite))
    parts += _before(given, upstream, at, recipe.lora)
    written = {
        f"adapters/ ({count})": count * at.kept(recipe.lora),
        "scores.zarr": 12 * held * (count + 1),
        "cells.csv": 0,
    }
    wants = Wants(at.context, recipe, given.score)
    return Workload(at.shape, parts, wants, given.tasks_together, written, at.guessed, count)


def _before(
    given: settings.Replay, upstream: Rows, at: Reckoner, lora: LoRAConfig | None
) -> list[Part]:
    """What strategies need before anything is trained."""
    replay = given.replay
    pool, names = upstream.total * replay.pool, {s.partition(":")[0] for s in replay.strategies}
    found = []
    if "surprise" in names:
        found.append(at.scored(f"score {pool:,.0f} candidates", upstream, pool))
    if "influence" in names:
        sketched = lora or LoRAConfig(rank=8)
        found.append(at.trained(f"gradients of {pool:,.0f} candidates", upstream, pool, sketched))
    written = replay.generated * (("generated" in names) + ("answered" in names) * len(given.tasks))
    if written:
        found.append(at.written(f"write {written:,} texts", written, replay.generated_tokens))
    return found


def _mix(given: settings.Mix, at: Reckoner) -> Workload:
    strategy, parts = mix_candidates.strategy(given), []
    rows = at.rows(given.pool, scored=True) if given.pool else None
    if strategy in ("predicted", "coverage"):
        scored = rows or Rows(0, (at.context,), at.context)
        count = given.mix.observed
        parts.append(at.scored(f"score {count} probes under 2 models", scored, 2 * count))
    elif strategy == "measured" and rows is not None:
        parts.append(at.scored(f"score {rows.total:,} candidates twice", rows, 2 * rows.total))
    if not given.pool and not given.matrix.path:
        texts, most = given.mix.generated, given.mix.generated_tokens
        parts.append(at.written(f"write {texts} texts of at most {most} tokens", texts, most))
    written = {"train.jsonl": 0, "uniform.jsonl": 0, "dataset/": 0, "use.md": 0}
    return Workload(
        at.shape, parts, Wants(at.context, score=given.score), 1, written, at.guessed, 0
    )


def _scaling(given: settings.Scaling, at: Reckoner) -> Workload:
    """Methods that adapt or train a part of the model count as if they had all of it."""
    if given.points.path:
        raise UserError("points.path is given: laws are fitted to it, nothing is trained")
    whole = [methods.of(name).whole for name in dict.fromkeys(given.methods)]
    most, marks = max(given.ranks), sorted(set(given.steps))
    lora = LoRAConfig(most, float(most), False, given.lora.targets, dropout=given.lora.dropout)
    upstream, specs = at.rows(given.upstream, scored=True), given.tasks or (given.task,)
    times = len(set(given.lrs)) * given.seeds
    adapted, full = times * whole.count(False) * len(set(given.ranks)), times * whole.count(True)
    trained, measured = [], []
    for task in (at.rows((spec,)) for spec in specs):
        rows = marks[-1] * given.train.batch_size
        trained.append(at.trained("", task, adapted * rows, lora))
        trained.append(at.trained("", task, full * rows, None))
        held = max(1, round(task.total * given.task_heldout))
        measured.append(at.scored("", task, len(marks) * (adapted + full) * held))
    count = len(specs) * (adapted + full)
    measured.append(at.scored("", upstream, len(marks) * (count + 1) * upstream.total))
    parts = [
        together(f"train {count} runs to {marks[-1]} steps", trained),
        together(f"measure {len(marks)} marks", measured),
    ]
    recipe, kept = Recipe(given.train, None if full else lora), int(bool(full))
    wants = Wants(at.context, recipe, given.score, kept)
    written = {"points.csv": 0, "points.parquet": 0}
    return Workload(at.shape, parts, wants, given.runs_together, written, at.guessed, count)


def _factoids(given: settings.Factoids, at: Reckoner) -> Workload:
    recipe, whole = _recipe(given), experiments.grid_of(given)
    of = {}
    for spec in dict.fromkeys(spec for path in whole.paths for spec in path.sequence):
        _, dataset, form = sets.named(spec)
        own = dataclasses.replace(at, data=sets.fields(given.data, form))
        of[spec] = own.rows((dataset,))
    parts, asked = [], []
    for node in whole.nodes.values():
        what, rows = node.what or Mitigation(), of[node.sets[-1]]
        if node.what is None:
            count = float(given.recover_steps * given.train.batch_size)
        else:
            earlier = sum(of[spec].total for spec in node.sets[:-1])
            mixed = sum(mix.ratio for mix in what.mixes) + what.steps
            count = given.epochs * (rows.total * (1 + mixed) + what.replay * earlier)
        parts.append(at.trained("", rows, count, recipe.lora))
        for spec in node.sets:
            asked.append(at.scored("", of[spec], of[spec].total))
            asked.append(at.written("", of[spec].total, given.max_new_tokens))
    runs = len(whole.nodes)
    found = [
        together(f"train {runs} stages, mixed rows as long as facts", parts),
        together("recite the facts after each", asked),
    ]
    kept = experiments.kept(given, whole) if recipe.lora is None else 0
    at_once = 1 if recipe.lora is None else len(whole.paths)
    written = {"predictions.parquet": 0.0, "cells.csv": 0.0}
    wants = Wants(at.context, recipe, kept=kept)
    return Workload(at.shape, found, wants, at_once, written, at.guessed, runs)


def _pretrain(given: settings.Pretrain) -> Workload:
    shape = _new(given)
    at, count = Reckoner(shape, given.data), given.train.steps * given.train.batch_size
    block = Rows(count, (shape.config.context,), shape.config.context)
    part = at.trained(f"train: {count:,} rows", block, count, None)
    wants = Wants(shape.config.context, Recipe(given.train))
    written = {"tokenizer/": 0.0, "model/": at.kept(None)}
    return Workload(shape, [part], wants, 1, written, at.guessed)


def _new(given: settings.Pretrain) -> Shape:
    config = pretrain.shape(given.model, given.model.vocab_size)
    return Shape(config, "float32", None, "to be trained")


def _quickstart(given: settings.Quickstart) -> Workload:
    """All stages' parts; each stage has a folder."""
    shape = known.shape_of(given.base) if given.base else _new(given.pretrain)
    parts, written, guessed, count = list[Part](), dict[str, float](), list[str](), 0
    for stage in quickstart.stages(given):
        one = getattr(given, stage)
        if stage == "pretrain":
            found = _pretrain(one)
        elif stage in WORKLOADS:
            found = WORKLOADS[stage](one, Reckoner(shape, one.data))
        else:
            written[f"{stage}/"] = 0
            continue
        parts += [part._replace(what=f"{stage}: {part.what}") for part in found.parts]
        written[f"{stage}/"] = sum(found.files.values())
        guessed += found.guessed
        count += found.fine_tunes
    return Workload(shape, parts, None, 0, written, list(dict.fromkeys(guessed)), count)


WORKLOADS: dict[str, Callable[..., Workload]] = {
    "quickstart": _quickstart,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "score": _score,
    "associate": _associate,
    "replay": _replay,
    "mix": _mix,
    "scaling": _scaling,
    "factoids": _factoids,
}
