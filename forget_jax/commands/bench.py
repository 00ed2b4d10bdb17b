"""`forget-jax bench`: throughput, utilisation and peak memory here, and the ratio to each peer."""

import importlib
import os
import sys
from typing import Any

from ml_collections import ConfigDict

from forget_jax.commands import report
from forget_jax.commands.config import plain
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike
from forget_jax.runs.workdir import Workdir

# Models run in processes of their own: this one must not take an accelerator's memory from them.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

BENCHMARKS = {
    "finetune": "fine-tuning with LoRA, against torch and PEFT",
    "score": "scoring examples, against transformers",
    "completion": "completing a matrix, against scikit-surprise",
    "matmul": "the fastest square matrix products, which utilisations are of",
}
SHAPES = ("tiny", "small")


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Runs one benchmark, once: a workdir that holds its summary is left as it is."""
    if config.what not in BENCHMARKS:
        raise UserError(
            f"what is {config.what!r}{nearest(config.what, BENCHMARKS)}; "
            f"it must be one of {', '.join(BENCHMARKS)}"
        )
    if config.shape not in SHAPES:
        raise UserError(f"shape is {config.shape!r}; it must be one of {', '.join(SHAPES)}")
    work = Workdir(workdir, "bench", plain(config))
    if report.has_ended(work):
        return
    benchmark = importlib.import_module(f"forget_jax.benchmarks.{config.what}")
    models = {} if config.what == "completion" else {"shape": config.shape}
    print(f"measuring {BENCHMARKS[config.what]}", file=sys.stderr)
    found = benchmark.run(quick=config.quick, **models)
    for row in found["rows"]:
        work.metrics.add("bench", row)
    work.finish({"what": config.what, **found, **_headline(found), "seconds": work.seconds()})
    report.build(workdir)
    print(importlib.import_module("forget_jax.benchmarks.table").show(found), file=sys.stderr)


def _headline(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of our first row, for the head of the summary."""
    first = found["rows"][0]
    keys = ("tokens_per_second", "mfu", "peak_bytes", "matmul_flops")
    return {key: first[key] for key in keys if key in first}
