"""What each command's summary.json holds: a dataclass a command, written and read by field.

The file holds `command` first and then the fields by their names, in their order. A float that is
not finite is null there, and NaN when it is read.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from forget_jax import files
from forget_jax.commands.summaries.checks import (
    AdjustedFlips,
    AnswersChanged,
    ChangedAnswer,
    Check,
    CheckedSet,
    Flipped,
    Share,
    WorstExample,
)
from forget_jax.commands.summaries.codec import decode, encode
from forget_jax.commands.summaries.experiments import (
    TOTAL,
    Arm,
    ArmBySeed,
    ArmsDiffer,
    CurvePoint,
    Factoids,
    Headroom,
    Law,
    Mix,
    MixedRow,
    Quickstart,
    Replay,
    Scaling,
    StrategiesDiffer,
    Strategy,
    Surface,
)
from forget_jax.commands.summaries.laws import Checks, Draws, Eq4, Fan, RhoProfile, Tried
from forget_jax.commands.summaries.matrices import (
    Associate,
    Evaluate,
    ExpectedError,
    ExpectedMean,
    Failed,
    Forgotten,
    MeanForgetting,
    Method,
    MethodsDiffer,
    Predict,
    PredictedTask,
    Probabilities,
    Probes,
    ProbesDiffer,
    ReliabilityBin,
    RobustMean,
)
from forget_jax.commands.summaries.plans import Answer, Candidate, Curve, Plan, UnseenRun
from forget_jax.commands.summaries.runs import (
    Bench,
    Export,
    Finetune,
    NotFinite,
    OrderDependence,
    OverContext,
    Pretrain,
    Score,
    Training,
)
from forget_jax.errors import UserError, nearest
from forget_jax.files import PathLike

__all__ = [
    "COMMANDS",
    "TOTAL",
    "AdjustedFlips",
    "Answer",
    "AnswersChanged",
    "Arm",
    "ArmBySeed",
    "ArmsDiffer",
    "Associate",
    "Bench",
    "Candidate",
    "ChangedAnswer",
    "Check",
    "CheckedSet",
    "Checks",
    "Curve",
    "CurvePoint",
    "Draws",
    "Eq4",
    "Evaluate",
    "ExpectedError",
    "ExpectedMean",
    "Export",
    "Factoids",
    "Failed",
    "Fan",
    "Finetune",
    "Flipped",
    "Forgotten",
    "Headroom",
    "Law",
    "MeanForgetting",
    "Method",
    "MethodsDiffer",
    "Mix",
    "MixedRow",
    "NotFinite",
    "OrderDependence",
    "OverContext",
    "Plan",
    "Predict",
    "PredictedTask",
    "Pretrain",
    "Probabilities",
    "Probes",
    "ProbesDiffer",
    "Quickstart",
    "ReliabilityBin",
    "Replay",
    "RhoProfile",
    "RobustMean",
    "Scaling",
    "Score",
    "Share",
    "StrategiesDiffer",
    "Strategy",
    "Summary",
    "Surface",
    "Training",
    "Tried",
    "UnseenRun",
    "WorstExample",
    "load",
    "read",
    "to_json",
]

Summary = (
    Pretrain
    | Finetune
    | Score
    | Associate
    | Evaluate
    | Predict
    | Probes
    | Replay
    | Check
    | Mix
    | Scaling
    | Plan
    | Factoids
    | Export
    | Bench
    | Quickstart
)
AnySummary = TypeVar("AnySummary", bound=Summary)
COMMANDS: dict[str, type[Summary]] = {kind.command: kind for kind in Summary.__args__}


def to_json(summary: Summary) -> dict[str, Any]:
    """What summary.json holds, in JSON's own types; `command` comes first."""
    held = {"command": summary.command, **encode(summary)}
    plain: dict[str, Any] = json.loads(files.dump_json(held))
    return plain


def read(kind: type[AnySummary], source: PathLike | Mapping[str, Any]) -> AnySummary:
    """One command's summary.

    Args:
      kind: the command's dataclass.
      source: a summary.json, or what such a file holds.

    Raises:
      UserError: no such file, another command's summary, or a field that is missing, unknown or of
        another type.
    """
    name, given = _given(source)
    command = given.pop("command", None)
    if command != kind.command:
        raise UserError(f"{name} is the summary of {command}, not of {kind.command}")
    try:
        made: AnySummary = decode(kind, given)
    except UserError as e:
        raise UserError(
            f"{name}: {e}: another version made this run; remove the file, start `forget-jax "
            f"{command}` in this workdir again (it resumes), and then `forget-jax report`"
        ) from e
    return made


def load(source: PathLike | Mapping[str, Any]) -> Summary:
    """The summary of whichever command it names; raises as `read` does."""
    name, given = _given(source)
    command = str(given.get("command"))
    if command not in COMMANDS:
        raise UserError(f"{name}: {command} is no command{nearest(command, COMMANDS)}")
    return read(COMMANDS[command], source)


def _given(source: PathLike | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name for messages, and what is there."""
    if isinstance(source, Mapping):
        return "summary.json", dict(source)
    found = files.read_json(source)
    if not isinstance(found, dict):
        raise UserError(f"{source} holds no summary")
    return str(source), found
