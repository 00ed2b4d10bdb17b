"""The callback for other trainers without torch: the NLLs that it would measure are given."""

import json
import types

import numpy as np
import pytest

from forget_jax import associations
from forget_jax.associations.matrix import Matrix, save
from forget_jax.errors import UserError
from forget_jax.integrations import trainer
from forget_jax.integrations.forecast import Forecaster
from forget_jax.integrations.trainer import ForgettingCallback, Replayed
from forget_jax.lm.hf import tokenizer as tokenizers
from tests.conftest import sentences, write_jsonl

N, PROBES = 24, (1, 4, 7, 9, 14, 17, 20, 23)
NAMES = tuple(f"e{j}" for j in range(N))


def low_rank(rows, seed=0):
    rng = np.random.default_rng(seed)
    z_MxN = rng.normal(0.2, 0.1, (rows, 1)) + rng.normal(0, 0.1, N)
    return (z_MxN + rng.normal(0, 0.01, (rows, N))).astype(np.float32)


@pytest.fixture(scope="module")
def matrix():
    return Matrix(low_rank(9), tuple("abcdefghi"), NAMES, ("c4",) * 12 + ("wiki",) * 12, "nll")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train(sentences(40, 0), 300)


@pytest.fixture
def world(matrix, tmp_path, tokenizer):
    """A matrix on disk, its probes with texts, and the tokenizer."""
    save(tmp_path / "matrix.zarr", matrix)
    rows = [{"name": NAMES[j], "text": f"the old sailor number {j} paints"} for j in PROBES]
    write_jsonl(tmp_path / "probes.jsonl", rows)
    return tmp_path, tokenizer


class Trainer:
    """What of a trainer the callback asks for."""

    def __init__(self):
        self.callbacks, self.logs = [], []

    def add_callback(self, callback):
        self.callbacks.append(callback)

    def log(self, record):
        self.logs.append(record)


def made(world, monkeypatch, z_S, **fields):
    """An attached callback; each measurement after the first adds a half of `z_S` to the NLLs."""
    folder, tokenizer = world
    calls = iter(range(99))

    def nll(model, encoded, batch_size):
        tokens_S = np.array([e.tokens for e in encoded])
        return (2.0 + 0.5 * next(calls) * z_S) * tokens_S

    monkeypatch.setattr(trainer, "nll", nll)
    callback = ForgettingCallback(
        folder / "matrix.zarr", folder / "probes.jsonl", tokenizer, **fields
    )
    return callback.attach(Trainer())


def step(callback, number):
    state = types.SimpleNamespace(global_step=number)
    control = types.SimpleNamespace(should_training_stop=False)
    name = "on_train_begin" if number == 0 else "on_step_end"
    getattr(callback, name)(None, state, control, model=None)
    return control


def test_the_forecast_is_that_of_the_measured_probes(world, matrix, monkeypatch):
    row_N = low_rank(10, seed=3)[9]
    columns = np.array(PROBES)
    callback = made(world, monkeypatch, row_N[columns], every=2)
    for number in range(5):
        step(callback, number)
    logs = callback._trainer.logs
    assert len(logs) == len(callback.forecasts) == 2 and callback.forecasts[1].step == 4
    predictor = associations.fit_predictor(
        matrix.z_MxN, len(columns), 0.9, columns=columns, groups=list(matrix.groups().values())
    )
    predicted = associations.predict_row(predictor, columns, row_N[columns])
    measured_N = np.full(N, np.nan)
    measured_N[columns] = row_N[columns]
    mean_G, low_G, high_G = associations.predict_means(predictor, predicted, measured_N)
    for name, *wanted in zip(("all", "c4", "wiki"), mean_G, low_G, high_G, strict=True):
        keys = (f"forgetting/{name}{end}" for end in ("", "_low", "_high"))
        assert [logs[1][key] for key in keys] == pytest.approx(wanted, abs=1e-5)
    assert logs[1]["forgetting/probes"] == pytest.approx(row_N[columns].mean(), abs=1e-5)
    assert 0 < logs[1]["forgetting/overhead"] <= 1 and logs[0]["forgetting/setup_seconds"] > 0
    assert json.loads(json.dumps(logs)) == logs  # plain numbers, for any logger


def test_the_end_is_measured_once(world, monkeypatch):
    callback = made(world, monkeypatch, np.ones(len(PROBES)), every=2)
    for number in range(4):
        step(callback, number)
    state = types.SimpleNamespace(global_step=3)
    for _ in range(2):
        callback.on_train_end(None, state, types.SimpleNamespace(), model=None)
    assert [f.step for f in callback.forecasts] == [2, 3]


def test_a_limit_stops_the_training(world, monkeypatch):
    fields = {"every": 1, "limits": {"all": 0.6}, "at_limit": "stop"}
    callback = made(world, monkeypatch, np.full(len(PROBES), 0.5), **fields)
    stopped = [step(callback, number).should_training_stop for number in range(7)]
    assert not any(stopped[:3]) and stopped[-1]
    over = [record["forgetting/over"] for record in callback._trainer.logs]
    lows = [f.categories["all"].low for f in callback.forecasts]
    assert over == [float(low > 0.6) for low in lows] and stopped[1:] == [bool(x) for x in over]


def test_a_limit_raises_the_share_of_replay(world, monkeypatch, capsys):
    rows = Replayed([{"text": "task"}] * 50, [{"text": "old"}] * 3)
    assert {row["text"] for row in (rows[i] for i in range(50))} == {"task"} and len(rows) == 50
    fields = {"every": 1, "limits": {"wiki": 0.3}, "at_limit": rows.raising(0.25)}
    callback = made(world, monkeypatch, np.full(len(PROBES), 0.5), **fields)
    for number in range(7):
        step(callback, number)
    assert rows.share == 0.25 and capsys.readouterr().err.count("25% of rows are replayed") == 1
    seen = [rows[i]["text"] for _ in range(20) for i in range(50)]
    assert 0.2 < seen.count("old") / len(seen) < 0.3
    for bad in (-0.1, 1.5):
        with pytest.raises(UserError, match="between 0 and 1"):
            rows.share = bad
    with pytest.raises(UserError, match="at least one row"):
        Replayed([], [1])


def test_a_resumed_training_needs_the_base(world, monkeypatch):
    callback = made(world, monkeypatch, np.ones(len(PROBES)))
    state = types.SimpleNamespace(global_step=7)
    with pytest.raises(UserError, match="goes on from a checkpoint of a whole model"):
        callback.on_train_begin(None, state, None, model=None)


def test_other_events_do_nothing(world, monkeypatch):
    callback = made(world, monkeypatch, np.ones(len(PROBES)))
    assert callback.on_pre_optimizer_step(None, None, None, model=None) is None
    with pytest.raises(AttributeError):
        callback.trainer  # noqa: B018


def test_mistakes_are_one_line(world, matrix, tmp_path):
    folder, tokenizer = world
    paths = (folder / "matrix.zarr", folder / "probes.jsonl", tokenizer)
    for fields, said in (
        ({"every": 0}, "every and batch_size must be 1 or more"),
        ({"at_limit": "halt"}, "at_limit must be 'stop'"),
        ({"limits": {"wikki": 1.0}}, r"no category 'wikki' \(did you mean wiki\?\)"),
    ):
        with pytest.raises(UserError, match=said):
            ForgettingCallback(*paths, **fields)
    with pytest.raises(UserError, match="1 of 2 probes are no columns of the matrix, x first"):
        Forecaster(matrix, ["e1", "x"])
    right = Matrix(np.zeros((5, 2)), tuple("abcde"), ("p", "q"), metric="exact_match")
    with pytest.raises(UserError, match="exact match"):
        Forecaster(right, ["p"])
    alone = ForgettingCallback(*paths)
    state = types.SimpleNamespace(global_step=0)
    with pytest.raises(UserError, match="attach"):
        alone.on_train_begin(None, state, None, model=None)
