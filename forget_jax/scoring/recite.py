"""Exact-match forgetting: every upstream prompt completed by the base and by each task's model.

Answers are kept by model and chunk as they are done, so a stopped run loses one chunk at most.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from forget_jax import distributed, files
from forget_jax.commands import models, texts
from forget_jax.data import tokenise
from forget_jax.data.examples import Example
from forget_jax.errors import UserError, nearest
from forget_jax.lm import decoder, generate, lora, sharding
from forget_jax.lm.hf import peft
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring.exact_match import NORMALISERS, f1, is_correct

Tree = Any

# Where an answer ends, beside EOS and the most tokens (lowrank.md §1: at the first blank line).
CUTS: dict[str, tuple[str, ...]] = {"blank_line": ("\n\n",), "newline": ("\n",), "none": ()}


@dataclasses.dataclass(frozen=True)
class Recited:
    """How well each of K models completes each of N examples.

    Attributes:
      names: the models.
      correct_KxN: bool, whether the answer matches exactly.
      f1_KxN: shared words with the best accepted answer.
      prompts_cut: prompts that lost their beginning to leave room for the answer.
    """

    names: tuple[str, ...]
    correct_KxN: np.ndarray
    f1_KxN: np.ndarray
    prompts_cut: int


def check(config: ConfigDict, model: decoder.DecoderConfig, examples: Sequence[Example]) -> None:
    """Refuses what cannot be recited, before anything is trained.

    Raises:
      UserError: an example without prompt and completion, an unknown rule, or no room for prompts.
    """
    c = config.exact_match
    for field, value, known in (
        ("cut", c.cut, CUTS),
        ("normaliser", c.normaliser, NORMALISERS),
    ):
        if value not in known:
            raise UserError(
                f"exact_match.{field} is {value!r}{nearest(value, known)}; there are "
                f"{', '.join(known)}"
            )
    if without := [e.name for e in examples if e.completion is None]:
        raise UserError(
            f"metric=exact_match asks for upstream examples with prompt and completion; "
            f"{len(without)} of {len(examples)} have none, {without[0]} first: leave them out of "
            "upstream, or use metric=nll"
        )
    if c.max_new_tokens >= model.context:
        raise UserError(
            f"exact_match.max_new_tokens={c.max_new_tokens} leaves no room for a prompt in the "
            f"model's context of {model.context}"
        )


def recite(
    config: ConfigDict,
    work: Workdir,
    model: decoder.DecoderConfig,
    params: Tree,
    tokenizer: Any,
    examples: Sequence[Example],
    names: Sequence[str],
) -> Recited:
    """Completes all examples under each named model, and judges; resumes.

    Args:
      names: `base`, or tasks whose adapters or models lie in the workdir.
    """
    c = config.exact_match
    prompts, cut = tokenise.prompts(
        examples, tokenizer, texts.template(config.data), model.context - c.max_new_tokens
    )
    correct_KxN = np.zeros((len(names), len(examples)), bool)
    f1_KxN = np.zeros((len(names), len(examples)))
    total = len(names) * len(examples)
    with Progress(f"recite under {len(names)} models", total, unit="answer") as progress:
        for k, name in enumerate(names):
            said = []
            for chunk in _answers(config, work, model, params, tokenizer, examples, prompts, name):
                said += chunk
                progress.at(k * len(examples) + len(said))
            for j, (text, e) in enumerate(zip(said, examples, strict=True)):
                accepted = (e.completion or "", *e.answers)
                correct_KxN[k, j] = is_correct(text, accepted, c.normaliser)
                f1_KxN[k, j] = f1(text, accepted, c.normaliser)
            progress.at((k + 1) * len(examples), f"{correct_KxN[k].mean():.0%} exact")
    return Recited(tuple(names), correct_KxN, f1_KxN, cut)


def _answers(
    config: ConfigDict,
    work: Workdir,
    model: decoder.DecoderConfig,
    params: Tree,
    tokenizer: Any,
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    name: str,
) -> Iterator[list[str]]:
    """One model's answers, chunk by chunk; its weights are read only where a chunk is missing."""
    c = config.exact_match
    loaded: tuple[Tree, Tree | None] | None = None
    for number, start in enumerate(range(0, len(examples), config.score.chunk)):
        chunk = slice(start, start + config.score.chunk)
        of = [e.name for e in examples[chunk]]
        kept = work / "answers" / files.safe_name(name) / f"{number}.json"
        if not distributed.agreed(kept.exists()):
            loaded = loaded or _weights(config, work, model, params, name)
            said = generate.answers(
                model,
                *loaded,
                prompts[chunk],
                tokenizer,
                c.max_new_tokens,
                CUTS[c.cut],
                config.score.rows,
            )
            files.write_json(kept, dict(zip(of, said, strict=True)))
            work.tick()
        else:
            said = list(files.read_json(kept).values())
        yield said


def _weights(
    config: ConfigDict, work: Workdir, model: decoder.DecoderConfig, params: Tree, name: str
) -> tuple[Tree, Tree | None]:
    """Parameters and scaled adapter of the base or of a trained task."""
    folder = work / "adapters" / files.safe_name(name)
    if name == "base":
        return params, None
    if models.adapter(config) is None:
        return models.read(folder)[1], None
    adapter, one = peft.load(folder, model, params, config.model.path)
    return params, lora.scaled(adapter, sharding.put(one))
