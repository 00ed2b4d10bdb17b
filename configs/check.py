"""What fine-tunes lost of what must not be lost, against limits."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Check, fields


def get_config(arg: str = "") -> ConfigDict:
    """The fine-tunes, sets and limits are yours to give; the argument is the base's path."""
    c = fields(Check)
    c.model.path = arg
    return c
