"""Scores on disk: a zarr table models x examples that is filled chunk by chunk and resumes.

`tokens` marks what is done: -1 until a chunk is written, and always written after its figures. (An
all-NaN chunk is never stored by zarr, so NaN cannot be the mark.)
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.files import PathLike

ROOT = "zarr.json"  # written last of all: with it a table is made in full


def create(
    path: PathLike,
    models: Sequence[str],
    examples: Sequence[str],
    sources: Sequence[str],
    chunk: int,
    figures: Sequence[str] = ("nll_sum",),
    targets: int = 0,
) -> None:
    """Makes the empty table, or finds it made.

    Only metadata and names are written, the same bytes by whoever makes the table and never a
    chunk of scores: several processes may do this at once, before, while and after others write
    scores.

    Args:
      chunk: examples a chunk.
      figures: names of the float64 figures of every model and example.
      targets: where above 0, `logp` holds up to so many log-probabilities of every example's
        targets, in their order (fp32, NaN beyond the last).

    Raises:
      UserError: the table there is one of other models or examples, or cannot be written.
    """
    if (files.Path(path) / ROOT).exists():
        with read(path) as there:
            _check_same(path, there, models, examples, {"tokens", *figures}, targets)
        return
    entries: dict[str, Buffer] = {}
    memory = MemoryStore(entries)
    names = {
        "model": np.array(models, object),
        "example": np.array(examples, object),
        "source": ("example", np.array(sources, object)),
    }
    xr.Dataset(coords=names).to_zarr(memory, mode="w", consolidated=False)
    group = zarr.open_group(memory, mode="r+")
    shape, chunks = (len(models), len(examples)), (1, min(chunk, len(examples)))
    dims = ("model", "example")
    _array(group, "tokens", shape, chunks, np.int32, -1, dims)
    for name in figures:
        _array(group, name, shape, chunks, np.float64, np.nan, dims)
    if targets:
        wide = (*shape, targets), (*chunks, targets)
        _array(group, "logp", *wide, np.float32, np.nan, (*dims, "target"))
    for key in sorted(entries, key=lambda key: (key == ROOT, key)):
        files.write_bytes(files.Path(path) / key, entries[key].to_bytes())


def _array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: type,
    fill: float,
    dims: tuple[str, ...],
) -> None:
    group.create_array(
        name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, dimension_names=dims
    )


def _check_same(
    path: PathLike,
    there: xr.Dataset,
    models: Sequence[str],
    examples: Sequence[str],
    figures: set[str],
    targets: int,
) -> None:
    for what, wanted in (("model", models), ("example", examples)):
        found = there[what].values.tolist()
        if found != list(wanted):
            new = next((name for name in wanted if name not in set(found)), None)
            why = "in another order" if new is None else f"without {new}"
            if len(found) > len(wanted) and new is None:
                why = f"with {len(found)} instead of {len(wanted)}"
            raise UserError(
                f"{path} is a table of other {what}s ({why}); give another --workdir, or the "
                f"{what}s that it was made with"
            )
    if (set(there.data_vars) - {"logp"}, there.sizes.get("target", 0)) != (figures, targets):
        raise UserError(f"{path} is a table of other figures; give another --workdir")


def read(path: PathLike) -> xr.Dataset:
    """The table with dims `model` and `example`: sums in nats, and `tokens` (-1: not scored)."""
    return xr.open_zarr(str(path), consolidated=False, mask_and_scale=False, chunks=None)


def done(path: PathLike, rows: Sequence[int], chunk: int) -> np.ndarray:
    """Which chunks of examples are scored for all of the models at `rows`: bool, one a chunk."""
    with read(path) as table:
        done_N = (table.tokens.values[list(rows)] >= 0).all(0)
    return np.logical_and.reduceat(done_N, np.arange(0, len(done_N), chunk))


def write(
    path: PathLike,
    rows: Sequence[int],
    columns: slice,
    figures: Mapping[str, np.ndarray],
    tokens_C: np.ndarray,
) -> None:
    """Writes one whole chunk of some models: its figures, then the counts that mark it done.

    Args:
      rows: which models; figures hold them along their first axis, the chunk's examples along the
        second.
    """
    group = zarr.open_group(str(path), mode="r+")
    tokens_KxC = np.tile(tokens_C.astype(np.int32), (len(rows), 1))
    try:
        for name, block in (*figures.items(), ("tokens", tokens_KxC)):
            array = group[name]
            assert isinstance(array, zarr.Array)
            array[np.array(rows), columns] = block
    except OSError as e:
        raise UserError(
            f"cannot write {path}: {e.strerror or e}; free space, then start the same command "
            "again: it resumes"
        ) from e


def tidy(path: PathLike) -> None:
    """Removes what killed writers left unfinished; only for a table that nobody writes to.

    An object store has nothing of the kind: its writes are atomic.
    """
    if files.is_local(path) and distributed.is_writer():
        for pattern in ("*.partial", ".*.tmp"):
            for file in pathlib.Path(path).rglob(pattern):
                file.unlink(missing_ok=True)
