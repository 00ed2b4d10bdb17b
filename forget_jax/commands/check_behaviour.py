"""What `check` says of prompts: how a fine-tune's greedy answers differ from its base's."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from forget_jax.associations import changes
from forget_jax.commands import check_scores
from forget_jax.commands.check_scores import ALL
from forget_jax.commands.settings import Check
from forget_jax.commands.summaries import AnswersChanged, ChangedAnswer, Flipped, Share
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.errors import UserError
from forget_jax.fleet.cells import BASE
from forget_jax.lm.hf.base import Base
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import recite
from forget_jax.scoring.exact_match import NORMALISERS, is_correct, spoken
from forget_jax.scoring.recite import Asked, Loaded
from forget_jax.scoring.refusals import is_refusal

CHANGED = 5  # answers of every set that are shown
BEGINNING = 280  # characters of a prompt and of each answer
# What became of an answer, the worst first.
FATES = ("refusal lost", "answer lost", "refusal gained", "answer gained", "other words")

Behaviour = dict[str, dict[str, AnswersChanged]]  # by fine-tune and set


class Prompt(NamedTuple):
    """One prompt of a set; `accepted` holds its right answers, if any."""

    set: str
    name: str
    text: str
    accepted: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Said:
    """What the base and every fine-tune answer to the prompts, in order."""

    prompts: Sequence[Prompt]
    before: Sequence[str]
    after: Mapping[str, Sequence[str]]


def ask(
    settings: Check,
    work: Workdir,
    base: Base,
    reader: Reader,
    asked: Mapping[str, Sequence[Example]],
    load: Callable[[str], Loaded],
) -> Said:
    """Has all models answer; resumes.

    Args:
      asked: by set, its `questions`.
      load: gives a model by its name.
    """
    rule = settings.exact_match
    examples = [e for of in asked.values() for e in of]
    ids, cut = reader.prompts(examples, rule.max_new_tokens)
    how = (base.eos_ids, rule, settings.score.chunk, settings.score.rows)
    task = Asked(examples, ids, cut, reader.tokenizer, *how)
    names = [BASE, *settings.adapters, *settings.models]
    said = recite.answers(work / "behaviour", task, names, load)
    sets = [name for name, of in asked.items() for _ in of]
    prompts = [
        Prompt(name, e.name, e.prompt or "", _accepted(reader, e))
        for name, e in zip(sets, examples, strict=True)
    ]
    return Said(prompts, said.pop(BASE), said)


def questions(
    settings: Check, reader: Reader, read: Mapping[str, Sequence[Example]]
) -> dict[str, list[Example]]:
    """By set, the rows that `prompts` name as questions; a text is asked as it is.

    Raises:
      UserError: a row is a conversation, or answers leave no room for a prompt.
    """
    if read:
        recite.check_room(settings.exact_match, reader.longest)
    return {name: [_question(e) for e in of] for name, of in read.items()}


def _question(example: Example) -> Example:
    if example.messages:
        raise UserError(
            f"{example.name} is a conversation; give prompts as rows with a prompt or a text"
        )
    if example.text is None:
        return example
    return dataclasses.replace(example, prompt=example.text, text=None)


def _accepted(reader: Reader, example: Example) -> tuple[str, ...]:
    if example.completion is None:
        return ()
    return spoken(reader.tokenizer, (example.completion, *example.answers))


def compared(settings: Check, said: Said, limits: Mapping[str, float]) -> Behaviour:
    """Every fine-tune's figures on every set.

    Args:
      limits: on the share of the base's refusals that are lost, by set; `ALL` names all.
    """
    names = list(dict.fromkeys(p.set for p in said.prompts))
    found: Behaviour = {}
    for model, after in said.after.items():
        rows = list(zip(said.prompts, said.before, after, strict=True))
        found[model] = {
            name: _compared(
                settings,
                [row for row in rows if row[0].set == name],
                limits.get(name, limits.get(ALL)),
            )
            for name in names
        }
    return found


def _compared(
    settings: Check, rows: Sequence[tuple[Prompt, str, str]], limit: float | None
) -> AnswersChanged:
    """One fine-tune on one set: prompts, the base's answers, the fine-tune's."""
    rule = settings.exact_match.normaliser
    normal = NORMALISERS[rule]
    same_N = np.array([a == b for _, a, b in rows])
    alike_N = np.array([normal(a) == normal(b) for _, a, b in rows])
    right_Nx2 = np.array(
        [
            [is_correct(text, p.accepted, rule) if p.accepted else np.nan for text in said]
            for p, *said in rows
        ],
        float,
    )
    refused_Nx2 = np.array(
        [[is_refusal(text, settings.refusals) for text in said] for _, *said in rows], float
    )
    refused = check_scores.flipped(refused_Nx2) if settings.refusals else None
    fate_N = [_fate(*of) for of in zip(refused_Nx2, right_Nx2, alike_N, strict=True)]
    return AnswersChanged(
        prompts=len(rows),
        same=Share(**vars(changes.share(same_N, settings.level))),
        alike=Share(**vars(changes.share(alike_N, settings.level))),
        right=check_scores.flipped(right_Nx2),
        refused=refused,
        limit=limit,
        over=limit is not None and _lost(refused) > limit,
        changed=_changed(rows, fate_N),
    )


def _lost(refused: Flipped | None) -> float:
    """The share of the base's refusals that were lost; 0 where it refused nothing."""
    before = round(refused.before * refused.answers) if refused else 0
    return refused.lost / before if refused and before else 0.0


def _fate(refused_2: np.ndarray, right_2: np.ndarray, alike: bool) -> str:
    """What became of an answer, one of `FATES`; empty where only its form changed, or nothing."""
    moved = {"refusal": refused_2[1] - refused_2[0], "answer": right_2[1] - right_2[0]}
    for fate, by in (("lost", -1), ("gained", 1)):
        for what in moved:
            if moved[what] == by:
                return f"{what} {fate}"
    return "" if alike else "other words"


def _changed(
    rows: Sequence[tuple[Prompt, str, str]], fate_N: Sequence[str]
) -> tuple[ChangedAnswer, ...]:
    """The first few of the worst kinds."""
    changed = [(FATES.index(fate), j) for j, fate in enumerate(fate_N) if fate]
    return tuple(
        ChangedAnswer(
            example=rows[j][0].name,
            fate=FATES[kind],
            prompt=rows[j][0].text[:BEGINNING],
            before=rows[j][1][:BEGINNING],
            after=rows[j][2][:BEGINNING],
        )
        for kind, j in sorted(changed)[:CHANGED]
    )
