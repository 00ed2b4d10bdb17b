"""`forget-jax report` has no fields of its own: it reads everything from the workdir."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Report, fields


def get_config() -> ConfigDict:
    """An empty config."""
    return fields(Report)
