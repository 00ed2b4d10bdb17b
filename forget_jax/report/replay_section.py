"""The section about replay: what it saved, at what cost to the task, and what can be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forget_jax.report.paired import PairedTest, paired_table
from forget_jax.report.plots import SERIES, Line, Row, legend, row_plot, xy_plot
from forget_jax.report.section import (
    Figure,
    Section,
    Table,
    count,
    finite_mean,
    number,
    percent,
    shorten,
)

_NOTE = (
    "Sign-flip permutation tests, the seeds of a task together; Holm's correction over the "
    "comparisons with the same other. Tasks needed: to find such an effect at 5 % in 4 of 5 "
    "comparisons."
)

DECIDING = 6  # tasks whose signs flipped in all ways allow a p below 5 %: 2 of 2^6


@dataclass(frozen=True)
class Replayed:
    """What a way of replaying comes to; None or NaN where a figure is missing.

    Attributes:
      upstream_nll, task_loss: means, nats per token.
      z: forgetting of held-out upstream examples, one value for each pair of seed and task.
      loss: of the tasks, for the same pairs.
      strategy: its name, by which ways have one colour.
      recovered: share of what random replay saves that it saves beyond it, and its interval.
      extra: FLOPs beyond those without replay, as a share of these.
      em, em_forgotten: of the tasks' short answers the share that is right; of upstream examples
        that the base answers right, the share that it does not any more.
    """

    upstream_nll: float | None = None
    task_loss: float | None = None
    z: Sequence[float] = ()
    loss: Sequence[float] = ()
    strategy: str = ""
    recovered: tuple[float, float, float] | None = None
    extra: float | None = None
    em: float | None = None
    em_forgotten: float | None = None


@dataclass(frozen=True)
class Room:
    """Forgetting without replay less that under random replay, and how far seeds differ in it."""

    mean: float
    noise: float | None
    enough: bool


@dataclass(frozen=True)
class Replays:
    """A comparison of ways of replaying.

    Attributes:
      ways: by name.
      tests: by the names of two, `one − other`.
      rooms: by the name of each random replay.
      seeds: how many seeds the pairs hold.
    """

    ways: Mapping[str, Replayed]
    tests: Mapping[str, PairedTest] = field(default_factory=dict)
    rooms: Mapping[str, Room] = field(default_factory=dict)
    seeds: int = 1


def replay_section(found: Replays) -> Section:
    """Ways of replaying side by side."""
    z = {n: np.asarray(s.z, float) for n, s in found.ways.items()}
    mean = {n: float(finite_mean(v)) for n, v in z.items()}
    order = sorted(found.ways, key=lambda n: np.nan_to_num(mean[n], nan=np.inf))
    pairs = max((v.size for v in z.values()), default=0)
    basis = f"{count(pairs, 'run')} each (seed × task pairs), {count(found.seeds, 'seed')}"
    figures = [f for f in (_forgetting(order, mean, z, basis), _cost(found, order, basis)) if f]
    return Section(
        "replay",
        "What replay saved",
        _lead(found, order, mean),
        tuple(figures),
        (
            _ways(found, order, mean),
            *([paired_table(found.tests, "mean z", _NOTE)] if found.tests else []),
        ),
        opening=_opening(found, mean),
    )


def _forgetting(
    order: Sequence[str], mean: Mapping[str, float], z: Mapping[str, np.ndarray], basis: str
) -> Figure | None:
    if not np.isfinite(list(mean.values())).any():
        return None
    rows = [Row(n, mean[n], points=tuple(z[n]) if z[n].size > 1 else ()) for n in order]
    said = (f"{shorten(r.name, 60)} {number(r.value, sign=True)}" for r in rows)
    alt = "Mean z: " + ", ".join(said) + "."
    return Figure(
        "Forgetting of held-out upstream examples",
        f"Large dots are means, small dots single runs: {basis}. Further left is better.",
        alt,
        row_plot("replay-z", rows, "mean z (nats)", alt, zero=True),
    )


def _cost(found: Replays, order: Sequence[str], basis: str) -> Figure | None:
    """Forgetting against task loss, a dot a way and a colour a strategy, with error bars."""
    if not order:
        return None
    every = list(dict.fromkeys(found.ways[n].strategy or n for n in order))
    plain = [name for name in every if name in ("none", "random")]
    strategies = [*plain, *(name for name in every if name not in plain)][: len(SERIES)]
    left = f" The {len(every) - len(strategies)} that forget most are left out."
    lines, seen = [], set[str]()
    for n in order:
        way = found.ways[n]
        name = way.strategy or n
        if name not in strategies:
            continue
        colour, label = SERIES[strategies.index(name)], "" if name in seen else shorten(name, 60)
        seen.add(name)
        y = float(finite_mean(np.asarray(way.z, float)))
        lines.append(Line([way.task_loss], [y], colour, label, "dot"))
        z = np.asarray(way.z, float)
        if z.size > 1 and way.task_loss is not None:
            half = 1.96 * float(np.nanstd(z, ddof=1)) / np.sqrt(z.size)
            bar = Line([way.task_loss] * 2, [y - half, y + half], colour, "", "line", 1.0)
            lines.append(bar)
    alt = "Forgetting against task loss, one dot a way; the figures stand in the table."
    return Figure(
        "What it costs the task",
        f"Means over {basis}; bars are 95 % intervals of mean z over these pairs, tasks' own "
        "differences included. Down is less forgetting, left is a better learned task."
        + (left if len(every) > len(strategies) else ""),
        alt,
        xy_plot("replay-cost", lines, "task loss (nats)", "mean z (nats)", alt),
        legend(lines),
    )


def _ways(found: Replays, order: Sequence[str], mean: Mapping[str, float]) -> Table:
    columns = ["way", "mean z", "upstream NLL", "task loss", "beyond random", "extra FLOPs"]
    recited = any(w.em is not None or w.em_forgotten is not None for w in found.ways.values())
    columns += ["exact match", "exact match lost"] if recited else []

    def beyond(way: Replayed) -> str:
        if way.recovered is None or not np.isfinite(way.recovered[0]):
            return "–"
        share, low, high = way.recovered
        if not np.isfinite([low, high]).all():
            return percent(share)
        return f"{100 * share:+.0f} % [{100 * low:+.0f}, {100 * high:+.0f}]".replace("-", "−")

    def share(x: float | None) -> str:
        return "–" if x is None else percent(x)

    return Table(
        "All figures",
        tuple(columns),
        tuple(
            (
                n,
                mean[n],
                found.ways[n].upstream_nll,
                found.ways[n].task_loss,
                beyond(found.ways[n]),
                share(found.ways[n].extra),
                *((share(found.ways[n].em), share(found.ways[n].em_forgotten)) if recited else ()),
            )
            for n in order
        ),
        note="Beyond random: what it saves more than random replay, as a share of what that saves, "
        "with the 95 % interval over tasks. Extra FLOPs: over the fine-tune without replay, with "
        "all that choosing takes."
        + (
            " Exact match: of the tasks' own held-out rows of short answers; lost: of upstream "
            "examples that the base answers right."
            if recited
            else ""
        ),
    )


def _opening(found: Replays, mean: Mapping[str, float]) -> str:
    """What the first random replay took away, or that nothing can be told."""
    for name, room in found.rooms.items():
        if room.noise is not None and not room.enough:
            return "What replay saves was not told from the noise of seeds."
        if mean.get("none", 0) > 0:
            text = (
                f"{shorten(name, 40).capitalize()} replay took away "
                f"{percent(room.mean / mean['none'])} of what was forgotten"
            )
            if room.noise:
                times = number(room.mean / room.noise, decimals=0)
                text += f", {times} times what seeds of a task differ by"
            test = found.tests.get(f"{name} − none")
            if test is not None and test.decided < 0.05:
                return f"{text}."
            few = f"{count(test.tasks, 'task')} cannot say" if test and test.tasks else "it is open"
            return f"{text}; {few} whether it does so under other tasks."
    return ""


def _lead(found: Replays, order: Sequence[str], mean: Mapping[str, float]) -> str:
    lead = (
        "Each way mixes other rows into fine-tuning; z is measured on upstream examples that none "
        "of them replays."
    )
    if order and np.isfinite(mean[order[0]]):
        low, high = order[0], [n for n in order if np.isfinite(mean[n])][-1]
        lead += (
            f" Mean z runs from {number(mean[low], sign=True)} ({low}) to "
            f"{number(mean[high], sign=True)} ({high})."
        )
    for name, room in found.rooms.items():
        if room.noise is not None and not room.enough:
            lead += (
                f" No headroom under {name}: it saves {number(room.mean, sign=True)} nats where "
                f"seeds of one task differ by {number(room.noise)}, so nothing below is a ranking."
            )
        elif mean.get("none", 0) > 0:
            lead += f" {name[0].upper()}{name[1:]} takes away {percent(room.mean / mean['none'])}"
            lead += f" of the {number(mean['none'])} nats that are forgotten without"
            lead += f" (seeds of one task differ by {number(room.noise)})." if room.noise else "."
    told = {n: t for n, t in found.tests.items() if t.decided < 0.05}
    for name, test in told.items():
        lead += (
            f" Told apart: {name}, {number(test.mean, sign=True)} nats, p = {number(test.decided)}."
        )
    others = [n for n in found.tests if n not in told]
    tasks = max((test.tasks for test in found.tests.values()), default=0)
    if 0 < tasks < DECIDING:
        lead += (
            f" {count(tasks, 'task')} cannot tell any difference from chance, however large: the "
            f"least p that sign flips allow is {2.0 ** (1 - tasks):g}. {DECIDING} or more can."
        )
    elif others:
        listed = ", ".join(others) if len(others) < 5 else f"{len(others)} other differences"
        lead += f" Not told apart from chance at the 5 % level: {listed}."
    if found.seeds == 1:
        lead += " All runs share one seed: other seeds may order the ways differently."
    return lead
