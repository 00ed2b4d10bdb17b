"""One of two processes of a run on loopback: two_processes_worker.py ADDRESS INDEX FOLDER.

Process 1 is slow wherever it reads, and process 0 wherever it writes, so that what one of them does
not wait for is missed.
"""

import sys
import time
from pathlib import Path

import numpy as np

from forget_jax import distributed, files
from forget_jax.errors import UserError
from forget_jax.runs.once import make_once, once
from forget_jax.runs.workdir import Workdir

MOMENT = 0.2

address, index, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
distributed.HEARTBEAT_SECONDS = 5
distributed.initialise(f"{address},2,{index}")
write_bytes = files.write_bytes


def slow_write(path, data):
    time.sleep(MOMENT if index == 0 else 0)
    write_bytes(path, data)


def numbers():
    """Those of both processes, by a computation that both take part in."""
    from jax.experimental import multihost_utils

    return tuple(multihost_utils.process_allgather(np.array(index)).tolist())


files.write_bytes = slow_write
fields = {"train": {"lr": 0.1}, "part": ""}
work = Workdir(folder / "run", "finetune", fields)
assert work.done is None

time.sleep(MOMENT * index)
value = once(work / "value.json", lambda: {"of": numbers(), "mine": index})
assert value == {"of": [0, 1], "mine": 0}, value
assert files.read_json(work / "value.json")["value"] == value
assert once(work / "value.json", lambda: 1 / 0) == value

big = once(work / "big.json", lambda: ["é" * 1000] * 2000)  # more than gRPC's usual 4 MiB
assert len(big) == 2000 and big[-1] == "é" * 1000


def make():
    assert index == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        files.write_json(work / "tokenizer" / name, name)


make_once(work / "tokenizer", make)
assert files.read_json(work / "tokenizer" / "tokenizer.json") == "tokenizer.json"

for step in range(1, 4):
    work.metrics.add("train", {"step": step})
    work.metrics.flush()
work.finish({"loss": 1.5, "mine": index})
assert files.read_json(work / "summary.json") == {"command": "finetune", "loss": 1.5, "mine": 0}

again = Workdir(folder / "run", "finetune", fields)
assert again.done == {"command": "finetune", "loss": 1.5, "mine": 0}
again.metrics.resume("train", 2)
assert [r["step"] for r in again.metrics.stage("train")] == [1, 2]
distributed.barrier("rewritten")
assert len((work / "metrics.jsonl").read_text().splitlines()) == 2

# Both are refused for the same reason; then one that was started with another command.
try:
    Workdir(folder / "run", "finetune", {"train": {"lr": 0.2}})
except UserError as e:
    assert "train.lr was 0.1, now 0.2" in str(e)
else:
    raise AssertionError("another run is accepted")
distributed.barrier("refused")
print("all agreed", flush=True)
try:
    Workdir(folder / "new", "finetune", {"train": {"lr": 0.1 + index}})
except Exception as e:
    print(f"{type(e).__name__}: {e}", flush=True)
    distributed.leave(2)
