"""`forget-jax factoids`: memorise facts A, train on facts B, with and without mixed-in rows."""

import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.data import tokenise
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError, nearest
from forget_jax.factoids.stages import ARMS, StageConfig, task
from forget_jax.files import PathLike
from forget_jax.fleet import together as fleet
from forget_jax.lm import generate, lora
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import likelihood
from forget_jax.scoring.exact_match import is_correct
from forget_jax.training.loop import Task

Tree = Any


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Trains every arm through both stages and recites the facts after each; resumes."""
    _check(config)
    work = Workdir(workdir, "factoids", plain(config))
    if report.has_ended(work):
        return
    model, params, tokenizer = models.load(config)

    def read(spec: str) -> tuple[list[Example], list[Encoded]]:
        examples, encoded, cut = texts.read((spec,), config, model, tokenizer)
        if cut["dropped"]:
            raise UserError(f"{spec}: facts over the context cannot be dropped; raise data.context")
        return examples, encoded

    facts = {"a": read(config.stage_a), "b": read(config.stage_b)}
    prompts = {
        which: _prompts(config, model, tokenizer, rows) for which, (rows, _) in facts.items()
    }
    mix = read(config.mix)[1]
    stage = StageConfig(config.epochs, config.train.batch_size, config.ratio)
    lines = [(arm, seed) for seed in range(config.seeds) for arm in config.arms]
    seeds = [texts.task_seed(config.train.seed, "factoids", seed) for _, seed in lines]

    def jobs(which: str, number: int) -> list[Task]:
        return [
            task(f"{arm} | stage {which.upper()} | seed {s}", facts[which][1], mix,
                 ARMS[arm][number], seed + number, stage)
            for (arm, s), seed in zip(lines, seeds, strict=True)
        ]  # fmt: skip

    # Arms that agree on stage A share its run.
    first = {(ARMS[arm][0], s): i for i, (arm, s) in reversed(list(enumerate(lines)))}
    unique = sorted(first.values())
    jobs_a = jobs("a", 0)
    trained_a = _stage(config, work, "a", model, params, [jobs_a[i] for i in unique], None)
    where = [unique.index(first[(ARMS[arm][0], s)]) for arm, s in lines]
    trained_a = [trained_a[i] for i in where]
    trained_b = _stage(config, work, "b", model, params, jobs("b", 1), trained_a)

    measured: dict[str, list[float]] = {}
    for key, trained, which in (
        ("accuracy_a_after_a", trained_a, "a"),
        ("accuracy_a_after_b", trained_b, "a"),
        ("accuracy_b", trained_b, "b"),
    ):
        kept = work / f"{key}.json"
        if not kept.exists():
            shown = where if key == "accuracy_a_after_a" else list(range(len(lines)))
            rows, asked = facts[which][0], prompts[which]
            exact = _recite(config, model, params, trained, rows, asked, tokenizer, key, shown)
            nll = _answer_nll(config, model, params, trained, facts[which][1])
            files.write_json(kept, {key: exact, key.replace("accuracy", "answer_nll"): nll})
        measured |= files.read_json(kept)
    by_seed = {
        arm: {
            key: [v for v, (of, _) in zip(values, lines, strict=True) if of == arm]
            for key, values in measured.items()
        }
        for arm in config.arms
    }
    work.finish(
        {
            "factoids": {
                arm: {key: float(np.mean(values)) for key, values in figures.items()}
                for arm, figures in by_seed.items()
            },
            "by_seed": by_seed,
            "seeds": config.seeds,
            "facts_a": len(facts["a"][0]),
            "facts_b": len(facts["b"][0]),
            "seconds": work.seconds(),
        }
    )  # fmt: skip
    report.build(workdir)
    shown_arms = ", ".join(
        f"{arm} {f['accuracy_a_after_b']:.0%}" for arm, f in (work.done or {})["factoids"].items()
    )
    print(f"facts A still known after B: {shown_arms}; page in {work / 'report.html'}",
          file=sys.stderr)  # fmt: skip


def _check(config: ConfigDict) -> None:
    for arm in config.arms:
        if arm not in ARMS:
            raise UserError(f"arms names {arm!r}{nearest(arm, ARMS)}; there are {', '.join(ARMS)}")
    if not config.arms:
        raise UserError(f"arms names nothing to compare; there are {', '.join(ARMS)}")


def _stage(
    config: ConfigDict,
    work: Workdir,
    which: str,
    model: Any,
    params: Tree,
    jobs: Sequence[Task],
    initial: Sequence[Tree] | None,
) -> list[Tree]:
    """Every job's tree after a stage: adapters train together, whole models one by one."""

    def stacked(trees: Sequence[Tree]) -> Tree:
        return jax.tree.map(lambda *x: jnp.stack(x), *trees)

    if config.lora.rank:
        outcome = fleet.run_training(
            config, work, f"factoids/{which}", model, params, jobs,
            f"stage {which.upper()}: {len(jobs)} runs",
            initial=None if initial is None else stacked(initial),
        )  # fmt: skip
        trained = fleet.all_trained(outcome)
        return [jax.tree.map(lambda x, m=m: x[m], trained) for m in range(len(jobs))]
    found = []
    for m, job in enumerate(jobs):
        outcome = fleet.run_training(
            config, work, f"factoids/{which}{m}", model, params, [job], job.name,
            initial=None if initial is None else stacked([initial[m]]),
        )  # fmt: skip
        found.append(jax.tree.map(lambda x: x[0], fleet.all_trained(outcome)))
    return found


def _answer_nll(
    config: ConfigDict, model: Any, params: Tree, trained: Sequence[Tree], facts: list[Encoded]
) -> list[float]:
    """Mean NLL of the answers' tokens under each model: forgetting that exact match cannot see."""
    adapter = models.adapter(config)
    buckets = Buckets.of(facts, config.train.buckets)
    tokens = sum(e.tokens for e in facts)
    found = []
    for tree in trained:
        whole = tree if adapter is None else params
        stack = None if adapter is None else jax.tree.map(lambda x: x[None], tree)
        nll_1xN = likelihood.score(model, adapter, whole, stack, facts, buckets)
        found.append(float(nll_1xN.sum() / tokens))
    return found


def _prompts(
    config: ConfigDict, model: Any, tokenizer: Any, facts: Sequence[Example]
) -> list[list[int]]:
    """What the facts are recited from, as token ids."""
    for e in facts:
        if e.completion is None:
            raise UserError(f"{e.name} is no fact to recite: it has no prompt and completion")
    most = model.context - config.max_new_tokens
    prompts, cut = tokenise.prompts(facts, tokenizer, texts.template(config.data), most)
    if cut:
        raise UserError(
            f"{cut} facts leave no room for max_new_tokens={config.max_new_tokens} in the model's "
            f"context of {model.context}"
        )
    return prompts


def _recite(
    config: ConfigDict,
    model: Any,
    params: Tree,
    trained: Sequence[Tree],
    facts: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    what: str,
    shown: Sequence[int],
) -> list[float]:
    """Share of facts that each model completes exactly by greedy decoding.

    `shown` numbers the models; equal numbers are one model, recited once.
    """
    adapter = models.adapter(config)
    found: dict[int, float] = {}
    with Progress(what, len(shown), unit="model") as progress:
        for i, number in enumerate(shown):
            if number not in found:
                tree = trained[i]
                said = generate.answers(
                    model,
                    tree if adapter is None else params,
                    None if adapter is None else lora.scaled(adapter, tree),
                    prompts,
                    tokenizer,
                    config.max_new_tokens,
                )
                right = [
                    is_correct(text, (e.completion or "", *e.answers))
                    for text, e in zip(said, facts, strict=True)
                ]
                found[number] = float(np.mean(right))
            progress.at(i + 1, f"{found[number]:.0%} exact")
    return [found[number] for number in shown]
