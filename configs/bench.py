"""Measure how fast this machine trains and scores, beside the peers that are installed."""

from ml_collections import ConfigDict


def get_config(arg: str = "finetune") -> ConfigDict:
    """The argument is what to measure: finetune, score, completion or matmul."""
    c = ConfigDict()
    c.what = arg
    c.quick = False
    c.shape = "small"
    return c
