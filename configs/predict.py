"""What a new task will make the model forget: its probes' scores joined to a matrix of others."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Predict
from forget_jax.configs import evaluate


def get_config(arg: str = "") -> ConfigDict:
    """Matrix and probes are yours to give; `flan` and `tulu` are those of `evaluate`, as before."""
    return evaluate.get_config(arg, Predict)
