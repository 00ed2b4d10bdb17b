"""Colours of the page: marks and texts stand out from what they are on, in light and in dark."""

import re

import pytest

from forget_jax.report import plots
from forget_jax.report.template import source

MARKS = (
    "accent",
    "plus",
    "minus",
    "faint",
    *(f"c{k}" for k in range(7)),
    *(f"r{k}" for k in range(6)),
)


def schemes() -> dict[str, dict[str, str]]:
    """The colour variables of page.css by scheme."""
    css = str(source("page.css"))
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    dark = dark[: dark.index("}\n}")]
    found = {
        name: dict(re.findall(r"--([a-z]+\d?): (#[0-9a-f]{3,6})\b", text))
        for name, text in (("light", light), ("dark", dark))
    }
    assert set(found["light"]) == set(found["dark"])
    return found


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(c + c for c in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_by_hand():
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_have_three_to_one_and_texts_four_and_a_half(scheme):
    colours = schemes()[scheme]
    for name in MARKS:
        assert contrast(colours[name], colours["bg"]) >= 3, name
    for name in ("ink", "muted", "accent"):
        assert min(contrast(colours[name], colours[on]) for on in ("bg", "panel")) >= 4.5, name


def test_plots_fall_back_on_the_light_colours():
    light = schemes()["light"]
    given = {plots.css(c)[6:].split(",")[0]: c for c in (*plots.SERIES, *plots.RAMP, plots.FAINT)}
    assert given == {name: light[name] for name in given} and len(given) == 14


def test_no_mark_is_made_fainter_than_its_colour():
    row = plots.Row("a", 1.0, 0.5, 1.5, points=(0.7, 1.2))
    drawn = str(plots.row_plot("k", [row], "x", "alt"))
    drawn += str(plots.xy_plot("l", [plots.Line([1, 2], [1, 2], plots.SERIES[0])], "x", "y", "alt"))
    assert not re.search(r"opacity: 0?\.", drawn)
