"""A small base model from scratch; `:builtin` (the default) needs no network and no files."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Pretrain, fields
from forget_jax.configs.associate import MODULES, SKILLS


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin` trains on text that ships with Python; any other argument is a data set."""
    c = fields(Pretrain)
    c.data.path = (
        (
            "builtin:language_reference",
            f"builtin:docstrings/{MODULES}",
            f"builtin:skills/{SKILLS}",
        )
        if arg == "builtin"
        else (arg,)
    )
    c.train.steps = 400
    c.train.lr = 3e-3
    c.train.schedule = "cosine"
    c.train.warmup = 20
    c.train.decay = 0.01
    return c
