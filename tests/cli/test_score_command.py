"""`forget-jax score`: what it tables, how it resumes, and what it says of bad input."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from safetensors.numpy import load_file, save_file

from forget_jax.associations import matrix
from forget_jax.commands import matrices
from forget_jax.data import sources
from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.hf import base as bases
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.model import Adapters, Model
from forget_jax.scoring import table as scores

SETTINGS = (lora.LoRAConfig(rank=2), lora.LoRAConfig(rank=2), lora.LoRAConfig(rank=3, alpha=5.0))


@pytest.fixture(scope="module")
def adapters(tiny_base, tmp_path_factory):
    """Three adapters, the last of another setting."""
    model = checkpoint.load(tiny_base)
    paths = []
    for k, setting in enumerate(SETTINGS):
        one = lora.init(setting, model.params, jax.random.key(k))
        one = jax.tree.map(lambda x, k=k: x + 0.3 + 0.1 * k, one)
        paths.append(str(tmp_path_factory.mktemp("adapters") / f"a{k}"))
        peft.save(paths[-1], Adapters(setting, one), model.config, str(tiny_base))
    return paths


@pytest.fixture(scope="module")
def arguments(score_arguments, adapters):
    return [*score_arguments, f"--config.adapters={','.join(adapters)}"]


@pytest.fixture(scope="module")
def merged(tiny_base, adapters, tmp_path_factory):
    """The first adapter merged into the base: a whole fine-tuned checkpoint."""
    model = checkpoint.load(tiny_base)
    folder = tmp_path_factory.mktemp("merged") / "model"
    whole = lora.merge(SETTINGS[0], model.params, peft.load(adapters[0], model).tree)
    checkpoint.save(folder, Model(model.config, whole), tokenizers.load(tiny_base))
    return str(folder)


def table(work):
    with xr.open_zarr(work / "scores.zarr", consolidated=False) as found:
        return found.load()


def summary(work):
    return json.loads((work / "summary.json").read_text())


def moved(first, second):
    """The largest difference in nats a token of two tables' NLLs."""
    assert first.model.values.tolist() == second.model.values.tolist()
    return float((abs(first.nll_sum - second.nll_sum) / first.tokens).max())


def ran(run_cli, argv, work):
    status, _, err = run_cli(*argv, f"--workdir={work}")
    assert status == 0, err
    return err


def test_what_each_adapter_forgot_is_a_matrix(arguments, adapters, finished):
    work = finished(arguments)
    scored, found = table(work), matrix.load(work / "forgetting.zarr")
    nll = (scored.nll_sum / scored.tokens).values
    np.testing.assert_allclose(found.z_MxN, nll[1:] - nll[0])
    assert found.tasks == tuple(adapters) and set(found.sources) != {""}
    means = summary(work)["mean_z_by_model"]
    np.testing.assert_allclose(list(means.values()), found.z_MxN.mean(1))
    assert "What was forgotten" in (work / "report.html").read_text()
    np.testing.assert_array_equal(matrices.load(work).z_MxN, found.z_MxN)  # as a matrix.path
    probes, base = matrices.load_probes(work)
    assert probes.tasks == found.tasks and len(base) == len(found.examples)
    rows = matrices.kept_examples(work, found.examples[:2])
    assert [json.loads(row)["name"] for row in rows] == list(found.examples[:2])


def test_a_base_alone_has_no_matrix(score_arguments, finished):
    work = finished(score_arguments)
    assert not (work / "forgetting.zarr").exists() and summary(work)["mean_z_by_model"] == {}


def test_adapters_of_two_settings(finished, arguments, adapters):
    found = table(finished(arguments))
    assert found.model.values.tolist() == ["base", *adapters]
    apart = [float(abs(found.nll_sum[0] - found.nll_sum[k]).max()) for k in (1, 2, 3)]
    assert min(apart) > 1e-2 and len({round(x, 6) for x in apart}) == 3


@pytest.mark.parametrize(
    "field",
    ["rows=3", "buckets=3", "chunk=7", "packing=true", "packing=false", "adapters_together=2"],
)
def test_scores_do_not_depend_on_how(field, arguments, finished, run_cli, tmp_path):
    ran(run_cli, [*arguments, f"--config.score.{field}"], tmp_path / "run")
    assert moved(table(finished(arguments)), table(tmp_path / "run")) < 1e-5


def test_order_of_examples_does_not_matter(arguments, finished, run_cli, tmp_path):
    ran(run_cli, [*arguments, "--config.data.shuffle=5"], tmp_path / "run")
    first, second = table(finished(arguments)), table(tmp_path / "run")
    assert first.example.values.tolist() != second.example.values.tolist()
    assert moved(first, second.sel(example=first.example.values)) < 1e-5


def test_log_probabilities_of_tokens(arguments, finished, run_cli, tmp_path):
    ran(run_cli, [*arguments, "--config.score.per_token=true"], tmp_path / "run")
    found = table(tmp_path / "run")
    assert found.logp.dims == ("model", "example", "target") and found.logp.dtype == np.float32
    assert (np.isfinite(found.logp).sum("target") == found.tokens).all()
    np.testing.assert_allclose(-found.logp.sum("target"), found.nll_sum, rtol=1e-5)
    assert moved(table(finished(arguments)), found) < 1e-5


def test_windows_are_one_example(score_arguments, run_cli, tmp_path, data_files):
    """An example in windows has one column: the sum over all its targets, in their order."""
    argv = [*score_arguments, "--config.score.per_token=true", "--config.data.context=24"]
    ran(run_cli, [*argv, "--config.data.too_long=windows"], tmp_path / "run")
    found = table(tmp_path / "run")
    assert found.sizes["example"] == 20 and (found.tokens.max() > 24).all()
    assert (np.isfinite(found.logp).sum("target") == found.tokens).all()
    np.testing.assert_allclose(-found.logp.sum("target"), found.nll_sum, rtol=1e-5)
    ran(run_cli, [*argv, "--config.data.too_long=truncate"], tmp_path / "cut")
    cut = table(tmp_path / "cut")
    first = found.logp.isel(target=slice(cut.sizes["target"])).where(np.isfinite(cut.logp))
    np.testing.assert_allclose(first, cut.logp, atol=1e-4)


def test_measures_beside_the_nll(arguments, merged, adapters, finished, run_cli, tmp_path):
    argv = [*arguments, f"--config.models={merged}", "--config.score.measures=true"]
    ran(run_cli, argv, tmp_path / "run")
    found = table(tmp_path / "run")
    frame = pd.read_parquet(tmp_path / "run" / "scores.parquet")
    assert {"soft_sum", "argmax_sum", "kl_sum", "agree_sum"} <= set(frame)
    base = found.sel(model="base")
    assert (base.kl_sum == 0).all() and (base.agree_sum == base.tokens).all()
    tuned = found.sel(model=adapters)
    assert (tuned.kl_sum > 0).all() and (tuned.agree_sum <= tuned.tokens).all()
    # a merged checkpoint is its adapter, against the same base
    whole, one = found.sel(model=merged), found.sel(model=adapters[0])
    for name in ("nll_sum", "soft_sum", "argmax_sum", "kl_sum"):
        assert float((abs(whole[name] - one[name]) / one.tokens).max()) < 1e-5, name
    plain = table(finished(arguments))
    assert moved(plain, found.sel(model=plain.model.values)) < 1e-5


def test_half_precision_says_how_far_order_moves_scores(arguments, finished, run_cli, tmp_path):
    assert "order_dependence" not in summary(finished(arguments))
    err = ran(run_cli, [*arguments, "--config.model.dtype=bfloat16"], tmp_path / "run")
    found = summary(tmp_path / "run")["order_dependence"]
    assert found["examples"] == 20 and 0 <= found["nll_moved_median"] <= found["nll_moved_most"]
    assert 0 <= found["z_moved_most"] < found["z_median"]
    assert "batched otherwise, in bfloat16" in err


def test_the_share_of_real_tokens_is_told(arguments, finished):
    assert 0.3 < summary(finished(arguments))["useful_fraction"] <= 1


KILL = """
import os, signal, sys
from forget_jax import cli
from forget_jax.scoring import disk
write, calls = disk.write, 0

def after_third(*args):
    global calls
    write(*args)
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)

disk.write = after_third
sys.exit(cli.main(sys.argv[1:]))
"""


def counted(monkeypatch):
    """Counts what goes through the scorer: (models, examples) of every batch."""
    stream = scores.stream
    seen = []

    def counting(fn, arrays, chunks, *rest):
        K = 1 if arrays[-1] is None else arrays[-1].count
        for number, found in stream(fn, arrays, chunks, *rest):
            seen.append((K, number))
            yield number, found

    monkeypatch.setattr(scores, "stream", counting)
    return seen


@pytest.mark.parametrize(
    ("together", "first"), [(0, 1), (3, 3)], ids=["merged: the base", "beside: the base and two"]
)
def test_no_finished_chunk_is_scored_again(
    arguments, together, first, finished, forked, run_cli, zarr_bytes, tmp_path, monkeypatch
):
    work = tmp_path / "run"
    arguments = [*arguments, f"--config.score.adapters_together={together}"]
    killed = forked.run("-c", KILL, *arguments, f"--workdir={work}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = table(work).tokens >= 0
    assert done[:first].all() and not done[first:].any()
    seen = counted(monkeypatch)
    ran(run_cli, arguments, work)
    assert seen == [(1, chunk) for _ in range(4 - first) for chunk in range(3)]
    assert zarr_bytes(work) == zarr_bytes(finished(arguments))
    assert summary(work)["useful_fraction"] == summary(finished(arguments))["useful_fraction"]


def test_a_hole_is_found_and_filled(
    arguments, finished, run_cli, zarr_bytes, tmp_path, monkeypatch
):
    """A table that lacks one score makes no matrix; the next start scores that chunk alone."""
    work = tmp_path / "run"
    shutil.copytree(finished(arguments), work)
    (work / "summary.json").unlink()
    (work / "scores.zarr" / "tokens" / "c" / "3" / "1").unlink()
    with pytest.raises(UserError, match="8 scores are missing"):
        scores.check_complete(table(work))
    seen = counted(monkeypatch)
    ran(run_cli, arguments, work)
    assert seen == [(1, 1)]
    assert zarr_bytes(work) == zarr_bytes(finished(arguments))


@pytest.fixture
def with_nan(tiny_base, data_files, tmp_path, monkeypatch):
    """A base with NaN for one token that no task has, and the upstream examples that have it."""
    tokenizer = tokenizers.load(tiny_base)
    model = checkpoint.load(tiny_base)
    config, embed = model.config, model.params["embed"]
    rows = sources.load(str(data_files.upstream))
    ids = [tokenizer(e.text, add_special_tokens=False)["input_ids"][:60] for e in rows]  # context
    count = np.bincount([t for of in ids for t in set(of)], minlength=config.vocab_size)
    tasks = [e for file in data_files.tasks for e in sources.load(str(file))]
    known = [text for e in tasks for text in (f"{e.prompt}\n", e.completion)]
    count[[t for of in tokenizer(known, add_special_tokens=False)["input_ids"] for t in of]] = 0
    token = int(np.flatnonzero(count == count[count > 0].min())[0])
    untied = dataclasses.replace(config, tied_head=False)
    folder = tmp_path / "untied"
    checkpoint.save(folder, Model(untied, model.params | {"head": embed.T}), tokenizer)
    read = bases.read

    def poisoned(path):
        found = read(path)
        embed = found.params["embed"].at[token].set(np.nan)
        return Model(found.config, found.params | {"embed": embed})

    monkeypatch.setattr(bases, "read", poisoned)
    names = [e.name for e, of in zip(rows, ids, strict=True) if token in of]
    assert 1 <= len(names) < 10
    return folder, names


@pytest.mark.parametrize("packing", ["true", "false"])
def test_a_logit_that_is_no_number(packing, with_nan, score_arguments, run_cli, tmp_path):
    """Its cell is missing and named, its neighbours are not, and the run goes on."""
    folder, names = with_nan
    argv = [*score_arguments, f"--config.score.packing={packing}"]
    argv += [f"--config.model.path={folder}", "--config.score.per_token=true"]
    err = ran(run_cli, argv, tmp_path / "run")
    assert any(f"{name} under base" in err for name in names)
    found = table(tmp_path / "run")
    bad = np.isnan(found.nll_sum.values[0])
    assert set(found.example.values[bad]) == set(names)
    assert (found.tokens > 0).all()
    said = summary(tmp_path / "run")
    assert said["not_finite"] == len(names) and np.isfinite(said["nll_mean"])
    assert {n["example"] for n in said["not_finite_names"]} == set(names)
    assert said["not_finite_names"][0]["model"] == "base"


@pytest.fixture
def adapter_of(tiny_base, tmp_path):
    """Makes an adapter of a setting, with changes of its config."""

    def make(name, setting=SETTINGS[0], **changes):
        model = checkpoint.load(tiny_base)
        one = lora.init(setting, model.params, jax.random.key(0))
        one = jax.tree.map(lambda x: x + 0.3, one)
        peft.save(tmp_path / name, Adapters(setting, one), model.config, str(tiny_base))
        file = tmp_path / name / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return str(tmp_path / name)

    return make


@pytest.mark.fault("no figure over nothing", "one line")
def test_an_adapter_under_which_nothing_is_finite(adapter_of, score_arguments, run_cli, tmp_path):
    """A mean over nothing is not zero: the adapter is named, and the status is not 0."""
    work = tmp_path / "run"
    nan = adapter_of("nan", lora_alpha=float("nan"))
    said = refused(run_cli, [*score_arguments, f"--config.adapters={nan}"], work)
    assert "lora_alpha is a number (nan): not a number to calculate with" in said
    assert not work.exists()  # refused before a run is made of it
    lost = adapter_of("lost", lora_alpha=1e38)
    for _ in range(2):  # and again where all is scored already
        said = refused(run_cli, [*score_arguments, f"--config.adapters={lost}"], work)
        assert f"no example has a finite NLL under {lost}" in said
        assert not (work / "summary.json").exists()


@pytest.mark.fault("a token that the model has no row for", "as it should be")
def test_a_lone_token_of_padding_changes_nothing(score_arguments, tiny_base, run_cli, tmp_path):
    """People add [PAD] to train; a text that holds it as text is refused by name."""
    model, tokenizer = checkpoint.load(tiny_base), tokenizers.load(tiny_base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == model.config.vocab_size
    checkpoint.save(tmp_path / "padded", model, tokenizer)
    argv = [*score_arguments, f"--config.model.path={tmp_path / 'padded'}"]
    ran(run_cli, argv, tmp_path / "run")
    ran(run_cli, score_arguments, tmp_path / "base")
    xr.testing.assert_equal(table(tmp_path / "run"), table(tmp_path / "base"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one two"}\n{"text": "three [PAD] four"}\n')
    said = refused(run_cli, [*argv, f"--config.data.path={rows}"], tmp_path / "held")
    assert "rows#1 holds the token '[PAD]', which the tokenizer has and the model has not" in said
    tokenizer.add_tokens(["<tool>"])
    checkpoint.save(tmp_path / "more", model, tokenizer)
    argv = [*score_arguments, f"--config.model.path={tmp_path / 'more'}"]
    assert "tokenizer and weights are of different models" in refused(
        run_cli, argv, tmp_path / "other"
    )


@pytest.mark.parametrize("measures", ["true", "false"])
def test_columns_of_the_table_have_one_order(measures, score_arguments, run_cli, tmp_path):
    argv = [*score_arguments, f"--config.score.measures={measures}"]
    argv += ["--config.score.per_token=true"]
    ran(run_cli, argv, tmp_path / "run")
    columns = list(pd.read_parquet(tmp_path / "run" / "scores.parquet").columns)
    more = ["soft_sum", "argmax_sum", "kl_sum", "agree_sum"] if measures == "true" else []
    assert columns == ["model", "example", "nll_sum", "tokens", *more]


@pytest.mark.fault("PEFT adapters as people have them", "as it should be")
def test_an_adapter_with_a_head_is_scored_merged(
    adapter_of, score_arguments, tiny_base, run_cli, tmp_path
):
    """The same figures as of the whole model; with more tokens than the base, measures refuse."""
    plain, path = adapter_of("plain"), adapter_of("head", modules_to_save=["lm_head"])
    model = checkpoint.load(tiny_base)
    head = np.asarray(model.params["embed"]) * np.float32(1.5)
    file = f"{path}/adapter_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"base_model.model.lm_head.weight": head}, file)
    whole = lora.merge(SETTINGS[0], model.params, peft.load(plain, model).tree)
    untied = dataclasses.replace(model.config, tied_head=False)
    checkpoint.save(
        tmp_path / "whole", Model(untied, whole | {"head": head.T}), tokenizers.load(tiny_base)
    )
    argv = [*score_arguments, f"--config.adapters={plain},{path}"]
    err = ran(run_cli, argv, tmp_path / "run")
    assert f"{path} is more than plain LoRA: scored merged into the base" in err
    argv = [*score_arguments, f"--config.model.path={tmp_path / 'whole'}"]
    ran(run_cli, argv, tmp_path / "direct")
    got, expected = table(tmp_path / "run"), table(tmp_path / "direct")
    np.testing.assert_allclose(got.nll_sum[2], expected.nll_sum[0], rtol=1e-5)
    assert abs(got.nll_sum[2] - got.nll_sum[1]).max() > 0.1

    longer = np.concatenate([head, head[:1]])
    more = {"base_model.model.lm_head.weight": longer}
    more |= {"base_model.model.model.embed_tokens.weight": longer}
    save_file(tensors | more, file)
    argv = [*score_arguments, f"--config.adapters={path}"]
    ran(run_cli, argv, tmp_path / "longer")
    argv = [*argv, "--config.score.measures=true"]
    assert "over one vocabulary" in refused(run_cli, argv, tmp_path / "measures")


def test_the_matrix_keeps_a_cell_without_a_score_missing(
    with_nan, associate_arguments, run_cli, tmp_path
):
    folder, names = with_nan
    argv = [*associate_arguments, f"--config.model.path={folder}", "--config.repeat_tasks=0"]
    status, _, err = run_cli(*argv, f"--workdir={tmp_path / 'run'}")
    assert status == 0, err
    with xr.open_zarr(tmp_path / "run" / "forgetting.zarr", consolidated=False) as z:
        bad = np.isnan(z.forgetting.values)
        assert set(z.example.values[bad.all(0)]) == set(names) and (bad.all(0) == bad.any(0)).all()
    said = summary(tmp_path / "run")
    assert said["missing"] == 3 * len(names)
    base = table(tmp_path / "run").sel(model="base")
    kept = base.sel(example=np.isfinite(base.nll_sum))
    mean = float(kept.nll_sum.sum() / kept.tokens.sum())
    assert said["base_nll_mean"] == pytest.approx(mean)


def refused(run_cli, argv, work):
    status, out, err = run_cli(*argv, f"--workdir={work}")
    assert status == 2 and out == "" and "Traceback" not in err
    return err.splitlines()[-1]


def test_a_model_listed_twice(score_arguments, adapters, run_cli, tmp_path):
    argv = [*score_arguments, f"--config.adapters={adapters[0]},{adapters[0]}"]
    assert f"name {adapters[0]} twice" in refused(run_cli, argv, tmp_path / "run")
    argv = [*score_arguments, "--config.models=base"]
    assert "give its path with ./ in front" in refused(run_cli, argv, tmp_path / "run")


def test_examples_of_one_name(score_arguments, run_cli, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"name": "a", "text": "one two"}\n{"name": "a", "text": "three"}\n')
    said = refused(run_cli, [*score_arguments, f"--config.data.path={rows}"], tmp_path / "run")
    assert "line 2: the name 'a' is already that of" in said and "line 1" in said
    one = tmp_path / "one.jsonl"
    one.write_text('{"name": "a", "text": "one two"}\n')
    two = tmp_path / "two.jsonl"
    shutil.copy(one, two)
    argv = [*score_arguments, f"--config.data.path={one},{two}"]
    said = refused(run_cli, argv, tmp_path / "another")
    assert "example a comes from" in said and "and again from" in said


@pytest.mark.parametrize("text", ["", "\n\n", '{"text": " "}\n'])
def test_nothing_to_score(text, score_arguments, run_cli, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text)
    said = refused(run_cli, [*score_arguments, f"--config.data.path={rows}"], tmp_path / "run")
    assert "rows.jsonl is empty" in said


@pytest.mark.slow  # as its twin for matrices in test_many_processes.py
def test_two_processes_of_two_devices(arguments, finished, on_two_processes, tmp_path):
    """Each writes chunks of its own of one table, and the figures are those of one process."""
    argv = [*arguments, "--config.score.chunk=4"]
    whole = finished(argv)
    work = tmp_path / "run"
    on_two_processes([*argv, "--config.mesh.fsdp=2", f"--workdir={work}"])
    assert moved(table(whole), table(work)) < 1e-5
    assert (table(work).tokens == table(whole).tokens).all()
