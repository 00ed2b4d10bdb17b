"""What will be forgotten, by category, from the measured forgetting of a few probes."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from forget_jax import associations, files, foreign
from forget_jax.associations import matrix as matrices
from forget_jax.associations.matrix import Matrix
from forget_jax.associations.online import Predictor
from forget_jax.data.settings import Data
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.fleet import forgetting
from forget_jax.fleet.cells import BASE
from forget_jax.scoring.table import NLL

ALL = "all"  # the category of every example


@dataclasses.dataclass(frozen=True)
class Category:
    """Mean z of a category's examples with both ends of its interval, nats a token."""

    z: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A new task's row as it is foretold.

    Attributes:
      step: of the training.
      categories: by source, those of all examples first.
      probes: mean z of the probes, measured.
      row_N: z of every example; of a probe as it was measured.
    """

    step: int
    categories: Mapping[str, Category]
    probes: float
    row_N: np.ndarray


class Forecaster:
    """A matrix measured before, made ready for rows that are known at some columns."""

    def __init__(
        self, matrix: Matrix, probes: Sequence[str], coverage: float = 0.9, method: str = "mixture"
    ):
        """Calibrates intervals for these probes: M small decompositions, once.

        Args:
          probes: names of the columns that will be measured, in their order.
          coverage: share of rows whose mean the intervals are to hold.
          method: of `associations.METHODS`, one that extends.

        Raises:
          UserError: a matrix of exact match or of fewer than four tasks, or probes that are no
            columns.
        """
        if matrix.metric == "exact_match":
            raise UserError("the matrix is of exact match, probes are losses: use one of nll")
        where = {name: j for j, name in enumerate(matrix.examples)}
        if unknown := [name for name in probes if name not in where]:
            raise UserError(
                f"{len(unknown)} of {len(probes)} probes are no columns of the matrix, "
                f"{unknown[0]} first: take the probes.jsonl that `forget-jax probes` writes"
            )
        self.columns_S = np.array([where[name] for name in probes])
        groups = matrix.groups()
        self.names = [ALL, *list(groups)[1:]]
        self.predictor: Predictor = associations.fit_predictor(
            np.asarray(matrix.z_MxN, np.float32),
            len(probes),
            coverage,
            method=method,
            columns=self.columns_S,
            groups=list(groups.values()),
        )

    def forecast(self, z_S: np.ndarray, step: int = 0) -> Forecast:
        """The row from the probes' z; milliseconds, and what is compiled the first time."""
        row = associations.predict_row(self.predictor, self.columns_S, z_S)
        measured_N = np.full(self.predictor.n_columns, np.nan)
        measured_N[self.columns_S] = z_S
        means = associations.predict_means(self.predictor, row, measured_N)
        categories = {
            name: Category(float(z), float(low), float(high))
            for name, z, low, high in zip(self.names, *means, strict=True)
        }
        row_N = np.where(np.isnan(measured_N), row.mean_N, measured_N)
        return Forecast(step, categories, float(np.nanmean(z_S)), row_N)


def load(path: PathLike) -> Matrix:
    """A matrix from its file, or from a workdir of `associate` or `score`."""
    here = Path(path)
    return matrices.load(here / "forgetting.zarr" if _is_workdir(here) else here)


def _is_workdir(path: Path) -> bool:
    return path.suffix != ".zarr" and path.is_dir()


def data_of(path: PathLike) -> Data:
    """The `data` fields under which a matrix's run read its examples; those of all runs elsewhere.

    Rows are taken as they come, under our own names for their columns.
    """
    kept = Path(path) / "config.json"
    held = files.read_json(kept) if _is_workdir(Path(path)) and kept.exists() else {}
    given = foreign.record(held.get("data", {}), str(kept))
    known = {f.name for f in dataclasses.fields(Data)} - {"columns", "shuffle"}
    return Data(**{k: v for k, v in given.items() if k in known}, shuffle=-1)


def base_of(path: PathLike) -> pd.DataFrame | None:
    """The base's `nll` (nats a token) and `tokens` by example, where a matrix's run kept them."""
    table = Path(path) / "scores.zarr"
    if not _is_workdir(Path(path)) or not table.exists():
        return None
    scored = forgetting.read(table, str(table))
    if BASE not in scored.model.values:
        return None
    base = scored.sel(model=BASE)
    nll_N = base[NLL].values / base.tokens.values
    return pd.DataFrame(
        {"nll": nll_N, "tokens": base.tokens.values}, base.example.values.astype(object)
    )
