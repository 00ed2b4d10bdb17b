"""Trains the same tasks on each mesh given, in a process of its own, and writes losses as JSON.

    python mesh_worker.py OUT STEPS [--distributed=HOST:PORT,COUNT,INDEX]
        [--checkpoints=FOLDER] [--die-after=STEP] MESH [MESH ...]

where a MESH is four numbers such as 2,1,2,2 for task, data, fsdp and tensor. With --die-after it
ends without a word once the checkpoint of that step is written and another step is done.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import jax
import numpy as np

from forget_jax import distributed
from forget_jax.data.tokenise import Encoded
from forget_jax.lm import decoder, lora, sharding
from forget_jax.lm.model import Model
from forget_jax.training.checkpoints import Checkpoints
from forget_jax.training.loop import Listener, Recipe, Task, train
from forget_jax.training.settings import Train

CONFIG = decoder.DecoderConfig(
    vocab_size=64, width=32, layers=2, heads=8, kv_heads=4, head_dim=4, mlp_width=48, context=32
)
TRAIN = Train(batch_size=4, microbatch=8, buckets=1, lr=1e-3, schedule="cosine", warmup=2)


def tasks(steps: int) -> list[Task]:
    """Five ragged tasks; the last two end early, so that seats are given up."""
    found = []
    for m in range(5):
        rng = np.random.default_rng(m)
        examples = []
        for i, n in enumerate(rng.integers(4 + 3 * m, 12 + 4 * m, 12)):
            ids = rng.integers(0, 64, n).astype(np.int32)
            examples.append(Encoded(f"{m}.{i}", "s", ids, np.arange(n) >= n // 2))
        found.append(Task(f"t{m}", examples, m, steps if m < 3 else steps // 2))
    return found


def main() -> None:
    steps, meshes = int(sys.argv[2]), [a for a in sys.argv[3:] if not a.startswith("--")]
    options = dict(a[2:].split("=", 1) for a in sys.argv if a.startswith("--"))
    if "distributed" in options:
        distributed.initialise(options["distributed"])
    folder, die_after = options.get("checkpoints"), int(options.get("die-after", steps))
    params = jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(0))
    params = jax.tree.map(lambda x: np.asarray(x) * 3, params)
    found = {}
    for text in meshes:
        shape = sharding.MeshShape(*map(int, text.split(",")))
        mesh = sharding.make(shape) if text != "1" else None
        with sharding.entered(mesh):
            records = []
            checkpoints = Checkpoints(folder) if folder else None

            def log(record, records=records, checkpoints=checkpoints):
                records.append(record)
                if record["step"] > die_after:
                    checkpoints.wait()
                    os._exit(9)

            outcome = train(
                Model(CONFIG, sharding.put(params)),
                Recipe(dataclasses.replace(TRAIN, save_every=die_after), lora.LoRAConfig(rank=2)),
                tasks(steps),
                checkpoints,
                listener=Listener(log=log),
            )
            adapters = sharding.fetch(outcome.trainable)
        found[text] = {"losses": [r["loss"] for r in records]}
    if distributed.is_writer():
        Path(sys.argv[1]).write_text(json.dumps(found))
        np.savez(f"{sys.argv[1]}.npz", *jax.tree.leaves(adapters))


if __name__ == "__main__":
    main()
