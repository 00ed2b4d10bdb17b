"""`forget-jax score`: N examples under a model, its adapters and whole fine-tuned checkpoints."""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands import models, report, texts
from forget_jax.commands.config import plain
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.lm import decoder, lora
from forget_jax.lm.hf import peft
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import disk
from forget_jax.scoring import table as scores

MOST_NAMES = 20  # of examples without a finite score in the summary


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Scores the data and writes scores.zarr and scores.parquet; resumes."""
    names = ["base", *config.adapters, *config.models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(
            f"adapters or models name {min(twice)} twice; a model is scored once"
            if twice != {"base"}
            else "an adapter or model is called base, which is the name of model.path; give its "
            "path with ./ in front"
        )
    work = Workdir(workdir, "score", plain(config))
    if report.has_ended(work):
        return
    _run(config, work, names)
    report.build(workdir)


def _run(config: ConfigDict, work: Workdir, names: list[str]) -> None:
    model, params, tokenizer = models.load(config)
    encoded, cut = texts.read(config.data.path, config, model, tokenizer, scored=True)[1:]
    table = scores.Table(work, names, encoded, config.score)
    figures: dict[str, Any] = {}
    for number, (adapter, adapters_K, group) in enumerate(_groups(config, model, params)):
        table.fill(model, adapter, params, adapters_K, group)
        if number == 0 and model.dtype != "float32":
            moved = table.order_dependence(model, adapter, params, adapters_K, group)
            figures["order_dependence"] = moved
            said = ", ".join(f"{key.replace('_', ' ')} {x:.2g}" for key, x in moved.items())
            print(f"batched otherwise, in {model.dtype} (nats a token): {said}", file=sys.stderr)
    for path in config.models:
        other, tuned = models.read(path)
        if dataclasses.replace(other, context=model.context, dtype=model.dtype) != model:
            raise UserError(f"{path} is a model of another shape than {config.model.path}")
        table.fill(model, None, tuned, None, [path], base=params)
        del tuned
    work.tick()
    with disk.read(work / "scores.zarr") as scored:
        scored.load()
    scores.check_complete(scored)
    disk.tidy(work / "scores.zarr")
    files.write_bytes(work / "scores.parquet", _frame(scored).to_parquet(index=False))
    nll, tokens = scored.nll_sum.values, scored.tokens.values
    bad = np.argwhere(~np.isfinite(nll))
    rate = table.tokens_done / table.seconds if table.seconds else None
    summary = work.finish(
        {
            "examples": scored.sizes["example"],
            "tokens": int(tokens[0].sum()),
            "nll_mean": _mean(nll[0], tokens[0]),
            "nll_mean_by_model": {n: _mean(nll[k], tokens[k]) for k, n in enumerate(names)},
            "tokens_per_second": rate,
            "useful_fraction": table.useful_fraction(),
            "not_finite": len(bad),
            "not_finite_names": [
                {"model": names[k], "example": str(scored.example.values[j])}
                for k, j in bad[:MOST_NAMES]
            ],
            "over_context": cut,
            **figures,
            "seconds": work.seconds(),
        }
    )
    print(
        f"{summary['examples']} examples, {summary['tokens']} target tokens: mean NLL "
        f"{summary['nll_mean']:.4f} nats; table in {work / 'scores.parquet'}",
        file=sys.stderr,
    )


def _groups(
    config: ConfigDict, model: decoder.DecoderConfig, params: Any
) -> Iterator[tuple[lora.LoRAConfig | None, Any, list[str]]]:
    """Adapters that one compiled function scores, with the base as a zero among the first.

    Adapters of one setting and one set of shapes are a group; without any the base stands alone.
    """
    groups: dict[Any, tuple[lora.LoRAConfig, dict[str, Any]]] = {}
    for path in config.adapters:
        adapter, one = peft.load(path, model, params, config.model.path)
        adapter = dataclasses.replace(adapter, dropout=0.0)  # of training only
        shapes = tuple((str(at), x.shape) for at, x in jax.tree_util.tree_leaves_with_path(one))
        _, members = groups.setdefault((adapter, shapes), (adapter, {}))
        members[path] = jax.tree.map(np.asarray, one)
    if not groups:
        yield None, None, ["base"]
    for number, (adapter, members) in enumerate(groups.values()):
        if number == 0:
            zero = jax.tree.map(np.zeros_like, next(iter(members.values())))
            members = {"base": zero, **members}
        yield adapter, scores.stack(list(members.values())), list(members)


def _mean(nll_N: np.ndarray, tokens_N: np.ndarray) -> float:
    """Mean NLL over the tokens of the examples that have a finite one."""
    known_N = np.isfinite(nll_N)
    return float(nll_N[known_N].sum() / max(1, tokens_N[known_N].sum()))


def _frame(scored: xr.Dataset) -> pd.DataFrame:
    """One row for every model and example."""
    K, N = scored.sizes["model"], scored.sizes["example"]
    further = [n for n in scored.data_vars if n not in ("nll_sum", "tokens", "logp")]
    return pd.DataFrame(
        {
            "model": np.repeat(scored.model.values.astype(object), N),
            "example": np.tile(scored.example.values.astype(object), K),
            **{str(name): scored[name].values.ravel() for name in ("nll_sum", "tokens", *further)},
        }
    )
