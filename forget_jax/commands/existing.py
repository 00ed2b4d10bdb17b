"""A matrix of fine-tunes that exist: adapters and checkpoints from anywhere, or score tables."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import xarray as xr

from forget_jax.commands import matrices, score, values
from forget_jax.commands.settings import Associate
from forget_jax.data import reading
from forget_jax.data.examples import Example
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.fleet.cells import BASE
from forget_jax.fleet.forgetting import OTHER_BASE, forgetting
from forget_jax.fleet.forgetting import read as read_table
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring.table import NLL


@dataclasses.dataclass(frozen=True)
class Found:
    """What tables say of fine-tunes.

    Attributes:
      z: forgetting, `task` x `example`.
      base: the base's scores over `example`.
      examples: the columns; with an empty text where their rows are not known.
      over_context: what became of long examples; empty where tables were read.
    """

    z: xr.DataArray
    base: xr.Dataset
    examples: list[Example]
    over_context: dict[str, dict[str, int]]


def given(settings: Associate) -> bool:
    """Whether fine-tunes are given, so that none is trained."""
    return bool(settings.adapters or settings.models or settings.scores)


def check(settings: Associate) -> None:
    """Refuses what does not go together."""
    if settings.tasks:
        raise UserError(
            "tasks are trained, but adapters, models and scores are of fine-tunes that exist: "
            "leave tasks empty (--config=associate:existing)"
        )
    if settings.metric != "nll" or settings.part:
        field = "metric=exact_match" if settings.metric != "nll" else "part"
        raise UserError(f"{field} needs tasks that are trained here; leave it at its default")
    if not settings.scores:
        if not settings.upstream:
            raise UserError("no data set is named; give upstream")
        score.check(score.asked(settings, settings.upstream))
    elif settings.adapters or settings.models or settings.upstream:
        raise UserError(
            "scores are measured already: leave adapters, models and upstream out "
            "(--config=associate:existing)"
        )


def found(settings: Associate, work: Workdir) -> Found:
    """Scores the upstream examples under the fine-tunes, or reads tables; resumes."""
    return _read(settings.scores) if settings.scores else _scored(settings, work)


def _scored(settings: Associate, work: Workdir) -> Found:
    wanted = score.asked(settings, settings.upstream)
    reader = values.reader(settings.model, wanted.data, score=settings.score, work=work)
    texts = reader.read(settings.upstream, scored=True)
    base = values.base(settings.model, reader)
    scored = score.tabled(wanted, base, texts.encoded, work)
    kept = {e.name for e in texts.encoded}
    examples = [e for e in texts.examples if e.name in kept]
    matrices.keep_examples(work.path, examples)
    over = {"upstream": texts.over_context}
    return Found(forgetting(scored), scored.sel(model=BASE), examples, over)


def _read(paths: Sequence[str]) -> Found:
    """Several tables of one base on the same examples.

    Raises:
      UserError: none, or tables of other examples, other numbers of tokens or another base.
    """
    places = [matrices.place(path, ("scores.zarr",)) for path in paths]
    for path, where in zip(paths, places, strict=True):
        if where.suffix not in (".zarr", ".parquet"):
            raise UserError(
                f"{path} is no table of scores: give a workdir of score, its scores.zarr or "
                "scores.parquet"
            )
    tables = [read_table(where, path) for path, where in zip(paths, places, strict=True)]
    if BASE not in tables[0].model.values:
        raise UserError(f"{paths[0]}: none of its models is called {BASE}; give its table first")
    tuned = [t for t in tables if set(t.model.values) != {BASE}]
    if not tuned:
        raise UserError("the tables of scores hold the base alone: score fine-tunes beside it")
    z = forgetting(tables[0], tuned)
    base = tables[0].sel(model=BASE)
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if BASE in table.model.values:
            _check_base(base, table.sel(model=BASE, example=base.example), path, paths[0])
    return Found(z, base, _examples(z, places), {})


def _check_base(base: xr.Dataset, other: xr.Dataset, path: str, first: str) -> None:
    """Refuses a table whose base gives the same examples another loss."""
    moved = abs(base[NLL].values / base.tokens.values - other[NLL].values / other.tokens.values)
    apart = float(np.nanmedian(moved)) if np.isfinite(moved).any() else 0.0
    if apart > OTHER_BASE:
        raise UserError(
            f"{path}: its base gives the examples another loss than that of {first} (by "
            f"{apart:.2f} nats a token): score all fine-tunes beside one base"
        )


def _examples(z: xr.DataArray, places: Sequence[matrices.Path]) -> list[Example]:
    """The rows of the columns where they lie beside a table; else their names alone."""
    names = [str(name) for name in z.example.values]
    sources = [str(s) for s in z.source.values] if "source" in z.coords else [""] * len(names)
    rows: dict[str, Example] = {}
    for where in places:
        beside = where.parent / matrices.EXAMPLES
        if beside.exists():
            held = reading.load((str(beside),), dataclasses.replace(Data(), shuffle=-1))
            rows |= {e.name: e for e in held}
    return [
        rows.get(name, Example(name, source, text=""))
        for name, source in zip(names, sources, strict=True)
    ]
