"""A matrix of fine-tunes that exist: adapters, tables of scores, and pages of bare matrices."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from forget_jax.associations import improved, matrix
from forget_jax.associations.matrix import Matrix
from forget_jax.commands import matrices
from forget_jax.errors import UserError


@pytest.fixture(scope="module")
def adapters(finished, finetune_arguments, data_files):
    """Two fine-tunes, of two tasks."""
    return [
        str(finished([*finetune_arguments, f"--config.data.path={task}"]) / "adapter")
        for task in data_files.tasks[:2]
    ]


@pytest.fixture(scope="module")
def fields(tiny_base, data_files):
    return [
        *("associate", "--config=associate:existing", f"--config.model.path={tiny_base}"),
        *(f"--config.upstream={data_files.upstream}", "--config.score.buckets=1"),
    ]


@pytest.fixture(scope="module")
def work(finished, fields, adapters):
    return finished([*fields, f"--config.adapters={','.join(adapters)}"])


@pytest.fixture(scope="module")
def scored(finished, score_arguments, adapters):
    """A table of scores for each of the two."""
    argv = [*score_arguments, "--config.score.buckets=1"]
    return [str(finished([*argv, f"--config.adapters={one}"])) for one in adapters]


def summary_of(work):
    return json.loads((work / "summary.json").read_text())


def test_adapters_made_elsewhere_are_a_matrix(work, adapters):
    found = matrices.load(work)
    assert found.tasks == tuple(adapters) and found.z_MxN.shape == (2, 20)
    summary = summary_of(work)
    assert summary["steps"] == 0 and summary["loss_first"] is None
    assert summary["mean_z"] == pytest.approx(found.z_MxN.mean())
    assert len(summary["r2_rank"]) == 2
    page = (work / "report.html").read_text()
    assert "What was forgotten" in page and "Training on the tasks" not in page
    assert matrices.kept_examples(work, found.examples[:1])


def test_tables_of_scores_are_the_same_matrix(work, scored, run_cli, tmp_path):
    status, _, err = run_cli(
        *("associate", "--config=associate:existing", f"--config.scores={','.join(scored)}"),
        f"--workdir={tmp_path}",
    )
    assert status == 0, err
    found, wanted = matrices.load(tmp_path), matrices.load(work)
    assert (found.tasks, found.examples, found.sources) == (
        *(wanted.tasks, wanted.examples),
        wanted.sources,
    )
    # Of float32 losses near 5.5, whose steps are 5e-7; how they are summed is up to the processor.
    np.testing.assert_allclose(found.z_MxN, wanted.z_MxN, atol=3e-6)
    assert matrices.beginnings(tmp_path) == matrices.beginnings(work) != {}


def refused(run_cli, argv, work):
    status, _, err = run_cli(*argv, f"--workdir={work}")
    (line,) = [x for x in err.splitlines() if x.startswith("forget-jax: ")]
    assert status == 2 and "Traceback" not in err
    return line


def changed(path, change, tmp_path):
    """The scores of a run, changed, as parquet."""
    frame = pd.read_parquet(f"{path}/scores.parquet")
    change(frame).to_parquet(tmp_path / "changed.parquet")
    return tmp_path / "changed.parquet"


def drop(frame):
    return frame[frame.example != frame.example[3]]


def retokenise(frame):
    return frame.assign(tokens=frame.tokens + (frame.example == frame.example[3]))


def another_base(frame):
    return frame.assign(nll_sum=frame.nll_sum + 0.3 * frame.tokens * (frame.model == "base"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, "1 examples are scored under one of the base and"),
        (retokenise, "1 examples have other numbers of target tokens"),
        (another_base, "its base gives the examples another loss"),
    ],
)
def test_tables_that_do_not_fit_are_one_line(change, said, scored, run_cli, tmp_path):
    other = changed(scored[1], change, tmp_path)
    argv = ["associate", "--config=associate:existing", f"--config.scores={scored[0]},{other}"]
    assert said in refused(run_cli, argv, tmp_path / "run")


def test_one_fine_tune_twice_is_one_line(scored, run_cli, tmp_path):
    argv = ["associate", "--config=associate:existing", f"--config.scores={scored[0]},{scored[0]}"]
    assert "two models are called" in refused(run_cli, argv, tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--config.tasks=x.jsonl"], "leave tasks empty"),
        (["--config.metric=exact_match"], "metric=exact_match needs tasks that are trained here"),
        (["--config.scores=x.zarr"], "leave adapters, models and upstream out"),
        (["--config.upstream="], "no data set is named; give upstream"),
    ],
)
def test_what_does_not_go_with_adapters(given, said, fields, adapters, run_cli, tmp_path):
    argv = [*fields, f"--config.adapters={adapters[0]}", *given]
    assert said in refused(run_cli, argv, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sources_that_improve_are_told_from_those_that_are_forgotten():
    z_MxN = np.array([[0.1, 0.05, -2.0, -1.0], [0.0, np.nan, -3.0, -1.0]])
    found = Matrix(z_MxN, ("a", "b"), ("p", "q", "r", "s"), ("c4", "c4", "chat", "chat"), "nll")
    assert improved.improved(found) == {"chat": -1.75}
    left = improved.without(found, ["chat"])
    assert left.examples == ("p", "q") and left.sources == ("c4", "c4")
    np.testing.assert_array_equal(left.z_MxN, z_MxN[:, :2])
    bare = Matrix(z_MxN, ("a", "b"), ("p", "q", "r", "s"))
    assert list(improved.improved(bare)) == [""]
    with pytest.raises(UserError, match="every source improved strongly"):
        improved.without(bare, [""])
    right = Matrix(np.zeros((1, 2)), ("a",), ("p", "q"), metric="exact_match")
    assert improved.improved(right) == {} and improved.line({}, True) == ""


@pytest.fixture
def with_new_format(scored, tmp_path):
    """A table of scores of two sources, the second of which the fine-tune improves."""
    frame = pd.read_parquet(f"{scored[0]}/scores.parquet")
    rows = frame[frame.example.isin(frame.example[:5])].copy()
    rows["example"] = "new " + rows.example
    rows.loc[rows.model != "base", "nll_sum"] -= rows.tokens * 1.5
    table = pd.concat([frame.assign(source="old"), rows.assign(source="new")])
    wide = table.set_index(["model", "example"])[["nll_sum", "tokens"]].to_xarray()
    of = table.drop_duplicates("example").set_index("example").source
    wide = wide.assign_coords(source=("example", of[wide.example.values].values.astype(object)))
    wide = wide.assign_coords({k: wide[k].values.astype(object) for k in ("model", "example")})
    wide.to_zarr(tmp_path / "scores.zarr", consolidated=False)
    return tmp_path / "scores.zarr"


def test_columns_of_an_improved_source_are_told_and_left_out(with_new_format, run_cli, tmp_path):
    argv = ["associate", "--config=associate:existing", f"--config.scores={with_new_format}"]
    status, _, err = run_cli(*argv, f"--workdir={tmp_path / 'kept'}")
    assert status == 0 and "improved strongly, mean z in nats a token: new (-1." in err, err
    kept = summary_of(tmp_path / "kept")
    assert list(kept["improved"]) == ["new"] and kept["columns_improved"] == 0
    left = "--config.leave_improved=true"
    status, _, err = run_cli(*argv, left, f"--workdir={tmp_path / 'left'}")
    assert status == 0 and "their columns are left out" in err, err
    summary = summary_of(tmp_path / "left")
    assert summary["columns_improved"] == 5 and summary["examples"] == 20
    assert matrix.load(tmp_path / "left" / "forgetting.zarr").sources == ("old",) * 20


def test_records_with_their_texts(run_cli, score_arguments, adapters, tmp_path):
    status, _, err = run_cli(
        *(*score_arguments, f"--config.adapters={adapters[0]}", "--config.log_samples=true"),
        f"--workdir={tmp_path}",
    )
    assert status == 0, err
    records = [json.loads(x) for x in (tmp_path / "samples.jsonl").read_text().splitlines()]
    frame = pd.read_parquet(tmp_path / "scores.parquet")
    assert [r["example"] for r in records] == frame.example.tolist() and len(records) == 40
    assert all(r["doc"]["text"] and r["doc"]["name"] == r["example"] for r in records)
    assert [r["nll_sum"] for r in records] == pytest.approx(frame.nll_sum.tolist())
    found = matrices.load(tmp_path)
    z = {r["example"]: r["z"] for r in records if r["model"] == adapters[0]}
    assert [z[name] for name in found.examples] == pytest.approx(found.z_MxN[0].tolist())


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_a_bare_matrix_has_a_page(ending, run_cli, tmp_path):
    z_MxN = np.random.default_rng(0).normal(size=(4, 6))
    path = tmp_path / f"matrix.{ending}"
    if ending == "csv":
        pd.DataFrame(z_MxN, [f"task {i}" for i in range(4)]).to_csv(path)
    else:
        np.savez(path, z=z_MxN, sources=np.array(["a", "b"] * 3))
    argv = ["report", f"--config.matrix.path={path}", f"--workdir={tmp_path / 'page'}"]
    status, _, err = run_cli(*argv)
    assert status == 0, err
    page = (tmp_path / "page" / "report.html").read_text()
    assert "What was forgotten" in page and "rank" in page
    assert ("task 3" in page) == (ending == "csv")


def test_what_the_page_of_a_large_bare_matrix_reads_lies_beside_it(run_cli, tmp_path):
    path = tmp_path / "large.npz"
    np.savez(path, z=np.random.default_rng(0).normal(size=(60, 9000)).astype(np.float32))
    argv = ["report", f"--config.matrix.path={path}", f"--workdir={tmp_path / 'page'}"]
    assert run_cli(*argv)[0] == 0
    read = re.findall(r'src="([^"]+)"', (tmp_path / "page" / "report.html").read_text())
    assert read and all((tmp_path / "page" / name).exists() for name in read)


def test_a_page_over_a_run_is_refused(work, run_cli, tmp_path):
    argv = ["report", f"--config.matrix.path={work}", f"--workdir={work}"]
    status, _, err = run_cli(*argv)
    assert status == 2 and "is a run's folder" in err
    lacking = ["report", f"--config.matrix.path={tmp_path / 'no.csv'}", f"--workdir={tmp_path}"]
    status, _, err = run_cli(*lacking)
    assert status == 2 and "does not exist" in err
