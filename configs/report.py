"""`forget-jax report` reads a run's workdir; of a bare matrix, its file."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Report, fields


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the path of a matrix that is no run's."""
    c = fields(Report)
    c.matrix.path = arg
    return c
