"""How a law is fitted: the options of `fit`, with their defaults and what they may be."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from forget_jax.errors import UserError, nearest
from forget_jax.scaling.solve import LANES, LOSSES


@dataclass(frozen=True)
class FitOptions:
    """How a law is fitted.

    Attributes:
      loss: `mse`, `huber-raw` or `huber-log`.
      delta: threshold of the Huber losses: nats for `huber-raw`, log units for `huber-log`.
      noise_ratio: for law `deming`: variance of errors in the target over that of errors in l_ft.
      starts: random starts of the search.
      bootstraps: draws of whole runs for intervals, each refitted from the best answer; 0: none.
      level: of the intervals, between 0 and 1.
      heldout: also refits without each rank or run in turn, for the error on it.
      seed: of starts and draws.
      by: a column of groups, such as the method, that have coefficients of their own.
      separate: which coefficients; all of them if none are named.
      warn: also looks for reasons to distrust the parameters.

    Raises:
      UserError: a value outside its range.
    """

    loss: str = "mse"
    delta: float = 1e-3
    noise_ratio: float = 1.0
    starts: int = LANES
    bootstraps: int = 2 * LANES
    level: float = 0.95
    heldout: bool = True
    seed: int = 0
    by: str = ""
    separate: tuple[str, ...] = ()
    warn: bool = True

    def __post_init__(self) -> None:
        """Checks every value."""
        if self.loss not in LOSSES:
            raise UserError(f"scaling: unknown loss {self.loss!r}: use one of {', '.join(LOSSES)}")
        positive = self.delta > 0 and self.noise_ratio > 0 and self.starts > 0
        if not (positive and 0 < self.level < 1 and self.bootstraps >= 0):
            raise UserError(
                "scaling: delta, noise_ratio and starts must be positive, level between 0 and 1, "
                "bootstraps at least 0"
            )


def read_options(given: Mapping[str, Any]) -> FitOptions:
    """Options by name; one that does not exist is a UserError that says which is nearest."""
    known = [f.name for f in fields(FitOptions)]
    for name in given:
        if name not in known:
            raise UserError(
                f"scaling: no option {name!r}{nearest(name, known)}: there are {', '.join(known)}"
            )
    return FitOptions(**given)
