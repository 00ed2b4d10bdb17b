"""Completion methods on an association matrix, under the paper's protocol."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Evaluate, fields

# Test rows of the paper's FLAN split (the other 46 of the first 66 train).
FLAN_TEST = (6, 65, 18, 8, 60, 13, 37, 22, 30, 19, 64, 50, 25, 31, 32, 61, 16, 5, 53, 49)


def get_config(arg: str = "", table: type = Evaluate) -> ConfigDict:
    """`flan` and `tulu` are splits 1 and 2 of the released OLMo-7B matrix; else give split."""
    if arg not in ("", "flan", "tulu"):
        raise ValueError("it takes flan or tulu")
    c = fields(table)
    if arg:
        test = FLAN_TEST if arg == "flan" else range(66, 76)
        c.split.test_tasks = tuple(map(str, test))
        c.split.train_tasks = tuple(str(i) for i in range(66) if i not in FLAN_TEST)
    return c
