"""Matrix completion against scikit-surprise, in one run: time for the same protocol, and its error.

    python benchmarks/completion.py [--quick] [--json PATH] [--matrix PATH] [--splits N]

The protocol is the paper's: 46 train rows × 1000 columns, 20 test tasks × 10 seeds, 30 known
entries each. scikit-surprise is timed on a sample of the 200 fits and scaled, which the table says.
Then the same protocol at the paper's size (46 × 141,871, synthetic: rank 5 and noise) and the
statistics of an 85 × 141,871 matrix. Without `--matrix` (the released OLMo-7B matrix, in
`../shared/data/matrices/olmo-7b-dolma.json` by default) the first part is synthetic as well.
`--splits N` adds N random splits of every matrix in that folder, and of ratings like MovieLens's,
made here: see `splits.py`. With `--quick` these are five methods and 30 probes.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from forget_jax.associations import rank_r2
from forget_jax.associations.calibration import is_binary
from forget_jax.associations.evaluation import observed_columns, predict_split
from forget_jax.associations.matrix import load
from forget_jax.benchmarks import splits as protocol
from forget_jax.benchmarks import table
from forget_jax.benchmarks.side import missing
from forget_jax.benchmarks.table import Case, Found, Keep, Row
from forget_jax.lm.cost import peak

TEST = [6, 65, 18, 8, 60, 13, 37, 22, 30, 19, 64, 50, 25, 31, 32, 61, 16, 5, 53, 49]
TRAIN = [i for i in range(66) if i not in TEST]
HERE = pathlib.Path(__file__).resolve().parent
RELEASED = HERE.parents[1] / "shared" / "data" / "matrices" / "olmo-7b-dolma.json"
N_KNOWN = 30
QUICK = ("auto", "mixture", "ALS", "additive", "column mean")  # methods on random splits


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def synthetic(m: int, n: int, seed: int = 0) -> np.ndarray:
    """Rank 5 and noise, with the scale of measured forgetting."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(m, 5)).astype(np.float32) @ rng.normal(size=(5, n)).astype(np.float32)
    z += rng.normal(size=(m, n)).astype(np.float32)
    return 0.03 * z


def rmse(predicted_GxTxN: np.ndarray, truth_TxN: np.ndarray, columns_GxS: np.ndarray) -> float:
    """Mean over seeds of the error over the columns that were not known."""
    values = []
    for predicted, columns in zip(predicted_GxTxN, columns_GxS, strict=True):
        error = np.delete(predicted - truth_TxN, columns, 1)
        values.append(np.sqrt(np.mean(error**2)))
    return float(np.mean(values))


def _setting(train: np.ndarray, test: np.ndarray, n_seeds: int) -> str:
    return f"{train.shape[0]} × {train.shape[1]}, {len(test)} tasks × {n_seeds} seeds"


def ours(
    train: np.ndarray, test: np.ndarray, n_seeds: int, method: str, repeats: int
) -> dict[str, Any]:
    """The whole protocol after compilation: the median of `repeats` runs."""
    columns = observed_columns(train.shape[1], N_KNOWN, range(n_seeds))

    def work() -> np.ndarray:
        return predict_split(train, test, columns, range(n_seeds), method)

    predicted, first, _ = timed(work)
    runs = [timed(work)[1:] for _ in range(repeats)]
    wall, cpu = np.median(np.array(runs), 0)
    return {
        "system": f"forget_jax {method}",
        "setting": _setting(train, test, n_seeds),
        "seconds": float(wall),
        "cpu_seconds": float(cpu),
        "compile_seconds": float(first - wall),
        "rmse": rmse(predicted, test, columns),
    }


def theirs(train: np.ndarray, test: np.ndarray, n_seeds: int, sample: int) -> list[dict[str, Any]]:
    """scikit-surprise's three methods, `sample` fits each, scaled to the whole protocol."""
    import pandas as pd
    from surprise import SVD, BaselineOnly, Dataset, KNNBaseline, Reader

    base = {"method": "sgd", "learning_rate": 0.005, "reg": 0.02, "n_epochs": 1000}
    models: dict[str, Callable[[], Any]] = {
        "SVD": lambda: SVD(
            n_factors=5, n_epochs=1000, lr_all=0.005, reg_all=0, init_std_dev=0.001, random_state=0
        ),
        "KNNBaseline": lambda: KNNBaseline(
            k=40, sim_options={"name": "msd"}, bsl_options=base, verbose=False
        ),
        "BaselineOnly": lambda: BaselineOnly(base, verbose=False),
    }
    fits = len(test) * n_seeds
    columns = observed_columns(train.shape[1], N_KNOWN, range(n_seeds))

    def fit(make: Callable[[], Any], number: int) -> np.ndarray:
        row, known = test[number % len(test)], columns[number // len(test)]
        task, example = np.indices(train.shape)
        table = pd.DataFrame(
            {
                "task": np.r_[task.ravel(), np.full(len(known), len(train))],
                "example": np.r_[example.ravel(), known],
                "z": np.r_[train.ravel(), row[known]],
            }
        )
        data = Dataset.load_from_df(table, Reader(rating_scale=(-100, 100))).build_full_trainset()
        model = make()
        model.fit(data)
        return np.array([model.predict(len(train), j).est for j in range(train.shape[1])])

    rows = []
    for name, make in models.items():
        square, walls, cpus = [], [], []
        for number in np.linspace(0, fits - 1, sample).astype(int):
            predicted, wall, cpu = timed(functools.partial(fit, make, int(number)))
            error = np.delete(predicted - test[number % len(test)], columns[number // len(test)])
            square.append(np.mean(error**2))
            walls.append(wall)
            cpus.append(cpu)
        rows.append(
            {
                "system": f"scikit-surprise {name} ({sample} of {fits} fits, scaled)",
                "setting": _setting(train, test, n_seeds),
                "seconds": float(np.median(walls) * fits),
                "cpu_seconds": float(np.median(cpus) * fits),
                "rmse_of_sample": float(np.sqrt(np.mean(square))),
            }
        )
    return rows


def on_splits(count: int, quick: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """Methods on random splits of every matrix: rows of errors, and lines of differences.

    `quick` leaves out most methods and numbers of probes.
    """
    methods = {name: protocol.METHODS[name] for name in QUICK} if quick else protocol.METHODS
    counts = (30,) if quick else (10, 30, 50, 100)
    rows: list[dict[str, Any]] = []
    lines = []
    for name, (z_MxN, n_train) in protocol.matrices().items():
        setting = f"{name}, {n_train} of {z_MxN.shape[0]} rows train, {count} splits"
        errors, tests = protocol.compare(z_MxN, n_train, count, methods=methods)
        for method, error in errors.items():
            error_G = np.sqrt(error.mean(1))
            rows.append({"system": method, "setting": setting, "rmse": float(error_G.mean())})
            if method != "auto" and count > 1:
                found = protocol.difference(errors["auto"], error, tests)
                said = ", ".join(f"{over} {_interval(x)}" for over, x in found.items())
                lines.append(f"{name}: auto - {method}: {said}")
        if is_binary(z_MxN):
            for kind, brier_G in protocol.compare_probabilities(z_MxN, n_train, count).items():
                row = {"system": f"probabilities: {kind}", "setting": setting}
                rows.append(row | {"brier": float(brier_G.mean())})
        held, slope = protocol.compare_intervals(z_MxN, n_train, count)
        lines.append(f"{name}: {_held(held, tests)}, slope {slope:+.2f}")
        for probes, means in protocol.compare_means(z_MxN, n_train, count, counts).items():
            for estimate, off in means.items():
                rows.append(
                    {
                        "system": f"mean of a row: {estimate}",
                        "setting": f"{setting}, {probes} probes",
                        "rmse": float(np.sqrt((off**2).mean())),
                    }
                )
    shown = ("auto", "additive") if quick else ("auto", "gaussian", "mixture", "als", "additive")
    for method, error_G in protocol.compare_ratings(count, shown).items():
        row = {"system": method, "setting": "ratings, 943 × 1682, 6 % known"}
        rows.append(row | {"rmse": float(error_G.mean())})
    return rows, lines


def _interval(found: dict[str, Any]) -> str:
    return f"{found['mean']:+.5f} [{found['low']:+.5f}, {found['high']:+.5f}]"


def _held(held: dict[str, np.ndarray], tests_GxT: np.ndarray) -> str:
    """What the intervals of `auto` hold: of entries, how that varies over tasks, and of means."""
    entries = held["entries"]
    by_task = np.array([entries[tests_GxT == row].mean() for row in np.unique(tests_GxT)])
    low, high = np.percentile(by_task, (5, 95))
    near = np.mean((by_task >= 0.85) & (by_task <= 0.95))
    return (
        f"90 % intervals of auto hold {entries.mean():.1%} of entries; by task {low:.1%} to "
        f"{high:.1%} (5th to 95th percentile), deviation {by_task.std():.1%}, {near:.0%} of tasks "
        f"at 85 to 95 %; {held['mean'].mean():.1%} of rows' means, {held['groups'].mean():.1%} of "
        "groups' means"
    )


def run(
    quick: bool = False,
    matrix: str | None = None,
    splits: str = "0",
    keep: Keep = table.at_once,
) -> Found:
    """Measures all parts and returns `rows`, `ratio` (of wall times) and `notes`.

    Args:
      matrix: a file with another matrix than the released one.
      splits: how many random splits of every matrix; none by default.
      keep: of `table.measure`.
    """
    path = pathlib.Path(matrix) if matrix else RELEASED
    notes = [f"the matrix of {path.name}"]
    if path.exists():
        z = load(path).z_MxN.astype(np.float32)
    else:
        notes = [f"{path.name} is absent: a synthetic matrix instead"]
        z = synthetic(66, 1000)
    train, test = z[TRAIN], z[TEST]
    absent = missing("surprise")
    if absent:
        notes.append("the peer is left out: scikit-surprise (the `bench` extra) is not installed")
    cases: dict[str, Case] = {"methods": lambda _: _methods(train, test, 5 if quick else 11)}
    if not absent:
        cases["peers"] = lambda found: _peers(found, train, test, 3 if quick else 10)
    cases["the paper's size"] = lambda _: _large()
    if count := int(splits):
        cases["random splits"] = lambda _: _splits(count, quick)
    found = table.measure(cases, keep)
    found["notes"] = [*notes, *found["notes"], f"peak memory {peak.resident() / 2**30:.2f} GiB"]
    return found


def _found(rows: list[Row], ratio: dict[str, float] | None = None) -> Found:
    return {"rows": rows, "ratio": ratio or {}, "notes": []}


def _methods(train: np.ndarray, test: np.ndarray, repeats: int) -> Found:
    methods = ("als", "gaussian", "mixture", "knn", "auto")
    return _found([ours(train, test, 10, method, repeats) for method in methods])


def _peers(found: Found, train: np.ndarray, test: np.ndarray, sample: int) -> Found:
    """The peers' times over that of our first row."""
    rows, fastest = theirs(train, test, 10, sample), found["rows"][0]["seconds"]
    ratio = {row["system"].split(" (")[0]: row["seconds"] / fastest for row in rows}
    return _found(rows, ratio)


def _large() -> Found:
    large = synthetic(66, 141_871)
    rows = [ours(large[:46], large[46:], 10, method, 1) for method in ("als", "mixture", "auto")]
    z_85 = synthetic(85, 141_871)
    _, wall, cpu = timed(lambda: rank_r2(z_85, 9))
    said = {"system": "forget_jax rank_r2, ranks 1 to 9", "setting": "85 × 141871"}
    return _found([*rows, said | {"seconds": wall, "cpu_seconds": cpu}])


def _splits(count: int, quick: bool) -> Found:
    rows, lines = on_splits(count, quick)
    return _found(rows) | {"notes": lines}


if __name__ == "__main__":
    table.main(
        __doc__,
        run,
        matrix="an association matrix instead of the released one",
        splits="how many random splits of every matrix to compare methods on (default: none)",
    )
