"""`forget-jax pretrain`: a tokenizer and a small Llama-shaped base from scratch, in HF format."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.data import tokenise
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.fleet import together as fleet
from forget_jax.lm import decoder, sharding
from forget_jax.lm.hf import checkpoint
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import likelihood
from forget_jax.training.loop import Task


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Trains the base and writes `model/`; resumes, and does nothing where it has ended."""
    work = Workdir(workdir, "pretrain", plain(config))
    if report.has_ended(work):
        return
    model = _shape(config.model)
    with Progress("read, tokenise", 3) as progress:
        examples = texts.load(config.data.path, config.data)
        training, held = _split(len(examples), config.data.heldout, config.train.seed)
        progress.at(1, f"{len(examples):,} examples")
        tokenizer = _tokenizer(work, [examples[i] for i in training], config.model.vocab_size)
        progress.at(2, f"{len(tokenizer):,} vocabulary entries")
        model = dataclasses.replace(model, vocab_size=-(-len(tokenizer) // 8) * 8)
        template = dataclasses.replace(texts.template(config.data), eos_text=True)
        encoded = tokenise.encode(examples, tokenizer, template, context=sys.maxsize)
        blocks = tokenise.stream([encoded[i] for i in training], model.context)
        heldout = tokenise.stream([encoded[i] for i in held], model.context)
        progress.at(3, f"{sum(len(b.ids) for b in blocks):,} tokens")

    base = _initial(model, config.train.seed)
    task = Task("pretrain", blocks, config.train.seed, config.train.steps)
    outcome = fleet.run_training(config, work, "pretrain", model, base, [task], "pretrain")
    params = jax.tree.map(lambda x: x[0], fleet.all_trained(outcome))
    nll_1xN = likelihood.score(model, None, params, None, heldout, Buckets.of(heldout, 2))
    heldout_loss = float(nll_1xN.sum() / sum(e.tokens for e in heldout))
    unigram = unigram_loss(blocks, heldout, model.vocab_size)
    checkpoint.save(work / "model", model, params, tokenizer)
    records = work.metrics.stage("pretrain")
    summary = work.finish(
        {
            **models.training_figures(records),
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "train_tokens_available": sum(len(b.ids) for b in blocks),
            "heldout_loss": heldout_loss,
            "unigram_loss": unigram,
            "heldout_tokens": sum(e.tokens for e in heldout),
            "seconds": work.seconds(),
        }
    )
    report.build(workdir)
    print(
        f"base of {summary['parameters']:,} parameters: held-out loss {heldout_loss:.2f} nats "
        f"(unigram model {unigram:.2f}); model in {work / 'model'}",
        file=sys.stderr,
    )


def _initial(model: decoder.DecoderConfig, seed: int) -> Any:
    """Fresh parameters, laid out over the mesh."""
    return jax.jit(lambda: sharding.constrain(decoder.init(model, jax.random.key(seed))))()


def _tokenizer(work: Workdir, training: Sequence[Example], vocab_size: int) -> Any:
    """The run's tokenizer: trained on the training examples, or the one of an earlier start."""
    if (work / "tokenizer" / "tokenizer_config.json").exists():
        return tokenizers.load(work / "tokenizer")
    tokenizer = tokenizers.train(map(texts.whole, training), vocab_size)
    tokenizers.save(tokenizer, work / "tokenizer")
    return tokenizer


def _shape(c: ConfigDict) -> decoder.DecoderConfig:
    if c.width % c.heads or c.heads % c.kv_heads or c.width // c.heads % 2:
        raise UserError(
            f"model.heads={c.heads} must divide model.width={c.width} into even parts, and "
            f"model.kv_heads={c.kv_heads} must divide model.heads"
        )
    return decoder.DecoderConfig(
        vocab_size=c.vocab_size,
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
    if n < 2 or not 0 < share < 1:
        raise UserError(
            f"{n} examples with data.heldout={share}: give at least 2, and a share above 0, below 1"
        )
    order = np.random.Generator(np.random.Philox(key=[seed, 1])).permutation(n)
    held = min(n - 1, max(1, round(n * share)))
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def unigram_loss(training: Sequence[Encoded], heldout: Sequence[Encoded], vocab_size: int) -> float:
    """Nats per held-out target token under the training tokens' add-one-smoothed frequencies."""
    counts = np.bincount(np.concatenate([b.ids for b in training]), minlength=vocab_size) + 1.0
    targets = np.concatenate([e.ids[e.is_target] for e in heldout])
    return float(-np.log(counts / counts.sum())[targets].mean())
