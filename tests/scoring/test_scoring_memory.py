"""Peak memory of scoring grows neither with the number of examples nor with the vocabulary."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forget_jax.lm.logprob import CHUNK_LOGITS

WORKER = Path(__file__).parent / "scoring_memory_worker.py"


def growth(*sizes):
    """Bytes that scoring took at its peak, and what a batch's logits would take whole."""
    argv = [sys.executable, str(WORKER), *map(str, sizes)]
    run = subprocess.run(argv, capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0, run.stderr
    grown, whole = map(int, run.stdout.split())
    print(f"N={sizes[0]} V={sizes[1]}: {grown / 1e6:.0f} MB, logits {whole / 1e6:.0f} MB")
    return grown, whole


@pytest.fixture(autouse=True)
def _needs_proc():
    if not Path("/proc/self/status").exists():
        pytest.skip("RssAnon is read from /proc")


@pytest.mark.slow
def test_twenty_times_the_examples():
    """By less than a kilobyte each."""
    few, many = (growth(n, 320, 40, 32)[0] for n in (1_000, 20_000))
    assert many < few + 15e6


@pytest.mark.slow
def test_thirty_times_the_vocabulary():
    """Batches of the same shape, whose logits would take 268 MB and 8.4 GB."""
    (small, _), (large, whole) = (growth(256, v, 128, 128) for v in (4_096, 128_256))
    assert whole > 8e9
    assert large < small + 4 * CHUNK_LOGITS  # of one chunk of logits in fp32
