"""The settings of arXiv 2406.14026 for its OLMo models: `olmo:COMMAND,MODEL[,lora][,FOLDER]`.

    forget-jax associate --config=olmo:associate,7b,data/olmo --workdir=runs/olmo-7b/associate
    forget-jax replay --config=olmo:replay,7b,data/olmo --workdir=runs/olmo-7b/replay

COMMAND is `associate` or `replay`, MODEL `1b`, `7b` or `7b-instruct`. FOLDER holds the data: each
file of its `tasks/` is a task, all of its `upstream/` are upstream examples. Without one the
paper's numbers of tasks and examples are reckoned with, so that `--dry-run=h100:8` plans a run
before anything is there. `lora` takes the adapters of the paper's code and trains nothing else.

What differs: the temperature of replay (.1 nats there) is in standard deviations of a row here;
AdamW keeps 32 bits, not 8; and the cap of three epochs is yours to set, by `train.by_task`.
"""

import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from forget_jax.commands.settings import Associate, Replay, fields


class Setting(NamedTuple):
    """What differs between the models.

    Attributes:
      path: on the hub.
      tasks, upstream: how many there are in the paper.
      steps: updates of a fine-tune.
      ratio: replayed rows per task row.
      fsdp: devices of 80 GB over which the model is cut when all of it is trained.
    """

    path: str
    tasks: int
    upstream: int
    steps: int
    ratio: float
    fsdp: int


# 66 FLAN tasks, 11 subsets of Tulu v2 and 8 of Dolly against 10,000 chunks of Dolma; the instruct
# model learns 142 tasks, of few shots, against answers of FLAN in Tulu, by exact match.
SETTINGS = {
    "1b": Setting("allenai/OLMo-1B-hf", 85, 10_000, 1000, 1 / 32, 1),
    "7b": Setting("allenai/OLMo-7B-hf", 85, 10_000, 1000, 1 / 32, 8),
    "7b-instruct": Setting("allenai/OLMo-7B-Instruct-hf", 142, 10_000, 100, 1 / 8, 8),
}
TABLES = {"associate": Associate, "replay": Replay}


def get_config(arg: str = "associate,1b") -> ConfigDict:
    """`COMMAND,MODEL`, and perhaps `,lora` and `,FOLDER`."""
    command, model, *rest = [*arg.split(","), ""] if "," not in arg else arg.split(",")
    if command not in TABLES or model not in SETTINGS:
        raise ValueError(f"it takes {' or '.join(TABLES)}, a comma, and {', '.join(SETTINGS)}")
    chosen, lora = SETTINGS[model], "lora" in rest
    folders = [name for name in rest if name != "lora"]
    if len(folders) > 1:
        raise ValueError("it takes one folder")
    c = fields(TABLES[command])
    c.model.path, c.model.dtype = chosen.path, "bfloat16"
    c.tasks, c.upstream = _data(chosen, folders[0]) if folders else _paper(chosen)
    c.tasks_together = 0

    c.data.context = 1024
    c.data.too_long = "left"
    c.data.eos_scored = False
    c.train.steps = chosen.steps
    c.train.batch_size = 8
    c.train.lr = 2e-6
    c.train.schedule, c.train.warmup, c.train.clip = "linear", 10, 1.0
    c.train.remat = "full"
    c.lora.rank = 0
    c.mesh.fsdp = chosen.fsdp
    if lora:
        c.lora.rank, c.lora.alpha, c.lora.dropout = 64, 16.0, 0.1
        c.lora.targets = r"layers/attn/(q|v)"
        c.mesh.fsdp = 1
    if model == "7b-instruct":
        c.data.template = "tulu"
        c.data.targets = "last"
        c.exact_match.max_new_tokens = 512
        c.metric = "exact_match" if command == "associate" else "nll"
    if command == "replay":
        c.matrix.path = f"runs/olmo-{model}/associate"
        c.replay.ratio = (chosen.ratio,)
        c.replay.strategies = ("none", "random", "predicted", "online", "mir", "ground_truth")
        c.replay.observed, c.replay.best_of = 30, 30
        c.replay.online_at = (0.1,)
        c.replay.method = "additive"
        c.replay.temperature = 0.1
        c.replay.task_heldout = 0.05
    return c


def _paper(chosen: Setting) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As many tasks and examples as the paper has, under names to put files under."""
    tasks = tuple(f"data/olmo/tasks/{i:03}.jsonl[:8000]" for i in range(chosen.tasks))
    return tasks, (f"data/olmo/upstream/upstream.jsonl[:{chosen.upstream}]",)


def _data(chosen: Setting, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files of a folder; of upstream the first so many rows."""
    here = pathlib.Path(folder)
    tasks = tuple(str(f) for f in sorted((here / "tasks").glob("*")))
    upstream = sorted((here / "upstream").glob("*"))
    if not tasks or not upstream:
        raise ValueError(f"{folder} has no files in tasks/ or none in upstream/")
    each = -(-chosen.upstream // len(upstream))
    return tasks, tuple(f"{f}[:{each}]" for f in upstream)
