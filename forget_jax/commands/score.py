"""`forget-jax score`: N examples under a model, its adapters and whole fine-tuned checkpoints."""

import dataclasses
import sys

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands import models, report, scores, texts
from forget_jax.commands.workdir import Workdir
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.lm import checkpoint, peft
from forget_jax.scoring import store


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Scores the data and writes scores.zarr and scores.parquet; resumes."""
    work = Workdir(workdir, "score", config)
    if report.has_ended(work):
        return
    model, params, tokenizer = models.load(config)
    _, encoded, cut = texts.read(config.data.path, config, model, tokenizer)
    names = ["base", *config.adapters, *config.models]
    if len(set(names)) < len(names):
        raise UserError("adapters or models name one path twice (or one is called 'base')")
    table = scores.Table(work, names, encoded, config.score)
    table.fill(model, None, params, None, ["base"])
    for path in config.adapters:
        adapter, one = peft.load(path, model, params)
        table.fill(model, adapter, params, scores.stack([one]), [path])
    for path in config.models:
        other, tuned = checkpoint.load(path)
        if dataclasses.replace(other, context=model.context, dtype=model.dtype) != model:
            raise UserError(f"{path} is a model of another shape than {config.model.path}")
        table.fill(model, None, tuned, None, [path])
    work.tick()
    scored = store.read(work / "scores.zarr")
    scores.check_complete(scored)
    frame = pd.DataFrame(
        {
            "model": np.repeat(names, len(encoded)),
            "example": np.tile([e.name for e in encoded], len(names)),
            "nll_sum": scored.nll_sum.values.ravel(),
            "tokens": scored.tokens.values.ravel(),
        }
    )
    files.write_bytes(work / "scores.parquet", frame.to_parquet(index=False))
    seconds = work.seconds()
    nll, tokens = scored.nll_sum.values, scored.tokens.values
    summary = work.finish(
        {
            "examples": len(encoded),
            "tokens": int(tokens[0].sum()),
            "nll_mean": float(np.nansum(nll[0]) / tokens[0].sum()),
            "nll_mean_by_model": dict(
                zip(names, (np.nansum(nll, 1) / tokens.sum(1)).tolist(), strict=True)
            ),
            "tokens_per_second": len(names) * sum(len(e.ids) for e in encoded) / seconds,
            "not_finite": int((~np.isfinite(nll)).sum()),
            "over_context": cut,
            "seconds": seconds,
        }
    )
    report.build(workdir)
    print(
        f"{summary['examples']} examples, {summary['tokens']} target tokens: mean NLL "
        f"{summary['nll_mean']:.4f} nats; table in {work / 'scores.parquet'}",
        file=sys.stderr,
    )
