"""Replay against the matrix of `associate`: which upstream examples to mix into a fine-tune."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Replay, fields
from forget_jax.configs import associate


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin` or `empty`, as for `associate`: of its tasks every fourth, and all upstream."""
    theirs = associate.get_config(arg)
    c = associate.small_steps(fields(Replay))
    c.tasks, c.upstream = theirs.tasks[1::4], theirs.upstream
    c.exact_match = theirs.exact_match
    return c
