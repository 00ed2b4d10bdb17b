"""Scores N random examples on a vocabulary of V in batches of ROWS; prints bytes.

    python scoring_memory_worker.py N V LONGEST ROWS

Prints how much anonymous memory grew at its peak while scoring, and what logits would take
in whole.
"""

import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np

from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder, lora
from forget_jax.lm.model import Adapters, Model
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout, stream

K, CHUNK = 2, 1024
peak = 0


def anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def watch() -> None:
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.004)


def main() -> None:
    N, V, longest, rows = map(int, sys.argv[1:])
    config = decoder.DecoderConfig(V, 32, 2, 4, 4, 8, 64, longest)
    adapter = lora.LoRAConfig(2)
    params = jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(0))
    one = lora.init(adapter, params, jax.random.key(0))
    stack = jax.block_until_ready(jax.tree.map(lambda x: jax.numpy.stack([x] * K), one))
    arrays = Model(config, params), Adapters(adapter, stack)
    rng = np.random.default_rng(0)
    encoded = []
    for i, n in enumerate(rng.integers(8, longest, N)):
        ids = rng.integers(0, V, n).astype(np.int32)
        encoded.append(Encoded(f"e{i}", "s", ids, np.arange(n) > 0))
    layout = Layout.of(encoded, Buckets.of(encoded, 1), rows)
    chunks = [(c, encoded[c : c + CHUNK]) for c in range(0, N, CHUNK)]
    threading.Thread(target=watch, daemon=True).start()
    before = anonymous()
    for _, found in stream(likelihood.score_batch, arrays, chunks, layout):
        assert np.isfinite(found["nll_sum"]).all()
    print(peak - before, 4 * rows * layout.buckets.edges[-1] * V)


main()
