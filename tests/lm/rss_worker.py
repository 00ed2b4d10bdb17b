"""Loads a checkpoint onto 8 fake devices, fsdp=8; prints parameter bytes and peak RssAnon."""

import sys
import threading
import time
from pathlib import Path

peak = 0


def watch():
    global peak
    while True:
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) * 1024)
        time.sleep(0.005)


def main():
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from forget_jax.lm.hf import about, checkpoint, layout

    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    specs = {3: PartitionSpec(None, "fsdp", None), 2: PartitionSpec("fsdp", None)}
    ranks = {p: len(s) for p, s in layout.shapes(about.config_of(sys.argv[1])).items()}

    def sharding(path):
        small = ranks[path] < (3 if path.startswith("layers/") else 2)
        return NamedSharding(mesh, PartitionSpec() if small else specs[ranks[path]])

    threading.Thread(target=watch, daemon=True).start()
    start = time.time()
    model = checkpoint.load(sys.argv[1], sharding=sharding)
    size = sum(x.nbytes for x in jax.tree.leaves(model.params))
    time.sleep(0.02)
    print(size, peak, round(time.time() - start, 1))


main()
