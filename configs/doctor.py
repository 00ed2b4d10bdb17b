"""What this machine has, and whether it computes what it should."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Doctor, fields


def get_config() -> ConfigDict:
    """The defaults."""
    return fields(Doctor)
