"""Writes golden.json: what scikit-surprise 1.1.5 itself predicts for a small synthetic matrix.

Run it by hand (`python tests/associations/make_golden.py`) with the `bench` extra installed; the
tests then need no scikit-surprise.
"""

import json
import pathlib

import numpy as np


def problem(m=9, n=25, n_observed=6):
    """A matrix whose last row is known in a few columns, and which entries are known."""
    rng = np.random.default_rng(7)
    z = 0.3 * rng.normal(size=(m, 2)) @ rng.normal(size=(2, n)) + rng.normal(size=(1, n)) * 0.2
    known = rng.random((m, n)) < 0.9
    known[-1] = False
    known[-1, rng.choice(n, n_observed, replace=False)] = True
    known[:3] = True  # every column is known somewhere
    return z, known


def surprise_models(epochs, seed=0, k=40):
    """The paper's three, with its settings."""
    from surprise import SVD, BaselineOnly, KNNBaseline

    baseline = {"method": "sgd", "learning_rate": 0.005, "reg": 0.02, "n_epochs": epochs}
    return {
        "additive_sgd": BaselineOnly(baseline, verbose=False),
        "knn_sgd": KNNBaseline(
            k=k, sim_options={"name": "msd"}, bsl_options=baseline, verbose=False
        ),
        "svd_sgd": SVD(
            n_factors=5,
            n_epochs=epochs,
            lr_all=0.005,
            reg_all=0,
            init_std_dev=0.001,
            random_state=seed,
        ),
    }


def surprise_row(model, z, known):
    """The model's predictions of the last row, and its first factors if it has any."""
    import pandas as pd
    from surprise import Dataset, Reader

    row, column = np.nonzero(known)
    table = pd.DataFrame({"task": row, "example": column, "z": z[row, column]})
    data = Dataset.load_from_df(table, Reader(rating_scale=(-100, 100))).build_full_trainset()
    model.fit(data)
    last = z.shape[0] - 1
    return np.array([model.predict(last, j).est for j in range(z.shape[1])])


def first_factors(m, n, rank=5, seed=0, spread=0.001):
    """What SVD starts from: rows first, then columns, in order of appearance."""
    generator = np.random.RandomState(seed)
    return (
        generator.normal(0, spread, (m, rank)),
        generator.normal(0, spread, (n, rank)),
    )


if __name__ == "__main__":
    Z, KNOWN = problem()
    GOLDEN = {
        name: surprise_row(model, Z, KNOWN).round(9).tolist()
        for name, model in surprise_models(epochs=200, k=4).items()
    }
    TARGET = pathlib.Path(__file__).with_name("golden.json")
    TARGET.write_text(json.dumps({"epochs": 200, "neighbours": 4, **GOLDEN}, indent=1) + "\n")
