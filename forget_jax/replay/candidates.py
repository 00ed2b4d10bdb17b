"""The rows that may be replayed, of every kind that strategies take, and what is known of them."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from forget_jax import files
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet.fleet import Fleet
from forget_jax.lm import generate
from forget_jax.lm.hf.base import Base
from forget_jax.lm.lora import LoRAConfig
from forget_jax.randomness import key
from forget_jax.replay import influence
from forget_jax.replay.experiment import Upstream
from forget_jax.replay.settings import Replay
from forget_jax.replay.strategies import parse
from forget_jax.runs.once import once
from forget_jax.runs.progress import Progress
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout


def rows(
    fleet: Fleet,
    reader: Reader,
    upstream: Upstream,
    tasks: Mapping[str, Sequence[Example]],
    replay: Replay,
) -> dict[str, dict[str, Sequence[Encoded]]]:
    """By task and kind (`Strategy.rows`), the rows of those that some strategy replays.

    Args:
      tasks: what each trains on.
    """
    kinds = {parse(spec)[0].rows for spec in replay.strategies}
    shared: dict[str, Sequence[Encoded]] = {"": (), "upstream": upstream.candidates}
    wanted = Written(replay.generated, replay.generated_tokens)
    base, work, seed = fleet.base, fleet.work, fleet.recipe.train.seed
    if "other" in kinds:
        shared["other"] = reader.read((replay.pad,)).encoded
    if "generated" in kinds:
        texts = written(base, work / "generated.json", wanted, seed)
        shared["generated"] = reader.encode(texts, scored=False)[0]
    found = {name: dict(shared) for name in tasks}
    for name in tasks if "answered" in kinds else ():
        place = work / "answered" / f"{files.safe_name(name)}.json"
        texts = answered(base, place, reader, tasks[name], wanted, seed)
        found[name]["answered"] = reader.encode(texts, scored=False)[0]
    return found


class Written(NamedTuple):
    """How much the base writes: so many texts of at most so many tokens."""

    texts: int
    tokens: int


def written(base: Base, place: files.Path, wanted: Written, seed: int) -> list[Example]:
    """Texts that the base writes from its first token on; kept at `place`.

    Raises:
      UserError: a tokenizer without a token to begin with, or a base that writes nothing.
    """
    first = base.tokenizer.bos_token_id
    if first is None:
        first = base.tokenizer.eos_token_id
    if first is None:
        raise UserError(
            "the tokenizer has no token that begins or ends a text, so the base cannot write one; "
            "leave strategy `generated` out"
        )

    prompts = [[first]] * wanted.texts
    texts = once(place, lambda: _sampled(base, prompts, wanted.tokens, seed))
    if not any(text.strip() for text in texts):
        raise UserError("the base wrote no text from its first token; leave `generated` out")
    kept = (text for text in texts if text.strip())
    return [Example(f"generated/{i}", "generated", text=text) for i, text in enumerate(kept)]


def answered(
    base: Base,
    place: files.Path,
    reader: Reader,
    asked: Sequence[Example],
    wanted: Written,
    seed: int,
) -> list[Example]:
    """What the base itself answers to a task's prompts, whose answers it is not shown; kept.

    Args:
      place: where they are kept.
      asked: rows of the task; of those with a prompt the first `wanted.texts` are asked.

    Raises:
      UserError: no row has a prompt, or the base answers none.
    """
    some = [e for e in asked if e.prompt and e.completion is not None][: wanted.texts]
    if not some:
        raise UserError(
            "the rows of the task have no prompt and completion, so the base can answer none: "
            "let it write from the start of a text instead (generated)"
        )
    prompts, _ = reader.prompts(some, wanted.tokens)
    texts = once(place, lambda: _sampled(base, prompts, wanted.tokens, seed))
    found = [
        dataclasses.replace(e, name=f"answered/{e.name}", source="answered", completion=text)
        for e, text in zip(some, texts, strict=True)
        if text.strip()
    ]
    if not found:
        raise UserError("the base gave no answer to the task's prompts; leave `answered` out")
    return [dataclasses.replace(e, answers=()) for e in found]


def _sampled(base: Base, prompts: Sequence[Sequence[int]], tokens: int, seed: int) -> list[str]:
    """What the base writes after prompts, at temperature 1."""
    until = generate.until(base.tokenizer, tokens, base.eos_ids)
    with Progress("write texts", len(prompts), unit="text") as progress:
        new: list[list[int]] = []
        for start in range(0, len(prompts), 32):
            stream = key(seed, "generated text", start)
            new += generate.sampled(base.model, None, prompts[start : start + 32], until, stream)
            progress.at(len(new))
    assert until.decode is not None
    return [until.decode(ids) for ids in new]


def features(
    fleet: Fleet, upstream: Upstream, replay: Replay
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """NLL of the base (nats a token) and sketched gradients of the pool, where they are needed."""
    names = {spec.partition(":")[0] for spec in replay.strategies}
    model, score = fleet.base.model, fleet.score
    pool = [upstream.scored[i] for i in upstream.pool]
    nll_P = gradient_PxF = None
    if "surprise" in names:
        layout = Layout.of(pool, Buckets.of(pool, score.buckets), score.rows)
        nll_P = likelihood.score(model, None, pool, layout)[0] / [e.tokens for e in pool]
    if "influence" in names:
        config = fleet.recipe.lora or LoRAConfig(rank=8)
        print(f"gradients of {len(pool)} candidates", file=sys.stderr)
        with Progress("gradients", len(pool), unit="example") as progress:
            gradient_PxF = influence.sketches(
                model, config, pool, fleet.recipe.train.seed, on_row=progress.at
            )
    return nll_P, gradient_PxF
