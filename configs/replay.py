"""Replay against the matrix of `associate`: which upstream examples to mix into a fine-tune."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Replay, fields
from forget_jax.configs import associate
from forget_jax.replay.strategies import STRATEGIES


def get_config(arg: str = "builtin") -> ConfigDict:
    """As for `associate`: of `builtin` every sixth task, of `wide` all; upstream is the same.

    `builtin` has headroom on the quickstart's base: random replay saves 13 times seeds' noise.
    `wide` compares strategies in earnest: 16 tasks under three seeds.
    """
    theirs = associate.get_config(arg)
    c = associate.small_steps(fields(Replay))
    c.tasks, c.upstream = theirs.tasks[5::6], theirs.upstream
    c.replay.seeds, c.replay.ratio = 2, (1 / 16,)
    if arg == "wide":
        c.tasks, c.train.steps = theirs.tasks, theirs.train.steps
        c.replay.seeds, c.replay.ratio = 3, (1 / 32,)
        c.replay.strategies = tuple(STRATEGIES)
    c.exact_match = theirs.exact_match
    return c
