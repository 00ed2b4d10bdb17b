"""`forget-jax report` has no fields of its own: it reads everything from the workdir."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """An empty config."""
    return ConfigDict()
