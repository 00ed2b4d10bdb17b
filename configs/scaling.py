"""A sweep of fine-tunes, and laws fitted to its points; `points.path` skips the sweep."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Scaling, fields
from forget_jax.configs import associate

TASK = "builtin:docstring_task/unittest,logging[:160]"
# Forgetting is the divergence from the base: 0 before training, and its laws need no offset.
WITH_LR = ("K*P^x*N^y*lr^z", "K*N^y*lr^z", "K*lr^z", "s + K*P^-x*N^-y*lr^-z", "K*kl_ft^x*lr^z")


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: a grid offline; `wide`, `smollm2`: sweeps; `empty`: task and upstream are yours.

    `wide` has ranks from 1 to 64, three learning rates and seeds, and twenty points of each run, on
    the base of `pretrain` (20 minutes on two cores); `smollm2` has ranks from 4 to 64, three
    learning rates, two tasks and ten points, on a real model (18 minutes a rank).
    """
    c = fields(Scaling)
    if arg not in ("builtin", "wide", "smollm2", "empty"):
        raise ValueError("it takes builtin, wide, smollm2 or empty")
    c.upstream = associate.get_config("empty" if arg == "empty" else "builtin").upstream
    c.task = "" if arg == "empty" else TASK
    c.data.context = 128
    c.train.lr = 1e-3
    c.train.schedule = "constant"
    c.train.warmup = 3
    c.lora.rslora = True
    c.lora.alpha = 4.0
    if arg == "wide":
        _wide(c)
    elif arg == "smollm2":
        _smollm2(c)
    return c


def _wide(c: ConfigDict) -> None:
    c.ranks = (1, 2, 4, 8, 16, 32, 64)
    c.lrs = (3e-4, 1e-3, 3e-3)
    c.seeds = 3
    c.steps = tuple(range(6, 121, 6))
    c.runs_together = 9  # those of a rank
    c.upstream = _first(c.upstream, (12, 20, 16))
    c.data.context = 96
    c.train.batch_size = 4
    c.train.buckets = c.score.buckets = 2
    c.train.save_every = 0  # every mark is saved
    c.metric = c.target = "kl"
    c.laws = ("linear", "kl_origin", "kl_task", "multiplicative", "constant", "power_N")
    c.formulas = WITH_LR


def _smollm2(c: ConfigDict) -> None:
    c.model.path = "builtin:smollm2"
    c.data.template = "chat"
    c.data.context = 64
    c.task = ""
    c.tasks = ("builtin:docstring_task/unittest[:60]", "builtin:skill/sorting[:60]")
    c.task_heldout = 0.13
    c.upstream = ("builtin:language_reference[:6]", f"builtin:docstrings/{associate.MODULES}[:8]")
    c.ranks = (4, 8, 16, 32, 64)
    c.lrs = (3e-4, 1e-3, 3e-3)
    c.seeds = 1
    c.steps = tuple(range(4, 41, 4))
    c.runs_together = 6  # those of a rank
    c.train.batch_size = 4
    c.train.buckets = c.score.buckets = 2
    c.train.save_every = 0
    c.metric = c.target = "kl"
    c.laws = ("linear", "kl_origin", "kl_task", "multiplicative", "constant", "power_N")
    c.formulas = WITH_LR
    c.by = "task"


def _first(specs: tuple[str, ...], rows: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{spec.partition('[')[0]}[:{n}]" for spec, n in zip(specs, rows, strict=True))
