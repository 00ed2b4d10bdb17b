"""`forget-jax finetune` with a stand-in for the command: distributed_worker.py MODE finetune ...

What a process does here is told by MODE; how it starts, writes, speaks and ends is the real
command line's.
"""

import os
import signal
import sys
import time
import types

import numpy as np

from forget_jax import cli, distributed, files, stopping
from forget_jax.commands.driver import Ended
from forget_jax.errors import UserError

distributed.HEARTBEAT_SECONDS = 5
distributed.START_SECONDS = 30


def collective() -> None:
    """One computation over all processes."""
    from jax.experimental import multihost_utils

    assert multihost_utils.process_allgather(np.array(distributed.index())).tolist() == [0, 1]


def run(settings, work) -> Ended:
    mode, mine = sys.argv[1], distributed.index()
    print(f"workdir {work.path}")
    distributed.barrier("started")
    if mode == "agree":
        expected = [True, 7, None, "a", {"b": [1.5]}, np.int64(2**40), np.arange(3)]
        held = expected if mine == 0 else [None] * len(expected)
        got = [distributed.agreed(x) for x in held]
        assert all(type(g) is type(e) for g, e in zip(got, expected, strict=True)), got
        assert all(np.array_equal(g, e) for g, e in zip(got, expected, strict=True)), got
        collective()
        files.write_json(work / f"{mine}.json", distributed.count())
        files.remove(work / "kept" if mine else work / "gone")
        distributed.barrier("ended")
    if mode == "all fail":
        raise UserError("the same mistake")
    if mode == "one fails" and mine == 1:
        raise UserError("my own mistake")
    if (mode == "killed" and mine == 1) or (mode == "first killed" and mine == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "killed in a collective":
        collective()
        if mine == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        collective()
    if mode == "crash" and mine == 0:
        raise ZeroDivisionError("of one process")
    if mode == "terminated":
        files.write_text(work / "ready", "")
    while mode != "agree":
        stopping.check()
        time.sleep(0.1)
    return Ended(None, "agreed")


stand_in = types.ModuleType("forget_jax.commands.finetune")
stand_in.run = run
sys.modules[stand_in.__name__] = stand_in
sys.exit(cli.main(sys.argv[2:]))
