"""Cases one after the other, turns that alternate, what they come to, and the table of it."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forget_jax import stopping
from forget_jax.errors import UserError
from forget_jax.runs.progress import Progress

Row = dict[str, Any]
Found = dict[str, Any]  # `rows`, `ratio` and `notes`
Case = Callable[[Found], Found]  # what it adds to what the cases before it have found
Keep = Callable[[str, Callable[[], Found]], Found]  # measures a case, or gives what was kept of it
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {  # key: heading, how it is written
    "tokens_per_second": ("useful tokens/s", lambda x: f"{x:,.0f}"),
    "spread": ("lowest to highest", lambda x: f"{x[0]:,.0f} to {x[1]:,.0f}"),
    "cpu_tokens_per_second": ("per CPU-second", lambda x: f"{x:,.0f}"),
    "useful": ("real tokens", lambda x: f"{x:.0%}"),
    "mfu": ("of matmul peak", lambda x: f"{x:.1%}"),
    "seconds": ("seconds", lambda x: f"{x:,.3f}"),
    "cpu_seconds": ("CPU-seconds", lambda x: f"{x:,.3f}"),
    "first_seconds": ("first step after, s", lambda x: f"{x:,.1f}"),
    "compile_seconds": ("compiling", lambda x: f"{x:,.1f}"),
    "rmse": ("RMSE", lambda x: f"{x:.5f}"),
    "brier": ("Brier score", lambda x: f"{x:.4f}"),
    "rmse_of_sample": ("RMSE of the sample", lambda x: f"{x:.5f}"),
    "matmul_flops": ("TFLOP/s", lambda x: f"{x / 1e12:,.3f}"),
    "peak_bytes": ("peak memory", lambda x: f"{x / 2**30:.2f} GiB"),
    "planned_bytes": ("planned", lambda x: f"{x / 2**30:.2f} GiB"),
    "planned_share": ("of the peak", lambda x: f"{x:.0%}"),
}


def at_once(name: str, measure: Callable[[], Found]) -> Found:
    """Keeps nothing."""
    return measure()


def measure(cases: Mapping[str, Case], keep: Keep = at_once) -> Found:
    """All cases in order, each said before it begins; what they found, together.

    Args:
      keep: is given a case's name and what measures it.

    Raises:
      Interrupted: a signal has asked to stop, between two cases or turns.
    """
    found: Found = {"rows": [], "ratio": {}, "notes": []}
    for number, (name, case) in enumerate(cases.items()):
        stopping.check()
        print(f"case {number + 1} of {len(cases)}: {name}", file=sys.stderr, flush=True)
        part = keep(name, lambda case=case: case(found))  # type: ignore[misc]
        for key in ("rows", "notes"):
            found[key] += [x for x in part[key] if x not in found[key]]
        found["ratio"] |= part["ratio"]
    return found


def alternate(
    turns: Mapping[str, Callable[[int], Row]], rounds: int, warm: bool = True
) -> dict[str, list[Row]]:
    """Takes every system's turn once a round, in an order that is reversed from round to round.

    A line on stderr says how many are done.

    Args:
      turns: by system, what does the work of a round and says how long it took.
      warm: do round 0 once before, for compilation, and leave it out.
    """
    done: dict[str, list[Row]] = {name: [] for name in turns}
    numbers, taken = range(-1 if warm else 0, rounds), 0
    with Progress("  turns", len(turns) * len(numbers), unit="turn") as progress:
        for number in numbers:
            for name in list(turns)[:: 1 if number % 2 == 0 else -1]:
                progress.doing(name)
                found = turns[name](max(number, 0))
                if number >= 0:
                    done[name].append(found)
                taken += 1
                progress.at(taken)
    return done


def rate(turn: Row) -> float:
    """Useful tokens a second."""
    return float(turn["tokens"] / turn["seconds"])


def summarise(
    system: str, setting: str, turns: Sequence[Row], peak_flops: float | None = None
) -> Row:
    """The medians of a system's turns.

    Args:
      peak_flops: FLOP/s to hold the model's FLOPs against; None leaves the utilisation out.
    """
    rates = [rate(turn) for turn in turns]
    row: Row = {
        "system": system,
        "setting": setting,
        "tokens_per_second": float(np.median(rates)),
        "spread": [min(rates), max(rates)],
        "cpu_tokens_per_second": float(np.median([t["tokens"] / t["cpu_seconds"] for t in turns])),
        "useful": float(np.mean([turn["useful"] for turn in turns])),
        "peak_bytes": max(turn["peak_bytes"] for turn in turns),
        "turns": len(turns),
    }
    if peak_flops and "flops" in turns[0]:
        row["mfu"] = float(np.median([t["flops"] / t["seconds"] for t in turns]) / peak_flops)
    return row


def ratio(ours: Sequence[Row], theirs: Sequence[Row]) -> float:
    """How many times their useful tokens a second ours are: the median over rounds."""
    return float(np.median([rate(a) / rate(b) for a, b in zip(ours, theirs, strict=True)]))


def show(found: Mapping[str, Any]) -> str:
    """The rows as aligned text, then ratios and notes."""
    columns = [k for k in COLUMNS if any(k in row for row in found["rows"])]
    lines = [["system", "setting", *(COLUMNS[k][0] for k in columns)]]
    lines += [
        [
            row["system"],
            row["setting"],
            *(COLUMNS[k][1](row[k]) if k in row else "" for k in columns),
        ]
        for row in found["rows"]
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text += [f"{value:,.2f} times as fast as {peer}" for peer, value in found["ratio"].items()]
    text += found["notes"]
    return "\n".join(text)


QUICK = "fewer rows, rounds and cases: minutes on two idle cores, several times that on busy ones"


def main(doc: str, run: Callable[..., dict[str, Any]], **extra: Any) -> None:
    """The command line of a benchmark.

    Args:
      extra: further options by name, with their help, passed on to `run`.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument("--json", type=Path, help="write rows and ratios there")
    for name, meaning in extra.items():
        parser.add_argument(f"--{name}", help=meaning)
    options = {k: v for k, v in vars(parser.parse_args()).items() if v is not None or k == "json"}
    target = options.pop("json")
    try:
        found = run(**options)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(show(found))
    if target:
        target.write_text(json.dumps(found, indent=1) + "\n")
