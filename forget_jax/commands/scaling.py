"""`forget-jax scaling`: forgetting over ranks and steps (or a table of points), and its laws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import files, scaling
from forget_jax.commands import law_checks, points, sweep, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Scaling
from forget_jax.commands.summaries import Law, Surface
from forget_jax.commands.summaries import Scaling as Summary
from forget_jax.errors import UserError, nearest
from forget_jax.fleet import grid
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scaling import formula, tables


def check(settings: Scaling) -> None:
    """Refuses an empty grid, or no law, before anything is trained."""
    if not (settings.laws or settings.formulas):
        raise UserError("no law could be fitted; laws is empty")
    for text in settings.formulas:
        formula.check(text)
    if settings.separate and not settings.by:
        raise UserError("separate names coefficients; give by, the column of their groups")
    values.check_alone(settings.train, "scaling")
    columns = tuple(grid.UNITS)
    if not settings.points.path and settings.target not in ("", *columns):
        raise UserError(
            f"config.target is {settings.target!r}{nearest(settings.target, columns)}; a grid has "
            f"the columns {', '.join(columns)}"
        )
    if not settings.points.path:
        sweep.check(settings)


def run(settings: Scaling, work: Workdir) -> Ended:
    """Measures the grid (or reads it) and fits the laws; resumes."""
    path = settings.points.path
    failed_runs: dict[str, str] = {}
    if path:
        table = points.read(path)
    else:
        table, failed_runs = sweep.measure(settings, work)
    files.write_text(work / "points.csv", table.to_csv(index=False))
    files.write_bytes(work / "points.parquet", tables.parquet(table))
    fits: dict[str, scaling.Fit] = {}
    failed: dict[str, str] = {}
    options: dict[str, Any] = {"by": settings.by, "separate": settings.separate}
    laws = (*settings.laws, *settings.formulas)
    with Progress("fit laws", len(laws), unit="law") as progress:
        for number, law in enumerate(laws):
            try:
                fits[law] = scaling.fit(law, table, target=settings.target or None, **options)
            except UserError as e:
                failed[law] = str(e)
            progress.at(number + 1, law)
    if not fits:
        raise UserError(f"no law could be fitted; {next(iter(failed.values()))}")
    summary = Summary(
        laws={name: _law(f) for name, f in fits.items()},
        not_fitted=failed,
        failed=failed_runs,
        points=len(table),
        runs=int(table["run"].nunique()) if "run" in table else None,
        seeds=int(table["seed"].nunique()) if "seed" in table else 1,
        curves=_curves(fits, table),
        checks=law_checks.checks(table, fits, settings.target or None),
        seconds=work.seconds(),
    )
    best = min(fits, key=lambda n: fits[n].bic)
    return Ended(
        summary,
        f"{len(table)} points; lowest BIC: {best} (R² {summary.laws[best].r2:.3f})",
    )


def _law(f: scaling.Fit) -> Law:
    return Law(
        params=f.params,
        ci=f.ci,
        r2=f.r2,
        bic=f.bic,
        heldout_error=f.heldout_error,
        heldout=f.heldout,
        converged=f.converged,
        warnings=tuple(f.warnings),
    )


def _curves(fits: Mapping[str, scaling.Fit], table: pd.DataFrame) -> dict[str, Surface]:
    """The predicted surface of every law over (P, steps), for the picture."""
    if not {"P", "steps"} <= set(table):
        return {}
    sizes = np.unique(table["P"])
    steps = np.geomspace(table["steps"].min(), table["steps"].max(), 40)

    def surface(f: scaling.Fit) -> Surface:
        predicted = f.predict(P=sizes[:, None], steps=steps[None])
        l_f = np.broadcast_to(predicted, (len(sizes), len(steps)))
        rows: Any = l_f.tolist()
        return Surface(P=tuple(sizes.tolist()), steps=tuple(steps.tolist()), l_f=tuple(rows))

    drawn = {"P", "steps"}
    return {
        n: surface(f)
        for n, f in fits.items()
        if set(f.definition.columns) <= drawn and not f.definition.by
    }
