"""Which upstream examples to measure for the next task, and what error to expect of how many."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Probes, fields


def get_config() -> ConfigDict:
    """The matrix is yours to give; all its tasks are learned from unless some are named."""
    return fields(Probes)
