"""What mixes save, trained on by this program and in TRL's trainer.

    python benchmarks/mixes.py --task task.jsonl[:120] --heldout task.jsonl[120:160] \
        --matrix runs/matrix --adapter task/adapter --out runs/mixes

`forget-jax mix` writes two mixes of the task: of rows that are predicted to be forgotten (from the
matrix and an adapter trained on the task by anybody), and as many random ones. Both trainers train
on the task, on each mix, for one epoch; all are scored on examples of the matrix that neither mix
replays, and on rows of the task that none trained on. Needs the extra [parity] and
`pip install trl`. What is done is not done again.
"""

import argparse
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from forget_jax.benchmarks import command, forecast, in_trl
from forget_jax.data import reading
from forget_jax.data.settings import Data
from forget_jax.files import Path, read_json, write_text


def ours(recipe: in_trl.Recipe, rows: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    """Our adapter of these rows."""
    fields = {
        "model.path": recipe.model,
        "data.path": rows,
        "data.context": recipe.context,
        "train.steps": recipe.steps,
        "train.batch_size": recipe.batch_size,
        "train.lr": recipe.lr,
        "train.warmup": recipe.warmup,
        "train.buckets": 3,
        "lora.rank": recipe.rank,
        "lora.alpha": recipe.alpha,
    }
    command.run("finetune", fields, work)
    return work / "adapter"


def theirs(recipe: in_trl.Recipe, rows: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    """Their adapter of these rows."""
    if not (work / "adapter" / "adapter_config.json").exists():
        in_trl.fine_tune(recipe, in_trl.rows(reading.load((str(rows),), Data())), work)
    return work / "adapter"


def unreplayed(matrix: str, mixes: Sequence[pathlib.Path], where: pathlib.Path) -> pathlib.Path:
    """The matrix's examples that no mix replays, as a file."""
    lines = [json.loads(line) for mix in mixes for line in (mix / "train.jsonl").open()]
    replayed = {line["name"] for line in lines if line["replayed"]}
    rows = (pathlib.Path(matrix) / "examples.jsonl").read_text().splitlines()
    kept = [row for row in rows if json.loads(row)["name"] not in replayed]
    write_text(Path(where), "\n".join(kept) + "\n")
    return where


def main() -> None:
    """Mixes, trains, scores and prints the table."""
    parser = argparse.ArgumentParser(description="What mixes save, by trainer.")
    for name in ("--task", "--heldout", "--matrix", "--adapter", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--context", type=int, default=0, help="tokens of a row; 0: twice its own")
    given = parser.parse_args()
    out = pathlib.Path(given.out)
    config = read_json(Path(given.matrix) / "config.json")
    model = config["model"]["path"]
    mixing = {
        "task": given.task,
        "matrix.path": given.matrix,
        "model.path": model,
        "adapter": given.adapter,
        "data.context": config["data"]["context"],
        "data.shuffle": config["data"]["shuffle"],
    }
    predicted, random = out / "mix-predicted", out / "mix-random"
    command.run("mix", mixing, predicted)
    command.run("mix", mixing | {"mix.strategy": "random"}, random)
    alone = out / "task.jsonl"
    lines = (predicted / "train.jsonl").read_text().splitlines()
    own = [line for line in lines if not json.loads(line)["replayed"]]
    write_text(Path(alone), "\n".join(own) + "\n")
    files = {
        "none": alone,
        "random": random / "train.jsonl",
        "predicted": predicted / "train.jsonl",
    }
    recipe = in_trl.Recipe.of(config)
    recipe = dataclasses.replace(recipe, context=given.context or 2 * recipe.context)
    adapters = {}
    for name, rows in files.items():
        count = len(rows.read_text().splitlines())
        epoch = dataclasses.replace(recipe, steps=math.ceil(count / recipe.batch_size))
        adapters["forget_jax", name] = ours(epoch, rows, out / f"ours-{name}")
        adapters["TRL", name] = theirs(epoch, rows, out / f"trl-{name}")
    paths = list(adapters.values())
    left = unreplayed(given.matrix, [predicted, random], out / "unreplayed.jsonl")
    z = forecast.scored(config, paths, str(left), out / "truth")
    sources = pd.Series({json.loads(row)["name"]: json.loads(row)["source"] for row in left.open()})
    table = z.T.groupby(sources).mean().T
    table.insert(0, "all", z.mean(axis=1))
    spread = z.std(axis=1) / np.sqrt(z.shape[1])
    table.insert(1, "±", 1.96 * spread)
    # As the task's rows were taken, so that none of these was among them.
    shuffle = config["data"]["shuffle"]
    task = forecast.scored(config, paths, given.heldout, out / "task-loss", shuffle)
    table["the task's own rows"] = task.mean(axis=1)
    table.index = pd.MultiIndex.from_tuples(adapters, names=["trainer", "replay"])
    table.to_csv(out / "mixes.csv")
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
