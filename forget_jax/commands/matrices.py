"""What commands read as a matrix: its files, workdirs, tables of scores, and examples' own rows."""

import dataclasses
import json
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from forget_jax import files, foreign
from forget_jax.associations import matrix, matrix_files
from forget_jax.associations.matrix import Matrix
from forget_jax.associations.side import features
from forget_jax.data import reading
from forget_jax.data.examples import Example
from forget_jax.data.rows import row_of
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.fleet import forgetting
from forget_jax.fleet.cells import BASE
from forget_jax.fleet.forgetting import OTHER_BASE
from forget_jax.scoring.table import NLL

EXAMPLES = "examples.jsonl"  # of a workdir with a matrix: the rows that its columns are
BEGINNING = 600  # characters of a column's text that a page shows
TABLES = ("forgetting.zarr", "scores.zarr")  # of a workdir, the first that there is


def place(path: PathLike, tables: Sequence[str] = TABLES) -> Path:
    """The file or store that a path names: of a workdir the first of these that it has."""
    text = os.fspath(path)
    if not files.is_local(path) and not text.startswith(("gs://", "s3://")):
        return matrix.check_path(path)  # says what is not read
    here = Path(path)
    if here.suffix in (*matrix_files.READERS, ".parquet") or not here.is_dir():
        return here
    return next((here / name for name in tables if (here / name).exists()), here)


def load(path: PathLike) -> Matrix:
    """A matrix from its own file or store, from a workdir, or from a table of scores.

    Raises:
      UserError: none is there, or what is there cannot be read; or a table without a base.
    """
    here = place(path)
    if here.is_dir() and here.suffix not in matrix_files.READERS:
        raise UserError(
            f"{path} is a folder without {' or '.join(TABLES)}: give a workdir of associate or "
            "score that has ended, or the file of a matrix"
        )
    return _of_scores(here) if _is_scores(here) else matrix.load(here)


def _is_scores(path: Path) -> bool:
    return path.suffix == ".parquet" or (path.suffix == ".zarr" and (path / NLL).exists())


def _of_scores(path: Path) -> Matrix:
    z = forgetting.forgetting(path)
    sources = tuple(map(str, z.source.values)) if "source" in z.coords else ()
    tasks, examples = (tuple(map(str, z[axis].values)) for axis in ("task", "example"))
    return Matrix(z.values, tasks, examples, sources, "nll")


def load_probes(path: PathLike) -> tuple[Matrix, pd.DataFrame]:
    """New tasks at their probes, and what the base gave there.

    Returns:
      The matrix of the scored models, and by example the base's `nll` (nats a token) and `tokens`.

    Raises:
      UserError: no table of scores is there, or one without base or fine-tunes.
    """
    here = place(path, ("scores.zarr",))
    if not _is_scores(here):
        raise UserError(
            f"{path} is no table of scores: give the workdir of `forget-jax score` on "
            "probes.jsonl, its scores.zarr or its scores.parquet"
        )
    return _of_scores(here), _base(forgetting.read(here, str(path)))


def base_scores(path: PathLike) -> pd.DataFrame | None:
    """What the base gave on the columns of a matrix, where its run has kept that; else None."""
    table = place(path).parent / "scores.zarr"
    if place(path).name != "forgetting.zarr" or not table.exists():
        return None
    scored = forgetting.read(table, str(table))
    return _base(scored) if BASE in scored.model.values else None


def base_of(path: PathLike) -> str:
    """The model that a matrix's run names as its base; empty where there is no such run."""
    kept = place(path).parent / "config.json"
    if place(path).name != "forgetting.zarr" or not kept.exists():
        return ""
    model = foreign.record(files.read_json(kept), str(kept)).get("model", {})
    return str(foreign.record(model, str(kept)).get("path", ""))


def side(path: PathLike, found: Matrix) -> dict[str, np.ndarray]:
    """What is known beside of a matrix's columns: their sources, loss and length under the base.

    Args:
      path: of the matrix.
      found: what was loaded from there, or some of its columns.

    Returns:
      By kind its features, p × N, as `auto` takes them.
    """
    base = base_scores(path)
    if base is None:
        return features(found.sources)
    base = base.reindex(list(found.examples))
    return features(found.sources, base.nll.to_numpy(), base.tokens.to_numpy())


@dataclasses.dataclass(frozen=True)
class BaseMoved:
    """How another scoring of a base differs from a matrix's own, on the examples of both.

    Attributes:
      retokenised: rows of the examples with other numbers of target tokens, `tokens_here` and
        `tokens_there`.
      nll: median difference of the NLLs, nats a token.
    """

    retokenised: pd.DataFrame
    nll: float

    @property
    def is_another(self) -> bool:
        """Whether it is another base."""
        return self.nll > OTHER_BASE


def base_moved(path: PathLike, base: pd.DataFrame) -> BaseMoved | None:
    """Compares `nll` and `tokens` by example with a matrix's base; None where none is kept."""
    kept = base_scores(path)
    if kept is None:
        return None
    both = base.add_suffix("_here").join(kept.add_suffix("_there"), how="inner")
    other = both[both.tokens_here != both.tokens_there]
    apart = (both.nll_here - both.nll_there).abs().median()
    return BaseMoved(other, float(apart) if len(both) else 0.0)


def _base(scored: xr.Dataset) -> pd.DataFrame:
    base = scored.sel(model=BASE if BASE in scored.model.values else scored.model.values[0])
    nll_N = base[NLL].values / base.tokens.values
    index = pd.Index(base.example.values.astype(object), name="example")
    return pd.DataFrame({"nll": nll_N, "tokens": base.tokens.values}, index)


def keep_examples(folder: Path, examples: Sequence[Example]) -> None:
    """Keeps the rows that columns of a matrix are, as any command reads them again, and for pages
    the beginnings of their texts.
    """
    shown = [{"name": e.name, "text": reading.whole(e)[:BEGINNING]} for e in examples]
    files.write_json(folder / "examples.json", shown)
    rows = (json.dumps(row_of(e), ensure_ascii=False) + "\n" for e in examples)
    files.write_text(folder / EXAMPLES, "".join(rows))


def kept_examples(path: PathLike, names: Sequence[str]) -> list[str] | None:
    """The rows of some columns, each a line of JSON; None where the matrix is not beside them."""
    where = place(path).parent / EXAMPLES
    if not where.exists():
        return None
    wanted: dict[str, str] = dict.fromkeys(names, "")
    for number, line in enumerate(where.read_text().split("\n")[:-1], 1):
        row = foreign.record(foreign.parse(line, f"{where}, line {number}"), str(where))
        if row.get("name") in wanted:
            wanted[row["name"]] = line
    if missing := [name for name, line in wanted.items() if not line]:
        raise UserError(f"{where} has no row called {missing[0]}: it is of another matrix")
    return list(wanted.values())


def beginnings(path: PathLike, most: int = 280) -> dict[str, str]:
    """The first characters of each column's text, where they lie beside the matrix."""
    where = place(path).parent / "examples.json"
    if not where.exists():
        return {}
    return {str(row["name"]): str(row["text"])[:most] for row in files.read_json(where)}
