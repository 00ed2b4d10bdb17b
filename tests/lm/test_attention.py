"""Which kernel serves where: decided from the device, which tests can only stand in for."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from forget_jax.data.batches import Buckets
from forget_jax.lm import attention
from forget_jax.scoring import scorer


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
    assert scorer.packs("auto", half, *args)
    gpu("9.0")
    assert not scorer.packs("auto", half, *args)
    assert scorer.packs("auto", model, *args) and scorer.packs("true", half, *args)
    gpu("7.0")
    assert scorer.packs("auto", half, *args)
