"""Chapters on fine-tunes: their training, replay, mixes and facts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forget_jax import report as room
from forget_jax.commands import summaries
from forget_jax.commands.summaries import Failed
from forget_jax.files import Path
from forget_jax.report import Section
from forget_jax.runs.metrics import Metrics


def training(
    folder: Path, stage: str, title: str, failed: Mapping[str, Failed] | None = None
) -> Section:
    """Losses by step, and the best held-out loss of every task that has one."""
    records = Metrics(folder / "metrics.jsonl").stage(stage)
    curves: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for name, loss in record["loss"].items():
            curve = curves.setdefault(name, {"step": [], "loss": []})
            curve["step"].append(record["step"])
            curve["loss"].append(loss)
    facts = _heldout(records)
    for name, why in (failed or {}).items():
        facts[f"left out: {name}"] = f"its loss was not finite at step {why.step}"
    return room.training_section(curves, facts, key=f"{stage}-training", title=title)


def _heldout(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The least held-out loss of every task that has one, and when it was taken."""
    taken: dict[str, list[tuple[float, int]]] = {}
    for record in records:
        for name, loss in record.get("heldout", {}).items():
            if loss is not None:
                taken.setdefault(name, []).append((loss, record["step"]))
    return {
        f"held-out loss of {name}": f"{min(pairs)[0]:.3f} at step {min(pairs)[1]}, the least of "
        f"{len(pairs)} taken; that state is the result"
        for name, pairs in taken.items()
    }


def replay(summary: summaries.Replay) -> Section:
    """Ways of replaying: forgetting and task loss, and their tests."""
    ways = {
        name: room.Replayed(
            s.upstream_nll,
            s.task_loss,
            s.z,
            s.loss,
            s.strategy,
            s.recovered,
            s.extra_forward + s.extra_training,
            s.em,
            s.em_forgotten,
        )
        for name, s in summary.replay.items()
    }
    tests = {
        name: room.PairedTest(
            t.pairs, t.mean, t.low, t.high, t.p, t.p_holm, t.tasks, t.tasks_needed
        )
        for name, t in summary.paired_test.items()
    }
    rooms = {name: room.Room(r.mean, r.noise, r.enough) for name, r in summary.headroom.items()}
    return room.replay_section(room.Replays(ways, tests, rooms, summary.seeds))


def mix(summary: summaries.Mix) -> Section:
    """What was mixed in and why, and what it is expected to save."""
    rows = [(r.name, r.weight, r.why, r.text) for r in summary.rows]
    points = [(p.ratio, p.z, p.z_half, p.loss) for p in summary.curve]
    counts = (summary.task_rows, summary.replayed, summary.candidates)
    expected = room.Expected(summary.expected_z, summary.expected_z_by_source, summary.saved)
    curve_Kx4 = np.array(points, float).reshape(-1, 4)  # None becomes NaN
    return room.mix_section(rows, counts, expected, curve_Kx4, summary.trainers)


def factoids(summary: summaries.Factoids) -> Section:
    """What each arm kept, and the tests between arms."""
    arms = {name: room.FactsKept(**vars(arm)) for name, arm in summary.by_seed.items()}
    differences = {
        name: (d.mean, *(math.nan if x is None else x for x in (d.low, d.high, d.p, d.p_holm)))
        for name, d in summary.paired_test.items()
    }
    over_facts = {
        name: (d.facts_more, d.facts_less, d.facts_low, d.facts_high, d.facts_p, d.facts_p_holm)
        for name, d in summary.paired_test.items()
    }
    compared = room.FactsCompared(differences, summary.after, summary.headroom, over_facts)
    return room.factoids_section(arms, summary.seeds, compared)
