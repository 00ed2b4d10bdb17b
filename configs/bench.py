"""Measure how fast this machine trains and scores, beside the peers that are installed."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Bench, fields


def get_config(arg: str = "finetune") -> ConfigDict:
    """The argument is what to measure: finetune, score, generate, completion, laws or matmul."""
    return fields(Bench, what=arg)
