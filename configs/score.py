"""Score a data set under a model and any number of its adapters."""

from ml_collections import ConfigDict

from forget_jax.configs import parts


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the model's path."""
    c = ConfigDict()
    c.model = parts.model(arg)
    c.adapters = ()
    c.models = ()
    c.data = parts.data()
    c.data.path = ()
    c.score = parts.score()
    c.score.per_token = False
    c.score.measures = False
    c.mesh = parts.mesh()
    return c
