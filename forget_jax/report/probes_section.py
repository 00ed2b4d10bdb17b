"""The section about probes: how many upstream examples to measure for a new task, and which."""

from collections.abc import Mapping, Sequence
from typing import Any

from forget_jax.report.plots import SERIES, Line, legend, xy_plot
from forget_jax.report.section import Figure, Section, Table, number

METRICS = {
    "rmse": "RMSE of the row",
    "row_mean_error": "error of the row's mean",
    "precision_at_k": "share found of the most forgotten",
}


def probes_section(
    expected: Sequence[Mapping[str, float]],
    columns_by_aim: Mapping[str, Sequence[str]],
    compared: Mapping[str, Mapping[str, Any]],
    means: Mapping[str, Mapping[float, float]] | None = None,
) -> Section:
    """Expected error by number of random probes, and the examples chosen for every aim.

    Args:
      expected: records of `observed`, `rmse`, `low`, `high` (central 90 % of held-out tasks) and
        `bound` (a new task stays below it with 90 % probability; None where it is infinite).
      columns_by_aim: names of the chosen examples, by what they are to decide.
      compared: by aim, the `metric` it is judged by, its means with `chosen` and with `random`
        probes, and of their difference `mean`, `low` and `high`; empty where they were not
        compared.
      means: by group of examples the bound of its mean's error, by number of random probes.
    """
    x = [e["observed"] for e in expected]
    lines = [
        Line(x, [e["rmse"] for e in expected], SERIES[0], "mean over held-out tasks", "line+dot"),
        Line(x, [e["low"] for e in expected], SERIES[1], "5th percentile of tasks", "dash"),
        Line(x, [e["high"] for e in expected], SERIES[1], "95th percentile of tasks", "dash"),
    ]
    alt = "RMSE by number of probes: " + ", ".join(
        f"{e['observed']}: {number(e['rmse'])}" for e in expected
    )
    figure = Figure(
        "RMSE of the rest of the row, by number of random probes",
        "Every task of the matrix in turn plays the new one and is predicted from the others.",
        alt,
        xy_plot("probes-rmse", lines, "probes", "RMSE (nats)", alt),
        legend(lines),
    )
    errors = Table(
        "Expected error",
        ("probes", "RMSE", "5 %", "95 %", "bound"),
        tuple((e["observed"], e["rmse"], e["low"], e["high"], e.get("bound")) for e in expected),
        note="A new task like these stays below the bound with 90 % probability; – is no promise.",
    )
    aims = list(columns_by_aim)
    most = max((len(names) for names in columns_by_aim.values()), default=0)
    chosen = Table(
        "Chosen examples, the most telling first",
        tuple(aims),
        tuple(
            tuple(names[i] if i < len(names) else "" for names in columns_by_aim.values())
            for i in range(most)
        ),
        note="Random probes are a safe choice too: chosen ones were not better on every matrix.",
    )
    against = Table(
        "Chosen against random probes",
        ("aim", "judged by", "chosen", "random", "difference", "95 % from", "to"),
        tuple(_row(aim, found) for aim, found in compared.items()),
        note="Every fourth task is predicted from its probes, on random halves of the examples "
        "that neither kind may probe. Where the interval holds zero, choosing made no difference.",
    )
    lead = (
        "How well a new task's row is predicted depends on how many of its entries are measured. "
        "The tables say what error to expect and which examples to measure for which purpose."
    )
    by_mean = Table(
        "Error of means, by number of probes",
        ("examples", *(str(n) for n in x)),
        tuple((name, *(bounds[n] for n in x)) for name, bounds in (means or {}).items()),
        note="A new task like these stays below with 90 % probability; – is no promise.",
    )
    tables = tuple(
        table for table in (errors, by_mean, chosen, against) if table.rows or table is errors
    )
    return Section("probes", "What to measure next", lead, (figure,), tables)


def _row(aim: str, found: Mapping[str, Any]) -> tuple[str | float, ...]:
    numbers = (found[name] for name in ("chosen", "random", "mean", "low", "high"))
    return aim, METRICS.get(found["metric"], found["metric"]), *numbers
