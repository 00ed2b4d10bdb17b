"""Fine-tuning with LoRA against torch and PEFT, in one run, taking turns.

    python benchmarks/finetune.py [--quick] [--json PATH] [--cases NAME,NAME] [--shape NAME]

Both sides train the same adapter on the same base, data, batch size and optimizer. forget_jax is
measured as its users get it: the `finetune` command's defaults. On CPU, a model of 5.3 M parameters
and rows of real tasks:

    ragged      against PEFT with random batches padded to their longest row (`peft_default`, what
                Hugging Face's collation does), and with batches of like lengths (`peft_grouped`, as
                the Trainer groups them)
    batch32     the same with four passes of eight rows a step (not with --quick)
    identical   the same padded batches on both sides, all of one shape (`peft_identical`)
    tasks       eight tasks in batches of 4: together, or in one PEFT run after the other
                (`peft_tasks`)

`--shape=smollm2` takes SmolLM2-135M with its own weights and words instead (`builtin:smollm2`),
rows of at most 256 tokens and fewer of them.

On an accelerator, random weights in bfloat16: `1b` and `7b`, full rows of 1,024 tokens, against
PEFT with PyTorch's fused attention and with torch.compile; `tasks` at 1 B; and `memory`, the plan
of 7 B, rank 16, sequence 2,048 against the measured peak. Without torch and PEFT, forget_jax is
measured alone.
"""

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forget_jax.benchmarks import table, world
from forget_jax.benchmarks.shapes import CPU_SHAPES, FEWER, SHAPES
from forget_jax.benchmarks.side import Side, missing
from forget_jax.benchmarks.table import Found, Keep, Row
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError

PEER_NEEDS = ("torch", "transformers", "peft", "accelerate")
BATCH = 8  # rows of a step, and the most in a pass of the peer
TOGETHER = 8  # tasks trained together, in batches of half as many rows
# With --quick and without:
ROUNDS = (3, 5)
COUNT = (192, 512)  # rows of a round
STEPS = (10, 20)  # of a round, where the rows are not all of them
Turn = Callable[[int], Row]
Orders = Callable[[int], list[list[int]]]


class Comparison:
    """The two sides, and what has been found of them so far."""

    def __init__(self, ours: Side, peer: Side | None, rounds: int):
        self.ours, self.peer, self.rounds = ours, peer, rounds
        self.folder = Path(ours.loading["folder"])
        self.model = SHAPES[ours.loading["shape"]]
        self.peak = ours.ask("matmul_peak")["flops"]
        self.found: dict[str, Any] = {"rows": [], "ratio": {}, "notes": []}
        self.first: dict[Turn, float] = {}  # seconds to the first step of a turn's first round

    def turn(self, side: Side, orders: Orders, close: bool, **given: Any) -> Turn:
        """Training on the orders of a round; `close` gives the device back after it."""

        def take(number: int) -> Row:
            found = side.measured("train", orders=orders(number), **given)
            self.first.setdefault(take, found["first_seconds"])
            if close:
                side.close()
            return found

        return take

    def run(
        self,
        setting: str,
        name: str,
        orders: Orders,
        rows: str,
        fields: Mapping[str, Any],
        peers: Mapping[str, Mapping[str, Any]],
        close: bool = False,
    ) -> dict[str, list[Row]]:
        """Our turn and each peer's, alternating; adds their rows and ratios."""
        turns = {name: self.turn(self.ours, orders, close, rows=rows, fields=dict(fields))}
        if self.peer is not None:
            for peer, given in peers.items():
                turns[peer] = self.turn(self.peer, orders, close, rows=rows, **given)
        done = table.alternate(turns, self.rounds, warm=not close)
        for system, rounds in done.items():
            row = table.summarise(system, setting, rounds, self.peak)
            row["first_seconds"] = self.first[turns[system]]
            self.found["rows"].append(row)
            if system != name:
                self.found["ratio"][system] = table.ratio(done[name], rounds)
        return done


def _shuffled(*parts: Sequence[int]) -> Orders:
    """Every task trains on all of its rows once a round, each round in another order."""
    return lambda number: [np.random.default_rng(number).permutation(p).tolist() for p in parts]


def _ragged(c: Comparison, rows: Sequence[Encoded], batch: int, suffix: str = "") -> None:
    world.save(c.folder / "mixed.npz", rows)
    usual = {"batch_size": batch, "rows_at_a_time": BATCH}
    peers = {f"peft_default{suffix}": usual, f"peft_grouped{suffix}": {**usual, "grouped": True}}
    orders, fields = _shuffled(range(len(rows))), {"batch_size": batch}
    c.run(f"batch {batch}, ragged", f"forget_jax{suffix}", orders, "mixed", fields, peers)
    with tempfile.TemporaryDirectory() as trace:
        traced = c.ours.ask("train", orders=orders(0), rows="mixed", fields=fields, trace=trace)
    c.found["notes"].append(
        f"batch {batch}: the device waits for the host in {traced['waiting']:.1%} of the time"
    )


def _identical(c: Comparison, rows: Sequence[Encoded]) -> None:
    world.save(c.folder / "short.npz", rows)
    length = Buckets.of(rows, 1).edges[0]
    done = c.run(
        f"{BATCH} × {length}, identical",
        "forget_jax_identical",
        _shuffled(range(len(rows))),
        "short",
        {"batch_size": BATCH, "microbatch": BATCH, "buckets": 1},
        {"peft_identical": {"batch_size": BATCH, "rows_at_a_time": BATCH, "pad": length}},
    )
    if c.peer is not None:
        gap = max(
            float(np.max(np.abs(np.subtract(ours["losses"], theirs["losses"]))))
            for ours, theirs in zip(*done.values(), strict=True)
        )
        c.found["notes"].append(f"the losses of both sides differ by at most {gap:.1e} nats")


def _tasks(c: Comparison, rows: Sequence[Encoded], steps: int, compiled: bool) -> None:
    """The eight tasks lie evenly between that of the shortest and that of the longest rows."""
    batch = TOGETHER // 2
    by_source: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_source.setdefault(row.source, []).append(i)
    parts = [part[: batch * steps] for part in by_source.values() if len(part) >= batch * steps]
    parts.sort(key=lambda part: sum(len(rows[i].ids) for i in part))
    chosen = [parts[i] for i in np.linspace(0, len(parts) - 1, TOGETHER).astype(int)]
    world.save(c.folder / "tasks.npz", rows)
    usual = {"batch_size": batch, "rows_at_a_time": batch}
    c.run(
        f"{TOGETHER} tasks, batch {batch}",
        "forget_jax_tasks",
        _shuffled(*chosen),
        "tasks",
        {"batch_size": batch},
        {"peft_tasks": usual}
        | ({"peft_tasks_compiled": {**usual, "compiled": True}} if compiled else {}),
    )


def _full(c: Comparison, batch: int, length: int, steps: int) -> None:
    world.save(c.folder / "full.npz", world.full_rows(c.model, length, batch * steps))
    name = c.ours.loading["shape"]
    usual = {"batch_size": batch, "rows_at_a_time": batch}
    c.run(
        f"{name}, {batch} × {length}",
        f"forget_jax_{name}",
        _shuffled(range(batch * steps)),
        "full",
        {"batch_size": batch, "microbatch": batch, "buckets": 1},
        {f"peft_{name}": usual, f"peft_{name}_compiled": {**usual, "compiled": True}},
        close=name == "7b",  # both sides' 7 B do not fit one device
    )


def _memory(folder: str, shape: str, rows: int, length: int) -> dict[str, Any]:
    """The memory plan against the peak of a process that does nothing else."""
    with Side("ours", _loading(folder, shape, 16, True)) as side:
        world.save(Path(folder) / "memory.npz", world.full_rows(SHAPES[shape], length, rows * 4))
        plan = side.ask("plan", rows=rows, length=length)
        fields = {"batch_size": rows, "microbatch": rows, "buckets": 1}
        done = side.ask("train", rows="memory", orders=[list(range(rows * 4))], fields=fields)
    share = plan["bytes"] / done["peak_bytes"]
    row = table.summarise("forget_jax_memory", f"{shape}, {rows} × {length}, rank 16", [done])
    row["planned_bytes"] = plan["bytes"]
    return {"rows": [row], "ratio": {}, "notes": [f"{plan['line']}: {share:.2f} of the peak"]}


def _loading(folder: str, shape: str, rank: int, random: bool) -> dict[str, Any]:
    return {"folder": folder, "shape": shape, "rank": rank, "random": random}


def _mixed(shape: str) -> tuple[str, list[Encoded]]:
    where, tasks, _ = world.encode(SHAPES[shape])
    return f"rows of {where}", tasks


def no_peer() -> str | None:
    """Why the peers are left out, or None."""
    absent = missing(*PEER_NEEDS)
    return f"the peers are left out: {', '.join(absent)} not installed" if absent else None


def _on_cpu(c: Comparison, case: str, quick: bool) -> None:
    where, rows = _mixed(c.ours.loading["shape"])
    shape = c.ours.loading["shape"]
    count = min(len(rows), COUNT[not quick] // FEWER.get(shape, 1))
    if where not in c.found["notes"]:
        c.found["notes"].append(where)
    if case in ("ragged", "batch32"):
        batch = BATCH if case == "ragged" else 4 * BATCH
        _ragged(c, rows[:count], batch, "" if case == "ragged" else "_batch32")
    elif case == "identical":
        half = [e for e in rows if len(e.ids) <= c.model.context // 2]
        _identical(c, half[: count // 2])
    else:
        _tasks(c, rows, STEPS[not quick], compiled=False)


CPU = ("ragged", "batch32", "identical", "tasks")
ACCELERATOR = ("1b", "7b", "tasks", "memory")


def run(
    quick: bool = False,
    cases: str | None = None,
    shape: str = "small",
    keep: Keep = table.at_once,
) -> Found:
    """Measures all cases, or those named, and returns `rows`, `ratio` and `notes`.

    Args:
      shape: the model on CPU.
      keep: of `table.measure`.

    Raises:
      UserError: a case that this machine does not have.
    """
    _check(cases.split(",") if cases else (), {*CPU, *ACCELERATOR})
    why = no_peer()
    with tempfile.TemporaryDirectory() as folder:
        small = _loading(folder, shape, 8, False)
        with Side("ours", small) as ours:
            about = ours.ask("about")
            on_cpu = about["backend"] == "cpu"
            known = CPU if on_cpu else ACCELERATOR
            wanted = cases.split(",") if cases else [k for k in known if not (quick and k in SLOW)]
            _check(wanted, known)
        each = {
            case: lambda _, case=case: _case(folder, case, on_cpu, quick, shape, why is None)
            for case in wanted
        }
        found = table.measure(each, keep)
    found["notes"] = [*([why] if why else []), f"{about['device']}, {about['system']}",
                      *found["notes"]]  # fmt: skip
    return found


def _check(wanted: Iterable[str], known: Collection[str]) -> None:
    for case in wanted:
        if case not in known:
            raise UserError(f"no case {case!r} here; there are {', '.join(sorted(known))}")


SLOW = ("batch32", "tasks", "7b", "memory")


def _case(
    folder: str, case: str, on_cpu: bool, quick: bool, shape: str, has_peer: bool
) -> dict[str, Any]:
    """One case in processes of its own."""
    if case == "memory":
        return _memory(folder, "7b", 1, 2048)
    name = shape if on_cpu else ("7b" if case == "7b" else "1b")
    loading = _loading(folder, name, 8, not on_cpu)
    with Side("ours", loading) as ours, Side("peer", loading) as peer:
        c = Comparison(ours, peer if has_peer else None, rounds=ROUNDS[not quick])
        if has_peer:
            c.found["notes"].append(peer.ask("about")["system"])
        if on_cpu:
            _on_cpu(c, case, quick)
        elif case == "tasks":
            where, rows = _mixed(name)
            c.found["notes"].append(where)
            _tasks(c, rows, STEPS[not quick], compiled=True)
        else:
            ours.close()  # what was asked so far is known; the device must be free for either
            peer.close()
            _full(c, 8 if case == "1b" else 4, 1024, STEPS[not quick])
        return c.found


if __name__ == "__main__":
    table.main(__doc__, run, cases="only these cases, by commas", shape=CPU_SHAPES)
