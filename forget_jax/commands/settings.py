# ruff: noqa: RUF009 - a group of fields is frozen, so one instance serves as everybody's default
"""The table of every command's settings, and the one translation from configs into them.

A config is what users write and override; `read` makes of it the frozen dataclass that a command
works with, and `fields` makes the config of a table's defaults.
"""

import dataclasses
import sys
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from forget_jax.commands.config import flat
from forget_jax.data.settings import Corpus, Data, Paths
from forget_jax.errors import UserError, nearest
from forget_jax.factoids.settings import Facts
from forget_jax.lm.settings import Lora, Mesh, ModelPath, NewModel
from forget_jax.replay.settings import Mix as MixFields
from forget_jax.replay.settings import Replay as ReplayFields
from forget_jax.scoring.refusals import PHRASES
from forget_jax.scoring.settings import ExactMatch
from forget_jax.scoring.settings import Score as ScoreFields
from forget_jax.settings import WHOLE, free, is_text, leaves, names, setting, shown, without
from forget_jax.training.settings import STEPS, Train

T = TypeVar("T")


def _methods() -> Collection[str]:
    from forget_jax.associations.completion import METHODS

    return METHODS


def _measures() -> Collection[str]:
    from forget_jax.scoring.divergence import MEASURES

    return MEASURES


def _laws() -> Collection[str]:
    from forget_jax.scaling.laws import LAWS

    return LAWS


METRIC = (
    "what forgetting is: nll; of associate also exact_match (answers that become wrong); of "
    "scaling also soft, argmax or kl (against the base's predictions)"
)


@dataclasses.dataclass(frozen=True)
class Pretrain:
    model: NewModel = NewModel()
    data: Corpus = Corpus()
    train: Train = Train()
    mesh: Mesh = Mesh()


@dataclasses.dataclass(frozen=True)
class Finetune:
    model: ModelPath = ModelPath()
    data: Paths = Paths()
    train: Train = Train()
    lora: Lora = Lora()
    mesh: Mesh = Mesh()


@dataclasses.dataclass(frozen=True)
class Score:
    model: ModelPath = ModelPath()
    adapters: tuple[str, ...] = names(
        "adapter", setting((), "PEFT adapter folders to score beside the model")
    )
    models: tuple[str, ...] = names(
        "model",
        setting(
            (),
            "whole fine-tuned checkpoints of the same family to score beside the model",
        ),
    )
    log_samples: bool = free(
        setting(False, "also write samples.jsonl: a record for every model and example, with text")
    )
    data: Paths = Paths()
    score: ScoreFields = ScoreFields()
    mesh: Mesh = Mesh()


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What `associate` and `replay` share: tasks that train together, and upstream examples."""

    model: ModelPath = ModelPath()
    tasks: tuple[str, ...] = names(
        "rows", setting((), "data sets to fine-tune on, one task each, each with rows [a:b]")
    )
    upstream: tuple[str, ...] = names(
        "rows", setting((), "data sets the base model knew before, each with rows [a:b]")
    )
    tasks_together: int = setting(
        16, "tasks trained and scored together; 0: as many as fit into memory", least=0
    )
    metric: str = setting("nll", METRIC, choices=("nll", "exact_match"))
    exact_match: ExactMatch = ExactMatch()
    data: Data = Data()
    train: Train = Train()
    lora: Lora = Lora()
    mesh: Mesh = Mesh()
    score: ScoreFields = ScoreFields()


@dataclasses.dataclass(frozen=True)
class Associate(Tasks):
    adapters: tuple[str, ...] = names(
        "adapter",
        setting((), "PEFT adapters that exist, one row each, in place of tasks to train"),
    )
    models: tuple[str, ...] = names(
        "model",
        setting((), "whole fine-tuned checkpoints that exist, in place of tasks to train"),
    )
    scores: tuple[str, ...] = names(
        "file",
        setting(
            (),
            "tables of scores that exist (workdirs of score, scores.zarr or scores.parquet), the "
            "base in the first: their fine-tunes are the rows",
        ),
    )
    leave_improved: bool = setting(
        False,
        "leave out the columns of sources that improve by over 0.2 nats a token on average, which "
        "the base did not know",
    )
    part: str = setting(
        "",
        "I/N: only every N-th group of tasks from I on; a last start without it makes the matrix",
    )
    repeat_tasks: int = setting(
        4, "how many tasks are trained once more under another seed (test-retest)", least=0
    )
    r2_ranks: int = free(setting(5, "highest rank of the R² table", least=1))


@dataclasses.dataclass(frozen=True)
class MatrixPath:
    path: str = names(
        "file",
        setting(
            "",
            "association matrix: a workdir of associate, .zarr, .npz, .csv, .json with `arr`, or "
            "a table of scores (a workdir of score, scores.zarr or scores.parquet)",
        ),
    )


@dataclasses.dataclass(frozen=True)
class Split:
    test_tasks: tuple[str, ...] = setting((), "tasks to predict: row numbers or names")
    train_tasks: tuple[str, ...] = setting(
        (), "tasks to learn from; empty: all that are not predicted"
    )


COMPARED = ("column_mean", "scaled_mean", "additive", "knn", "als", "gaussian", "mixture", "auto")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    matrix: MatrixPath = MatrixPath()
    split: Split = Split()
    observed: int = setting(30, "measured entries of each test task's row", least=1)
    seeds: int = setting(10, "repetitions under other seeds", least=1, most=10_000)
    methods: tuple[str, ...] = free(
        setting(
            COMPARED,
            "completion methods to compare",
            choices=_methods,
        )
    )


@dataclasses.dataclass(frozen=True)
class ProbesPath:
    path: str = names(
        "file",
        setting(
            "",
            "scores of new tasks' probes, base and fine-tunes: a workdir of score, scores.zarr or "
            "scores.parquet; empty: rows of the matrix that have gaps are filled",
        ),
    )


@dataclasses.dataclass(frozen=True)
class Predict(Evaluate):
    """What it shares with `evaluate` is for configs that name test tasks, as before."""

    probes: ProbesPath = ProbesPath()
    method: str = free(setting("auto", "completion method of the prediction", choices=_methods))
    coverage: float = free(
        setting(0.9, "share of the entries that intervals are to hold", above=0, below=1)
    )


@dataclasses.dataclass(frozen=True)
class Probes:
    matrix: MatrixPath = MatrixPath()
    split: Split = without(Split(), "test_tasks")
    observed: int = setting(30, "how many examples to measure of the next task", least=1)
    aim: str = free(
        setting(
            "row",
            "what the examples of probes.jsonl are to decide: the whole row, its mean, or the top "
            "(most forgotten); or random, the safe choice for a task unlike the others",
            choices=("row", "mean", "top", "random"),
        )
    )
    seeds: int = setting(5, "repetitions under other seeds", least=1, most=10_000)


@dataclasses.dataclass(frozen=True)
class Replay(Tasks):
    matrix: MatrixPath = MatrixPath()
    replay: ReplayFields = ReplayFields()


@dataclasses.dataclass(frozen=True)
class CurvePath:
    path: str = names(
        "file",
        setting(
            "",
            "forgetting and task loss against the ratio: the workdir of a run of replay with "
            "strategy none and several replay.ratio on this model",
        ),
    )


@dataclasses.dataclass(frozen=True)
class Mix:
    model: ModelPath = ModelPath()
    task: str = names("rows", setting("", "the data set to fine-tune on"))
    pool: tuple[str, ...] = names(
        "rows",
        setting(
            (),
            "candidates for replay; empty: the columns of the matrix, or what the base writes",
        ),
    )
    adapter: str = names(
        "adapter", setting("", "one trained on the task, whoever trained it; empty: none yet")
    )
    matrix: MatrixPath = MatrixPath()
    curve: CurvePath = CurvePath()
    mix: MixFields = MixFields()
    data: Data = Data()
    mesh: Mesh = Mesh()
    score: ScoreFields = ScoreFields()


@dataclasses.dataclass(frozen=True)
class Check:
    model: ModelPath = ModelPath()
    adapters: tuple[str, ...] = names(
        "adapter", setting((), "PEFT adapter folders to check, whoever trained them")
    )
    models: tuple[str, ...] = names(
        "model", setting((), "whole fine-tuned checkpoints of the same family to check")
    )
    sets: tuple[str, ...] = names(
        "named rows",
        setting((), "what must not be lost: data sets, each NAME=DATASET with rows [a:b]"),
    )
    prompts: tuple[str, ...] = names(
        "named prompts",
        setting(
            (),
            "what every model is asked, its answers held against the base's: data sets, each "
            "NAME=DATASET; rows need no completion",
        ),
    )
    before: str = names(
        "file",
        setting(
            "",
            "scores of the base, in place of models: a folder of lm-evaluation-harness "
            "(--log_samples), JSONL of vLLM's prompt log-probabilities, or a workdir of score",
        ),
    )
    after: tuple[str, ...] = names(
        "file", setting((), "scores of the fine-tunes; empty: the other models of before")
    )
    limits: tuple[str, ...] = free(
        setting((), "the most mean z allowed, nats a token: for all sets, or each SET=LIMIT")
    )
    limits_lost: tuple[str, ...] = free(
        setting((), "the largest share of answers lost that is allowed: for all, or each SET=SHARE")
    )
    limits_refusals: tuple[str, ...] = free(
        setting(
            (),
            "the largest share of the base's refusals that may be lost: for all prompts, or each "
            "SET=SHARE",
        )
    )
    refusals: tuple[str, ...] = free(
        setting(PHRASES, "texts that make an answer to prompts a refusal, near its beginning")
    )
    seeds: bool = free(
        setting(
            False,
            "the fine-tunes are one under several seeds: how far these lie apart is noise too",
        )
    )
    answers: bool = setting(
        False, "also have every model complete the prompts, and count answers lost and gained"
    )
    level: float = free(setting(0.95, "of the intervals over examples", above=0.5, below=1))
    exact_match: ExactMatch = ExactMatch()
    data: Data = Data()
    mesh: Mesh = Mesh()
    score: ScoreFields = without(ScoreFields(), "measures", "per_token")


@dataclasses.dataclass(frozen=True)
class PointsPath:
    path: str = names(
        "file",
        setting(
            "",
            "points measured before: a workdir of scaling, or a table (P, steps, l_ft, l_f, run)",
        ),
    )


@dataclasses.dataclass(frozen=True)
class Scaling:
    model: ModelPath = ModelPath()
    points: PointsPath = PointsPath()
    task: str = names("rows", setting("", "the data set to fine-tune on"))
    tasks: tuple[str, ...] = names(
        "rows", setting((), "several data sets to fine-tune on, in place of task")
    )
    task_heldout: float = setting(
        0.2, "share of each task's examples kept for its held-out loss", least=0, below=1
    )
    upstream: tuple[str, ...] = names(
        "rows", setting((), "data sets the base model knew before, each with rows [a:b]")
    )
    ranks: tuple[int, ...] = setting(
        (1, 4, 16, 64), "adapter ranks of the grid", least=1, most=2**16
    )
    steps: tuple[int, ...] = setting(
        (10, 20, 40, 80), "numbers of steps of the grid", least=1, most=STEPS
    )
    methods: tuple[str, ...] = setting(
        ("lora",),
        "what is trained: lora; attention or mlp, adapters there alone; top:N, adapters of the top "
        "N layers; full, the whole model; frozen:N, the whole model but its lowest N layers",
    )
    lrs: tuple[float, ...] = setting((0.0,), "learning rates of the grid; 0: train.lr", least=0)
    full_lr: float = setting(
        0.1, "factor on the learning rates where the whole model is trained", above=0
    )
    seeds: int = setting(2, "repetitions under other seeds", least=1, most=100)
    runs_together: int = setting(
        0, "runs trained and measured together, by rank; 0: as many as fit into memory", least=0
    )
    metric: str = setting("soft", METRIC, choices=_measures)
    target: str = free(setting("", "column the laws are fitted to; empty: each law's own"))
    laws: tuple[str, ...] = free(
        setting(
            ("linear", "additive", "multiplicative", "constant", "power_N"),
            "laws to fit, by name",
            choices=_laws,
        )
    )
    formulas: tuple[str, ...] = free(
        setting((), "laws of your own, such as s + K*P^-x*lr^y: names are columns or parameters")
    )
    by: str = free(
        setting("", "column of groups (method, task) whose coefficients are their own; empty: none")
    )
    separate: tuple[str, ...] = free(
        setting((), "coefficients that by separates; empty: all of a law's")
    )
    data: Data = Data()
    train: Train = without(Train(), "steps")  # the grid has its own
    lora: Lora = without(Lora(), "rank")
    score: ScoreFields = ScoreFields()
    mesh: Mesh = Mesh()


@dataclasses.dataclass(frozen=True)
class Plan:
    points: PointsPath = PointsPath()
    ask: str = free(
        setting(
            "settings",
            "steps: the most that keep the limit at a rank; settings: which rank and learning rate "
            "learns most within the limit; forgetting: what a run of a rank and steps will forget",
            choices=("steps", "settings", "forgetting"),
        )
    )
    limit: float = free(setting(0.0, "forgetting that is allowed, nats above baseline", least=0))
    baseline: float = free(setting(0.0, "the target before training; of kl it is 0", least=0))
    rank: int = free(setting(0, "adapter rank that is asked about; 0: P says the size", least=0))
    P: float = free(
        setting(0.0, "trained parameters that are asked about, in place of rank", least=0)
    )
    steps: int = free(setting(0, "steps that are asked about", least=0))
    lr: float = free(setting(0.0, "learning rate that is asked about; 0: the only one", least=0))
    where: tuple[str, ...] = free(
        setting((), "rows of the table to use, each COLUMN=VALUE, such as method=lora")
    )
    target: str = free(setting("", "column of forgetting; empty: kl where there is one, else l_f"))
    law: str = free(
        setting("", "law by name, or a formula; empty: the one that predicts held-out ranks best")
    )
    level: float = free(setting(0.95, "of the intervals", above=0.5, below=1))


@dataclasses.dataclass(frozen=True)
class Factoids(Facts):
    model: ModelPath = ModelPath()
    data: Data = Data()
    train: Train = without(Train(), "steps")  # epochs say how many
    lora: Lora = Lora()
    mesh: Mesh = Mesh()


@dataclasses.dataclass(frozen=True)
class Export:
    source: str = names(
        "adapter",
        setting("", "workdir of a fine-tune, or a folder with an adapter or a checkpoint"),
    )
    model: ModelPath = without(ModelPath(), "dtype")
    format: str = setting(
        "merged",
        "what to write: merged (a whole checkpoint) or adapter",
        choices=("merged", "adapter"),
    )
    dtype: str = setting(
        "",
        "of the written tensors: float32, bfloat16 or float16; empty: the model's own",
        choices=("", "float32", "bfloat16", "float16"),
    )
    shard_mib: int = setting(2048, "largest size of a written file in MiB", least=1)


@dataclasses.dataclass(frozen=True)
class Report:
    """`report` reads everything from the workdir, but for a bare matrix."""

    matrix: MatrixPath = MatrixPath()


@dataclasses.dataclass(frozen=True)
class Doctor:
    selftest: bool = setting(
        True, "a minute of parity: golden figures, float64, packed rows, what is rounded"
    )


@dataclasses.dataclass(frozen=True)
class Bench:
    what: str = setting(
        "finetune",
        "benchmark to run: finetune, score, generate, completion, laws or matmul",
        choices=("finetune", "score", "generate", "completion", "laws", "matmul"),
    )
    quick: bool = setting(
        False,
        "fewer rows, rounds and cases: some minutes on two idle cores, several times that on "
        "busy ones; stopped, the same command goes on after the cases that are measured",
    )
    shape: str = setting(
        "small",
        "the model on CPU: small (5.3 M parameters), smollm2 (135 M; `builtin:smollm2`) or tiny "
        "(to try the command)",
        choices=("tiny", "small", "smollm2"),
    )


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """The settings of its stages, in the order they run, and what they start from."""

    base: str = names(
        "model",
        setting("", "checkpoint that all stages start from (`model.path`); empty pretrains one"),
    )
    pretrain: Pretrain = Pretrain()
    associate: Associate = Associate()
    predict: Evaluate = Evaluate()
    replay: Replay = Replay()
    scaling: Scaling = Scaling()
    factoids: Factoids = Factoids()


TABLES: dict[str, type] = {
    table.__name__.lower(): table
    for table in (
        *(Quickstart, Pretrain, Finetune, Score, Associate, Evaluate, Predict, Probes, Replay),
        *(Check, Mix, Scaling, Plan),
        *(Factoids, Export, Report, Bench, Doctor),
    )
}

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def fields(table: type, **changed: Any) -> ConfigDict:
    """The config of a table's defaults, and of the fields in which it differs.

    It is not locked, so a config file can go on from there; loading locks it.
    """
    return as_config(table(**changed))


def as_config(settings: Any, left_out: Collection[str] = ()) -> ConfigDict:
    """The config that holds what a table's values are: what `read` would make into them again."""
    config = ConfigDict()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = as_config(value, field.metadata.get("without", ()))
        if field.name not in left_out:
            config[field.name] = value
    return config


def read(table: type[T], config: ConfigDict) -> T:
    """A command's settings out of its config; whether values are allowed says `settings.check`.

    Raises:
      UserError: a field that the table does not have, one that is missing, or a value of another
        type.
    """
    known, given, command = leaves(table), flat(config), table.__name__.lower()
    for key in given:
        if key not in known:
            raise UserError(
                f"config.{key} is no field of {command}{nearest(key, known)}; "
                f"see forget-jax {command} --help for all fields"
            )
    for key in known:
        if key not in given:
            section = key.partition(".")[0]
            what = f"config.{key}" if section in config else f"section config.{section}"
            raise UserError(
                f"{what} is missing; {command} needs it: begin with forget_jax.configs.{command}"
                ".get_config() and change what differs"
            )
    return _built(table, given)


def _built(
    table: type[T], given: Mapping[str, Any], prefix: str = "", left_out: Collection[str] = ()
) -> T:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, table)):
        key, kind = prefix + field.name, typing.cast(Any, field.type)
        if field.name in left_out:
            continue
        if dataclasses.is_dataclass(field.type):
            inner = field.metadata.get("without", ())
            values[field.name] = _built(kind, given, f"{key}.", inner)
        else:
            values[field.name] = _typed(key, given[key], kind)
    return table(**values)


def _typed(key: str, value: Any, kind: Any) -> Any:
    """The value as the type that its field has; a whole number may stand for a fraction."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            raise UserError(f"config.{key} takes a sequence, not {shown(value)}")
        return tuple(_typed(key, x, typing.get_args(kind)[0]) for x in value)
    fits = isinstance(value, int | float if kind is float else kind)
    if isinstance(value, bool) and kind is not bool:
        fits = False
    if kind is float:
        fits = fits and abs(value) <= sys.float_info.max  # NaN is not
    elif kind is int:
        fits = fits and abs(value) <= WHOLE
    elif kind is str:
        fits = fits and is_text(value)
    if not fits:
        raise UserError(f"config.{key} takes {KINDS[kind]}, not {shown(value)}")
    return kind(value)
