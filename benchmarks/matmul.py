"""The matmul peak of one device, which all utilisations are of.

python benchmarks/matmul.py [--quick] [--json PATH]
"""

import tempfile

from forget_jax.benchmarks import table
from forget_jax.benchmarks.side import Side
from forget_jax.benchmarks.table import Found, Keep


def run(quick: bool = False, shape: str = "tiny", keep: Keep = table.at_once) -> Found:
    """Measures it in a process of its own; `quick` changes nothing, it takes a second.

    Args:
      keep: of `table.measure`.
    """
    return table.measure({"matmul": lambda _: _peak(shape)}, keep)


def _peak(shape: str) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        loading = {"folder": folder, "shape": shape, "rank": 8, "random": False}
        with Side("ours", loading) as ours:
            about, peak = ours.ask("about"), ours.ask("matmul_peak")["flops"]
            row = {"system": "jax", "setting": about["device"], "matmul_flops": peak}
            row["peak_bytes"] = ours.peak()
    return {"rows": [row], "ratio": {}, "notes": [about["system"]]}


if __name__ == "__main__":
    table.main(__doc__, run)
