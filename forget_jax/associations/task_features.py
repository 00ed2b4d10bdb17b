"""What is known of tasks beside their entries, such as losses in training, as more columns."""

import dataclasses
from typing import Any

import numpy as np

from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TaskFeatures:
    """Features of tasks on the scale of a matrix's columns.

    Attributes:
      train_MxP: of the train rows, with the mean and the typical deviation of a column.
      value_P: of the new task; NaN where not known.
      mean_P, scale_P: a feature x is (x - mean) * scale + centre.
      centre: the matrix's mean.
      kept_P: which of the given features vary over the train rows.
    """

    train_MxP: np.ndarray
    value_P: np.ndarray
    mean_P: np.ndarray
    scale_P: np.ndarray
    centre: float
    kept_P: np.ndarray

    @classmethod
    def scaled(cls, features: Any, train_MxN: np.ndarray) -> "TaskFeatures | None":
        """Features of the train rows; None where one is not finite or none varies.

        Args:
          features: M × P numbers.
          train_MxN: the rows, complete.

        Raises:
          UserError: features of another number of rows.
        """
        given_MxP = np.asarray(features, np.float64)
        if given_MxP.ndim != 2 or len(given_MxP) != len(train_MxN):
            raise UserError(
                f"features of tasks have the shape {given_MxP.shape}; of {len(train_MxN)} train "
                "rows they must have as many rows"
            )
        kept_P = given_MxP.std(0) > 1e-9 * np.abs(given_MxP).max(0, initial=0)
        if not np.isfinite(given_MxP).all() or not kept_P.any():
            return None
        given_MxP = given_MxP[:, kept_P]
        mean_P, centre = given_MxP.mean(0), float(train_MxN.mean(dtype=np.float64))
        scale_P = train_MxN.std(0, dtype=np.float64).mean() / given_MxP.std(0)
        train_MxP = ((given_MxP - mean_P) * scale_P + centre).astype(np.float32)
        nothing = np.full(len(mean_P), np.nan)
        return cls(train_MxP, nothing, mean_P, scale_P, centre, kept_P)

    @property
    def count(self) -> int:
        """P, of those that vary."""
        return len(self.value_P)

    @property
    def is_known(self) -> bool:
        """Whether those of the new task are."""
        return bool(np.isfinite(self.value_P).all())

    def of(self, features: Any) -> "TaskFeatures":
        """The same with those of a new task, P numbers as they were given for the train rows."""
        given_P = np.asarray(features, np.float64).reshape(-1)
        if given_P.size != self.kept_P.size:
            raise UserError(
                f"{given_P.size} features of a new task; the train rows have {self.kept_P.size}"
            )
        value_P = (given_P[self.kept_P] - self.mean_P) * self.scale_P + self.centre
        # Beyond what train rows had, nobody knows what a feature says.
        value_P = np.clip(value_P, self.train_MxP.min(0), self.train_MxP.max(0))
        return dataclasses.replace(self, value_P=value_P)

    def widened(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of a method, in which features of columns say nothing of these columns."""
        if "side" not in options:
            return options
        side = {}
        for kind, features in options["side"].items():
            known_pxN = np.atleast_2d(np.asarray(features, np.float64))
            mean_px1 = known_pxN.mean(1, keepdims=True)
            side[kind] = np.concatenate([known_pxN, np.repeat(mean_px1, self.count, 1)], 1)
        return options | {"side": side}
