"""Compiling ahead: every program that the coming steps need, before the first of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from forget_jax.data.feed import feed
from forget_jax.lm import sharding
from forget_jax.lm.programs import Programs
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.plan import Microbatch
from forget_jax.training.run import Run
from forget_jax.training.state import TrainState

LOOK_AHEAD = 200  # steps whose shapes are compiled; a shape first met later is compiled then


def compile_ahead(run: Run, end: int, told: Callable[[str], None] = lambda what: None) -> None:
    """Compiles every shape of the coming steps before the first of them, two at a time.

    Args:
      end: the step before which the run is to end.
      told: how far it is, in words (`Programs`).
    """
    wanted: dict[tuple[int, Any, int], Microbatch] = {}
    for step in range(run.number, min(end, run.number + LOOK_AHEAD)):
        count = len(run.plan.seats(step))
        for part in run.plan.microbatches(step):
            wanted.setdefault((count, part.shape, part.cost), part)
    seated = {count: _seated_as(run, count) for count, _, _ in wanted}

    def one_part(count: int, part: Microbatch) -> None:
        state, sums = seated[count]
        batch = feed(run.plan.examples, part.shape, part.rows)
        seats = steps.Seats(part.seat_R, np.ones(count, np.float32))
        values = (*run.values(state), sums, batch, seats, run.beside(0))
        steps.accumulate.lower(run.objective.rows[part.cost], *values).compile()

    def one_update(count: int) -> None:
        state, sums = seated[count]
        rates = steps.Rates(np.zeros(count, np.float32), np.zeros(count, bool))
        stop = sharding.spread(np.zeros(1, np.float32))
        if run.objective.penalty is None:  # one that is there lies as it is given
            trained = run.objective.trained
            steps.update.lower(run.optimizer, state, sums, rates, stop, None, trained).compile()

    makers: dict[Any, Any] = {
        key: functools.partial(one_part, key[0], part) for key, part in wanted.items()
    }
    makers |= {count: functools.partial(one_update, count) for count in seated}
    with Programs(makers, told) as programs:
        programs.wait()


def _seated_as(run: Run, count: int) -> tuple[TrainState, steps.Accumulated]:
    """The state and the sums as they are with so many seats; shapes suffice to compile."""
    if count == len(run.seats):
        return run.seated, run.sums
    shapes = jax.eval_shape(lambda state: states.resize(state, count), run.seated)
    both = shapes, jax.eval_shape(states.zero_like, shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        both,
        sharding.shardings(both),
    )
