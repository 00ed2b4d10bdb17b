"""Compiling ahead: every program that the coming steps need, before the first of them."""

import concurrent.futures
from typing import Any

import jax
import numpy as np

from forget_jax.lm import sharding
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.plan import Microbatch
from forget_jax.training.run import Run
from forget_jax.training.state import TrainState

LOOK_AHEAD = 200  # steps whose shapes are compiled; a shape first met later is compiled then


def compile_ahead(run: Run) -> None:
    """Compiles every shape of the coming steps before the first of them, two at a time."""
    wanted: dict[tuple[int, Any], Microbatch] = {}
    for step in range(run.number, min(run.plan.total, run.number + LOOK_AHEAD)):
        count = len(run.plan.seats(step))
        for part in run.plan.microbatches(step):
            wanted.setdefault((count, part.shape), part)
    seated = {count: _seated_as(run, count) for count, _ in wanted}
    mesh = sharding.current()

    def one_part(count: int, part: Microbatch) -> None:
        with sharding.entered(mesh):
            state, sums = seated[count]
            batch = sharding.feed(run.plan.examples, part.shape, part.rows)
            steps.accumulate.lower(
                run.model,
                run.adapter,
                state.trainable,
                run.frozen,
                sums,
                batch,
                part.seat_R,
                np.ones(count, np.float32),
                run.dropout_key(0),
            ).compile()

    def one_update(count: int) -> None:
        with sharding.entered(mesh):
            state, sums = seated[count]
            rate, running = np.zeros(count, np.float32), np.zeros(count, bool)
            stop = sharding.spread(np.zeros(1, np.float32))
            steps.update.lower(run.optimizer, state, sums, rate, running, stop).compile()

    # Processes compile in one order: a program may make them wait for each other.
    workers = 2 if jax.process_count() == 1 else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(one_part, count, part) for (count, _), part in wanted.items()]
        jobs += [pool.submit(one_update, count) for count in seated]
        for job in jobs:
            job.result()


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
