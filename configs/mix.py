"""What to replay for one task, as a training file for this and other trainers."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Mix, fields


def get_config(arg: str = "") -> ConfigDict:
    """The task is yours to give; after the colon may stand the path of the model."""
    c = fields(Mix)
    c.model.path = arg
    return c
