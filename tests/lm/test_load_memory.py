import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import families, hf_config
from forget_jax.lm.hf.layout import shapes

CONFIG = DecoderConfig(
    vocab_size=32000,
    width=2048,
    layers=18,
    heads=16,
    kv_heads=16,
    head_dim=128,
    mlp_width=5504,
    context=2048,
    tied_head=False,
)


def write_synthetic(folder):
    """2 GB of bf16 in one shard per two layers, written a shard at a time."""
    entries = {w.path: w for w in families.FAMILIES["llama"].weights}
    weight_map, layers = {}, {}
    for path, shape in shapes(CONFIG).items():
        entry = entries[path]
        stacked = path.startswith("layers/")
        shape = shape[1:] if stacked else shape
        shape = shape[::-1] if entry.transposed else shape
        for i in range(CONFIG.layers if stacked else 1):
            layers.setdefault(i // 2, {})[entry.name.format(i)] = shape
    noise = np.random.default_rng(0).standard_normal(2**20).astype(ml_dtypes.bfloat16)
    for i, tensors in layers.items():
        file = f"model-{i}.safetensors"
        save_file({n: np.resize(noise, s) for n, s in tensors.items()}, folder / file)
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(hf_config.write(CONFIG, "bfloat16")))


@pytest.mark.slow
def test_sharded_load_never_holds_the_model_twice(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("RssAnon is read from /proc")
    write_synthetic(tmp_path)
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    worker = Path(__file__).parent / "rss_worker.py"
    out = subprocess.run(
        [sys.executable, str(worker), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    size, peak, _ = map(float, out.stdout.split())
    print(f"parameters {size / 1e6:.0f} MB, peak RssAnon {peak / 1e6:.0f} MB")
    assert size > 1.9e9
    assert peak < size + 600e6
