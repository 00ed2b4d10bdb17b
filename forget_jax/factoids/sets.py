"""Sets of facts: how those that are known by name are written, and what must not be in one.

A set is a data set as everywhere (`forget_jax.data.sources`), or NAME=DATASET, or NAME alone for
its place on the hub. A name says which columns hold question, answer and aliases, how both become
text (arXiv 2411.07175), and how an answer is judged.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forget_jax.data import reading as data_reading
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader, task_name
from forget_jax.data.settings import Data
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.scoring.exact_match import squad

ARROW = " > "  # between the sets of a sequence


@dataclasses.dataclass(frozen=True)
class Format:
    """How the rows of a set of a name are read.

    Attributes:
      hub: where it lies.
      columns: our field names onto its own.
      suffix: what follows a question.
      rule: how an answer is judged (`evaluation.RULES`).
    """

    hub: str
    columns: Mapping[str, str]
    suffix: str = ""
    rule: str = "alias"


def _of(prompt: str, completion: str, **more: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion, "text": "", "messages": "", **more}


ANSWER = "\nThe answer is:"
FORMATS: Mapping[str, Format] = {
    "kvr": Format("builtin:facts", {}),
    "popqa": Format("hf:akariasai/PopQA:test",
                    _of("question", "obj", answers="possible_answers", name="id"), ANSWER),
    "triviaqa": Format("hf:mandarjoshi/trivia_qa:rc.nocontext:train",
                       _of("question", "answer.value", answers="answer.aliases"), ANSWER),
    "icl": Format("", _of("context", "answer", answers="aliases")),  # files of llm-foundry
    "lama": Format("hf:facebook/lama:trex:train", _of("masked_sentence", "obj_label")),
    "entityquestions": Format("", _of("question", "answers", source="relation")),
    "webqa": Format("hf:stanfordnlp/web_questions:train", _of("question", "answers"),
                    rule="within"),
    "gsm8k": Format("hf:openai/gsm8k:main:train", _of("question", "answer"), rule="last_number"),
    "math": Format("hf:EleutherAI/hendrycks_math:algebra:train", _of("problem", "solution"),
                   rule="boxed"),
    "evolcode": Format("hf:nickrosh/Evol-Instruct-Code-80k-v1:train",
                       _of("instruction", "output"), rule="none"),
    "apps": Format("hf:codeparrot/apps:train", _of("question", "solutions"), "\nAnswer:",
                   rule="none"),
    "ultrachat": Format("hf:HuggingFaceH4/ultrachat_200k:train_sft", {"messages": "messages"},
                        rule="none"),
}  # fmt: skip
PLAIN = Format("", {})


class Named(NamedTuple):
    """A set as it was written.

    Attributes:
      name: for people and files.
      dataset: what is read, with its rows [a:b].
      form: how.
    """

    name: str
    dataset: str
    form: Format


def named(spec: str) -> Named:
    """A set by how it was written.

    Raises:
      UserError: a name without a place on the hub and without a data set.
    """
    spec = spec.strip()
    word, equals, dataset = spec.partition("=")
    if equals and word in FORMATS:
        return Named(word, dataset, FORMATS[word])
    word, bracket, rows = spec.partition("[")
    known = FORMATS.get(word)
    if known is None:
        return Named(task_name(spec), spec, PLAIN)
    if not known.hub:
        raise UserError(f"{word} has no place on the hub: write {word}=FILE")
    return Named(word, known.hub + bracket + rows, known)


def sequence(text: str) -> tuple[str, ...]:
    """The sets of a sequence, in order."""
    return tuple(part.strip() for part in text.split(ARROW.strip()) if part.strip())


@dataclasses.dataclass(frozen=True)
class Facts:
    """One set of facts.

    Attributes:
      name: of the set.
      rule: how an answer is judged.
      examples: with prompt and completion.
      encoded: as they are trained on.
      prompts: token ids that each is recited from.
      known: facts that the base knew, which are not trained on, and their prompts with shots.
      dropped: questions that were left out, and why.
    """

    name: str
    rule: str
    examples: Sequence[Example]
    encoded: Sequence[Encoded]
    prompts: Sequence[Sequence[int]]
    known: tuple[Sequence[Example], Sequence[Sequence[int]]] = ((), ())
    dropped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def recited(self) -> bool:
        """Whether answers are generated at all, rather than scored only."""
        return self.rule != "none"


def fields(data: Data, form: Format) -> Data:
    """How rows of a form are read: by its columns, where it has some."""
    if not form.columns:
        return data
    columns = tuple(f"{ours}={theirs}" for ours, theirs in form.columns.items())
    return dataclasses.replace(data, columns=columns)


def read(reader: Reader, spec: str) -> tuple[Named, Reader, list[Example]]:
    """The rows of a set with questions as they are asked, and what encodes them.

    Raises:
      UserError: a row without a question and an answer, in a set whose answers are recited.
    """
    found = named(spec)
    own = dataclasses.replace(reader, data=fields(reader.data, found.form))
    examples = data_reading.load((found.dataset,), own.data, own.seen)
    if found.form.rule != "none":
        for e in examples:
            if e.completion is None:
                raise UserError(
                    f"{e.name} of {spec} is no fact to recite: it has no prompt and completion"
                )
            if not e.completion.strip():
                raise UserError(f"{e.name} of {spec} has no answer: its completion is empty")
    if found.form.suffix:
        examples = [
            dataclasses.replace(e, prompt=f"{(e.prompt or '').strip()}{found.form.suffix}")
            for e in examples
        ]
    return found, own, examples


def one_answer_each(examples: Sequence[Example]) -> tuple[list[Example], dict[str, str]]:
    """Facts without questions that stand twice; those of conflicting answers are left out whole.

    A question that has two answers can never be right in both rows, and its set never be known to
    100 %.

    Returns:
      What is left, and by name why each other was left out.
    """
    by_question: dict[str, list[Example]] = {}
    for e in examples:
        by_question.setdefault(" ".join((e.prompt or e.name).split()).lower(), []).append(e)
    dropped: dict[str, str] = {}
    for same in by_question.values():
        answers = {squad(e.completion or "") for e in same}
        if len(answers) > 1:
            said = " and ".join(sorted({repr((e.completion or "").strip()) for e in same})[:3])
            dropped |= {e.name: f"the question has the answers {said}" for e in same}
        else:
            dropped |= {e.name: f"the question of {same[0].name} again" for e in same[1:]}
    return [e for e in examples if e.name not in dropped], dropped


def say_dropped(spec: str, dropped: Mapping[str, str]) -> None:
    """One line on what was left out."""
    if dropped:
        name, why = next(iter(dropped.items()))
        print(
            f"{spec}: {len(dropped)} facts were left out, {name} first ({why}); all are in "
            "dropped.json",
            file=sys.stderr,
        )


def checked(facts: Facts, max_new_tokens: int, eos: bool) -> Facts:
    """The same facts.

    Args:
      max_new_tokens: that are generated of an answer.
      eos: whether answers end with a token that need not be said.

    Raises:
      UserError: none is left, or an answer has more tokens than are generated.
    """
    if not facts.encoded:
        raise UserError(f"{facts.name} has no row left: none is a fact to memorise")
    if not facts.recited:
        return facts
    longest = max(facts.encoded, key=lambda e: e.tokens)
    least = longest.tokens - eos
    if least > max_new_tokens:
        raise UserError(
            f"the answer of {longest.name} of {facts.name} has {least} tokens, and "
            f"max_new_tokens={max_new_tokens} are generated: raise it to {least} or more"
        )
    return facts
