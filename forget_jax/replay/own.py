"""What each fine-tune of a comparison learned: loss and exact match of its own held-out rows.

A fine-tune is measured on its own task's rows alone, whereas forgetting is measured under all.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from forget_jax import files
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.tokenise import Encoded
from forget_jax.fleet.cells import BASE, Cell
from forget_jax.fleet.fleet import Fleet
from forget_jax.lm.model import Adapters
from forget_jax.runs.once import once
from forget_jax.runs.progress import Progress
from forget_jax.scoring import likelihood, recite
from forget_jax.scoring.settings import ExactMatch
from forget_jax.scoring.stream import Layout


def losses(
    fleet: Fleet, grid: Sequence[Cell], heldout: Mapping[str, Sequence[Encoded]]
) -> dict[str, float]:
    """Mean NLL (nats a token) of each cell's own held-out rows, by its name; resumes by task.

    Args:
      heldout: rows of each task that none of its fine-tunes saw.
    """
    found: dict[str, float] = {}
    with Progress("score the tasks' own rows", len(grid), unit="run") as progress:
        for name, rows in heldout.items():
            mine = [cell.name for cell in grid if cell.at["task"] == name]

            def make(mine: Sequence[str] = mine, rows: Sequence[Encoded] = rows) -> list[float]:
                return [_loss(fleet, one, rows) for one in mine]

            kept = once(fleet.work / "losses" / f"{files.safe_name(name)}.json", make)
            found |= dict(zip(mine, kept, strict=True))
            progress.at(len(found))
            fleet.work.tick()
    return found


def _loss(fleet: Fleet, name: str, rows: Sequence[Encoded]) -> float:
    model, adapter = fleet.load(name)
    if adapter is not None:
        adapter = Adapters(adapter.config, jax.tree.map(lambda x: x[None], adapter.tree))
    layout = Layout.of(rows, Buckets.of(rows, fleet.score.buckets), fleet.score.rows)
    nll_1xN = likelihood.score(model, adapter, rows, layout)
    return likelihood.nll_mean(nll_1xN[0], np.array([e.tokens for e in rows]))


class Answers(NamedTuple):
    """Rows whose short answers are recited.

    Attributes:
      examples: all with prompt and completion.
      reader, rule: how they are asked, and how answers are taken and compared.
    """

    examples: Sequence[Example]
    reader: Reader
    rule: ExactMatch

    def short(self, rows: Sequence[Encoded]) -> "Answers":
        """The same of those of the examples whose rows have answers that are short enough."""
        most = self.rule.max_new_tokens
        fit = {row.name for row in rows if row.tokens <= most}
        some = [e for e in self.examples if e.name in fit and e.completion is not None]
        return self._replace(examples=some)

    def right(self, fleet: Fleet, names: Sequence[str]) -> np.ndarray:
        """Whether each model answers each example right, bool (K, N); kept, and resumes."""
        if not self.examples:
            return np.zeros((len(names), 0), bool)
        prompts, cut = self.reader.prompts(self.examples, self.rule.max_new_tokens)
        asked = recite.Asked(
            self.examples,
            prompts,
            cut,
            self.reader.tokenizer,
            fleet.base.eos_ids,
            self.rule,
            fleet.score.chunk,
            fleet.score.rows,
        )
        of = files.digest_of("\n".join(e.name for e in self.examples).encode())[:16]
        return recite.recite(fleet.work / "answers" / of, asked, names, fleet.load).correct_KxN


def exact_match(
    fleet: Fleet, grid: Sequence[Cell], tasks: Mapping[str, Answers], upstream: Answers
) -> tuple[dict[str, float], dict[str, float]]:
    """By cell: the share of its task's held-out rows it answers right, and what it forgot.

    Forgotten is the share of upstream examples that the base answers right and the cell does not
    (arXiv 2406.14026). NaN where there is no such row.
    """
    learned: dict[str, float] = {}
    for name, answers in tasks.items():
        mine = [cell.name for cell in grid if cell.at["task"] == name]
        learned |= dict(zip(mine, map(_mean, answers.right(fleet, mine)), strict=True))
    names = [cell.name for cell in grid]
    base_N, *right_KxN = upstream.right(fleet, [BASE, *names])
    forgotten = {n: _mean(~one[base_N]) for n, one in zip(names, right_KxN, strict=True)}
    return learned, forgotten


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
