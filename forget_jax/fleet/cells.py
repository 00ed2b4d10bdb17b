"""Cells of an experiment: what each is trained on, and where it stands in the grid.

An experiment is a list of cells with coordinates, such as task, strategy and seed. They are trained
together, each resumes by itself, and what was measured of them comes back as an xarray whose
coordinates are theirs. Names are made of coordinates for people and files, and never read again.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from forget_jax.errors import UserError
from forget_jax.training.loop import Failure, Task

Coordinates = Mapping[str, str | int | float]
BASE = "base"  # the name of the model before any training, in tables of scores


def label(at: Coordinates) -> str:
    """The name of a cell: its words, and its numbers above zero, such as `sorting, seed 1`."""
    words = (v if isinstance(v, str) else f"{key} {v}" for key, v in at.items() if v != 0)
    return ", ".join(words) or ", ".join(f"{key} {v}" for key, v in at.items())


@dataclasses.dataclass(frozen=True)
class Cell:
    """One fine-tune of an experiment.

    Attributes:
      at: its coordinates; all cells of an experiment have the same keys.
      task: what is trained, under the cell's name.
      arm: what the experiment itself compares, where its coordinates are only the words for that.
    """

    at: Coordinates
    task: Task
    arm: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", dataclasses.replace(self.task, name=self.name))

    @property
    def name(self) -> str:
        """What people and files call it."""
        return label(self.at)


def check(cells: Sequence[Cell]) -> None:
    """Refuses cells that cannot be told apart, before anything is trained; as `check_names`."""
    check_names([cell.name for cell in cells])


def check_names(names: Sequence[str]) -> None:
    """Refuses names of tasks or cells that cannot be told apart.

    Raises:
      UserError: two of one name, or one that is called as the base model is.
    """
    for name in names:
        if name == BASE:
            raise UserError(
                f"a task is called {BASE}, which is the name of the model before training; rename "
                "its file"
            )
        if names.count(name) > 1:
            raise UserError(f"two tasks are called {name}; rename the file of one")


def grid(**axes: Iterable[str | int | float]) -> list[dict[str, str | int | float]]:
    """Every combination of coordinates, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def gather(
    cells: Sequence[Cell],
    values: Mapping[str, Any],
    dims: Mapping[str, Sequence[Any]] | None = None,
    **attrs: str,
) -> xr.DataArray:
    """Figures of the cells as one array over their coordinates; NaN where there is no cell.

    Args:
      values: by cell name, a number or an array; cells without one (that failed) stay NaN.
      dims: names and coordinates of an array's own axes, such as `{"example": names}`.
      attrs: such as the unit.
    """
    dims = dict(dims or {})
    axes = {key: list(dict.fromkeys(cell.at[key] for cell in cells)) for key in cells[0].at}
    inner = [len(labels) for labels in dims.values()]
    found = np.full([len(labels) for labels in axes.values()] + inner, np.nan)
    for cell in cells:
        if cell.name in values:
            found[tuple(axes[key].index(cell.at[key]) for key in axes)] = values[cell.name]
    coords = {
        key: np.array(labels, object) if isinstance(labels[0], str) else labels
        for key, labels in (axes | dims).items()
    }
    return xr.DataArray(found, coords, list(coords), attrs=attrs)


def failed(cells: Sequence[Cell], failures: Mapping[str, Failure]) -> str:
    """The cells whose loss was not finite, by their coordinates, each with the step and why."""
    said = [
        f"{', '.join(f'{key} {value}' for key, value in cell.at.items())} "
        f"({failures[cell.name].line('it')})"
        for cell in cells
        if cell.name in failures
    ]
    return "; ".join(said)
