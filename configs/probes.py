"""Which upstream examples to measure for the next task, and what error to expect of how many."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The matrix is yours to give; all its tasks are learned from unless some are named."""
    c = ConfigDict()
    c.matrix = ConfigDict()
    c.matrix.path = ""
    c.split = ConfigDict()
    c.split.train_tasks = ()
    c.observed = 30
    c.seeds = 5
    return c
