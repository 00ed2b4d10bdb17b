"""Replay against the matrix of `associate`: which upstream examples to mix into a fine-tune."""

from ml_collections import ConfigDict

from forget_jax.configs import associate


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin` or `empty`, as for `associate`: the same tasks, upstream and training."""
    c = associate.get_config(arg)
    del c.part
    del c.repeat_tasks
    del c.r2_ranks
    c.tasks = c.tasks[1::4]
    c.matrix = ConfigDict()
    c.matrix.path = ""
    c.replay = replay()
    return c


def replay() -> ConfigDict:
    """How replay is done."""
    c = ConfigDict()
    c.strategies = ("none", "random", "predicted", "ground_truth")
    c.ratio = 0.125
    c.temperature = 1.0
    c.observed = 30
    c.method = "mixture"
    c.pool = 0.5
    c.seeds = 1
    c.task_heldout = 0.2
    return c
