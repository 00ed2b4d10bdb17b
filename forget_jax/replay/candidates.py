"""The rows that may be replayed, of every kind that strategies take, and what is known of them."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout


def rows(
    fleet: Fleet, reader: Reader, upstream: Upstream, replay: Replay, seed: int
) -> dict[str, Sequence[Encoded]]:
    """By kind (`Strategy.rows`), the rows of those that some strategy replays."""
    kinds = {parse(spec)[0].rows for spec in replay.strategies}
    found: dict[str, Sequence[Encoded]] = {"": (), "upstream": upstream.candidates}
    if "other" in kinds:
        found["other"] = reader.read((replay.pad,)).encoded
    if "generated" in kinds:
        texts = written(
            fleet.base, fleet.work, Written(replay.generated, replay.generated_tokens), seed
        )
        found["generated"] = reader.encode(texts, scored=False)[0]
    return found


class Written(NamedTuple):
    """How much the base writes: so many texts of at most so many tokens."""

    texts: int
    tokens: int


def written(base: Base, work: Workdir, wanted: Written, seed: int) -> list[Example]:
    """Texts that the base writes from its first token on; kept in the run's folder.

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

    def make() -> list[str]:
        until = generate.until(base.tokenizer, wanted.tokens, base.eos_ids)
        with Progress("write texts", wanted.texts, unit="text") as progress:
            new: list[list[int]] = []
            for start in range(0, wanted.texts, 32):
                some = min(32, wanted.texts - start)
                stream = key(seed, "generated text", start)
                prompts = [[first]] * some
                new += generate.sampled(base.model, None, prompts, until, stream)
                progress.at(len(new))
        assert until.decode is not None
        return [until.decode(ids) for ids in new]

    texts = [text for text in once(work / "generated.json", make) if text.strip()]
    if not texts:
        raise UserError("the base wrote no text from its first token; leave `generated` out")
    return [Example(f"generated/{i}", "generated", text=text) for i, text in enumerate(texts)]


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
