"""Three plots with matplotlib, as inline SVG: y over x, one row per name, and pairs of quantities.

Matplotlib is imported when the first plot is made. Text stays text (small, searchable, in the
page's font) and colours become CSS variables, so one picture serves light and dark pages.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

from forget_jax.report.section import number, short_names

WIDTH = 430  # units of the SVG; shown at about one pixel each
INK, MUTED, GRID, FAINT = "#1f2429", "#5f6771", "#dfe3e8", "#868e98"
# Every mark has a contrast of 3:1 with the page, light and dark: page.css holds the dark ones.
# Okabe and Ito's colour-blind-safe set, in an order where neighbours differ in lightness too.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b4518c", "#b97a00", "#2f93c8", "#77797c")
# One hue from weak to strong, for ordered series such as ranks.
RAMP = ("#5b98d2", "#4285c4", "#3272b0", "#245d95", "#1a4877", "#10345a")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    FAINT: "faint",
    **{c: f"c{k}" for k, c in enumerate(SERIES)},
    **{c: f"r{k}" for k, c in enumerate(RAMP)},
}
_SHAPES: dict[str, dict[str, Any]] = {
    "line": {"linestyle": "-"},
    "dash": {"linestyle": (0, (4, 3))},
    "dot": {"linestyle": "", "marker": "o", "markersize": 6},
    "line+dot": {"linestyle": "-", "marker": "o", "markersize": 5},
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Line:
    """One series of an xy plot; `style` is "line", "dash", "dot" or "line+dot"."""

    x: Any
    y: Any
    colour: str
    label: str = ""
    style: str = "line"
    width: float = 1.8
    size: float = 1.0  # of dots, a factor


@dataclass(frozen=True)
class Row:
    """One named row: a mean, an interval if known, and the single measurements behind it."""

    name: str
    value: float
    low: float = np.nan
    high: float = np.nan
    points: tuple[float, ...] = ()
    colour: str = SERIES[0]


def css(colour: str) -> str:
    """The CSS form of a palette colour: follows the page's light or dark scheme."""
    return f"var(--{_VARIABLES[colour]},{colour})" if colour in _VARIABLES else colour


def legend(lines: Sequence[Line]) -> tuple[tuple[str, str, str], ...]:
    """Legend entries of the labelled series, for `Figure.legend`."""
    kinds = {"line": "line", "dash": "dash", "dot": "dot", "line+dot": "line"}
    return tuple((css(s.colour), kinds[s.style], s.label) for s in lines if s.label)


def ordered_colours(n: int) -> list[str]:
    """As many colours from weak to strong; neighbours repeat where n exceeds the ramp."""
    return [RAMP[round(k * (len(RAMP) - 1) / max(n - 1, 1))] for k in range(n)]


def xy_plot(
    key: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    alt: str,
    *,
    y_limits: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
) -> Markup:
    """Series over one x and one y axis; what is not finite is left out.

    Args:
      key: begins the ids of the SVG's parts; one a page.
      lines: the series.
      x_label, y_label: of the axes, with units.
      alt: what the picture shows, in words.
      y_limits: least and greatest y; the data's own where not given.
      x_ticks: where ticks stand; at round numbers where not given.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for s in lines:
            x, y = np.asarray(s.x, float), np.asarray(s.y, float)
            keep = np.isfinite(x)
            shape = dict(_SHAPES[s.style])
            if "markersize" in shape:
                shape["markersize"] *= s.size
            axes.plot(x[keep], y[keep], color=s.colour, lw=s.width, **shape)
        if x_ticks is not None:
            axes.xaxis.set_major_locator(_ticker().FixedLocator(list(x_ticks)))
        if y_limits:
            axes.set_ylim(*y_limits)
        axes.xaxis.set_major_formatter(_ticker().FuncFormatter(lambda v, _: _tick(v)))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y", color=GRID, lw=0.8)

    return _svg(key, draw, 290, alt)


def row_plot(key: str, rows: Sequence[Row], x_label: str, alt: str, zero: bool = False) -> Markup:
    """Names down the side, one dot with its interval and faint single measurements each.

    Args:
      key: begins the ids of the SVG's parts; one a page.
      rows: from the top.
      x_label: of the axis, with its unit.
      alt: what the picture shows, in words.
      zero: draw the line x = 0, where it is a meaningful place on this axis.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for k, row in enumerate(rows):
            y = -float(k)
            if np.isfinite(row.low) and np.isfinite(row.high):
                axes.plot([row.low, row.high], [y, y], color=row.colour, lw=1.6)
            if row.points:
                spread = np.linspace(-0.22, 0.22, len(row.points)) if len(row.points) > 1 else [0.0]
                axes.plot(row.points, y + np.asarray(spread), "o", ms=3, mew=0, color=FAINT)
            axes.plot([row.value], [y], "o", ms=7, color=row.colour, mec="none")
        if zero:
            axes.axvline(0, color=MUTED, lw=1)
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.set_yticks(
            [-float(k) for k in range(len(rows))], short_names([r.name for r in rows], 24)
        )
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(x_label)
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.xaxis.set_major_locator(_ticker().MaxNLocator(5))

    return _svg(key, draw, 62 + 25 * len(rows), alt)


def corner_plot(
    key: str, names: Sequence[str], draws_SxK: np.ndarray, at_K: Sequence[float], alt: str
) -> Markup:
    """Every pair of K quantities over S draws, as dots, and each by itself, as a histogram.

    Axes leave out the hundredth of the draws that lies farthest out on each side.

    Args:
      key: begins the ids of the SVG's parts; one a page.
      names: of the quantities.
      draws_SxK: the draws, finite.
      at_K: a value of each that is marked.
      alt: what the picture shows, in words.
    """
    K = len(names)
    ends_Kx2 = np.quantile(draws_SxK, [0.01, 0.99], axis=0).T
    ends_Kx2 = np.stack(
        [np.minimum(ends_Kx2[:, 0], at_K), np.maximum(ends_Kx2[:, 1], at_K)], axis=1
    )
    room_K = 0.06 * np.ptp(ends_Kx2, axis=1) + 1e-12
    ends_Kx2 += room_K[:, None] * [-1, 1]

    def draw(figure: Any) -> None:
        grid = figure.subplots(K, K, squeeze=False)
        for row in range(K):
            for column in range(K):
                axes = grid[row, column]
                if column > row:
                    axes.set_axis_off()
                    continue
                x_S, y_S = draws_SxK[:, column], draws_SxK[:, row]
                _few_ticks(axes, bottom=row == K - 1, left=column == 0 and row > 0)
                if row == column:
                    axes.hist(x_S, bins=16, range=tuple(ends_Kx2[row]), color=SERIES[0])
                    axes.set_yticks([])
                    axes.spines["left"].set_visible(False)
                else:
                    axes.plot(x_S, y_S, "o", ms=2.2, mew=0, color=SERIES[0])
                    axes.plot(at_K[column], at_K[row], "D", ms=5, mew=0, color=SERIES[1])
                    axes.set_ylim(*ends_Kx2[row])
                axes.axvline(at_K[column], color=SERIES[1], lw=1)
                axes.set_xlim(*ends_Kx2[column])
                if row == K - 1:
                    axes.set_xlabel(names[column])
                if column == 0 and row > 0:
                    axes.set_ylabel(names[row])

    return _svg(key, draw, max(200, 105 * K), alt)


def _few_ticks(axes: Any, bottom: bool, left: bool) -> None:
    """At most three numbers on an axis, and those only where the axis is the grid's edge."""
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(2))
    axes.yaxis.set_major_locator(_ticker().MaxNLocator(2))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_ticker().FuncFormatter(lambda v, _: _tick(v)))
    axes.tick_params(labelbottom=bottom, labelleft=left, labelsize=10.5)


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker


def _tick(value: float) -> str:
    """`2.5M`, `40k`, `300`, `0.5`: the short form of a tick's number."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}{suffix}".replace("-", "−")
    return (number(value) if abs(value) < 1e-3 else f"{value:.4g}").replace("-", "−")


def _svg(key: str, draw: Callable[[Any], None], height: float, alt: str) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "font.size": 12.5,
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a `$` in a name is a dollar sign
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
    out = io.BytesIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Names may hold signs that matplotlib's font lacks; the reader's browser draws them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        draw(figure)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), key, alt)


def _inline(svg: bytes, key: str, alt: str) -> Markup:
    """An SVG file as part of an HTML page: ids of its own, no style rules, colours as variables."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set(name, f"{key}-{value}")
            elif name == f"{{{_XLINK}}}href":
                element.set(name, value.replace("#", f"#{key}-", 1))
            elif name == "clip-path":
                element.set(name, value.replace("url(#", f"url(#{key}-", 1))
            elif name == "style":
                for colour in _VARIABLES:
                    value = value.replace(colour, css(colour))
                element.set(name, value.replace("'DejaVu Sans'", "var(--font),sans-serif"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"class": "plot", "role": "img", "aria-label": alt})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))
