"""Scores on disk: a zarr table models x examples that is filled chunk by chunk and resumes.

`tokens` marks what is done: -1 until a chunk is written, and always written after its figures.
Every chunk carries a checksum, and one that is done has a file, all-NaN ones too: what a disk has
damaged or lost is found when a run goes on (`mend`), and scored again.
"""

import hashlib
import json
import pathlib
import sys
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.files import PathLike

ROOT = "zarr.json"  # written last of all: with it a table is made in full
COMPRESSORS = (ZstdCodec(level=0), Crc32cCodec())
UNITS = {"tokens": "tokens", "agree_sum": "tokens"}  # of a figure; else nats


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
    entries = _entries(models, examples, sources, chunk, figures, targets)
    stored = {key: files.Path(path) / key for key in entries}
    if stored[ROOT].exists():
        wrong = [key for key, file in stored.items() if not _holds(file, entries[key])]
        if wrong:
            if ROOT in wrong:  # which says what the table is of
                _check_other(path, models, examples, {"tokens", *figures}, targets)
            print(f"{path}: {wrong[0]} is damaged; it is written again", file=sys.stderr)
            for key in wrong:
                files.write_bytes(stored[key], entries[key])
        return
    for key in sorted(entries, key=lambda key: (key == ROOT, key)):
        files.write_bytes(stored[key], entries[key])


def _holds(file: files.Path, data: bytes) -> bool:
    return file.exists() and file.read_bytes() == data


def _check_other(
    path: PathLike,
    models: Sequence[str],
    examples: Sequence[str],
    figures: set[str],
    targets: int,
) -> None:
    """Refuses a sound table of other things; one that cannot be read is a damaged one of these."""
    try:
        with read(path) as there:
            there.load()
    except Exception:  # zarr and xarray raise whatever damaged metadata make of it
        return
    _check_same(path, there, models, examples, figures, targets)


def _entries(
    models: Sequence[str],
    examples: Sequence[str],
    sources: Sequence[str],
    chunk: int,
    figures: Sequence[str],
    targets: int,
) -> dict[str, bytes]:
    """The files of an empty table by name: metadata and the names of models and examples."""
    entries: dict[str, Buffer] = {}
    memory = MemoryStore(entries)
    names = {
        "model": np.array(models, object),
        "example": np.array(examples, object),
        "source": ("example", np.array(sources, object)),
    }
    encoding = {name: {"compressors": COMPRESSORS} for name in names}
    xr.Dataset(coords=names).to_zarr(memory, mode="w", consolidated=False, encoding=encoding)
    group = zarr.open_group(memory, mode="r+")
    whole = json.dumps([*map(list, (models, examples, sources, figures)), chunk, targets])
    group.attrs["of"] = hashlib.sha256(whole.encode()).hexdigest()
    shape, chunks = (len(models), len(examples)), (1, min(chunk, len(examples)))
    dims = ("model", "example")
    _array(group, "tokens", shape, chunks, np.int32, -1, dims)
    for name in figures:
        _array(group, name, shape, chunks, np.float64, np.nan, dims)
    if targets:
        wide = (*shape, targets), (*chunks, targets)
        _array(group, "logp", *wide, np.float32, np.nan, (*dims, "target"))
    with warnings.catch_warnings():  # not in zarr 3's specification yet; xarray looks for it
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(memory)
    return {key: data.to_bytes() for key, data in entries.items()}


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
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill,
        dimension_names=dims,
        compressors=COMPRESSORS,
        attributes={"units": UNITS.get(name, "nats")},
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


def mend(path: PathLike, chunk: int) -> None:
    """Marks chunks that a disk has damaged or lost as not scored; says how many there are."""
    group = zarr.open_group(str(path), mode="r+")
    tokens, figures = _get(group, "tokens"), _figures(group)
    rows, columns = tokens.shape
    lost = 0
    for k in range(rows):
        for start in range(0, columns, chunk):
            place = (slice(k, k + 1), slice(start, min(columns, start + chunk)))
            try:
                done_C = np.asarray(tokens[place]) >= 0
                sound = not done_C.any() or (
                    done_C.all()
                    and all(_is_sound(path, a, place, (k, start // chunk)) for a in figures)
                )
            except Exception:  # a checksum that does not match, a file that is none
                sound = False
            if not sound:
                for array in (tokens, *figures):
                    files.remove(_file(path, array, (k, start // chunk)))
                lost += 1
    if lost:
        print(f"{path}: {lost} chunks are damaged or lost; they are scored again", file=sys.stderr)


def _get(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def _figures(group: zarr.Group) -> list[zarr.Array]:
    """The arrays over models and examples beside `tokens`."""
    arrays = (array for name, array in group.arrays() if name != "tokens")
    return [array for array in arrays if array.ndim >= 2]


def _is_sound(
    path: PathLike, array: zarr.Array, place: tuple[slice, ...], at: tuple[int, int]
) -> bool:
    """Whether a chunk is there and matches its checksum."""
    return _file(path, array, at).exists() and array[place] is not None


def _file(path: PathLike, array: zarr.Array, at: tuple[int, int]) -> files.Path:
    """The file of a chunk."""
    inner = ["0"] * (array.ndim - 2)
    return files.Path(path) / array.basename / "c" / "/".join([*map(str, at), *inner])


def done(path: PathLike, rows: Sequence[int], chunk: int) -> np.ndarray:
    """Which chunks of examples are scored for all of the models at `rows`: bool, one a chunk."""
    # Of these models alone: a fleet asks once a model, and tables have many.
    tokens = _get(zarr.open_group(str(path), mode="r"), "tokens")
    tokens_KxN = np.asarray(tokens.get_orthogonal_selection(np.array(rows)))
    done_N = np.all(tokens_KxN >= 0, 0)
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
    whole = zarr.config.set({"array.write_empty_chunks": True})  # no file means not written
    tokens_KxC = np.tile(tokens_C.astype(np.int32), (len(rows), 1))
    try:
        with whole:
            for name, block in (*figures.items(), ("tokens", tokens_KxC)):
                _get(group, name)[np.array(rows), columns] = block
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
