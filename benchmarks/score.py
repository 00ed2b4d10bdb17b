"""Scoring examples against transformers, in one run, taking turns.

    python benchmarks/score.py [--quick] [--json PATH] [--shape NAME] [--documents N]

Both sides give the negative log-likelihood of every example of real rows: C4 documents, whose
tokens are all targets, and task rows, whose completions are. forget_jax runs with the defaults of
the `score` command. The peers sort the rows by length and batch as many tokens as we do, under
`torch.inference_mode`, with PyTorch's fused attention, on an accelerator through torch.compile too:

    transformers          the model's logits at every position, as everybody writes it
    transformers_targets  logits only where there is a target

Then eight adapters three ways, first that of the commands: in one pass, one at a time, and each
merged into the base. On CPU the model has 5.3 M parameters, or is SmolLM2-135M with its own weights
and words (`--shape=smollm2`: fewer rows, of at most 256 tokens, and two adapters); on an
accelerator it is Llama's 1 B, random weights in bfloat16. `--documents` measures so many documents
and nothing else: few fill one batch and a half, and what is computed for the rest of it is padding.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forget_jax.benchmarks import table, world
from forget_jax.benchmarks.finetune import no_peer
from forget_jax.benchmarks.shapes import ADAPTERS, CPU_SHAPES, FEWER, SHAPES
from forget_jax.benchmarks.side import Side
from forget_jax.benchmarks.table import Case, Found, Keep, Row
from forget_jax.data.tokenise import Encoded
from forget_jax.scoring.settings import Score

Turn = Callable[[int], Row]
WAYS = ("together", "single", "merged")
# With --quick and without:
ROUNDS = (3, 5)
COUNT = (48, 192)  # documents; task rows are four times as many, and all eightfold off the CPU


def _turn(side: Side, **given: Any) -> Turn:
    return lambda number: side.measured("score", **given)


def _peers(rows: Sequence[Encoded], on_cpu: bool) -> dict[str, Mapping[str, Any]]:
    tokens = Score().rows * max(len(row.ids) for row in rows)
    plain = {"batch_tokens": tokens, "targets_only": False}
    targets = {"batch_tokens": tokens, "targets_only": True}
    peers: dict[str, Mapping[str, Any]] = {"transformers": plain, "transformers_targets": targets}
    if not on_cpu:
        peers["transformers_compiled"] = {**plain, "compiled": True}
    return peers


def run(
    quick: bool = False,
    shape: str = "small",
    documents: str = "",
    keep: Keep = table.at_once,
) -> Found:
    """Measures all and returns `rows`, `ratio` and `notes`.

    Args:
      shape: the model on CPU.
      documents: how many, if nothing else is to be measured.
      keep: of `table.measure`.
    """
    why = no_peer()
    rounds = ROUNDS[not quick]
    with tempfile.TemporaryDirectory() as folder:
        loading = {"folder": folder, "shape": shape, "rank": 8, "random": False}
        with Side("ours", loading) as probe:
            about = probe.ask("about")
        on_cpu = about["backend"] == "cpu"
        if not on_cpu:
            loading |= {"shape": "1b", "random": True}
        model = SHAPES[str(loading["shape"])]
        where, tasks, texts = world.encode(model)
        count = COUNT[not quick] * (1 if on_cpu else 8) // FEWER.get(str(loading["shape"]), 1)
        data = {"documents": texts[:count], "tasks": tasks[: 4 * count]}
        if documents:
            data = {"documents": texts[: int(documents)]}
        for name, rows in data.items():
            world.save(Path(folder) / f"{name}.npz", rows)
        with Side("ours", loading) as ours, Side("peer", loading) as peer:

            def base(name: str) -> Found:
                found = _empty()
                turns = {f"forget_jax_{name}": _turn(ours, rows=name, adapters=0, how="together")}
                for system, given in _peers(data[name], on_cpu).items() if why is None else ():
                    turns[f"{system}_{name}"] = _turn(peer, rows=name, **given)
                _add(found, table.alternate(turns, rounds), name, ours)
                with tempfile.TemporaryDirectory() as trace:
                    traced = ours.ask("score", rows=name, adapters=0, how="together", trace=trace)
                found["notes"].append(
                    f"{name}: the device waits for the host in {traced['waiting']:.1%} of the time"
                )
                if why is None:
                    found["notes"].append(peer.ask("about")["system"])
                return found

            def several() -> Found:
                found = _empty()
                peer.close()
                adapters = 2 if loading["shape"] in FEWER else ADAPTERS
                turns = {
                    f"forget_jax_{how}": _turn(ours, rows="tasks", adapters=adapters, how=how)
                    for how in sorted(WAYS, key=lambda how: how != about["way"])
                }
                done = table.alternate(turns, rounds)
                _add(found, done, f"tasks, {adapters} adapters", ours)
                return found

            cases: dict[str, Case] = {name: lambda _, name=name: base(name) for name in data}
            if not documents:
                cases["adapters"] = lambda _: several()
            found = table.measure(cases, keep)
    about_all = [f"{about['device']}, {about['system']}", f"rows of {where}"]
    found["notes"] = [*([why] if why else []), *about_all, *found["notes"]]
    return found


def _empty() -> Found:
    return {"rows": [], "ratio": {}, "notes": []}


def _add(found: Found, done: Mapping[str, list[Row]], setting: str, side: Side) -> None:
    """Adds the systems' rows, how our rate compares, and how far their results differ."""
    peak = side.ask("matmul_peak")["flops"]
    ours, *others = done
    for system, turns in done.items():
        found["rows"].append(table.summarise(system, setting, turns, peak))
        if system in others:
            found["ratio"][system] = table.ratio(done[ours], turns)
    first = {system: np.array(turns[0]["nll"]) for system, turns in done.items()}
    gap = max((float(np.abs(first[ours] - first[s]).max()) for s in others), default=0.0)
    if others:
        found["notes"].append(f"{setting}: mean NLLs differ by at most {gap:.1e} nats")


if __name__ == "__main__":
    alone = "so many documents, and nothing else"
    table.main(__doc__, run, shape=CPU_SHAPES, documents=alone)
