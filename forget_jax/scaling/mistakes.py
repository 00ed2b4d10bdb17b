"""What is wrong with a table whatever law is fitted to it: the same row twice, and mixed units."""

from collections.abc import Mapping

import numpy as np

from forget_jax.errors import UserError

_FAR = 100.0  # a factor that one quantity has only in another unit
_UNITS = ("unit", "units")


def check(named: Mapping[str, np.ndarray]) -> None:
    """Refuses a table that cannot be what was measured.

    Raises:
      UserError: rows that are equal in every column, more than one unit, P that is not the same
        multiple of the rank throughout, a run whose P changes, or shares above 1.
    """
    _units(named)
    _sizes(named)
    _shares(named)
    _twice(named)


def _twice(named: Mapping[str, np.ndarray]) -> None:
    if not ("run" in named or {"P", "steps"} <= set(named)):
        return  # such rows may be repeated measurements
    seen: dict[tuple[str, ...], int] = {}
    for row, values in enumerate(zip(*(c.astype(str) for c in named.values()), strict=True)):
        if values in seen:
            raise UserError(
                f"points: row {row} repeats row {seen[values]} in every column: drop one of them"
            )
        seen[values] = row


def _units(named: Mapping[str, np.ndarray]) -> None:
    for name in _UNITS:
        if name in named and len(units := np.unique(named[name].astype(str))) > 1:
            said = " and ".join(repr(str(unit)) for unit in units[:3])
            raise UserError(f"points: column {name!r} holds {said}: convert all rows to one unit")


def _sizes(named: Mapping[str, np.ndarray]) -> None:
    P_N = _numbers(named, "P")
    if P_N is None:
        return
    if (rank_N := _numbers(named, "rank")) is not None and (rank_N > 0).all():
        ratio_N = P_N / rank_N
        least, most = int(ratio_N.argmin()), int(ratio_N.argmax())
        if ratio_N[most] > _FAR * ratio_N[least]:
            raise UserError(
                f"points: P is {ratio_N[least]:g} a rank in row {least} but {ratio_N[most]:g} in "
                f"row {most}: its units are mixed; give P as a count everywhere"
            )
    if "run" in named:
        _, run_N = np.unique(named["run"].astype(str), return_inverse=True)
        low, high = np.full(run_N.max() + 1, np.inf), np.zeros(run_N.max() + 1)
        np.minimum.at(low, run_N, P_N)
        np.maximum.at(high, run_N, P_N)
        if (far := np.flatnonzero(high > _FAR * low)).size:
            run = named["run"][int(np.flatnonzero(run_N == far[0])[0])]
            raise UserError(
                f"points: P goes from {low[far[0]]:g} to {high[far[0]]:g} within run {str(run)!r}: "
                "its units are mixed, or the column run does not tell runs apart"
            )


def _shares(named: Mapping[str, np.ndarray]) -> None:
    mix_N = _numbers(named, "mix")
    if mix_N is not None and (mix_N > 1).any():
        row = int(np.flatnonzero(mix_N > 1)[0])
        raise UserError(
            f"points: mix is a share of the data, but row {row} has {mix_N[row]:g}: divide "
            "percentages by 100"
        )


def _numbers(named: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """A column that is sound and positive, or None: its other flaws are told by who reads it."""
    if name not in named or not np.issubdtype(named[name].dtype, np.number):
        return None
    column = named[name].astype(np.float64)
    return column if np.isfinite(column).all() and (column >= 0).all() else None
