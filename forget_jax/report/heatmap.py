"""The forgetting matrix as a picture: one pixel column per example, named rows, hover for values.

The picture is a PNG inside the page; labels are HTML, so they stay sharp and wrap on a phone; the
values travel as 16-bit integers for the page's small hover script.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from forget_jax.report.section import finite_mean, short_names, shorten
from forget_jax.report.template import render

MAX_CELLS = 200_000  # about 0.6 MB of values in the page
MAX_TASKS = 200
MAX_SOURCES = 40
_MISSING = -32768
_GREY = (0.62, 0.62, 0.62)


@dataclass(frozen=True)
class _Columns:
    """The picture's columns: values, a name each, and the sources they are grouped by."""

    z_MxC: np.ndarray
    names: list[str]
    groups: list[tuple[str, int, int]]  # source, first column, one past the last


def robust_range(z: np.ndarray) -> float:
    """The 98th percentile of |z| over finite entries, the point where colours saturate."""
    size = np.abs(z[np.isfinite(z)])
    if not size.size:
        return 1.0
    return float(np.quantile(size, 0.98)) or float(size.max()) or 1.0


def heatmap(
    key: str,
    z_MxN: np.ndarray,
    tasks: Sequence[str],
    examples: Sequence[str],
    sources: Sequence[str],
    alt: str,
    unit: str = "nats",
) -> tuple[Markup, list[str]]:
    """The picture of a matrix.

    Args:
      key: begins the ids of the picture's parts; one a page.
      z_MxN: forgetting, rows are tasks; NaN where nothing was measured.
      tasks, examples, sources: M, N and N names; a source groups examples.
      alt: what the picture shows, in words.
      unit: of z.

    Returns:
      The HTML, and what a reader must know of how it was arranged, a sentence each.
    """
    notes = ["Within a source, examples are ordered by their mean z."]
    rows = np.arange(len(tasks))
    if len(tasks) > MAX_TASKS:
        mean_M = finite_mean(z_MxN, axis=1)
        rows = np.sort(np.argsort(-np.where(np.isnan(mean_M), -np.inf, mean_M))[:MAX_TASKS])
        notes.append(f"Only the {MAX_TASKS} of {len(tasks):,} tasks with the largest mean z.")
    columns = _arrange(z_MxN[rows], examples, sources, notes)
    shown, names = columns.z_MxC, [shorten(tasks[int(i)], 120) for i in rows]
    limit = robust_range(z_MxN)
    if not np.isfinite(shown).all():
        notes.append("Grey entries were not measured.")
    row_px = 20 if len(rows) <= 24 else 16 if len(rows) <= 60 else 13
    narrowest = min(stop - start for _, start, stop in columns.groups) / shown.shape[1]
    width = int(np.clip(14 / narrowest, 600, 1400))
    labels = [_label(g, shown.shape[1], width) for g in columns.groups]
    html = render(
        "heatmap.html",
        key=key,
        alt=alt,
        unit=unit,
        png=_png(shown, limit, row_px),
        names=list(zip(short_names(names, 26), names, strict=True)),
        row_px=row_px,
        width=width,
        max_width=min(28 * shown.shape[1], 1600),
        smooth=shown.shape[1] > 700,
        labels=labels,
        label_height=max(
            [2.0, *(0.56 * len(n["name"]) + 1 for n in labels if n["way"] == "upright")]
        ),
        gradient=_gradient(),
        limit=limit,
        data={
            "tasks": names,
            "examples": columns.names,
            "groups": [[shorten(source, 120), stop] for source, _, stop in columns.groups],
            **_packed(shown),
        },
    )
    return html, notes


def _arrange(
    z_MxN: np.ndarray, examples: Sequence[str], sources: Sequence[str], notes: list[str]
) -> _Columns:
    """Columns grouped by source, ordered by mean in it, and averaged where there are too many."""
    sizes: dict[str, int] = {}
    for s in sources:
        sizes[s] = sizes.get(s, 0) + 1
    named = set(sorted(sizes, key=lambda s: -sizes[s])[:MAX_SOURCES])
    other = f"{len(sizes) - len(named)} smaller sources"
    if len(sizes) > len(named):
        notes.append(f"The {MAX_SOURCES} largest sources are named, the others stand together.")
    by_group: dict[str, list[int]] = {s: [] for s in sizes if s in named}
    for j, s in enumerate(sources):
        by_group.setdefault(s if s in named else other, []).append(j)

    m, n = z_MxN.shape
    room = max(MAX_CELLS // m, len(by_group))
    if n > room:
        notes.append(
            f"There are too many examples for a column each: every column is the mean of about "
            f"{round(n / room)} examples of one source that lie next to each other in that order."
        )
    mean_N = finite_mean(z_MxN, axis=0)
    order_N = np.where(np.isnan(mean_N), np.inf, -mean_N)  # unmeasured ones last
    pieces: list[np.ndarray] = []
    names: list[str] = []
    groups: list[tuple[str, int, int]] = []
    for source, members in by_group.items():
        js = np.asarray(members)[np.argsort(order_N[members], kind="stable")]
        start = len(names)
        if n <= room:
            pieces.append(z_MxN[:, js])
            names += [shorten(examples[j], 120) for j in js]
        else:
            for bin_js in np.array_split(js, max(1, room * len(js) // n)):
                pieces.append(finite_mean(z_MxN[:, bin_js], axis=1)[:, None])
                names.append(f"mean of {len(bin_js)} examples")
        groups.append((source, start, len(names)))
    return _Columns(np.concatenate(pieces, axis=1), names, groups)


def _label(group: tuple[str, int, int], n: int, width: int) -> dict[str, Any]:
    """Where a source's name stands below the picture: along it, upright, or only on hover."""
    source, start, stop = group
    px = width * (stop - start) / n
    name = shorten(source, 26)
    way = "along" if px > 7.5 * len(name) else "upright" if px >= 12 else "hidden"
    return {
        "source": shorten(source, 120),
        "name": name,
        "way": way,
        "left": round(100 * start / n, 4),
        "share": round(100 * (stop - start) / n, 4),
    }


def _packed(z: np.ndarray) -> dict[str, object]:
    """Values as base64 of little-endian int16, `value = integer * scale`."""
    known = np.isfinite(z)
    peak = float(np.abs(z[known]).max()) if known.any() else 0.0
    scale = (peak or 1.0) / 32767
    integers = np.where(known, np.rint(np.where(known, z, 0.0) / scale), _MISSING).astype("<i2")
    return {"scale": scale, "z": base64.b64encode(integers.tobytes()).decode()}


def _colours() -> np.ndarray:
    """255 × 3: blue (improved) over near-white (unchanged) to red (forgotten)."""
    from matplotlib import colormaps

    return np.asarray(colormaps["RdBu_r"](np.linspace(0.04, 0.96, 255)))[:, :3]


def _gradient() -> str:
    stops = _colours()[np.linspace(0, 254, 9).astype(int)]
    return ",".join("#" + "".join(f"{round(255 * v):02x}" for v in stop) for stop in stops)


def _png(z: np.ndarray, limit: float, row_px: int) -> str:
    """A data URI of the picture, a byte a pixel, rows repeated to their height on the page."""
    from PIL import Image

    known = np.isfinite(z)
    level = np.rint((np.clip(np.where(known, z, 0.0) / limit, -1, 1) + 1) * 127)
    colours = np.rint(255 * np.vstack([_colours(), _GREY])).astype(np.uint8)
    pixels = np.where(known, level, len(colours) - 1).astype(np.uint8)
    picture = Image.fromarray(np.repeat(pixels, row_px, axis=0))
    picture.putpalette(colours.tobytes())
    out = io.BytesIO()
    picture.save(out, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
