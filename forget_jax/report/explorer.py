"""The matrix on the page: a heatmap and one table of task by example, searched, sorted, filtered.

Both are drawn by explorer.js from the values themselves: in the page while that stays small, else
in a file beside it. Colours, names and order are decided here.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from forget_jax import files
from forget_jax.errors import printable
from forget_jax.report.section import finite_mean, short_names, shorten
from forget_jax.report.template import render

MAX_INLINE = 2_500_000  # characters of data that a page carries itself
MAX_CELLS = 4_000_000
MAX_ROWS = 200  # of the heatmap
EXCERPT = 280  # characters of an example's text
# Blue (improved) over near-white (unchanged) to red (forgotten): ColorBrewer's RdBu, ends left out.
COLOURS = (
    *("#10457e", "#327cb7", "#78b4d5", "#c7e0ed", "#f6f7f7"),
    *("#fcd5bf", "#eb9172", "#c53e3d", "#840924"),
)


@dataclass(frozen=True)
class Explored:
    """What is shown.

    Attributes:
      z_MxN: forgetting, rows are tasks; NaN where nothing was measured.
      tasks, examples, sources: M, N and N names.
      texts: N texts, of which beginnings are shown.
      unit: of z.
      limit: |z| at which colours saturate.
      components: a label each, and by example the number of its component, -1 for none.
    """

    z_MxN: np.ndarray
    tasks: Sequence[str]
    examples: Sequence[str]
    sources: Sequence[str]
    texts: Sequence[str] | None = None
    unit: str = "nats"
    limit: float = 1.0
    components: Sequence[str] = ()
    component_N: np.ndarray | None = None


@dataclass(frozen=True)
class Made:
    """The HTML, what must lie beside the page by name, and what a reader must know of the order."""

    markup: Markup
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def robust_range(z: np.ndarray) -> float:
    """The 98th percentile of |z| over finite entries, the point where colours saturate."""
    size = np.abs(z[np.isfinite(z)])
    if not size.size:
        return 1.0
    return float(np.quantile(size, 0.98)) or float(size.max()) or 1.0


def source_means(z_MxN: np.ndarray, sources: Sequence[str]) -> dict[str, float]:
    """Mean z of each source, the most forgotten first; NaN (last) where nothing was measured."""
    total: dict[str, list[float]] = {}
    known_N = np.isfinite(z_MxN).sum(0)
    sum_N = np.where(np.isfinite(z_MxN), z_MxN, 0.0).sum(0)
    for name, z, known in zip(sources, sum_N, known_N, strict=True):
        held = total.setdefault(name, [0.0, 0.0])
        held[0] += float(z)
        held[1] += float(known)
    mean = {name: z / known if known else np.nan for name, (z, known) in total.items()}
    return dict(sorted(mean.items(), key=lambda x: np.inf if np.isnan(x[1]) else -x[1]))


def explorer(key: str, found: Explored, alt: str) -> Made:
    """Heatmap and table of a matrix.

    Args:
      key: the id of its element, one a page, and the name of its file.
      found: the matrix.
      alt: what the picture shows, in words.
    """
    notes = []
    rows = np.arange(len(found.tasks))
    if len(rows) > MAX_ROWS:
        mean_M = finite_mean(found.z_MxN, axis=1)
        rows = np.sort(np.argsort(-np.where(np.isnan(mean_M), -np.inf, mean_M))[:MAX_ROWS])
        notes.append(
            f"The picture has the {MAX_ROWS} of {len(found.tasks):,} tasks with the largest mean "
            "z, the table all."
        )
    if not np.isfinite(found.z_MxN).all():
        notes.append("Grey entries were not measured.")
    means = source_means(found.z_MxN, found.sources)
    order = _order(found, list(means), notes)
    tasks = [shorten(t, 120) for t in found.tasks]
    sources = [{"name": shorten(n, 120), "mean": _finite(m)} for n, m in means.items()]
    number = {name: k for k, name in enumerate(means)}
    row_px = 20 if len(rows) <= 24 else 16 if len(rows) <= 60 else 13
    data = {
        "tasks": tasks,
        "examples": [shorten(found.examples[j], 200) for j in order],
        "sources": sources,
        "source_of": [number[found.sources[j]] for j in order],
        "texts": None if found.texts is None else [_beginning(found.texts[j]) for j in order],
        "components": list(found.components),
        "component_of": [] if found.component_N is None else found.component_N[order].tolist(),
        "rows": rows.tolist(),
        "row_px": row_px,
        "limit": found.limit,
        "colours": COLOURS,
        # M x N little-endian float32 in base64, NaN where nothing was measured
        "z": base64.b64encode(found.z_MxN[:, order].astype("<f4").tobytes()).decode(),
    }
    text = files.dump_json(data)
    inline = len(text) <= MAX_INLINE
    markup = render(
        "explorer.html",
        key=key,
        alt=alt,
        unit=found.unit,
        tasks=tasks,
        sources=sources,
        components=found.components,
        names=list(
            zip(short_names([tasks[i] for i in rows], 26), [tasks[i] for i in rows], strict=True)
        ),
        row_px=row_px,
        colours=COLOURS,
        limit=found.limit,
        data=data if inline else None,
    )
    beside = {} if inline else {f"{key}.js": f'forgetJax("{key}", {text});\n'}
    return Made(markup, beside, tuple(notes))


def _order(found: Explored, sources: list[str], notes: list[str]) -> np.ndarray:
    """Examples by source, the most forgotten source and in it the most forgotten example first."""
    mean_N = finite_mean(found.z_MxN, axis=0)
    place = {name: k for k, name in enumerate(sources)}
    of_N = np.asarray([place[s] for s in found.sources])
    order = np.lexsort((np.where(np.isnan(mean_N), np.inf, -mean_N), of_N))
    most = max(1, MAX_CELLS // len(found.tasks))
    if len(order) <= most:
        return order
    kept = np.sort(np.argsort(-np.abs(np.nan_to_num(mean_N[order])), kind="stable")[:most])
    notes.append(
        f"Of {len(order):,} examples the {most:,} with the largest mean |z| are shown; the matrix "
        "has all."
    )
    return order[kept]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _beginning(text: str) -> str:
    text = printable(text.strip())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1].rstrip() + "…"
