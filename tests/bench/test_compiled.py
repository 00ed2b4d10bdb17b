"""The programs of training and scoring, as the compilers of an H100 and of a TPU make them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/compiled.py"
COMPILERS = ("libtpu", "jax_plugins.xla_cuda13")


def is_there(module):
    package = module.partition(".")[0]
    return importlib.util.find_spec(package) and importlib.util.find_spec(module)


@pytest.mark.compilers
@pytest.mark.skipif(
    not all(map(is_there, COMPILERS)), reason="no compilers on PYTHONPATH: benchmarks/compiled.py"
)
@pytest.mark.parametrize("target", ["h100", "h100:8", "v5e"])  # beside one another in CI
def test_the_plan_is_near_what_the_compilers_set_aside(target, tmp_path):
    argv = [sys.executable, str(SCRIPT), "--quick", f"--targets={target}"]
    argv += ["--json", str(tmp_path / "found.json")]
    run = subprocess.run(argv, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "rematerialization" not in run.stderr  # of rows, on every device of a mesh
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {row["system"].split()[0] for row in rows} == {target}
    for row in rows:
        assert 0.9 < row["planned_share"] < 1.15, row


def test_what_is_missing_is_said():
    argv = [sys.executable, str(SCRIPT), "--targets", "v99"]
    run = subprocess.run(argv, capture_output=True, text=True)
    assert run.returncode == 2 and "there is no compiler for 'v99'" in run.stderr
    assert "Traceback" not in run.stderr
