"""Tiny checkpoints of every family, made from a seed: what golden files and live parity share."""

import importlib.util
import json
import warnings
from pathlib import Path

import pytest

from forget_jax.commands.selftest import random_tensor

GOLDEN = Path(__file__).parents[1] / "golden"


def write_checkpoint(case, folder):
    """The Hugging Face folder of a golden case: config.json and model.safetensors."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: random_tensor(name, shape) for name, shape in case["tensors"].items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case["config"]))
    return folder


def write_adapter(adapter, folder):
    """The PEFT folder of a golden case's adapter."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: 0.1 * random_tensor(n, shape) for n, shape in adapter["tensors"].items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(adapter["config"]))
    return folder


def golden_cases():
    return {f.stem: json.loads(f.read_text()) for f in sorted(GOLDEN.glob("*.json"))}


@pytest.fixture(scope="session")
def golden():
    return golden_cases()


@pytest.fixture
def checkpoint_of(golden, tmp_path):
    def make(name, folder="model"):
        return write_checkpoint(golden[name], tmp_path / folder)

    return make


@pytest.fixture(scope="module")
def parity():
    """The module that makes the golden files, with torch, transformers and PEFT behind it."""
    pytest.importorskip("peft", reason="the parity extra is not installed")
    spec = importlib.util.spec_from_file_location("parity", GOLDEN / "parity.py")
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module
