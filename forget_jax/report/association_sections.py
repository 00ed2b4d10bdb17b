"""Sections about the matrix: what was forgotten, how low its rank is, and how it was predicted."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from forget_jax.errors import UserError
from forget_jax.report.heatmap import heatmap, robust_range
from forget_jax.report.plots import SERIES, Line, Row, legend, row_plot, xy_plot
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


def matrix_section(
    z_MxN: np.ndarray,
    tasks: Sequence[str],
    examples: Sequence[str],
    sources: Sequence[str],
    texts: Sequence[str] | None = None,
    n_top: int = 12,
    repeat: float | None = None,
    seeds: int = 1,
    metric: str = "nll",
) -> Section:
    """What each task made the model forget.

    Args:
      z_MxN: forgetting, rows are tasks; NaN where nothing was measured.
      tasks, examples, sources: M, N and N names; a source groups examples.
      texts: the examples' texts, to show excerpts of the `n_top` most forgotten.
      repeat: correlation of z between two runs of the same tasks under different seeds.
      seeds: how many seeds were averaged in every entry.
      metric: `nll` (z in nats per token) or `exact_match` (z is 0 or 1).

    Raises:
      UserError: lengths that do not fit the matrix, or an empty matrix.
    """
    z_MxN = np.asarray(z_MxN, float)
    lengths = (len(tasks), len(examples), len(sources), len(examples if texts is None else texts))
    if z_MxN.ndim != 2 or not z_MxN.size or lengths != (*z_MxN.shape, *[z_MxN.shape[1]] * 2):
        raise UserError(
            f"the forgetting matrix has shape {z_MxN.shape}, but there are {lengths[0]} task "
            f"names, {lengths[1]} example names, {lengths[2]} sources and {lengths[3]} texts; "
            "give one task name a row and one of the others a column"
        )
    shape = f"{count(len(tasks), 'task')} × {count(len(examples), 'upstream example')}"
    alt = f"Heatmap of forgetting: {shape}. The tables below hold the means of its rows and groups."
    unit, meaning = _METRICS[metric]
    picture, notes = heatmap("forgetting-heatmap", z_MxN, tasks, examples, sources, alt, unit)
    shown = Figure(
        title="Forgetting z, task by example",
        caption=f"{shape}, {count(seeds, 'seed')} an entry. {meaning} Colours saturate at "
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
    top = _most_forgotten(z_MxN, tasks, examples, sources, texts, n_top)
    return Section(
        key="matrix",
        title="What was forgotten",
        lead=_matrix_lead(z_MxN, tasks, repeat, seeds, metric),
        figures=(shown,),
        tables=tuple(tables),
        texts=top,
        texts_title="Most forgotten examples, by mean z over tasks",
    )


def _matrix_lead(
    z_MxN: np.ndarray, tasks: Sequence[str], repeat: float | None, seeds: int, metric: str
) -> str:
    known = np.isfinite(z_MxN)
    if not known.any():
        return "No entry of the matrix has been measured yet."
    z, mean_M = z_MxN[known], finite_mean(z_MxN, axis=1)
    entries = count(z.size, "measured entry").replace("entrys", "entries")
    if metric == "exact_match":
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
    if len(tasks) > 1:
        most, least = int(np.nanargmax(mean_M)), int(np.nanargmin(mean_M))
        lead += (
            f" Mean z runs from {number(mean_M[least], sign=True)} ({shorten(tasks[least], 60)}) "
            f"to {number(mean_M[most], sign=True)} ({shorten(tasks[most], 60)})."
        )
    if repeat is not None and np.isfinite(repeat):
        return lead + (
            f" Tasks trained again under another seed gave a test–retest correlation of "
            f"{number(repeat)} over entries: the ceiling against which to read predictions."
        )
    if seeds == 1:
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


def _most_forgotten(
    z_MxN: np.ndarray,
    tasks: Sequence[str],
    examples: Sequence[str],
    sources: Sequence[str],
    texts: Sequence[str] | None,
    n_top: int,
) -> tuple[Text, ...]:
    mean_N = finite_mean(z_MxN, axis=0)
    order = np.argsort(np.where(np.isnan(mean_N), np.inf, -mean_N), kind="stable")
    found = []
    for j in order[: min(n_top, int(np.isfinite(mean_N).sum()))]:
        column = np.where(np.isfinite(z_MxN[:, j]), z_MxN[:, j], -np.inf)
        worst = [i for i in np.argsort(-column, kind="stable")[:3] if np.isfinite(column[i])]
        by = ", ".join(f"{shorten(tasks[i], 60)} ({number(column[i], sign=True)})" for i in worst)
        body = "" if texts is None else texts[j].strip()
        found.append(
            Text(
                title=shorten(examples[j], 120),
                facts=f"{shorten(sources[j], 60)} · mean z {number(mean_N[j], sign=True)} · "
                f"most under {by}",
                body=body if len(body) <= _EXCERPT else body[: _EXCERPT - 1].rstrip() + "…",
            )
        )
    return tuple(found)


def rank_section(
    r2_rank: Sequence[float],
    r2_additive: float,
    r2_row: float,
    r2_column: float,
    seeds: int = 1,
    f1_rank: Sequence[float] = (),
) -> Section:
    """How much of the matrix few components explain; `r2_rank[k]` is R² of the rank k + 1 SVD.

    `f1_rank[k]`, for a matrix of zeros and ones, is the F1 of logistic factors of rank k + 1.
    """
    r2_rank, rest = _floats(r2_rank), _floats((r2_additive, r2_row, r2_column))
    r2_additive, r2_row, r2_column = rest
    ranks = list(range(1, len(r2_rank) + 1))
    lines = [
        Line(ranks, r2_rank, SERIES[0], "truncated SVD", "line+dot"),
        *(
            Line([0.8, max(len(ranks), 1) + 0.2], [r2, r2], colour, name, "dash")
            for r2, colour, name in (
                (r2_additive, SERIES[1], "task mean + example mean"),
                (r2_row, SERIES[3], "task mean only"),
                (r2_column, SERIES[2], "example mean only"),
            )
        ),
    ]
    explained = ", ".join(f"rank {k}: {number(r2)}" for k, r2 in zip(ranks, r2_rank, strict=True))
    alt = f"R² by rank ({explained}); additive model {number(r2_additive)}."
    lowest = min([0.0, *(v for v in (*r2_rank, r2_additive, r2_row, r2_column) if np.isfinite(v))])
    lead = (
        "Each point is the share of the matrix's variance (R²) that a table of this rank "
        f"reproduces. A mean per task plus a mean per example reaches {number(r2_additive)}"
    )
    above = [k for k, r2 in zip(ranks, r2_rank, strict=True) if r2 >= r2_additive]
    if above:
        lead += f"; rank {above[0]} reaches {number(r2_rank[above[0] - 1])}"
    lead += (
        ". What lies above the additive line is association: which task makes the model forget "
        "which example. These are fits to the measured matrix itself, seed noise included, not "
        "predictions."
    )
    figure = Figure(
        "R² by rank",
        f"In-sample fits to one matrix, {count(seeds, 'seed')} an entry.",
        alt,
        xy_plot(
            "r2-by-rank",
            lines,
            "rank",
            "R²",
            alt,
            y_limits=(lowest * 1.05, 1.03),
            x_ticks=ranks if len(ranks) <= 12 else None,
        ),
        legend(lines),
    )
    fits = [(f"rank {k}", float(r2)) for k, r2 in zip(ranks, r2_rank, strict=True)]
    fits += [("task mean + example mean", r2_additive), ("task mean only", r2_row)]
    fits += [("example mean only", r2_column)]
    table = Table("R² of each fit", ("fit", "R²"), tuple(fits))
    tables = [table]
    if f1_rank:
        rows = [(f"rank {k + 1}", f1) for k, f1 in enumerate(_floats(f1_rank))]
        note = "Forgotten is what the fitted probability puts above 0.5; fits to the matrix itself."
        tables.append(Table("F1 of logistic factors", ("fit", "F1"), tuple(rows), note=note))
    return Section("rank", "How low its rank is", lead, (figure,), tuple(tables))


def methods_section(
    methods: Mapping[str, Mapping[str, float]], observed: int, seeds: int
) -> Section:
    """Completion methods side by side: `rmse`, `rmse_std`, `f1`, `seconds` of each, best first."""
    rmse = dict(zip(methods, _floats(m["rmse"] for m in methods.values()), strict=True))
    spread = dict(zip(methods, _floats(m.get("rmse_std") for m in methods.values()), strict=True))
    order = sorted(methods, key=lambda name: np.nan_to_num(rmse[name], nan=np.inf))
    rows = [Row(n, rmse[n], rmse[n] - spread[n], rmse[n] + spread[n]) for n in order]
    alt = "RMSE: " + ", ".join(f"{r.name} {number(r.value)}" for r in rows) + "."
    drawn = (
        f"{count(observed, 'observed entry').replace('entrys', 'entries')} of each new task's row"
    )
    figure = Figure(
        "RMSE of the entries not observed",
        f"Dots are means over {count(seeds, 'seed')}"
        + (", lines one standard deviation over seeds" if seeds > 1 else "")
        + f"; each seed draws other {drawn}. Further left is better.",
        alt,
        row_plot("rmse-by-method", rows, "RMSE (nats)", alt),
    )
    table = Table(
        "All figures",
        ("method", "RMSE", "± sd", "F1", "seconds"),
        tuple(
            (n, *(methods[n].get(k) for k in ("rmse", "rmse_std", "f1", "seconds"))) for n in order
        ),
        note="F1 is that of predicting which entries are forgotten; seconds are of one run here.",
    )
    lead = f"From {drawn}, each method fills in the rest. "
    if len(order) > 1:
        best, next_best = order[:2]
        gap = rmse[next_best] - rmse[best]
        lead += f"The lowest mean RMSE is {number(rmse[best])} ({best})"
        if seeds > 1 and gap > max(spread[best], spread[next_best]):
            lead += (
                f", {number(gap)} below the next ({next_best}): more than one standard deviation "
                f"over {seeds} seeds."
            )
        elif seeds > 1:
            lead += (
                f"; the next ({next_best}) lies within one standard deviation over {seeds} seeds, "
                "so their order is not settled."
            )
        else:
            lead += "; with one seed the order of close methods is not settled."
    return Section("methods", "What was predicted", lead, (figure,) if rows else (), (table,))


def _floats(values: Iterable[float | None]) -> list[float]:
    """NaN where a figure is missing, as null in a summary's JSON."""
    return [np.nan if v is None else float(v) for v in values]
