"""A law whose coefficients differ by a group, such as the method or the task; its shape is shared.

With every coefficient separate and the shape shared, forgetting of task i under an amount of
training is K[i] times one curve: the rank-1 matrix of tasks, after any number of steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from forget_jax.errors import UserError, nearest
from forget_jax.scaling.laws import Law
from forget_jax.scaling.terms import Columns, Values

MOST = 64


def levels_of(column: Any, name: str) -> tuple[str, ...]:
    """The groups of a column, in order.

    Raises:
      UserError: one only, or more than a fit takes.
    """
    levels = tuple(map(str, np.unique(np.asarray(column).astype(str))))
    if not 2 <= len(levels) <= MOST:
        raise UserError(
            f"points: {name} has {len(levels)} groups; separate coefficients need 2 to {MOST}"
        )
    return levels


def codes(column: Any, law: Law) -> np.ndarray:
    """The number of each row's group (float64).

    Raises:
      UserError: a group that the law was not fitted to.
    """
    texts = np.asarray(column).astype(str)
    unknown = sorted(set(texts.ravel()) - set(law.levels))
    if unknown:
        raise UserError(
            f"scaling: {law.by} {str(unknown[0])!r} was not in the fit"
            f"{nearest(str(unknown[0]), law.levels)}"
        )
    return np.searchsorted(np.asarray(law.levels), texts).astype(np.float64)


def grouped(law: Law, by: str, separate: Sequence[str], levels: tuple[str, ...]) -> Law:
    """The law with a coefficient for each group in place of each of `separate` (all: empty).

    Raises:
      UserError: no such coefficient, or a law that is fitted to two targets.
    """
    separate = tuple(separate) or law.linear
    for name in separate:
        if name not in law.linear:
            raise UserError(
                f"scaling: law {law.name!r} has no coefficient {name!r}"
                f"{nearest(name, law.linear)}; it has {', '.join(law.linear)}"
            )
    if law.companion or law.name == "deming":
        raise UserError(f"scaling: law {law.name!r} has no separate coefficients")
    names = []
    for name in law.linear:
        names += [f"{name}[{level}]" for level in levels] if name in separate else [name]

    printed = law.printed or tuple(s.name for s in law.shape)
    natural = _Natural(law, separate, levels)
    return replace(
        law,
        linear=tuple(names),
        terms=_Terms(law, separate, by, len(levels)),
        natural=natural,
        printed=printed,
        by=by,
        levels=levels,
    )


@dataclass(frozen=True)
class _Terms:
    law: Law
    separate: tuple[str, ...]
    by: str
    count: int

    def __call__(self, shape: Values, columns: Columns) -> list[Any]:
        rest = dict(columns)
        group = rest.pop(f"group {self.by}")
        terms: list[Any] = []
        plain = self.law.terms(shape, rest or {"row": jnp.zeros_like(group)})
        for name, term in zip(self.law.linear, plain, strict=True):
            if name in self.separate:
                terms += [jnp.where(group == k, term, 0.0) for k in range(self.count)]
            else:
                terms.append(term)
        return terms


@dataclass(frozen=True)
class _Natural:
    law: Law
    separate: tuple[str, ...]
    levels: tuple[str, ...]

    def __call__(self, values: Values, centre: Values) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for level in self.levels:
            own = {n: values[f"{n}[{level}]"] for n in self.separate}
            natural = self.law.natural({**values, **own}, centre)
            for name in self.law.parameters:
                found[f"{name}[{level}]" if name in self.separate else name] = natural[name]
        return found
