"""doctor: what is there, what is broken, and figures that would move if something were."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forget_jax.commands import machine, selftest

GOLDEN = Path(__file__).parents[1] / "golden" / "llama.json"


def test_a_sound_machine(run_cli, tmp_path):
    status, out, err = run_cli("doctor", f"--workdir={tmp_path}")
    assert status == 0 and "nothing is broken" in out, out + err
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["command"] == "doctor" and found["problems"] == []
    assert found["versions"]["jax"] and found["devices"][0]["platform"] == "cpu"
    assert set(found["caches"]) == {
        "compiled programs",
        "converted GGUF files",
        "models out of packages",
        "models of the hub",
        "data sets of the hub",
    }
    assert any("CPU" in why for why in found["kernels"].values())
    assert len(found["checks"]) >= 8
    assert all(check["value"] <= check["most"] for check in found["checks"])
    assert sum(check["value"] > 0 for check in found["checks"]) >= 5  # they were computed
    assert run_cli("doctor", f"--workdir={tmp_path}", "--config.selftest=false")[0] == 0


def test_no_folder_is_made(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_cli("doctor", "--config.selftest=false")
    assert (status, err) == (0, "") and not list(tmp_path.iterdir())


def test_another_commands_folder_is_left(run_cli, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    status, out, err = run_cli("doctor", f"--workdir={tmp_path}")
    assert (status, out) == (2, "") and "another command's run" in err


@pytest.mark.parametrize(
    ("module", "said"),
    [("optimistix", "optimistix cannot be imported"), ("zarr", "zarr cannot be imported")],
)
def test_a_package_that_cannot_be_imported(module, said, run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    status, out, _ = run_cli("doctor", "--config.selftest=false")
    broken = out.partition("\nbroken\n")[2].splitlines()
    assert status == 1 and any(said in line and "pip install" in line for line in broken)


def test_a_package_that_is_absent_or_too_old(run_cli, monkeypatch):
    asked = ["numpy>=1", "no-such-package>=2", "optax>=999", 'gguf>=999; extra == "gguf"']
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda name: asked)
    status, out, _ = run_cli("doctor", "--config.selftest=false")
    broken = out.partition("\nbroken\n")[2]
    assert status == 1 and "no-such-package is not installed" in broken
    assert "optax is " in broken and ">=999 is needed" in broken and "- gguf is" in broken


def test_a_jax_that_does_not_start(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise RuntimeError('no\\nplugin')")
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "forget_jax", "doctor"]
    done = subprocess.run(command, env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "- jax finds no device: RuntimeError: no plugin" in done.stdout


def test_an_accelerator_that_jax_does_not_use(run_cli, monkeypatch):
    monkeypatch.setattr(machine, "ACCELERATORS", {"gpu": ("/dev/null",)})
    status, out, _ = run_cli("doctor", "--config.selftest=false")
    assert status == 1 and "a GPU is here and jax does not use it" in out


@pytest.fixture
def few(monkeypatch):
    """The checks of the golden file alone."""

    def run():
        found = selftest.checks()
        return [next(found), next(found)]

    return run


def test_wrong_figures_fail(few, monkeypatch, tmp_path):
    assert json.loads(selftest.GOLDEN.read_text()) == json.loads(GOLDEN.read_text())
    case = json.loads(GOLDEN.read_text())
    case["logp"][3][0] += 0.01
    (tmp_path / "moved.json").write_text(json.dumps(case))
    monkeypatch.setattr(selftest, "GOLDEN", tmp_path / "moved.json")
    base, adapter = few()
    assert not base.passed and 1e-4 < base.value < 0.01 and adapter.passed


def test_a_check_that_raises_fails_and_the_rest_goes_on(few, monkeypatch):
    def breaks(*args, **options):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(selftest.likelihood, "score", breaks)
    for check in few():
        assert not check.passed and math.isnan(check.value)
        assert check.error == "RuntimeError: out of memory"
    monkeypatch.setattr(selftest.checkpoint, "load", breaks)
    (only,) = selftest.checks()
    assert not only.passed and "out of memory" in only.error
