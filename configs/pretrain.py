"""A small base model from scratch; `:builtin` (the default) needs no network and no files."""

from ml_collections import ConfigDict

from forget_jax.configs import parts
from forget_jax.configs.associate import TASK_MODULES, TASK_SKILLS


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin` trains on text that ships with Python; any other argument is a data set."""
    c = ConfigDict()

    c.model = ConfigDict()
    c.model.vocab_size = 2048
    c.model.width = 96
    c.model.layers = 4
    c.model.heads = 4
    c.model.kv_heads = 4
    c.model.mlp_width = 256
    c.model.context = 256

    c.data = parts.data()
    c.data.path = (
        (
            "builtin:language_reference",
            "builtin:docstrings/" + ",".join(f"-{m}" for m in TASK_MODULES),
            "builtin:skills/" + ",".join(f"-{s}" for s in TASK_SKILLS),
        )
        if arg == "builtin"
        else (arg,)
    )
    c.data.heldout = 0.03

    c.train = parts.train()
    c.train.steps = 400
    c.train.batch_size = 8
    c.train.lr = 3e-3
    c.train.schedule = "cosine"
    c.train.warmup = 20
    c.train.decay = 0.01
    c.train.save_every = 50
    c.mesh = parts.mesh()
    return c
