"""Every command on two processes gives the figures of one; none reads what is not there yet.

CI starts a few once: quickstart runs most of the others. REPEATS=10 starts each of all ten times.
"""

import itertools
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from forget_jax.cli import COMMANDS

REPEATS = int(os.environ.get("REPEATS", "1"))
IN_CI = ("quickstart", "finetune", "score")
TRAIN = {"train.steps": 4, "train.batch_size": 4, "train.lr": 0.01, "train.buckets": 1}
TUNE = {**TRAIN, "lora.rank": 2}
SKILLS = ",".join(f"builtin:skill/{name}[:12]" for name in ("addition", "reversal", "sorting"))
TASKS = {"tasks": SKILLS, "upstream": "builtin:skills[:24]", "data.context": 64}
PARTS = {
    "finetune": {**TUNE, "data.path": "builtin:skill/addition[:12]"},
    "score": {"data.path": "builtin:skills[:24]", "score.buckets": 1, "score.chunk": 8},
    "associate": {**TUNE, **TASKS, "repeat_tasks": 1, "score.buckets": 1},
    "replay": {
        **TUNE,
        **TASKS,
        "tasks": "builtin:skill/addition[:12]",
        "score.buckets": 1,
        "replay.observed": 6,
        "replay.ratio": 0.125,
        "replay.method": "additive",
    },
    "scaling": {
        "task": "builtin:skill/addition[:12]",
        "upstream": "builtin:skills[:12]",
        "ranks": "1,2",
        "steps": "2,4,6",
        "data.context": 64,
        "train.batch_size": 4,
        "train.lr": 0.1,
        "laws": "constant,linear",
    },
    "factoids": {
        "stage_a": "builtin:short_facts[:6]",
        "stage_b": "builtin:short_facts/B[:6]",
        "mix": "builtin:random_words/3[:12]",
        "epochs": 3,
        "max_new_tokens": 16,
        "arms": "naive,mix in A,kl,redraw:20 + ewc",
        "train.batch_size": 4,
    },
    "predict": {"split.test_tasks": "1", "observed": 6, "seeds": 2},
    "probes": {"observed": 6, "seeds": 2},
    "evaluate": {"split.test_tasks": "1", "observed": 6, "seeds": 2},
    "check": {"sets": "builtin:skills[:12],builtin:short_facts[:6]", "score.buckets": 1},
    "mix": {"task": "builtin:skill/addition[:12]", "mix.observed": 6, "mix.ratio": 0.25},
    "plan": {"ask": "forgetting", "rank": 2, "steps": 12, "lr": 0.1, "law": "K*P^x*steps^y"},
    "bench": {"what": "matmul", "quick": "true"},
}
FEW = {"methods": "column_mean,additive"}
# What fits make of a few points of a tiny model magnifies rounding; the points are compared.
FITTED = ("checks",)
# How rows lie on devices, where a run is, and figures within a text, which are rounded otherwise.
PLACED = ("real_tokens", "useful_fraction", "path", "trainers", "why")
OF_A_MODEL = ("finetune", "score", "associate", "replay", "scaling", "factoids", "mix", "check")


def line(command, fields):
    return [command, *(f"--config.{key}={value}" for key, value in fields.items())]


@pytest.fixture(scope="module")
def lines(tiny_base, pretrain_arguments, finished, tmp_path_factory):
    """A function that gives the arguments of a command, which take seconds."""
    matrix = tmp_path_factory.mktemp("two") / "matrix.csv"
    z_MxN = np.random.default_rng(0).normal(size=(6, 24))
    pd.DataFrame(z_MxN, [f"t{m}" for m in range(6)]).to_csv(matrix)
    points = [
        {"run": f"r{r}s{s}", "rank": r, "P": 100 * r, "seed": s, "lr": 0.1, "steps": t}
        | {"l_f": 1 + 0.02 * r**0.2 * t**0.5 * (1 + 0.05 * s), "l_ft": 2 - 0.1 * t**0.5}
        for r, s, t in itertools.product((1, 2, 4), (0, 1), (5, 10, 20))
    ]
    measured = tmp_path_factory.mktemp("points") / "points.csv"
    pd.DataFrame(points).to_csv(measured, index=False)
    model = {"model.path": tiny_base}

    def of(command):
        if command == "pretrain":
            return pretrain_arguments
        if command == "export":
            return line(command, {"source": finished(of("finetune"))})
        fields = dict(PARTS.get(command, {}))
        if command in OF_A_MODEL:
            fields |= model
        if command in ("score", "check"):
            fields["adapters"] = finished(of("finetune")) / "adapter"
        elif command in ("replay", "mix"):
            fields["matrix.path"] = finished(of("associate")) / "forgetting.zarr"
            if command == "mix":
                fields["adapter"] = finished(of("finetune")) / "adapter"
        elif command == "plan":
            fields["points.path"] = measured
        elif command in ("predict", "evaluate", "probes"):
            fields |= {"matrix.path": matrix} | (FEW if command != "probes" else {})
        elif command == "quickstart":
            fields["base"] = tiny_base
            for stage in ("associate", "predict", "replay", "scaling", "factoids"):
                fields |= {f"{stage}.{key}": value for key, value in PARTS[stage].items()}
            fields["predict.methods"] = FEW["methods"]
        return line(command, fields)

    return of


@pytest.fixture
def differences(figures):
    """A function that says where two workdirs' results differ by more than rounding."""

    def compare(found, wanted, at):
        if isinstance(wanted, dict):
            assert isinstance(found, dict) and list(found) == list(wanted), at
            for key, value in wanted.items():
                if key not in (*PLACED, *FITTED):
                    yield from compare(found[key], value, f"{at}.{key}")
        elif isinstance(wanted, list):
            assert isinstance(found, list) and len(found) == len(wanted), at
            for i, value in enumerate(wanted):
                yield from compare(found[i], value, f"{at}[{i}]")
        elif isinstance(wanted, float):
            if not np.isclose(found, wanted, rtol=1e-3, atol=2e-5, equal_nan=True):
                yield f"{at}: {found}, not {wanted}"
        elif found != wanted:
            yield f"{at}: {found}, not {wanted}"

    def results(work):
        kept = {}
        for file in sorted(work.rglob("*")):
            name = str(file.relative_to(work))
            if file.name == "summary.json":
                kept[name] = figures(file.parent)
            elif file.name == "points.csv":
                kept[name] = pd.read_csv(file).to_dict("list")
            elif file.name == "train.jsonl":
                kept[name] = [json.loads(row) for row in file.read_text().splitlines()]
            elif file.name == "scores.parquet":
                table = pd.read_parquet(file).sort_values(["model", "example"])
                kept[name] = table.to_dict("list")
            elif file.name == "forgetting.zarr":
                held = xr.open_zarr(file, consolidated=False).load().sortby("task")
                kept[name] = {key: held[key].values.tolist() for key in sorted(held.variables)}
        return json.loads(json.dumps(kept, default=str))

    return lambda found, wanted: list(compare(results(found), results(wanted), "results"))


@pytest.mark.slow
@pytest.mark.parametrize("command", IN_CI if "REPEATS" not in os.environ else COMMANDS)
def test_the_figures_of_one(command, lines, finished, on_two_processes, differences, tmp_path):
    arguments = lines(command)
    whole = finished(lines("probes") if command == "report" else arguments)
    for number in range(REPEATS):
        work = tmp_path / f"{number}"
        if command == "report":
            shutil.copytree(whole, work, ignore=shutil.ignore_patterns("report.html"))
        on_two_processes([*arguments, f"--workdir={work}"])
        assert (work / "report.html").exists()
        if command != "bench":
            assert differences(work, whole) == [], f"start {number}"
