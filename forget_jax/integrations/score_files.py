"""Scores that others measured, as one table whatever wrote them."""

import os

import pandas as pd

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.integrations import lm_eval, vllm

# set: of examples. example: its name. nll: summed over targets, nats; NaN where not known. tokens:
# targets; NaN where not counted. correct: 1 or 0; NaN where nothing was answered. options: to
# choose from; NaN for an open question. text: for people. key: equal where the same was asked.
COLUMNS = ("set", "example", "nll", "tokens", "correct", "options", "text", "key")


def read(path: files.PathLike, count: lm_eval.Count | None = None) -> pd.DataFrame:
    """The scores of one model: a folder of lm-evaluation-harness, or JSONL of vLLM.

    Args:
      path: folder or file.
      count: counts the target tokens of a context and its continuation, for the harness's files.

    Returns:
      The columns `COLUMNS`, a row for every example.

    Raises:
      UserError: nothing is there, it is neither of the two, or two rows are of one example.
    """
    where = files.Path(path)
    if not where.exists():
        raise UserError(f"{os.fspath(path)} does not exist")
    if where.is_dir():
        found = lm_eval.read(where, count)
        if found.empty:
            raise UserError(
                f"{os.fspath(path)} holds no scores: neither samples_TASK_DATE.jsonl of "
                "lm-evaluation-harness (--log_samples) nor scores.zarr of `forget-jax score`"
            )
    elif where.suffix in (".jsonl", ".json"):
        found = vllm.read(where)
    else:
        raise UserError(f"{os.fspath(path)}: scores are a folder, .jsonl, .zarr or .parquet")
    if found.empty:
        raise UserError(f"{os.fspath(path)} holds no scores")
    if (twice := found.example[found.example.duplicated()]).size:
        raise UserError(f"{os.fspath(path)} has two rows of {twice.iloc[0]}")
    return found[list(COLUMNS)]
