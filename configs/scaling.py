"""A grid of ranks and steps on one task, and laws fitted to it; `points.path` skips the grid."""

from ml_collections import ConfigDict

from forget_jax.configs import associate, parts


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: a grid offline; `empty`: task and upstream are yours to give."""
    if arg not in ("builtin", "empty"):
        raise ValueError("it takes builtin or empty")
    upstream = associate.get_config(arg).upstream
    c = ConfigDict()
    c.model = parts.model()
    c.points = ConfigDict()
    c.points.path = ""
    c.task = "builtin:docstring_task/unittest,logging[:160]" if arg == "builtin" else ""
    c.task_heldout = 0.2
    c.upstream = upstream
    c.ranks = (1, 4, 16, 64)
    c.steps = (10, 20, 40, 80)
    c.seeds = 2
    c.metric = "soft"
    c.target = ""
    c.laws = ("linear", "additive", "multiplicative", "constant", "power_N")

    c.data = parts.data()
    c.data.context = 128
    c.train = parts.train()
    del c.train.steps
    c.train.lr = 1e-3
    c.train.schedule = "constant"
    c.train.warmup = 3
    c.lora = parts.lora()
    del c.lora.rank
    c.lora.rslora = True
    c.lora.alpha = 4.0
    c.score = parts.score()
    c.mesh = parts.mesh()
    return c
