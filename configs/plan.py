"""How much training keeps forgetting within a budget, from points measured before."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Plan, fields


def get_config() -> ConfigDict:
    """The points, the question and its limit are yours to give."""
    return fields(Plan)
