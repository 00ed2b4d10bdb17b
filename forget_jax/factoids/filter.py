"""Which facts the base knows: only the others are memorised (arXiv 2411.07175).

The authors' script is not public. Here a question stands behind some facts of the same set with
their answers, the base completes it greedily to the end of the line, and knows it where that equals
any accepted answer as SQuAD normalises.
"""

import dataclasses
from collections.abc import Sequence

from forget_jax import files
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.errors import UserError
from forget_jax.lm import generate
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Adapters, Model
from forget_jax.randomness import generator
from forget_jax.runs.once import once
from forget_jax.scoring.exact_match import is_correct

NEW = 20  # tokens of an answer


@dataclasses.dataclass(frozen=True)
class Asked:
    """Facts with the shots in front of them.

    Attributes:
      examples: whose prompt holds shots and question.
      prompts: token ids.
    """

    examples: Sequence[Example]
    prompts: Sequence[Sequence[int]]


def shown(e: Example, answer: str) -> str:
    """A fact as a shot, or with an empty answer as the question behind them."""
    return f"{(e.prompt or '').strip()}\n{answer}".rstrip(" ")


def with_shots(reader: Reader, examples: Sequence[Example], shots: int, seed: int) -> Asked:
    """Every question behind other facts of its set; these are the same for all but themselves.

    Raises:
      UserError: fewer facts than shots, or prompts over the model's context.
    """
    if len(examples) <= shots:
        raise UserError(
            f"{len(examples)} facts give no {shots} shots beside each question; lower shots"
        )
    drawn = generator(seed, "random probes", "shots").permutation(len(examples))[: shots + 1]
    asked = []
    for i, e in enumerate(examples):
        others = [examples[j] for j in drawn if j != i][:shots]
        text = "\n\n".join([*(shown(o, (o.completion or "").strip()) for o in others),
                            shown(e, "")])  # fmt: skip
        asked.append(dataclasses.replace(e, prompt=text))
    prompts, cut = reader.prompts(asked, NEW)
    if cut:
        raise UserError(
            f"{cut} questions with {shots} shots leave no room for an answer in the model's "
            f"context of {reader.longest}; lower shots"
        )
    return Asked(asked, prompts)


def recited(base: Base, loaded: tuple[Model, Adapters | None], asked: Asked) -> list[bool]:
    """Which questions a model answers, asked with shots."""
    if not asked.examples:
        return []
    until = generate.until(base.tokenizer, NEW, base.eos_ids, ("\n",))
    said = generate.answers(*loaded, asked.prompts, until)
    return [
        is_correct(text, (e.completion or "", *e.answers), "squad")
        for text, e in zip(said, asked.examples, strict=True)
    ]


def known(base: Base, asked: Asked, path: files.Path) -> list[bool]:
    """Which facts the base knows; kept at a path."""

    def ask() -> list[bool]:
        return recited(base, (base.model, None), asked)

    return [bool(x) for x in once(path, ask)]
