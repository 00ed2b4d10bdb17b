"""docs/extending.md: every diff applies to a copy of the package, and what it adds works.

One other process, whose forget_jax is the copy, does the work (the functions without `test_`) and
hands over the figures that the tests here look at.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
PARTS = ("A model family", "A law", "A replay strategy", "A mitigation")


def diffs() -> dict[str, str]:
    """The diff of each part of the page."""
    _, *parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    found = {}
    for part in parts:
        (diff,) = re.findall(r"^```diff\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
        found[part.partition("\n")[0]] = diff
    return found


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the changed copy of the package computed."""
    folder = tmp_path_factory.mktemp("extending")
    no_cache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "forget_jax", folder / "forget_jax", ignore=no_cache)
    shutil.copytree(ROOT / "configs", folder / "forget_jax" / "configs", ignore=no_cache)
    (folder / "tests" / "golden").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "golden" / "parity.py", folder / "tests" / "golden")
    # git takes the files to be in no repository, wherever the temporary folder lies.
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent), "PYTHONPATH": str(folder)}
    for name, diff in diffs().items():
        done = subprocess.run(
            ["git", "apply", "-"], input=diff, cwd=folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
    done = subprocess.run(
        [sys.executable, "-P", __file__, folder], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


def test_each_part_of_the_page_is_a_diff_of_a_few_lines():
    assert tuple(diffs()) == PARTS
    for diff in diffs().values():
        changed = [x for x in diff.splitlines() if re.match(r"[-+](?!--|\+\+)", x)]
        assert 1 <= len(changed) <= 12


def test_the_changed_copy_is_what_ran(figures):
    assert figures["package"] == "forget_jax/__init__.py"
    assert "seed_oss" in figures["parity_cases"]


def family(folder: Path) -> dict[str, Any]:
    """Scores one set of weights as Qwen 2, and as Seed-OSS with the biases that Qwen 2 has."""
    import jax

    from forget_jax.data.batches import Buckets
    from forget_jax.lm.hf import checkpoint
    from forget_jax.lm.model import Model
    from forget_jax.scoring import likelihood
    from forget_jax.scoring.stream import Layout

    model = tiny_model("qwen2", qkv_bias=True)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), model.params)
    checkpoint.save(folder / "qwen2", Model(model.config, params))
    raw = json.loads((folder / "qwen2" / "config.json").read_text())
    raw |= {"model_type": "seed_oss", "attention_bias": True, "head_dim": 4}
    shutil.copytree(folder / "qwen2", folder / "seed_oss")
    (folder / "seed_oss" / "config.json").write_text(json.dumps(raw))
    loaded = checkpoint.load(folder / "seed_oss")
    checkpoint.save(folder / "again", loaded)
    rows = examples(0, 3)

    def nll(path: Path) -> list[float]:
        layout = Layout.of(rows, Buckets.of(rows, 1), 4)
        return likelihood.score(checkpoint.load(path), None, rows, layout)[0].tolist()

    return {
        "family": loaded.config.family,
        "written": json.loads((folder / "again" / "config.json").read_text())["architectures"],
        "qwen2": nll(folder / "qwen2"),
        "seed_oss": nll(folder / "seed_oss"),
        "again": nll(folder / "again"),
    }


def test_a_family_loads_scores_and_is_written(figures):
    found = figures["family"]
    assert found["family"] == "seed_oss" and found["written"] == ["SeedOssForCausalLM"]
    assert min(found["seed_oss"]) > 1
    np.testing.assert_allclose(found["seed_oss"], found["qwen2"], rtol=1e-6)
    assert found["again"] == found["seed_oss"]


def law(folder: Path) -> dict[str, Any]:
    """Fits the law to points of its own formula, and plans by it."""
    from forget_jax.scaling import evaluate, fit, plan_steps

    steps = np.array([10.0, 20.0, 40.0, 80.0, 160.0, 320.0])
    points = {"steps": steps, "l_f": 0.3 + 0.05 * np.log(steps), "run": np.arange(6) // 2}
    made = fit("log_N", points, starts=4, bootstraps=4, heldout=False)
    return {
        "params": made.params,
        "evaluated": evaluate("log_N", {"s": 0.3, "K": 0.05}, {"steps": [np.exp(2.0)]}).tolist(),
        "steps": plan_steps(made, 0.05 * np.log(100.0), baseline=0.3).steps,
        "laws": accepted("scaling", "laws=linear,log_N").laws,
    }


def test_a_law_fits_its_own_formula_and_plans(figures):
    found = figures["law"]
    np.testing.assert_allclose([found["params"]["s"], found["params"]["K"]], [0.3, 0.05], rtol=1e-6)
    np.testing.assert_allclose(found["evaluated"], [0.4], rtol=1e-12)
    np.testing.assert_allclose(found["steps"], 100, atol=1)
    assert found["laws"] == ["linear", "log_N"]


def strategy(folder: Path) -> dict[str, Any]:
    """Weights of five candidates."""
    from forget_jax import cli
    from forget_jax.replay.cells import Arm
    from forget_jax.replay.strategies import STRATEGIES, Known, weights
    from forget_jax.replay.verdict import comparisons

    others_MxJ = np.array([[0.1, 0.9, 0.2, 0.2, 0.4], [0.1, 0.1, 0.4, 0.1, 0.1]])
    value = STRATEGIES["spread"].value
    value_J = value(Known(np.full(5, np.nan), others_MxJ, np.zeros(5)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        cli.resolve(["replay", "--help"])
    return {
        "weights": weights(value_J, 1.0).tolist(),
        "paired": [
            (a.strategy, b.strategy)
            for a, b in comparisons([Arm("random", 0.1), Arm("spread", 0.1)])["random"]
        ],
        "strategies": accepted("replay", "replay.strategies=random,spread:top").replay.strategies,
        "help": said.getvalue(),
    }


def test_a_strategy_weighs_candidates_and_is_taken_by_name(figures):
    found = figures["strategy"]
    np.testing.assert_allclose(sum(found["weights"]), 1)
    assert np.argsort(found["weights"]).tolist() == [0, 3, 2, 4, 1]
    assert found["paired"] == [["spread", "random"]]
    assert found["strategies"] == ["random", "spread:top"]
    assert "surprise, column_mean, spread, predicted" in " ".join(found["help"].split())


def mitigation(folder: Path) -> dict[str, Any]:
    """Trains both stages under the new arm and the naive one, and once more under the latter."""
    import jax

    from forget_jax.factoids.training import Job, Trainer
    from forget_jax.factoids.tree import Axes, forests, grid
    from forget_jax.fleet.fleet import Fleet
    from forget_jax.lm.hf import checkpoint
    from forget_jax.lm.hf.base import Base
    from forget_jax.lm.lora import LoRAConfig
    from forget_jax.runs.workdir import Workdir
    from forget_jax.training.loop import Recipe, Task
    from forget_jax.training.settings import Train

    settings = Train(batch_size=4, microbatch=4, buckets=1, lr=0.02, warmup=0, schedule="constant")
    recipe = Recipe(settings, LoRAConfig(rank=2, alpha=8.0))
    checkpoint.save(folder / "base", tiny_model("llama"))
    base = Base(str(folder / "base"), tiny_model("llama"), None)

    def last(name: str, *arms: str) -> dict[str, Any]:
        made = grid(Axes((("a", "b"),), arms, 1, 1.0), 0)
        trainer = Trainer(
            Fleet(Workdir(folder / name, "factoids", {}), base, recipe), 4, recipe.lora
        )
        for level in forests(made, apart=False)[0]:
            tasks = [Task(n.name, examples(n.stage, 4), n.seed, 6) for n in level]
            trainer.train([Job(n, t, ()) for n, t in zip(level, tasks, strict=True)])
        found = {path.arm: trainer.load(path.nodes[-1])[1].tree for path in made.paths}
        return found | {"start": trainer.load(made.paths[0].nodes[0])[1].tree}

    def far(one: Any, other: Any, block: str) -> float:
        squares = jax.tree.map(lambda a, b: float(np.sum((a - b) ** 2)), one, other)
        return float(np.sqrt(sum(jax.tree.leaves(squares["layers"][block]))))

    both, alone = last("two", "naive", "attention"), last("one", "naive")
    return {
        "naive": [far(both["naive"], both["start"], block) for block in ("attn", "mlp")],
        "held": [far(both["attention"], both["start"], block) for block in ("attn", "mlp")],
        "changed": [far(both["naive"], alone["naive"], block) for block in ("attn", "mlp")],
        "arms": accepted("factoids", "arms=naive,attention").arms,
    }


def test_a_mitigation_trains_otherwise_and_changes_no_other_arm(figures):
    found = figures["mitigation"]
    assert min(found["naive"]) > 0
    assert found["held"][0] > 0 and found["held"][1] == 0
    assert found["changed"] == [0, 0]
    assert found["arms"] == ["naive", "attention"]


def tiny_model(family: str, **switches: Any) -> Any:
    """A random decoder of two layers."""
    import jax

    from forget_jax.lm import decoder
    from forget_jax.lm.model import Model

    shape = {"vocab_size": 61, "width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4}
    config = decoder.DecoderConfig(family=family, **shape, mlp_width=24, context=64, **switches)
    return Model(config, jax.jit(decoder.init, static_argnums=0)(config, jax.random.key(0)))


def examples(seed: int, count: int) -> list[Any]:
    """Random rows whose second half are targets."""
    from forget_jax.data.tokenise import Encoded

    rng = np.random.default_rng(seed)
    ids_NxL = rng.integers(0, 61, (count, 12)).astype(np.int32)
    return [Encoded(f"e{i}", "s", ids, np.arange(12) >= 6) for i, ids in enumerate(ids_NxL)]


def accepted(command: str, override: str) -> Any:
    """A command's settings with one field set on its command line."""
    from forget_jax import cli

    (request,) = cli.resolve([command, f"--config.{override}", "--workdir=none"])
    return request.settings


if __name__ == "__main__":
    import forget_jax

    where = Path(sys.argv[1])
    cases = (where / "tests" / "golden" / "parity.py").read_text()
    found = {
        "package": str(Path(forget_jax.__file__).relative_to(where)),
        "parity_cases": re.findall(r'^    "(\w+)": ', cases, flags=re.MULTILINE),
        **{part.__name__: part(where) for part in (family, law, strategy, mitigation)},
    }
    (where / "figures.json").write_text(json.dumps(found))
