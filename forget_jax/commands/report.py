"""`forget-jax report`: rebuilds a workdir's report.html from its files alone."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import numpy as np
import pandas as pd

from forget_jax import distributed, files
from forget_jax import report as room
from forget_jax.associations import matrix
from forget_jax.commands import summaries
from forget_jax.commands.summaries import Failed, Summary
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.report import Section
from forget_jax.runs.metrics import Metrics
from forget_jax.scoring import disk


def build(workdir: PathLike) -> Path:
    """Writes report.html and returns its path; of many processes only process 0 does.

    Raises:
      UserError: the workdir holds no run that has ended, or one of another version.
    """
    work = Path(workdir)
    if not distributed.is_writer():
        return work / "report.html"
    if not (work / "summary.json").exists():
        raise UserError(f"{workdir} holds no run that has ended (no summary.json)")
    files.write_text(work / "report.html", html(work, summaries.load(work / "summary.json")))
    return work / "report.html"


def html(folder: Path, summary: Summary) -> str:
    """The page of a run.

    Args:
      folder: the run's, for its metrics and tables.
      summary: its figures.

    Raises:
      UserError: a file of the run is not there or cannot be drawn.
    """
    return room.page(f"forget_jax: {summary.command}", sections(folder, summary), _facts(summary))


def sections(folder: Path, summary: Summary) -> list[Section]:
    """The chapters of a run's page; arguments and errors are those of `html`."""
    match summary:
        case summaries.Export():
            return []
        case summaries.Pretrain():
            return [_training(folder, "pretrain", "Training the base")]
        case summaries.Finetune():
            return [_training(folder, "finetune", "Training")]
        case summaries.Score():
            return _score(folder)
        case summaries.Associate():
            return _associate(folder, summary)
        case summaries.Evaluate():
            return [_evaluate(summary)]
        case summaries.Predict():
            return [_predicted(name, task, summary) for name, task in summary.tasks.items()]
        case summaries.Probes():
            return [_probes(summary)]
        case summaries.Replay():
            return [_replay(summary)]
        case summaries.Mix():
            return [_mix(summary)]
        case summaries.Scaling():
            return [_scaling(folder, summary)]
        case summaries.Plan():
            return [_plan(folder, summary)]
        case summaries.Factoids():
            return [_factoids(summary)]
        case summaries.Bench():
            return [room.bench_section(summary.what, summary.rows, summary.ratio, summary.notes)]
        case summaries.Quickstart():
            return _quickstart(folder, summary)
        case _:
            assert_never(summary)


def _facts(summary: Summary) -> dict[str, str]:
    """The summary's plain figures, for the head of the page."""
    facts = {}
    for key, value in summaries.to_json(summary).items():
        if isinstance(value, float):
            facts[key.replace("_", " ")] = f"{value:,.4g}"
        elif isinstance(value, int | str):
            facts[key.replace("_", " ")] = f"{value:,}" if isinstance(value, int) else value
    return facts


def _training(
    folder: Path, stage: str, title: str, failed: Mapping[str, Failed] | None = None
) -> Section:
    records = Metrics(folder / "metrics.jsonl").stage(stage)
    curves: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for name, loss in record["loss"].items():
            curve = curves.setdefault(name, {"step": [], "loss": []})
            curve["step"].append(record["step"])
            curve["loss"].append(loss)
    facts = _heldout(records)
    for name, why in (failed or {}).items():
        facts[f"left out: {name}"] = f"its loss was not finite at step {why.step}"
    return room.training_section(curves, facts, key=f"{stage}-training", title=title)


def _heldout(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The least held-out loss of every task that has one, and when it was taken."""
    taken: dict[str, list[tuple[float, int]]] = {}
    for record in records:
        for name, loss in record.get("heldout", {}).items():
            if loss is not None:
                taken.setdefault(name, []).append((loss, record["step"]))
    return {
        f"held-out loss of {name}": f"{min(pairs)[0]:.3f} at step {min(pairs)[1]}, the least of "
        f"{len(pairs)} taken; that state is the result"
        for name, pairs in taken.items()
    }


def _score(folder: Path) -> list[Section]:
    table = disk.read(folder / "scores.zarr")
    nll = table.nll_sum.values / table.tokens.values
    names = [str(m) for m in table.model.values]
    scores = room.score_section(
        dict(zip(names, nll, strict=True)),
        dict(zip(names, table.tokens.values.sum(1).tolist(), strict=True)),
    )
    if not (folder / "forgetting.zarr").exists():
        return [scores]
    return [room.matrix_section(_forgetting(folder)), scores]


def _forgetting(folder: Path) -> room.Forgetting:
    found = matrix.load(folder / "forgetting.zarr")
    texts = {r["name"]: r["text"] for r in files.read_json(folder / "examples.json")}
    return room.Forgetting(
        np.asarray(found.z_MxN),
        found.tasks,
        found.examples,
        found.sources,
        [texts[name] for name in found.examples],
        found.metric or "nll",
    )


def _associate(folder: Path, summary: summaries.Associate) -> list[Section]:
    return [
        room.matrix_section(_forgetting(folder), repeat=summary.test_retest),
        room.rank_section(
            summary.r2_rank,
            summary.r2_additive,
            summary.r2_row,
            summary.r2_column,
            f1_rank=summary.f1_rank or (),
        ),
        _training(folder, "associate", "Training on the tasks", summary.failed),
    ]


def _evaluate(summary: summaries.Evaluate) -> Section:
    methods = {
        name: room.Completed(m.rmse, m.rmse_std, m.f1, m.seconds)
        for name, m in summary.methods.items()
    }
    return room.methods_section(methods, summary.observed, summary.seeds)


def _predicted(name: str, task: summaries.PredictedTask, summary: summaries.Predict) -> Section:
    means = {
        source: room.PredictedMean(
            m.z,
            m.low,
            m.high,
            m.examples,
            m.measured,
            (m.robust.z, m.robust.low, m.robust.high) if m.robust else None,
        )
        for source, m in {"all examples": task.mean, **task.sources}.items()
    }
    most = [
        room.PredictedExample(e.example, e.source, e.z, e.low, e.high, e.measured, e.text)
        for e in task.most_forgotten
    ]
    return room.predicted_section(name, means, most, summary.coverage, task.expected_rmse)


def _probes(summary: summaries.Probes) -> Section:
    expected = [vars(e) for e in summary.expected_errors]
    means = {
        name or "all examples": {
            float(e.observed): e.means[name].bound for e in summary.expected_errors
        }
        for name in (summary.expected_errors[0].means if summary.expected_errors else ())
    }
    compared = {aim: vars(found) for aim, found in (summary.against_random or {}).items()}
    return room.probes_section(expected, summary.columns_by_aim, compared, means)


def _replay(summary: summaries.Replay) -> Section:
    ways = {
        name: room.Replayed(
            s.upstream_nll,
            s.task_loss,
            s.z,
            s.loss,
            s.strategy,
            s.recovered,
            s.extra_forward + s.extra_training,
        )
        for name, s in summary.replay.items()
    }
    tests = {
        name: room.PairedTest(
            t.pairs, t.mean, t.low, t.high, t.p, t.p_holm, t.tasks, t.tasks_needed
        )
        for name, t in summary.paired_test.items()
    }
    rooms = {name: room.Room(r.mean, r.noise, r.enough) for name, r in summary.headroom.items()}
    return room.replay_section(room.Replays(ways, tests, rooms, summary.seeds))


def _mix(summary: summaries.Mix) -> Section:
    rows = [room.MixedRow(r.name, r.weight, r.why, r.text) for r in summary.rows]
    curve = [room.CurvePoint(p.ratio, p.z, p.z_half, p.loss, p.loss_half) for p in summary.curve]
    counts = (summary.task_rows, summary.replayed, summary.candidates)
    expected = room.Expected(summary.expected_z, summary.expected_z_by_source, summary.saved)
    return room.mix_section(rows, counts, expected, curve, summary.trainers)


def _scaling(folder: Path, summary: summaries.Scaling) -> Section:
    points = pd.read_csv(io.BytesIO((folder / "points.csv").read_bytes()))
    for name in ("P", "steps", "l_ft", "l_f"):
        points[name] = points.get(name, np.nan)  # what a table from elsewhere lacks is not drawn
    if "run" not in points:
        points["run"] = points["P"].astype(str)
    laws = {
        name: room.FittedLaw(f.params, f.ci, f.r2, f.bic, f.heldout_error, f.warnings)
        for name, f in summary.laws.items()
    }
    curves = {name: room.LawSurface(c.P, c.steps, c.l_f) for name, c in summary.curves.items()}
    checks, part = _checks(summary.checks), _part(points)
    return room.scaling_section(points.to_dict("list"), laws, curves, summary.seeds, checks, part)


def _part(points: pd.DataFrame) -> room.Part | None:
    """One task, method and learning rate of a sweep over several: the middle of those sorted."""
    rows, words = pd.Series(True, index=points.index), []
    for name, said in (("method", "method"), ("task", "task"), ("lr", "learning rate")):
        if name not in points or points[name].nunique() < 2:
            continue
        values = sorted(points.loc[rows, name].unique().tolist())
        value = "lora" if "lora" in values else values[len(values) // 2]
        rows &= points[name] == value
        words.append(f"{said} {value:g}" if isinstance(value, float) else f"{said} {value}")
    return room.Part(rows.tolist(), ", ".join(words)) if words else None


def _checks(c: summaries.Checks) -> room.LawChecks:
    line = (c.eq4.s, -c.eq4.c) if c.eq4 else None
    ranks = zip(c.eq4.ranks, c.eq4.slopes, c.eq4.levels, strict=True) if c.eq4 else ()
    return room.LawChecks(
        tried={
            split: {n: (t.signed, t.error, t.coverage, t.points) for n, t in laws.items()}
            for split, laws in c.tried.items()
        },
        line=line,
        ranks=tuple(ranks),
        p_level=c.eq4.p_level if c.eq4 else None,
        p_slope=c.eq4.p_slope if c.eq4 else None,
        test=c.eq4.test if c.eq4 else "",
        best=c.best,
        residuals=c.residuals,
        fan=[room.Extrapolated(**vars(f)) for f in c.fan],
        rho=(c.rho.values, c.rho.deviance) if c.rho else None,
    )


def _plan(folder: Path, summary: summaries.Plan) -> Section:
    points = pd.read_csv(io.BytesIO((folder / "points.csv").read_bytes()))
    planned = [
        room.Planned(
            P=a.P,
            rank=a.rank,
            lr=a.lr,
            steps=a.steps,
            steps_interval=(a.steps_low, a.steps_high),
            forgetting=a.forgetting,
            run_interval=(a.run_low, a.run_high),
            l_ft=a.l_ft,
        )
        for a in (summary.answer, *summary.others)
    ]
    basis = room.PlanBasis(
        law=summary.law,
        formula=summary.formula,
        target=summary.target,
        limit=summary.limit,
        level=summary.level,
        laws={n: (c.r2, c.bic, c.heldout_error) for n, c in summary.laws.items()},
        nulls=summary.nulls,
        tried={n: (t.signed, t.error, t.coverage, t.points) for n, t in summary.tried.items()},
        valid=summary.valid,
        warnings=summary.warnings,
        unseen={
            run: room.UnseenRow(
                steps=u.steps,
                measured=u.measured,
                predicted=u.predicted,
                interval=(u.low, u.high),
                coverage=u.coverage,
                limit=u.limit,
                reached=u.reached,
                planned=u.planned,
                planned_interval=(u.planned_low, u.planned_high),
            )
            for run, u in summary.unseen.items()
        },
    )
    measured = {
        "P": points["P"] if "P" in points else [summary.answer.P] * len(points),
        "steps": points["steps"],
        "forgetting": points[summary.target] - summary.baseline,
    }
    return room.plan_section(planned, basis, vars(summary.curve), measured)


def _factoids(summary: summaries.Factoids) -> Section:
    arms = {name: room.FactsKept(**vars(arm)) for name, arm in summary.by_seed.items()}
    differences = {
        name: (d.mean, *(math.nan if x is None else x for x in (d.low, d.high, d.p, d.p_holm)))
        for name, d in summary.paired_test.items()
    }
    compared = room.FactsCompared(differences, summary.after, summary.headroom)
    return room.factoids_section(arms, summary.seeds, compared)


# What the reader wants to know first comes first.
STORY = ("associate", "predict", "replay", "scaling", "factoids", "pretrain")


def _quickstart(folder: Path, summary: summaries.Quickstart) -> list[Section]:
    found = []
    for stage in STORY:
        if stage not in summary.seconds:
            continue  # no base was trained
        found += sections(folder / stage, summaries.load(folder / stage / "summary.json"))
    found.sort(key=lambda section: section.key.endswith("-training"))  # stable: training last
    seconds = {k: v for k, v in summary.seconds.items() if k != summaries.TOTAL}
    return [*found, room.timing_section(seconds)]
