"""The section about the matrix: what each task made the model forget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.errors import UserError
from forget_jax.report.heatmap import heatmap, robust_range
from forget_jax.report.section import (
    Figure,
    Section,
    Table,
    Text,
    bars,
    count,
    finite_mean,
    number,
    percent,
    shorten,
)

_EXCERPT = 280

# What an entry is, by metric: its unit, and what the picture's caption says of it.
_METRICS = {
    "nll": (
        "nats",
        "z is the mean loss after fine-tuning minus the base model's: red is forgotten, blue is "
        "improved.",
    ),
    "exact_match": (
        "answers",
        "The columns are the examples that the base model answered correctly (exact match); z is 1 "
        "(red) where the fine-tuned model's answer is wrong, and 0 where it is still right.",
    ),
}


@dataclass(frozen=True)
class Forgetting:
    """A measured matrix and what its rows, columns and entries are.

    Attributes:
      z_MxN: forgetting, rows are tasks; NaN where nothing was measured.
      tasks, examples, sources: M, N and N names; a source groups examples.
      texts: the examples' texts, to show excerpts of the most forgotten.
      metric: `nll` (z in nats per token) or `exact_match` (z is 0 or 1).
      seeds: how many seeds were averaged in every entry.
    """

    z_MxN: np.ndarray
    tasks: Sequence[str]
    examples: Sequence[str]
    sources: Sequence[str]
    texts: Sequence[str] | None = None
    metric: str = "nll"
    seeds: int = 1


def matrix_section(found: Forgetting, repeat: float | None = None, n_top: int = 12) -> Section:
    """What each task made the model forget.

    Args:
      found: the matrix.
      repeat: correlation of z between two runs of the same tasks under different seeds.
      n_top: how many of the most forgotten examples are shown.

    Raises:
      UserError: lengths that do not fit the matrix, or an empty matrix.
    """
    z_MxN = np.asarray(found.z_MxN, float)
    tasks, examples, sources, texts = found.tasks, found.examples, found.sources, found.texts
    lengths = (len(tasks), len(examples), len(sources), len(examples if texts is None else texts))
    if z_MxN.ndim != 2 or not z_MxN.size or lengths != (*z_MxN.shape, *[z_MxN.shape[1]] * 2):
        raise UserError(
            f"the forgetting matrix has shape {z_MxN.shape}, but there are {lengths[0]} task "
            f"names, {lengths[1]} example names, {lengths[2]} sources and {lengths[3]} texts; "
            "give one task name a row and one of the others a column"
        )
    shape = f"{count(len(tasks), 'task')} × {count(len(examples), 'upstream example')}"
    alt = f"Heatmap of forgetting: {shape}. The tables below hold the means of its rows and groups."
    unit, meaning = _METRICS[found.metric]
    picture, notes = heatmap("forgetting-heatmap", z_MxN, tasks, examples, sources, alt, unit)
    shown = Figure(
        title="Forgetting z, task by example",
        caption=f"{shape}, {count(found.seeds, 'seed')} an entry. {meaning} Colours saturate at "
        f"±{number(robust_range(z_MxN))}, the 98th percentile of |z|. " + " ".join(notes),
        alt=alt,
        markup=picture,
        wide=True,
    )
    by_task = _mean_table("task", tasks, list(z_MxN))
    names = list(dict.fromkeys(sources))
    of_source = np.asarray([names.index(s) for s in sources]) if len(names) < 2000 else None
    tables = [by_task]
    if of_source is not None and len(names) > 1:
        groups = [z_MxN[:, of_source == g] for g in range(len(names))]
        tables.append(_mean_table("source", names, groups))
    return Section(
        key="matrix",
        title="What was forgotten",
        lead=_lead(z_MxN, found, repeat),
        figures=(shown,),
        tables=tuple(tables),
        texts=_most_forgotten(z_MxN, found, n_top),
        texts_title="Most forgotten examples, by mean z over tasks",
    )


def _lead(z_MxN: np.ndarray, found: Forgetting, repeat: float | None) -> str:
    known = np.isfinite(z_MxN)
    if not known.any():
        return "No entry of the matrix has been measured yet."
    z, mean_M = z_MxN[known], finite_mean(z_MxN, axis=1)
    entries = count(z.size, "measured entry").replace("entrys", "entries")
    if found.metric == "exact_match":
        lead = (
            f"By exact match: of {entries}, each an answer that the base model gave correctly, "
            f"{percent(float(z.mean()))} were wrong after fine-tuning (z = 1: forgotten)."
        )
    else:
        lead = (
            f"Over {entries} the loss on upstream examples changed by "
            f"{number(z.mean(), sign=True)} nats a token on average, and "
            f"{percent(float((z > 0).mean()))} of the entries rose (z > 0: forgotten)."
        )
    if len(found.tasks) > 1:
        most, least = int(np.nanargmax(mean_M)), int(np.nanargmin(mean_M))
        low, high = shorten(found.tasks[least], 60), shorten(found.tasks[most], 60)
        lead += (
            f" Mean z runs from {number(mean_M[least], sign=True)} ({low}) "
            f"to {number(mean_M[most], sign=True)} ({high})."
        )
    if repeat is not None and np.isfinite(repeat):
        return lead + (
            f" Tasks trained again under another seed gave a test–retest correlation of "
            f"{number(repeat)} over entries: the ceiling against which to read predictions."
        )
    if found.seeds == 1:
        lead += " Each entry was measured once, so how much of it is seed noise is not known here."
    return lead


def _mean_table(noun: str, names: Sequence[str], groups: Sequence[np.ndarray]) -> Table:
    """Mean z and the share of z > 0 of each group of entries, the most forgotten first."""
    mean = np.asarray([float(finite_mean(g)) for g in groups])
    share = np.asarray(
        [float(finite_mean(np.where(np.isfinite(g), g > 0, np.nan))) for g in groups]
    )
    order = np.argsort(np.where(np.isnan(mean), np.inf, -mean), kind="stable")
    cells = zip(
        [names[k] for k in order],
        bars(mean[order].tolist()),
        bars(share[order].tolist(), [percent(s) for s in share[order]]),
        strict=True,
    )
    return Table(f"Mean z by {noun}", (noun, "mean z", "share z > 0"), tuple(cells))


def _most_forgotten(z_MxN: np.ndarray, found: Forgetting, n_top: int) -> tuple[Text, ...]:
    """The examples of the largest mean z, with the tasks under which each was forgotten most."""
    mean_N = finite_mean(z_MxN, axis=0)
    order = np.argsort(np.where(np.isnan(mean_N), np.inf, -mean_N), kind="stable")
    shown = []
    for j in order[: min(n_top, int(np.isfinite(mean_N).sum()))]:
        column = np.where(np.isfinite(z_MxN[:, j]), z_MxN[:, j], -np.inf)
        worst = [i for i in np.argsort(-column, kind="stable")[:3] if np.isfinite(column[i])]
        by = ", ".join(
            f"{shorten(found.tasks[i], 60)} ({number(column[i], sign=True)})" for i in worst
        )
        body = "" if found.texts is None else found.texts[j].strip()
        shown.append(
            Text(
                title=shorten(found.examples[j], 120),
                facts=f"{shorten(found.sources[j], 60)} · mean z {number(mean_N[j], sign=True)} · "
                f"most under {by}",
                body=body if len(body) <= _EXCERPT else body[: _EXCERPT - 1].rstrip() + "…",
            )
        )
    return tuple(shown)
