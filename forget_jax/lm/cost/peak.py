"""What this machine can do and what a program took of it: matrix products a second, peak memory."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

SQUARES = {"cpu": (256, 512, 1024), "accelerator": (4096, 8192, 16384)}


def _seconds(n: int, dtype: str, repeats: int) -> float:
    """The median time of a product of two random squares, several dispatched at a time."""
    keys = jax.random.split(jax.random.key(n))
    a, b = (jax.random.normal(key, (n, n), jnp.float32).astype(dtype) for key in keys)
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(4):
            c = product(a, b)
        c.block_until_ready()
        times.append((time.perf_counter() - began) / 4)
    return float(np.median(times))


@functools.cache
def matmul(dtype: str | None = None) -> float:
    """FLOP/s of the fastest of three square matrix products, measured here and now on one device.

    What utilisations are of: bfloat16 squares of 4,096 to 16,384 on accelerators (about a second),
    float32 ones of 256 to 1,024 on CPU.

    Args:
      dtype: of the squares, if another one than that is wanted.
    """
    is_cpu = jax.default_backend() == "cpu"
    dtype = dtype or ("float32" if is_cpu else "bfloat16")
    sizes = SQUARES["cpu" if is_cpu else "accelerator"]
    return max(2 * n**3 / _seconds(n, dtype, repeats=3 if is_cpu else 7) for n in sizes)


def memory() -> int:
    """The most bytes in use so far: on the fullest local device, or by this process on CPU."""
    if jax.default_backend() != "cpu":
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        return max(int(s.get("peak_bytes_in_use", 0)) for s in stats)
    return resident()


def resident() -> int:
    """The most bytes of memory that this process has had, in bytes; 0 where it cannot be read.

    From /proc, and not from `getrusage`: the latter begins with the parent's peak.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(s.split()[1]) * 1024 for s in lines if s.startswith("VmHWM:")), 0)
