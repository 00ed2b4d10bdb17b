"""`forget-jax score`: N examples under a model, its adapters and whole fine-tuned checkpoints."""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from forget_jax import files
from forget_jax.associations import improved
from forget_jax.associations.matrix import Matrix, save
from forget_jax.commands import early, matrices, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Associate, Check, Score
from forget_jax.commands.summaries import NotFinite, OrderDependence, OverContext
from forget_jax.commands.summaries import Score as Summary
from forget_jax.commands.summaries.codec import decode
from forget_jax.data.examples import Example
from forget_jax.data.rows import row_of
from forget_jax.data.settings import Paths
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.fleet.cells import BASE
from forget_jax.fleet.forgetting import forgetting
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import about, peft, peft_merge
from forget_jax.lm.hf import base as bases
from forget_jax.lm.hf.base import Base
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import disk
from forget_jax.scoring.divergence import MEASURES
from forget_jax.scoring.groups import groups
from forget_jax.scoring.likelihood import nll_mean
from forget_jax.scoring.table import NLL, Table, complete

MOST_NAMES = 20  # of examples without a finite score in the summary


def check(settings: Score) -> None:
    """Refuses models that cannot be told apart, and those that cannot be scored at all."""
    early.check_named(settings.model)
    names = [BASE, *settings.adapters, *settings.models]
    twice = {name for name in names if names.count(name) > 1}
    if twice == {BASE}:
        raise UserError(
            "an adapter or model is called base, which is the name of model.path; give its path "
            "with ./ in front"
        )
    if twice:
        raise UserError(f"adapters or models name {min(twice)} twice; a model is scored once")
    for path in settings.adapters:
        peft.is_plain(path)
    for path in settings.models:
        _check_shape(path, settings.model.path, about.config_of(settings.model.path))


def run(settings: Score, work: Workdir) -> Ended:
    """Scores the data and writes scores.zarr and scores.parquet; resumes."""
    reader = values.reader(settings.model, settings.data, score=settings.score, work=work)
    texts = reader.read(settings.data.path, scored=True)
    base = values.base(settings.model, reader)
    names = [BASE, *settings.adapters, *settings.models]
    table = Table(work / "scores.zarr", names, texts.encoded, settings.score)
    moved = fill(settings, base, table)
    work.tick()
    rate = table.tokens_done / table.seconds if table.seconds else None
    useful, over = table.useful_fraction(), OverContext(**texts.over_context)
    examples = texts.examples if len(names) > 1 or settings.log_samples else []
    del texts, table  # many rows take room, and so does the table of them
    scored = complete(work / "scores.zarr")
    disk.tidy(work / "scores.zarr")
    files.write_bytes(work / "scores.parquet", _frame(scored).to_parquet(index=False))
    nll, tokens = scored[NLL].values, scored.tokens.values
    lost = [name for k, name in enumerate(names) if not np.isfinite(nll[k]).any()]
    if lost:
        raise UserError(
            f"no example has a finite NLL under {', '.join(lost)}: its weights give no numbers "
            f"(the table is in {work / 'scores.parquet'})"
        )
    bad = np.argwhere(~np.isfinite(nll))
    z_MxN = _forgetting(work, scored, examples, settings.model.path)
    if settings.log_samples:
        _log_samples(work, scored, examples)
    means = [float(np.nanmean(z_N)) if np.isfinite(z_N).any() else None for z_N in z_MxN]
    summary = Summary(
        examples=scored.sizes["example"],
        tokens=int(tokens[0].sum()),
        nll_mean=nll_mean(nll[0], tokens[0]),
        nll_mean_by_model={n: nll_mean(nll[k], tokens[k]) for k, n in enumerate(names)},
        mean_z_by_model=dict(zip(names[1:], means, strict=True)),
        tokens_per_second=rate,
        useful_fraction=useful,
        not_finite=len(bad),
        not_finite_names=tuple(
            NotFinite(model=names[k], example=str(scored.example.values[j]))
            for k, j in bad[:MOST_NAMES]
        ),
        over_context=over,
        order_dependence=moved,
        seconds=work.seconds(),
    )
    without = f" ({len(bad)} scores are not finite and left out of means)" if len(bad) else ""
    return Ended(
        summary,
        f"{summary.examples} examples, {summary.tokens} target tokens: mean NLL "
        f"{summary.nll_mean:.4f} nats{without}{_forgot(z_MxN)}; table in "
        f"{work / 'scores.parquet'}",
    )


def _forgetting(
    work: Workdir, scored: xr.Dataset, scored_of: Sequence[Example], base: str
) -> np.ndarray:
    """What each model but the base forgot, in nats a token (M, N); kept as a matrix for others."""
    if scored.sizes["model"] == 1:
        return np.empty((0, scored.sizes["example"]))
    found = forgetting(scored)
    names = tuple(map(str, found.example.values))
    examples = {e.name: e for e in scored_of}
    sources = tuple(examples[name].source for name in names)
    z_MxN = found.values
    tasks = tuple(map(str, found.task.values))
    matrix = Matrix(z_MxN, tasks, names, sources, "nll")
    save(work / "forgetting.zarr", matrix, base)
    if said := improved.line(improved.improved(matrix), left_out=False):
        print(said.replace("leave_improved", "associate's leave_improved"), file=sys.stderr)
    matrices.keep_examples(work.path, [examples[name] for name in names])
    return z_MxN


def _log_samples(work: Workdir, scored: xr.Dataset, examples: Sequence[Example]) -> None:
    """Writes samples.jsonl: every example under every model, with its row, the base's first."""
    rows = {e.name: row_of(e) for e in examples}
    names = [str(name) for name in scored.example.values]
    nll_KxN = scored[NLL].values / scored.tokens.values
    lines = [
        files.dump_json(
            {"model": str(model), "example": name, "doc": rows[name]}
            | {"nll_sum": float(scored[NLL].values[k, j])}
            | {"tokens": int(scored.tokens.values[k, j]), "nll": float(nll_KxN[k, j])}
            | ({"z": float(nll_KxN[k, j] - nll_KxN[0, j])} if k else {})
        )
        for k, model in enumerate(scored.model.values)
        for j, name in enumerate(names)
    ]
    files.write_text(work / "samples.jsonl", "".join(f"{line}\n" for line in lines))


def _forgot(z_MxN: np.ndarray) -> str:
    """A word on forgetting for the closing line; nothing where only a base was scored."""
    known = z_MxN[np.isfinite(z_MxN)]
    if not len(known):
        return ""
    share = (known > 0).mean()
    return f"; mean z of {len(z_MxN)} {known.mean():+.4f} nats, {share:.0%} of it above zero"


def asked(settings: Associate | Check, path: tuple[str, ...]) -> Score:
    """What this command would be asked for, to score data sets under fine-tunes that exist."""
    return Score(
        model=settings.model,
        adapters=settings.adapters,
        models=settings.models,
        data=Paths(**vars(settings.data), path=path),
        score=settings.score,
        mesh=settings.mesh,
    )


def tabled(settings: Score, base: Base, encoded: Sequence[Encoded], work: Workdir) -> xr.Dataset:
    """The whole table of scores of a base and its fine-tunes, in scores.zarr; resumes."""
    names = [BASE, *settings.adapters, *settings.models]
    fill(settings, base, Table(work / "scores.zarr", names, encoded, settings.score))
    work.tick()
    scored = complete(work / "scores.zarr")
    disk.tidy(work / "scores.zarr")
    return scored


def fill(settings: Score, base: Base, table: Table) -> OrderDependence | None:
    """Fills the table; in half precision also measures how far batching moves its scores."""
    moved = None
    plain = {path: peft.is_plain(path) for path in settings.adapters}
    adapters = ((path, peft.load(path, base.model, base.path)) for path in plain if plain[path])
    for number, (adapters_K, group) in enumerate(groups(BASE, adapters)):
        table.fill(base.model, adapters_K, group)
        if number == 0 and base.model.config.dtype != "float32":
            found = table.order_dependence(base.model, adapters_K, group)
            said = ", ".join(f"{key.replace('_', ' ')} {x:.2g}" for key, x in found.items())
            print(
                f"batched otherwise, in {base.model.config.dtype} (nats a token): {said}",
                file=sys.stderr,
            )
            moved = decode(OrderDependence, found)
    shape = base.model.config
    for path in (path for path in plain if not plain[path]):
        print(f"{path} is more than plain LoRA: scored merged into the base", file=sys.stderr)
        tuned = peft_merge.load(path, base.model, base.path)
        if settings.score.measures and tuned.config.vocab_size != shape.vocab_size:
            raise UserError(
                f"{path} has a vocabulary of {tuned.config.vocab_size}, the base of "
                f"{shape.vocab_size}: score.measures compares distributions over one vocabulary"
            )
        table.fill(tuned, None, [path], base.model)
        del tuned
    for path in settings.models:
        tuned = bases.read(path).computing(context=shape.context, dtype=shape.dtype)
        table.fill(tuned, None, [path], base.model)
        del tuned
    return moved


def _check_shape(path: str, base: str, shape: DecoderConfig) -> None:
    """Refuses a whole model whose figures would not compare with the base's."""
    config = about.config_of(path)
    if dataclasses.replace(config, context=shape.context, dtype=shape.dtype) != shape:
        raise UserError(f"{path} is a model of another shape than {base}")


def _frame(scored: xr.Dataset) -> pd.DataFrame:
    """One row for every model and example."""
    K, N = scored.sizes["model"], scored.sizes["example"]
    sums = [f"{measure}_sum" for measure in MEASURES]
    further = [name for name in sums if name in scored and name != NLL]
    return pd.DataFrame(
        {
            "model": np.repeat(scored.model.values.astype(object), N),
            "example": np.tile(scored.example.values.astype(object), K),
            **{name: scored[name].values.ravel() for name in (NLL, "tokens", *further)},
        }
    )
