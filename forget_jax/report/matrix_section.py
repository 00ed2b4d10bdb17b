"""The section about the matrix: what each task made the model forget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forget_jax.errors import UserError
from forget_jax.report.explorer import EXCERPT, Explored, explorer, robust_range, source_means
from forget_jax.report.section import (
    Figure,
    Section,
    Table,
    Text,
    bars,
    count,
    finite_mean,
    listed,
    number,
    percent,
    shorten,
)

# Nats a token. A source that improves by more was not known before: what the model learned of it is
# mostly its form. On SmolLM2-135M instruction rows improve by 1 to 5, C4 is forgotten by 0.05.
NEVER_KNOWN = -0.3

# What an entry is, by metric: its unit, and what the picture's caption says of it.
_METRICS = {
    "nll": (
        "nats",
        "z is an example's loss a token after fine-tuning minus that of the base: red is "
        "forgotten, blue is improved.",
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
      texts: the examples' texts, to show their beginnings.
      metric: `nll` (z in nats per token) or `exact_match` (z is 0 or 1).
      seeds: how many seeds were averaged in every entry.
      components: of the matrix, a label each.
      component_N: by example the number of the component that it is most of, -1 for none.
    """

    z_MxN: np.ndarray
    tasks: Sequence[str]
    examples: Sequence[str]
    sources: Sequence[str]
    texts: Sequence[str] | None = None
    metric: str = "nll"
    seeds: int = 1
    components: Sequence[str] = ()
    component_N: np.ndarray | None = None


def matrix_section(found: Forgetting, repeat: float | None = None, n_top: int = 6) -> Section:
    """What each task made the model forget.

    Args:
      found: the matrix.
      repeat: correlation of z between two runs of the same tasks under different seeds.
      n_top: how many of the most forgotten examples are shown as texts.

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
    mean = source_means(z_MxN, sources)
    known_N = _known(found, mean)
    limit = robust_range(z_MxN[:, known_N])
    explored = Explored(
        z_MxN,
        tasks,
        examples,
        sources,
        texts,
        unit,
        limit,
        found.components,
        found.component_N,
    )
    made = explorer("forgetting", explored, alt)
    apart = "" if known_N.all() else ", without sources that the base did not know"
    improved = sum(m <= 0 for m in mean.values())
    turn = "; right of the thick line are sources that improved" if 0 < improved < len(mean) else ""
    shown = Figure(
        title="Forgetting z, task by example",
        caption=f"{shape}, {count(found.seeds, 'seed')} an entry. {meaning} Colours saturate at "
        f"±{number(limit)}, the 98th percentile of |z|{apart}. Sources and the examples in them "
        f"are ordered by mean z{turn}. " + " ".join(made.notes),
        alt=alt,
        markup=made.markup,
        wide=True,
        interactive=True,
    )
    return Section(
        key="matrix",
        title="What was forgotten",
        lead=_lead(z_MxN, found, known_N, repeat),
        figures=(shown,),
        tables=(_by_task(z_MxN, tasks, known_N), *_by_source(z_MxN, sources, mean)),
        texts=_most_forgotten(z_MxN, found, n_top),
        texts_title="Most forgotten examples, by mean z over tasks",
        opening=_opening(z_MxN, found, mean),
        files=made.files,
    )


def _known(found: Forgetting, mean: dict[str, float]) -> np.ndarray:
    """Which examples are of sources that the base knew; all where none is."""
    if found.metric != "nll":
        return np.ones(len(found.examples), bool)
    known_N = np.asarray([not mean[s] <= NEVER_KNOWN for s in found.sources])
    return known_N if known_N.any() else ~known_N


def _opening(z_MxN: np.ndarray, found: Forgetting, mean: dict[str, float]) -> str:
    """Two or three sentences: on what the model is worse now, and what to replay against it."""
    if not np.isfinite(z_MxN).any():
        return ""
    n = len(found.tasks)
    is_nll = found.metric == "nll"

    def named(source: str) -> str:
        return shorten(source, 60) or "its examples"

    def lost(source: str, unit: bool) -> str:
        size = number(mean[source]) if is_nll else percent(mean[source])
        words = "nats a token" if is_nll else "of its answers"
        return f"{named(source)} ({f'by {size} {words}' if unit else size})"

    worse = [s for s in mean if mean[s] > 0]
    text = (
        f"Fine-tuning on {shorten(found.tasks[0], 60)} made the model worse on "
        if n == 1
        else f"On average over {n:,} tasks, fine-tuning made the model worse on "
    )
    text += listed([lost(s, s == worse[0]) for s in worse[:3]]) or "no source, on average"
    if len(worse) > 3:
        text += f", and less on {len(worse) - 3:,} more of {len(mean):,} sources"
    learned = [s for s in mean if is_nll and mean[s] <= NEVER_KNOWN]
    if learned:
        most = learned[-1]
        text += (
            f". {count(len(learned), 'source')} that the base did not know improved, most "
            f"{named(most)} (by {number(-mean[most])})"
        )
    if top := _top(z_MxN, 3):
        which = listed([shorten(found.examples[j], 60) for j in top])
        text += f". Forgotten most, and the first to replay: {which}"
    return f"{text}."


def _lead(z_MxN: np.ndarray, found: Forgetting, known_N: np.ndarray, repeat: float | None) -> str:
    measured = np.isfinite(z_MxN)
    if not measured.any():
        return "No entry of the matrix has been measured yet."
    inside = z_MxN[:, known_N]
    z = inside[np.isfinite(inside)]
    mean_M = finite_mean(inside, axis=1)
    entries = count(z.size, "measured entry").replace("entrys", "entries")
    if found.metric == "exact_match":
        lead = (
            f"By exact match: of {entries}, each an answer that the base model gave correctly, "
            f"{percent(float(z.mean()))} were wrong after fine-tuning (z = 1: forgotten)."
        )
    else:
        apart = "" if known_N.all() else " of sources that the base knew,"
        lead = (
            f"Over {entries}{apart} the loss changed by {number(z.mean(), sign=True)} nats a "
            f"token on average over examples, and {percent(float((z > 0).mean()))} of the entries "
            "rose (z > 0: forgotten)."
        )
    if np.isfinite(mean_M).sum() > 1:
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


def _by_task(z_MxN: np.ndarray, tasks: Sequence[str], known_N: np.ndarray) -> Table:
    """Mean z of each task, the most forgetting first; what the base did not know in its own."""
    mean_M = finite_mean(z_MxN[:, known_N], axis=1)
    order = np.argsort(np.where(np.isnan(mean_M), np.inf, -mean_M), kind="stable")
    names, z_MxN = [tasks[i] for i in order], z_MxN[order]
    table = _mean_table("Mean z by task", "task", names, list(z_MxN[:, known_N]))
    if known_N.all():
        return table
    others = finite_mean(z_MxN[:, ~known_N], axis=1)
    return Table(
        table.title,
        (*table.columns, "others"),
        tuple((*row, float(z)) for row, z in zip(table.rows, others, strict=True)),
        note="Over sources that the base knew; others: mean z of those that improved by "
        f"{number(-NEVER_KNOWN)} nats a token or more.",
    )


def _by_source(z_MxN: np.ndarray, sources: Sequence[str], mean: dict[str, float]) -> list[Table]:
    """Sources that were forgotten and sources that improved, in tables of their own."""
    if not 1 < len(mean) < 2000:
        return []
    number_of = {name: k for k, name in enumerate(mean)}
    of_N = np.asarray([number_of[s] for s in sources])
    kinds = (
        ("Sources that were forgotten", [s for s in mean if mean[s] > 0]),
        ("Sources that improved", [s for s in reversed(mean) if mean[s] <= 0]),
        ("Sources that were not measured", [s for s in mean if np.isnan(mean[s])]),
    )
    return [
        _mean_table(title, "source", names, [z_MxN[:, of_N == number_of[s]] for s in names])
        for title, names in kinds
        if names
    ]


def _mean_table(title: str, noun: str, names: Sequence[str], groups: Sequence[np.ndarray]) -> Table:
    """Mean z and the share of z > 0 of each group of entries."""
    mean = [float(finite_mean(g)) for g in groups]
    share = [float(finite_mean(np.where(np.isfinite(g), g > 0, np.nan))) for g in groups]
    columns = (names, bars(mean), bars(share, [percent(s) for s in share]))
    return Table(title, (noun, "mean z", "share z > 0"), tuple(zip(*columns, strict=True)))


def _top(z_MxN: np.ndarray, n: int) -> list[int]:
    """The columns of the largest mean z above zero."""
    mean_N = finite_mean(z_MxN, axis=0)
    order = np.argsort(np.where(np.isnan(mean_N), np.inf, -mean_N), kind="stable")
    return [int(j) for j in order[:n] if mean_N[j] > 0]


def _most_forgotten(z_MxN: np.ndarray, found: Forgetting, n_top: int) -> tuple[Text, ...]:
    """The examples of the largest mean z, with the tasks under which each was forgotten most."""
    mean_N = finite_mean(z_MxN, axis=0)
    shown = []
    for j in _top(z_MxN, n_top):
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
                body=body if len(body) <= EXCERPT else body[: EXCERPT - 1].rstrip() + "…",
            )
        )
    return tuple(shown)
