"""Commands that are signalled at any moment: each signal ends its run, or finds it at its end.

SIGNALS=40 sends more than CI does.
"""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

SIGNALS = int(os.environ.get("SIGNALS", "12"))
RESUMES = "start the same command again to resume"
# As jax's own callback does where it meets objects that wait for a device.
SLOW_COLLECTOR = """
import gc, sys, time
def collected(phase, info):
    time.sleep(0.002)
gc.callbacks.append(collected)
gc.set_threshold(2000, 5, 5)
from forget_jax.cli import main
sys.exit(main())
"""


@pytest.fixture
def commands(associate_arguments, score_arguments, tiny_base, data_files, tmp_path):
    """Every command, in seconds."""
    matrix, points = tmp_path / "matrix.csv", tmp_path / "points.csv"
    z_MxN = np.random.default_rng(0).normal(size=(6, 60))
    pd.DataFrame(z_MxN, [f"t{m}" for m in range(6)]).to_csv(matrix)
    steps = [10, 20, 40, 80] * 3
    columns = {"P": np.repeat([100, 1000, 5000], 4), "steps": steps, "l_ft": np.linspace(3, 1, 12)}
    pd.DataFrame(columns | {"l_f": np.linspace(0.1, 1, 12), "run": "r"}).to_csv(points, index=False)
    model, task = f"--config.model.path={tiny_base}", f"--config.data.path={data_files.tasks[0]}"
    facts = ("stage_a=builtin:short_facts[:6]", "stage_b=builtin:short_facts/B[:6]", "epochs=3")
    return {
        "associate": associate_arguments,
        "score": score_arguments,
        "finetune": ["finetune", model, task, "--config.train.steps=40"],
        "predict": [
            *("predict", f"--config.matrix.path={matrix}", "--config.split.test_tasks=1"),
            *("--config.observed=8", "--config.seeds=2"),
        ],
        "probes": ["probes", f"--config.matrix.path={matrix}", "--config.observed=4"],
        "scaling": ["scaling", f"--config.points.path={points}"],
        "factoids": [
            *("factoids", model, *(f"--config.{field}" for field in facts)),
            *("--config.mix=builtin:random_words/3[:12]", "--config.max_new_tokens=16"),
            "--config.train.batch_size=4",
        ],
        "bench": ["bench", "--config.what=matmul", "--config.quick=true"],
    }


def started(arguments, work):
    argv = [sys.executable, "-c", SLOW_COLLECTOR, *arguments, f"--workdir={work}"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.fault("signals", "as it should be")
def test_none_is_lost(commands, tmp_path, tried):
    draw = random.Random(os.environ.get("SEED", "0"))
    seconds = {}
    for name, arguments in commands.items():
        began = time.monotonic()
        process = started(arguments, tmp_path / f"{name}-whole")
        _, err = process.communicate()
        assert process.returncode == 0, err
        seconds[name] = time.monotonic() - began
    for number in range(SIGNALS):
        name = list(commands)[number % len(commands)]
        work = tmp_path / f"{name}-{number}"
        process = started(commands[name], work)
        after = draw.uniform(0.2, 0.95 * seconds[name])
        time.sleep(after)
        sent = draw.choice([signal.SIGTERM, signal.SIGINT])
        had_ended = process.poll() is not None or (work / "summary.json").exists()
        process.send_signal(sent)
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
        waited = time.monotonic() - began
        said = f"{name}, {sent.name} after {after:.1f} s: {process.returncode} in {waited:.1f} s"
        print(said)
        assert "ignored in" not in err and "Traceback" not in err, f"{said}\n{err}"
        if had_ended:
            assert process.returncode == 0, f"{said}\n{err}"
        elif after > 0.5:
            assert process.returncode == 130 and RESUMES in err.splitlines()[-1], f"{said}\n{err}"
        else:  # the interpreter itself starts
            assert process.returncode in (130, -sent), f"{said}\n{err}"
    tried(SIGNALS)
