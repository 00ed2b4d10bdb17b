"""`forget-jax bench`: throughput, utilisation and peak memory here, and the ratio to each peer."""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from forget_jax import files
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Bench
from forget_jax.commands.summaries import Bench as Summary
from forget_jax.commands.summaries.codec import decode
from forget_jax.runs.once import is_there, once
from forget_jax.runs.workdir import Workdir

# Models run in processes of their own: this one must not take an accelerator's memory from them.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

BENCHMARKS = {
    "finetune": "fine-tuning with LoRA, against torch and PEFT",
    "score": "scoring examples, against transformers",
    "generate": "greedy generation, against transformers",
    "completion": "completing a matrix, against scikit-surprise",
    "laws": "fitting a law with intervals, against scipy",
    "matmul": "the fastest square matrix products, which utilisations are of",
}
HEADLINE = ("tokens_per_second", "mfu", "peak_bytes", "matmul_flops")  # of our first row


def run(settings: Bench, work: Workdir) -> Ended:
    """Runs one benchmark; what each case came to is kept, and a later start goes on after it."""

    def keep(name: str, measure: Callable[[], dict[str, Any]]) -> Any:
        where = work / "cases" / f"{files.safe_name(name)}.json"
        if is_there(where):
            print("  measured by an earlier start", file=sys.stderr)
        found = once(where, measure)
        work.tick()
        return found

    benchmark = importlib.import_module(f"forget_jax.benchmarks.{settings.what}")
    models = {} if settings.what in ("completion", "laws") else {"shape": settings.shape}
    print(f"measuring {BENCHMARKS[settings.what]}", file=sys.stderr)
    found = benchmark.run(quick=settings.quick, keep=keep, **models)
    work.metrics.resume("bench", 0)  # what a killed start has left
    for row in found["rows"]:
        work.metrics.add("bench", row)
    print(importlib.import_module("forget_jax.benchmarks.table").show(found), file=sys.stderr)
    first = {key: found["rows"][0][key] for key in HEADLINE if key in found["rows"][0]}
    held = {"what": settings.what, **found, **first, "seconds": work.seconds()}
    summary = decode(Summary, json.loads(files.dump_json(held)))
    return Ended(summary, f"measured {settings.what}")
