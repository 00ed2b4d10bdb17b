"""Exact-match forgetting: every upstream prompt completed by the base and by each task's model.

Answers are kept by model and chunk as they are done, so a stopped run loses one chunk at most.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from forget_jax import files
from forget_jax.data.examples import Example
from forget_jax.errors import UserError
from forget_jax.lm import generate
from forget_jax.lm.model import Adapters, Model
from forget_jax.runs.once import once
from forget_jax.runs.progress import Progress
from forget_jax.scoring.exact_match import CUTS, f1, is_correct, spoken
from forget_jax.scoring.settings import ExactMatch

Loaded = tuple[Model, Adapters | None]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked, and how answers are taken.

    Attributes:
      examples: all with a prompt, and with a completion where they are judged.
      prompts: token ids of each; `cut` of them lost their beginning to leave room for the answer.
      tokenizer: of the model; `eos_ids` end an answer beside its own token.
      rule: where an answer ends and how it is compared.
      chunk, rows: examples between two writes, and answers generated at a time.
    """

    examples: Sequence[Example]
    prompts: Sequence[Sequence[int]]
    cut: int
    tokenizer: Any
    eos_ids: tuple[int, ...]
    rule: ExactMatch
    chunk: int
    rows: int


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


def check(rule: ExactMatch, context: int, examples: Sequence[Example]) -> None:
    """Refuses what cannot be recited, before anything is trained.

    Args:
      context: the model's, in tokens.

    Raises:
      UserError: an example without prompt and completion, or no room for prompts.
    """
    check_room(rule, context)
    if without := [e.name for e in examples if e.completion is None]:
        raise UserError(
            f"metric=exact_match asks for upstream examples with prompt and completion; "
            f"{len(without)} of {len(examples)} have none, {without[0]} first: leave them out of "
            "upstream, or use metric=nll"
        )


def check_room(rule: ExactMatch, context: int) -> None:
    """Refuses answers that leave no room for a prompt in the model's context."""
    if rule.max_new_tokens >= context:
        raise UserError(
            f"exact_match.max_new_tokens={rule.max_new_tokens} leaves no room for a prompt in the "
            f"model's context of {context}"
        )


def recite(
    folder: files.Path, asked: Asked, names: Sequence[str], load: Callable[[str], Loaded]
) -> Recited:
    """Completes all examples under each named model, and judges; resumes.

    Args:
      folder: where the answers are kept.
      load: gives the model of a name, with its single adapter or None; called only where an answer
        is missing.
    """
    normaliser = asked.rule.normaliser
    said = answers(folder, asked, names, load)
    accepted = [spoken(asked.tokenizer, (e.completion or "", *e.answers)) for e in asked.examples]
    judged = [
        (text, right) for name in names for text, right in zip(said[name], accepted, strict=True)
    ]
    shape = len(names), len(asked.examples)
    correct_KxN = np.array([is_correct(*pair, normaliser) for pair in judged], bool).reshape(shape)
    f1_KxN = np.array([f1(*pair, normaliser) for pair in judged], float).reshape(shape)
    return Recited(tuple(names), correct_KxN, f1_KxN, asked.cut)


def answers(
    folder: files.Path, asked: Asked, names: Sequence[str], load: Callable[[str], Loaded]
) -> dict[str, list[str]]:
    """What each named model says to all prompts, in order; arguments as for `recite`."""
    N = len(asked.examples)
    found: dict[str, list[str]] = {}
    with Progress(f"recite under {len(names)} models", len(names) * N, unit="answer") as progress:
        for k, name in enumerate(names):
            found[name] = said = []
            place = folder / files.safe_name(name)
            for chunk in _chunks(place, asked, functools.partial(load, name)):
                said += chunk
                progress.at(k * N + len(said))
    return found


def _chunks(folder: files.Path, asked: Asked, load: Callable[[], Loaded]) -> Iterator[list[str]]:
    """One model's answers, chunk by chunk; its weights are read only where a chunk is missing."""
    loaded: Loaded | None = None
    rule = asked.rule
    until = generate.until(asked.tokenizer, rule.max_new_tokens, asked.eos_ids, CUTS[rule.cut])
    for number, start in enumerate(range(0, len(asked.examples), asked.chunk)):
        chunk = slice(start, start + asked.chunk)

        def generated(chunk: slice = chunk) -> dict[str, str]:
            nonlocal loaded
            loaded = loaded or load()
            said = generate.answers(
                *loaded,
                asked.prompts[chunk],
                until,
                asked.rows,
            )
            return dict(zip([e.name for e in asked.examples[chunk]], said, strict=True))

        yield list(once(folder / f"{number}.json", generated).values())
