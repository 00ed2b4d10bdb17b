"""Score a data set under a model and any number of its adapters."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Score, fields


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the model's path."""
    c = fields(Score)
    c.model.path = arg
    return c
