"""`forget-jax report`: rebuilds a workdir's report.html from its files alone.

A large matrix lies beside it, in the folder `report`.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import numpy as np
import pandas as pd

from forget_jax import distributed, files
from forget_jax import report as room
from forget_jax.associations.components import leading_components
from forget_jax.associations.summary import statistics
from forget_jax.commands import check_texts, matrices, summaries
from forget_jax.commands.summaries import Failed, Summary
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.report import Section
from forget_jax.runs.metrics import Metrics
from forget_jax.scoring import disk

# Figures that are written in larger units, by their key: their name then, and the unit.
UNITS = {
    "peak_memory": ("peak memory, GiB", 2**30),
    "peak_bytes": ("peak memory, GiB", 2**30),
    "bytes": ("size, MiB", 2**20),
    "flops_per_second": ("GFLOP a second", 1e9),
    "matmul_flops": ("matmul, GFLOP a second", 1e9),
}
COMPONENTS = 3  # of a matrix, at most
COMPLETE = 50_000_000  # entries beyond which components are not sought for a page
MATRIX = "forgetting.zarr"
RANKS = 5  # of the R² table of a bare matrix


def build(workdir: PathLike, bare: PathLike = "") -> Path:
    """Writes report.html and returns its path; of many processes only process 0 does.

    Args:
      workdir: of a run that has ended; with `bare`, any folder to write to.
      bare: a matrix that is no run's, whose page is made.

    Raises:
      UserError: the workdir holds no run that has ended, or one of another version; or no matrix.
    """
    work = Path(workdir)
    if not distributed.is_writer():
        return work / "report.html"
    if bare:
        if (work / "summary.json").exists():
            raise UserError(f"{workdir} is a run's folder: give another --workdir for the page")
        return _written(work, *_of_matrix(bare))
    if not (work / "summary.json").exists():
        raise UserError(f"{workdir} holds no run that has ended (no summary.json)")
    summary = summaries.load(work / "summary.json")
    found = sections(work, summary)
    return _written(work, found, _page(summary, found))


def _written(work: Path, found: Sequence[Section], page: str) -> Path:
    """Writes a page, after what its sections have too much of to carry in it."""
    for section in found:
        for name, text in section.files.items():
            files.write_text(work / "report" / name, text)
    files.write_text(work / "report.html", page)
    return work / "report.html"


def html(folder: Path, summary: Summary) -> str:
    """The page of a run.

    Args:
      folder: the run's, for its metrics and tables.
      summary: its figures.

    Raises:
      UserError: a file of the run is not there or cannot be drawn.
    """
    return _page(summary, sections(folder, summary))


def _page(summary: Summary, found: Sequence[Section]) -> str:
    return room.page(f"forget_jax: {summary.command}", found, _facts(summary))


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
        case summaries.Check():
            return _check(summary)
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
    """The summary's plain figures, for the end of the page."""
    facts = {}
    for key, value in summaries.to_json(summary).items():
        if key in UNITS and isinstance(value, int | float):
            name, size = UNITS[key]
            facts[name] = f"{value / size:,.4g}"
        elif isinstance(value, float):
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
    names = [str(m) for m in table.model.values]
    scores = room.score_section(
        dict(zip(names, table.nll_sum.values, strict=True)),
        dict(zip(names, table.tokens.values, strict=True)),
    )
    if not (folder / MATRIX).exists():
        return [scores]
    return [room.matrix_section(_forgetting(folder / MATRIX)), scores]


def _forgetting(path: PathLike) -> room.Forgetting:
    """A matrix by its path, with the texts that lie beside it."""
    found = matrices.load(path)
    texts = matrices.beginnings(path, matrices.BEGINNING)
    z_MxN = np.asarray(found.z_MxN)
    labels, component_N = _components(z_MxN, found.tasks)
    return room.Forgetting(
        z_MxN,
        found.tasks,
        found.examples,
        found.sources or ("",) * len(found.examples),
        [texts.get(name, "") for name in found.examples] if texts else None,
        found.metric or "nll",
        components=labels,
        component_N=component_N,
    )


def _components(z_MxN: np.ndarray, tasks: Sequence[str]) -> tuple[list[str], np.ndarray | None]:
    """Leading components of the complete columns, by their strongest tasks; and by example which it
    has most of, -1 where an entry is missing.
    """
    whole_N = np.isfinite(z_MxN).all(0)
    rank = min(COMPONENTS, len(tasks), int(whole_N.sum()))
    if len(tasks) < 2 or rank < 2 or z_MxN.size > COMPLETE:
        return [], None
    found = leading_components(z_MxN[:, whole_N], rank, n_tasks=2)
    sizes_RxN = [np.abs(c.example_N) * np.linalg.norm(c.task_M) for c in found]
    component_N = np.full(len(whole_N), -1)
    component_N[whole_N] = np.argmax(sizes_RxN, axis=0)
    labels = [
        f"{k + 1}: strongest under {' and '.join(tasks[i] for i in c.top_tasks)}"
        for k, c in enumerate(found)
    ]
    return labels, component_N


def _of_matrix(path: PathLike) -> tuple[list[Section], str]:
    """The sections of a matrix that is no run's, and their page."""
    found = _forgetting(path)
    simple = statistics(found.z_MxN, RANKS, found.metric == "exact_match")
    made = [room.matrix_section(found)]
    if simple["r2_rank"]:
        rank, additive, row, column, *f1 = simple.values()
        made.append(room.rank_section(rank, additive, row, column, f1_rank=f1[0] if f1 else ()))
    facts = {"matrix": str(path), "tasks": f"{len(found.tasks):,}"}
    facts["examples"] = f"{len(found.examples):,}"
    return made, room.page("forget_jax: matrix", made, facts)


def _associate(folder: Path, summary: summaries.Associate) -> list[Section]:
    return [
        room.matrix_section(_forgetting(folder / MATRIX), repeat=summary.test_retest),
        room.rank_section(
            summary.r2_rank,
            summary.r2_additive,
            summary.r2_row,
            summary.r2_column,
            f1_rank=summary.f1_rank or (),
        ),
        *(
            [_training(folder, "associate", "Training on the tasks", summary.failed)]
            if summary.training.steps
            else []
        ),
    ]


def _evaluate(summary: summaries.Evaluate) -> Section:
    methods = {
        name: room.Completed(
            *(m.rmse, m.rmse_std, m.f1, m.seconds),
            *(m.precision_at_k, m.precision_at_k_low, m.precision_at_k_high),
            *(m.brier, m.brier_clipped, m.brier_base),
            reliability=_reliability(m.reliability or ()),
        )
        for name, m in summary.methods.items()
    }
    paired = {
        name: room.PairedTest(t.seeds, t.mean, t.low, t.high, t.p)
        for name, t in summary.paired.items()
    }
    return room.methods_section(methods, summary.observed, summary.seeds, paired, summary.k)


def _reliability(bins: Sequence[summaries.ReliabilityBin]) -> list[room.Reliability]:
    return [room.Reliability(b.predicted, b.observed, b.entries) for b in bins]


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
        room.PredictedExample(
            e.example, e.source, e.z, e.low, e.high, e.measured, e.text, e.probability
        )
        for e in task.most_forgotten
    ]
    p = task.probabilities
    likely = None
    if p is not None:
        bins = _reliability(p.reliability)
        likely = room.PredictedProbabilities(p.brier, p.brier_base, bins)
    return room.predicted_section(
        name,
        means,
        most,
        summary.coverage,
        room.Learned(task.expected_rmse, task.side, task.training_losses),
        likely,
    )


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
            s.em,
            s.em_forgotten,
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


def _check(summary: summaries.Check) -> list[Section]:
    found = [
        room.Checked(
            model=model,
            set=name,
            examples=c.examples,
            z=c.z,
            low=c.low,
            high=c.high,
            z_tokens=c.z_tokens,
            noise=c.noise,
            lost=(said := check_texts.answers(c))[0],
            gained=said[1],
            p=said[2],
            limit=c.limit,
            verdict=check_texts.verdict(c),
            over=bool(c.over),
            worst=[(w.example, w.z, w.lost, w.text) for w in c.worst],
        )
        for model, of in summary.sets.items()
        for name, c in of.items()
    ]
    over = list(check_texts.over(summary.sets))
    answered = [
        room.Behaved(
            model=model,
            set=name,
            prompts=a.prompts,
            same=(a.same.share, a.same.low, a.same.high),
            alike=a.alike.share,
            right=_flips(a.right),
            refused=_flips(a.refused),
            limit=a.limit,
            over=a.over,
            changed=[(c.example, c.fate, c.prompt, c.before, c.after) for c in a.changed],
        )
        for model, of in summary.behaviour.items()
        for name, a in of.items()
    ]
    checked = room.check_section(found, over, summary.unit, summary.level)
    behaviour = room.behaviour_section(answered, summary.level)
    return [checked] * bool(found) + [behaviour] * bool(answered)


def _flips(f: summaries.Flipped | None) -> room.Flips | None:
    if f is None:
        return None
    held = (check_texts.held(f, "before"), check_texts.held(f, "after"))
    return room.Flips(*held, f.lost, f.gained, f.p)


def _mix(summary: summaries.Mix) -> Section:
    rows = [(r.name, r.weight, r.why, r.text) for r in summary.rows]
    points = [(p.ratio, p.z, p.z_half, p.loss) for p in summary.curve]
    counts = (summary.task_rows, summary.replayed, summary.candidates)
    expected = room.Expected(summary.expected_z, summary.expected_z_by_source, summary.saved)
    curve_Kx4 = np.array(points, float).reshape(-1, 4)  # None becomes NaN
    return room.mix_section(rows, counts, expected, curve_Kx4, summary.trainers)


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
    checks, part, marks = _checks(summary.checks), _part(points), _marks(points)
    columns = points.to_dict("list")
    return room.scaling_section(columns, laws, curves, summary.seeds, checks, part, marks)


def _marks(points: pd.DataFrame) -> list[room.Mark]:
    """Every setting after its numbers of steps, a mean over seeds; of one task, the first."""
    if "task" in points:
        points = points[points["task"] == sorted(points["task"].unique())[0]]
    names = {"method": "method", "rank": "rank", "lr": "learning rate"}
    if "rank" not in points:
        names["P"] = "P ="
    axes = [name for name in names if name in points and points[name].notna().all()]
    if not {"l_ft", "l_f", "steps"} <= set(points) or points[["l_ft", "l_f"]].isna().all().any():
        return []
    told = [name for name in axes if points[name].nunique() > 1]
    means = points.groupby([*axes, "steps"])[["l_ft", "l_f"]].mean().reset_index()
    sizes = points.groupby([*axes, "steps"])["P"].first().to_list()
    found = []
    for row, P in zip(means.to_dict("records"), sizes, strict=True):
        words = [row[n] if n == "method" else f"{names[n]} {row[n]:g}" for n in told]
        name = ", ".join(map(str, words)) or "the run"
        found.append(room.Mark(name, float(P), row["steps"], row["l_ft"], row["l_f"]))
    return found


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
        resampled=room.Resampled(**vars(c.draws)) if c.draws else None,
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
