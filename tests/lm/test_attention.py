"""Which kernel serves where: decided from the device, which tests can only stand in for."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from forget_jax.data.batches import Buckets, Shape
from forget_jax.data.feed import feed
from forget_jax.lm import attention, decoder, lora
from forget_jax.lm.model import Adapters, Model, stack
from forget_jax.scoring import likelihood
from forget_jax.training import objective
from forget_jax.training.state import Accumulated
from forget_jax.training.step import Seats, accumulate


@pytest.fixture
def gpu(monkeypatch):
    """Makes the first device a GPU of a compute capability."""

    def become(capability, platform="PJRT C API\ncuda 12090"):
        client = SimpleNamespace(platform_version=platform)
        device = SimpleNamespace(client=client, compute_capability=capability)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "local_devices", lambda: [device])

    return become


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "wanted"),
    [
        ("9.0", "bfloat16", 64, True),
        ("9.0", "bfloat16", 256, True),
        ("10.0", "float16", 256, True),
        ("8.0", "bfloat16", 128, True),
        ("8.0", "bfloat16", 256, False),  # Gemma's heads on an A100
        ("9.0", "bfloat16", 100, False),
        ("7.5", "float16", 64, False),
        ("9.0", "float32", 64, False),
    ],
)
def test_where_cudnn_serves(gpu, capability, dtype, head_dim, wanted):
    gpu(capability)
    assert attention.has_cudnn(jnp.dtype(dtype), head_dim) is wanted


def test_no_cudnn_elsewhere(gpu):
    assert not attention.has_cudnn(jnp.bfloat16, 64)  # here
    gpu("gfx942", "PJRT C API\nrocm 60300")
    assert not attention.has_cudnn(jnp.bfloat16, 64)


def test_rows_are_packed_only_where_the_kernel_allows(gpu, random_examples, tiny_config):
    model = dataclasses.replace(tiny_config, head_dim=8)
    half = dataclasses.replace(model, dtype="bfloat16")
    examples = random_examples(0, [40] * 4 + [5] * 40)
    args = examples, Buckets.of(examples, 1), 4
    assert likelihood.packs("auto", half, *args)
    gpu("9.0")
    assert not likelihood.packs("auto", half, *args)
    assert likelihood.packs("auto", model, *args) and likelihood.packs("true", half, *args)
    gpu("7.0")
    assert likelihood.packs("auto", half, *args)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_programs_for_nvidia_use_the_fused_kernel(
    gpu, monkeypatch, random_examples, tiny_config, remat
):
    """Lowered for CUDA, as far as that goes without a GPU: training and scoring, many adapters."""
    cudnn = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{cudnn}.check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(f"{cudnn}.check_compute_capability", lambda capability: True)
    monkeypatch.setattr(f"{cudnn}.is_cuda_compute_capability_equal", lambda capability: False)
    gpu("9.0")
    # A model of its own: jax keeps what is traced, and no other test may meet it.
    config = dataclasses.replace(
        tiny_config, vocab_size=67, head_dim=8, dtype="bfloat16", remat=remat
    )
    model = Model(config, decoder.init(config, jax.random.key(0)))
    setting = lora.LoRAConfig(rank=2)
    fresh = [lora.init(setting, model.params, jax.random.key(k)) for k in range(2)]
    adapters_K = stack([Adapters(setting, tree) for tree in fresh])
    examples = random_examples(0, [14] * 4)
    batch = feed(examples, Shape(4, 16, 16), [(i,) for i in range(4)])

    def lowered(fn, *args):
        return fn.trace(*args).lower(lowering_platforms=("cuda",)).as_text()

    assert "__cudnn$fmhaSoftmax" in lowered(likelihood.score_batch, model, adapters_K, batch)
    total = Accumulated(jax.tree.map(jnp.zeros_like, adapters_K.tree), jnp.zeros(2), jnp.zeros(2))
    seats = Seats(jnp.array([0, 0, 1, 1]), jnp.ones(2))
    args = objective.nll, model, adapters_K, total, batch, seats
    assert "__cudnn$fmhaSoftmaxBackward" in lowered(accumulate, *args)


def test_each_device_of_a_mesh_attends_for_itself():
    """Rows and heads cut over eight devices, key heads that their number does not divide too."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    worker = Path(__file__).parent / "attention_mesh_worker.py"
    env = os.environ | {"XLA_FLAGS": flags}
    run = subprocess.run([sys.executable, worker], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1e-4  # of sums of 4,096 terms
