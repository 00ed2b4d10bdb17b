"""A grid of ranks and steps on one task, and laws fitted to it; `points.path` skips the grid."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Scaling, fields
from forget_jax.configs import associate


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: a grid offline; `empty`: task and upstream are yours to give."""
    c = fields(Scaling)
    c.upstream = associate.get_config(arg).upstream
    c.task = "builtin:docstring_task/unittest,logging[:160]" if arg == "builtin" else ""
    c.data.context = 128
    c.train.lr = 1e-3
    c.train.schedule = "constant"
    c.train.warmup = 3
    c.lora.rslora = True
    c.lora.alpha = 4.0
    return c
