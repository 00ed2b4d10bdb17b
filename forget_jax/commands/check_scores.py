"""The scores that `check` compares: what they are, and those in files of ours and of others."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import files
from forget_jax.associations import changes
from forget_jax.commands import matrices
from forget_jax.commands.settings import Check
from forget_jax.commands.summaries import AdjustedFlips, Flipped
from forget_jax.errors import UserError
from forget_jax.files import PathLike
from forget_jax.fleet import forgetting
from forget_jax.fleet.cells import BASE
from forget_jax.integrations import score_files
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.scoring.table import NLL

ALL = ""  # the name of a limit on every set


@dataclasses.dataclass(frozen=True)
class Noise:
    """What scores move by when nothing is forgotten, in the unit of z.

    Attributes:
      mean: the largest |mean z| of a set that it leaves possible.
      example: the largest |z| of one example.
    """

    mean: float
    example: float

    @classmethod
    def of(cls, moved_N: np.ndarray, level: float) -> "Noise":
        """From the changes of the same model's scores, batched otherwise."""
        known = moved_N[np.isfinite(moved_N)]
        return cls(changes.floor(known, level), float(np.abs(known).max(initial=0)))


@dataclasses.dataclass(frozen=True)
class Measured:
    """Scores before and after, each with the columns `integrations.score_files.COLUMNS`.

    Attributes:
      name: of the base.
      before: the base's.
      after: by fine-tune.
      noise: by set; empty where it was not measured.
    """

    name: str
    before: pd.DataFrame
    after: Mapping[str, pd.DataFrame]
    noise: Mapping[str, Noise] = dataclasses.field(default_factory=dict)


def read(settings: Check) -> Measured:
    """The scores in files.

    Raises:
      UserError: files that hold no scores, no fine-tune's, or two of one name.
    """
    count = _counter(settings.model.path) if settings.model.path else None
    first = _models(settings.before, count)
    name = BASE if BASE in first else next(iter(first))
    before = first.pop(name)
    after: dict[str, pd.DataFrame] = {}
    for path in settings.after:
        held = _models(path, count)
        tuned = {n: frame for n, frame in held.items() if n != BASE} or {path: held[BASE]}
        if both := set(tuned) & set(after):
            raise UserError(f"after holds two fine-tunes called {min(both)}; give each once")
        after |= tuned
    after = after or first
    if not after:
        raise UserError(
            f"{settings.before} holds scores of one model; give after, the scores of fine-tunes"
        )
    return Measured(settings.before, before, after)


def _models(path: PathLike, count: Any) -> dict[str, pd.DataFrame]:
    """The scores in one place by model; a file of others is one model's, under its path."""
    where = matrices.place(path, ("scores.zarr",))
    if where.suffix not in (".zarr", ".parquet"):
        return {str(path): score_files.read(path, count)}
    table = forgetting.read(where, str(path))
    texts = matrices.beginnings(where, matrices.BEGINNING)
    names = table.example.values.astype(object)
    stem = where.parent.name if where.name == "scores.zarr" else where.stem
    sets = table.source.values.astype(object) if "source" in table.coords else stem
    return {
        str(model): pd.DataFrame(
            {
                "set": sets,
                "example": names,
                "nll": table[NLL].values[k],
                "tokens": table.tokens.values[k].astype(float),
                "correct": np.nan,
                "options": np.nan,
                "text": [texts.get(name, "") for name in names],
                "key": "",
            }
        )
        for k, model in enumerate(table.model.values)
    }


def _counter(model: str) -> Callable[[str, str], int]:
    """Counts target tokens as lm-evaluation-harness makes them of a context and a continuation."""
    tokenizer = tokenizers.load(model)

    def count(context: str, target: str) -> int:
        kept = context.rstrip()
        whole = kept + context[len(kept) :] + target
        of_whole, of_context = tokenizers.encode(tokenizer, [whole, kept])["input_ids"]
        return len(of_whole) - len(of_context)

    return count


def paired(measured: Measured, name: str) -> pd.DataFrame:
    """The base's rows with the fine-tune's figures beside them, as `nll_after`, `correct_after`.

    Raises:
      UserError: other examples, other prompts or tokens, or not one figure under both.
    """
    before = measured.before.set_index("example")
    after = measured.after[name].set_index("example")
    if len(apart := before.index.symmetric_difference(after.index)):
        side = "the base" if apart[0] in before.index else name
        raise UserError(
            f"{len(apart)} examples are scored under one of the base and {name} only, such as "
            f"{apart[0]} under {side}: score the same examples under both"
        )
    after = after.loc[before.index]
    if (other := before.key != after.key).any():
        raise UserError(
            f"{other.sum()} examples were asked otherwise of the base and of {name}, such as "
            f"{other.idxmax()}: other texts, prompts or tokens; score both in the same way"
        )
    if (other := before.tokens.fillna(-1) != after.tokens.fillna(-1)).any():
        j = other.idxmax()
        raise UserError(
            f"{other.sum()} examples have other numbers of target tokens, such as {j}: "
            f"{before.tokens[j]:.0f} under the base and {after.tokens[j]:.0f} under {name}; score "
            "both with one tokenizer and the same settings"
        )
    joined = before.assign(nll_after=after.nll, correct_after=after.correct).reset_index()
    for columns in (["nll", "nll_after"], ["correct", "correct_after"]):
        if np.isfinite(joined[columns]).all(axis=1).any():
            return joined
    raise UserError(f"no example has a finite score under both the base and {name}")


def flipped(right_Nx2: np.ndarray, options_N: np.ndarray | None = None) -> Flipped | None:
    """What flipped between before and after, as a summary holds it (`changes.flips`).

    Args:
      options_N: how many options each answer was chosen from; None for open questions.
    """
    options_N = np.full(len(right_Nx2), np.nan) if options_N is None else options_N
    flips = changes.flips(right_Nx2[:, 0], right_Nx2[:, 1], options_N)
    if flips is None:
        return None
    adjusted = None if flips.adjusted is None else AdjustedFlips(**vars(flips.adjusted))
    return Flipped(**{**vars(flips), "adjusted": adjusted})


def exists(path: PathLike) -> bool:
    """Whether something is there to be read."""
    return files.Path(path).exists()
