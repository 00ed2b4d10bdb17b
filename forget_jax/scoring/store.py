"""Scores on disk: a zarr table models x examples that is filled chunk by chunk and resumes.

`tokens` marks what is done: -1 until a chunk is written, and always written after its NLLs. (An
all-NaN chunk is never stored by zarr, so NaN cannot be the mark.)
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
import zarr

from forget_jax.errors import UserError
from forget_jax.files import PathLike


def create(
    path: PathLike,
    models: Sequence[str],
    examples: Sequence[str],
    sources: Sequence[str],
    chunk: int,
) -> None:
    """Makes the empty table; one process does this, once."""
    shape = (len(models), len(examples))
    chunks = (1, min(chunk, len(examples)))
    table = xr.Dataset(
        {
            "tokens": (("model", "example"), np.full(shape, -1, np.int32)),
            "nll_sum": (("model", "example"), np.full(shape, np.nan)),
        },
        coords={
            "model": np.array(models, object),
            "example": np.array(examples, object),
            "source": ("example", np.array(sources, object)),
        },
    )
    try:
        table.to_zarr(
            str(path),
            mode="w",
            consolidated=False,
            encoding={
                "tokens": {"chunks": chunks, "_FillValue": -1},
                "nll_sum": {"chunks": chunks},
            },
        )
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from e


def read(path: PathLike) -> xr.Dataset:
    """The table with dims `model` and `example`: `nll_sum` (nats) and `tokens` (-1: not scored)."""
    return xr.open_zarr(str(path), consolidated=False, mask_and_scale=False, chunks=None)


def write(
    path: PathLike, model: slice, example: slice, nll: np.ndarray, tokens: np.ndarray
) -> None:
    """Writes a block of whole chunks: NLLs first, then the token counts that mark them done."""
    group = zarr.open_group(str(path), mode="r+")
    try:
        for name, block in (("nll_sum", nll), ("tokens", tokens)):
            array = group[name]
            assert isinstance(array, zarr.Array)
            array[model, example] = block
    except OSError as e:
        raise UserError(
            f"cannot write {path}: {e.strerror or e}; free space, then start the same command "
            "again: it resumes"
        ) from e
