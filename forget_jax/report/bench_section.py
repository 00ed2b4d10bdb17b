"""The section of a benchmark: every system's figures, and how many times a peer's speed ours is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forget_jax.report.section import Cell, Section, Table, bars, number, percent

_GIB = 2**30
_SHOWN: dict[str, tuple[str, Callable[[Any], Cell]]] = {
    "tokens_per_second": ("useful tokens/s", float),
    "cpu_tokens_per_second": ("per CPU-second", float),
    "useful": ("real tokens", percent),
    "mfu": ("of matmul peak", percent),
    "seconds": ("seconds", float),
    "cpu_seconds": ("CPU-seconds", float),
    "compile_seconds": ("compiling", float),
    "rmse": ("RMSE", float),
    "rmse_of_sample": ("RMSE of the sample", float),
    "matmul_flops": ("TFLOP/s", lambda x: x / 1e12),
    "peak_bytes": ("peak memory, GiB", lambda x: x / _GIB),
}


def bench_section(
    what: str,
    rows: Sequence[Mapping[str, Any]],
    ratio: Mapping[str, float],
    notes: Sequence[str],
) -> Section:
    """How fast and how large this package is beside its peers.

    Args:
      what: the benchmark's name.
      rows: figures by `system` and `setting`; those that a benchmark does not take are left out.
      ratio: by peer, how many times its speed ours is.
      notes: sentences about the measurement, without a full stop.
    """
    keys = [key for key in _SHOWN if any(key in row for row in rows)]
    measured = tuple(
        (
            row["system"],
            row["setting"],
            *(_SHOWN[key][1](row[key]) if key in row else None for key in keys),
        )
        for row in rows
    )
    tables = [
        Table(
            "What was measured",
            ("system", "setting", *(_SHOWN[key][0] for key in keys)),
            measured,
            note="Medians over turns, in which the systems alternated on this machine.",
        )
    ]
    if ratio:
        values = list(ratio.values())
        texts = [f"{number(value)} ×" for value in values]
        tables.append(
            Table(
                "forget_jax's speed, as a multiple of each peer's",
                ("peer", "ratio"),
                tuple(zip(ratio, bars(values, texts), strict=True)),
            )
        )
    lead = f"How fast {what} is on this machine"
    lead += ", beside the peers that are installed. " if ratio else "; no peer was measured. "
    lead += " ".join(f"{note[:1].upper()}{note[1:]}." for note in notes)
    return Section("bench", "Speed and memory", lead, tables=tuple(tables))
