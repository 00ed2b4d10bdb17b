"""`forget-jax pretrain`: a tokenizer and a small Llama-shaped base from scratch, in HF format."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from forget_jax import randomness
from forget_jax.commands import inputs, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Pretrain
from forget_jax.commands.summaries import Pretrain as Summary
from forget_jax.data import reading, tokenise
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet import fitting
from forget_jax.fleet.fleet import Fleet, all_trained, journal
from forget_jax.fleet.tasks import say_warmup
from forget_jax.lm import decoder, sharding
from forget_jax.lm.hf import checkpoint
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Model
from forget_jax.lm.settings import NewModel
from forget_jax.randomness import generator
from forget_jax.runs.once import make_once
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout
from forget_jax.training.loop import Recipe, Task, train


def check(settings: Pretrain) -> None:
    """Refuses a shape that no decoder has."""
    c = settings.model
    if c.width % c.heads or c.heads % c.kv_heads or c.width // c.heads % 2:
        raise UserError(
            f"model.heads={c.heads} must divide model.width={c.width} into even parts, and "
            f"model.kv_heads={c.kv_heads} must divide model.heads"
        )
    values.check_alone(settings.train, "pretrain")
    say_warmup(settings.train)


def run(settings: Pretrain, work: Workdir) -> Ended:
    """Trains the base and writes `model/`; resumes."""
    seed, recipe = settings.train.seed, Recipe(settings.train)
    largest = shape(settings.model, settings.model.vocab_size)
    fitting.check(largest, largest.dtype, fitting.Wants(largest.context, recipe))
    with Progress("read, tokenise", 3) as progress:
        examples = reading.load(settings.data.path, settings.data, inputs.watcher(work))
        training, held = _split(len(examples), settings.data.heldout, seed)
        progress.at(1, f"{len(examples):,} examples")
        chosen = [examples[i] for i in training]
        tokenizer = _tokenizer(work, chosen, settings.model.vocab_size)
        progress.at(2, f"{len(tokenizer):,} vocabulary entries")
        config = shape(settings.model, -(-len(tokenizer) // 8) * 8)
        template = dataclasses.replace(reading.template(settings.data), eos_text=True)
        encoded = tokenise.encode(examples, tokenizer, template, context=sys.maxsize)
        blocks = tokenise.stream([encoded[i] for i in training], config.context)
        heldout = tokenise.stream([encoded[i] for i in held], config.context)
        progress.at(3, f"{sum(len(b.ids) for b in blocks):,} tokens")

    base = Base("", _initial(config, seed), tokenizer)
    task = Task("pretrain", blocks, seed, settings.train.steps)
    with journal(Fleet(work, base, recipe), "pretrain") as (checkpoints, listener):
        outcome = train(base.model, recipe, [task], checkpoints, listener=listener)
    model = Model(config, jax.tree.map(lambda x: x[0], all_trained(outcome)))
    nll_1xN = likelihood.score(model, None, heldout, Layout.of(heldout, Buckets.of(heldout, 2), 8))
    heldout_loss = float(nll_1xN.sum() / sum(e.tokens for e in heldout))
    unigram = unigram_loss(blocks, heldout, config.vocab_size)
    checkpoint.save(work / "model", model, tokenizer)
    summary = Summary(
        training=values.training(work.metrics.stage("pretrain")),
        parameters=sum(x.size for x in jax.tree.leaves(model.params)),
        train_tokens_available=sum(len(b.ids) for b in blocks),
        heldout_loss=heldout_loss,
        unigram_loss=unigram,
        heldout_tokens=sum(e.tokens for e in heldout),
        seconds=work.seconds(),
    )
    return Ended(
        summary,
        f"base of {summary.parameters:,} parameters: held-out loss {heldout_loss:.2f} nats "
        f"(unigram model {unigram:.2f}); model in {work / 'model'}",
    )


def _initial(config: decoder.DecoderConfig, seed: int) -> Model:
    """Fresh parameters, laid out over the mesh."""
    words = randomness.words(seed, "initial parameters")
    make = jax.jit(lambda w: sharding.constrain(decoder.init(config, randomness.as_key(w))))
    return Model(config, make(words))


def _tokenizer(work: Workdir, training: Sequence[Example], vocab_size: int) -> Any:
    """The run's tokenizer: trained on the training examples, or the one of an earlier start."""

    def make() -> None:
        trained = tokenizers.train(map(reading.whole, training), vocab_size)
        tokenizers.save(trained, work / "tokenizer")

    make_once(work / "tokenizer", make)
    return tokenizers.load(work / "tokenizer")


def shape(c: NewModel, vocab_size: int) -> decoder.DecoderConfig:
    """The decoder of these fields."""
    return decoder.DecoderConfig(
        vocab_size=vocab_size,
        width=c.width,
        layers=c.layers,
        heads=c.heads,
        kv_heads=c.kv_heads,
        head_dim=c.width // c.heads,
        mlp_width=c.mlp_width,
        context=c.context,
    )


def _split(n: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and held-out examples, at least one of each."""
    if n < 2:
        raise UserError(f"{n} examples with data.heldout={share}: give at least 2")
    order = generator(seed, "held-out split").permutation(n)
    held = min(n - 1, max(1, round(n * share)))
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def unigram_loss(training: Sequence[Encoded], heldout: Sequence[Encoded], vocab_size: int) -> float:
    """Nats per held-out target token under the training tokens' add-one-smoothed frequencies.

    Args:
      training, heldout: rows of tokens.
      vocab_size: of the model.
    """
    counts = np.bincount(np.concatenate([b.ids for b in training]), minlength=vocab_size) + 1.0
    targets = np.concatenate([e.ids[e.is_target] for e in heldout])
    return float(-np.log(counts / counts.sum())[targets].mean())
