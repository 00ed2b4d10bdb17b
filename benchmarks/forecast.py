"""What the callback foretells in TRL's trainer, against what was forgotten in the end.

    python benchmarks/forecast.py --matrix runs/matrix --probes runs/probes --out runs/forecast \
        task.jsonl[:120] other.jsonl[:120]

Each task fine-tunes the base of the matrix in torch with `ForgettingCallback`; then every adapter
is scored on all of the matrix's examples, and the last forecast of each category is held against
that. Needs the extra [parity] and `pip install trl`. A task that is done is not done again.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forget_jax.benchmarks import command, in_trl
from forget_jax.data import reading
from forget_jax.data.settings import Data
from forget_jax.files import Path, read_json, write_text
from forget_jax.integrations import forecast
from forget_jax.integrations.trainer import ForgettingCallback


def tuned(recipe: in_trl.Recipe, task: str, given: argparse.Namespace, place: pathlib.Path) -> None:
    """Fine-tunes on one task, as the matrix's tasks were, and keeps adapter and forecasts."""
    callback = ForgettingCallback(
        *(given.matrix, given.probes, in_trl.tokenizer(recipe)),
        every=given.every,
        batch_size=given.batch_size,
    )
    rows = in_trl.rows(reading.load((task,), Data()))
    trainer = in_trl.fine_tune(recipe, rows, place, callback)
    last = callback.forecasts[-1].categories
    found = {
        "recipe": dataclasses.asdict(recipe),
        "every": given.every,
        "overhead": callback.overhead,
        "log": trainer.state.log_history,
        "categories": {name: [c.z, c.low, c.high] for name, c in last.items()},
    }
    write_text(Path(place / "forecast.json"), json.dumps(found, indent=1))


def scored(
    config: Mapping[str, Any],
    adapters: Sequence[pathlib.Path],
    rows: str,
    work: pathlib.Path,
    shuffle: int = -1,
) -> pd.DataFrame:
    """Z of rows (N) by adapter (M), as `associate` makes it of adapters that exist."""
    fields = {
        "model.path": config["model"]["path"],
        "adapters": ",".join(map(str, adapters)),
        "upstream": rows,
        "data.context": config["data"]["context"],
        "data.template": config["data"]["template"],
        "data.shuffle": shuffle,
    }
    command.run("associate", fields, work, config="associate:existing")
    found = forecast.load(work)
    return pd.DataFrame(np.asarray(found.z_MxN), index=list(adapters), columns=found.examples)


def table(given: argparse.Namespace, places: Sequence[pathlib.Path], z: pd.DataFrame) -> Any:
    """A line for each task and category."""
    matrix = forecast.load(given.matrix)
    names = ["all", *list(matrix.groups())[1:]]
    lines = []
    for place, z_N in zip(places, z[list(matrix.examples)].to_numpy(), strict=True):
        kept = read_json(Path(place) / "forecast.json")
        for name, columns in zip(names, matrix.groups().values(), strict=True):
            foretold, low, high = kept["categories"][name]
            true = float(np.nanmean(z_N[columns]))
            lines.append(
                {"task": place.name, "category": name, "forecast": foretold, "low": low}
                | {"high": high, "truth": true}
                # One whose examples are all probes is measured, not foretold.
                | {"inside": low <= true <= high if low < high else None}
                | {"every": kept["every"], "overhead": kept["overhead"]}
            )
    return pd.DataFrame(lines)


def main() -> None:
    """Trains, scores and prints the table."""
    parser = argparse.ArgumentParser(description="The callback's forecasts against the truth.")
    parser.add_argument("tasks", nargs="+")
    for name in ("--matrix", "--probes", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--steps", type=int, default=0, help="0: those of the matrix")
    parser.add_argument("--context", type=int, default=0, help="tokens of a row; 0: twice its own")
    parser.add_argument("--batch_size", type=int, default=8, help="probes at a time")
    given = parser.parse_args()
    config = read_json(Path(given.matrix) / "config.json")
    recipe = in_trl.Recipe.of(config)
    # TRL cuts a row at its end, and with it the completion.
    recipe = dataclasses.replace(
        recipe,
        steps=given.steps or recipe.steps,
        context=given.context or 2 * recipe.context,
    )
    out, places = pathlib.Path(given.out), []
    for task in given.tasks:
        place = out / pathlib.Path(task).name.split(".")[0]
        if not (place / "forecast.json").exists():
            tuned(recipe, task, given, place)
        places.append(place)
    adapters = [place / "adapter" for place in places]
    rows = f"{given.matrix}/examples.jsonl"
    found = table(given, places, scored(config, adapters, rows, out / f"truth-{len(places)}"))
    found.to_csv(out / "forecasts.csv", index=False)
    print(found.round(4).to_string(index=False))
    for name, lines in found.groupby("category", sort=False):
        error, foretold = (lines.forecast - lines.truth).abs().mean(), lines.inside.dropna()
        print(f"{name}: {sum(foretold)} of {len(foretold)} inside, mean error {error:.4f}")


if __name__ == "__main__":
    main()
