"""Where in a conversation's text the model speaks: what of it is learned and scored."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from forget_jax.data.examples import Example, Message
from forget_jax.data.rendering import Job, Rendered, render
from forget_jax.errors import UserError

Stretch = tuple[str, bool]  # text, and whether it is a target
Span = tuple[int, int]  # where in a text

TOGETHER = 2**23  # characters, about, that are rendered at a time
FRAME = 2**10  # characters, about, that a template puts around a conversation
PROBE = "\ue0a1\ue0a2"  # an answer that is in no text


class _Answer(NamedTuple):
    """An answer of a conversation: what is rendered to find it.

    Attributes:
      at: which turn it is.
      before: the turns before it, with what the model goes on from; None where there are none.
      after: the conversation up to its end; None for the last turn.
    """

    at: int
    before: Job | None
    after: Job | None


def stretches(talks: Sequence[Example], tokenizer: Any, last: bool) -> Iterator[list[Stretch]]:
    """Conversations through the tokenizer's chat template, each as stretches of text in order.

    Joined they are what the template makes of the whole conversation up to its last answer. An
    answer's stretch begins after what the template puts there for the model to go on from, and ends
    where it is over, mark of the turn's end included; `{% generation %}` in a template says both by
    itself.

    Args:
      last: only the last answer counts, so a template may show earlier turns otherwise while they
        are the last (as reasoning templates do).

    Raises:
      UserError: a template that fails, or whose answers cannot be told apart.
    """
    group: list[Example] = []
    size = 0
    for talk in talks:
        group.append(_to_last_answer(talk))
        size += len(talk.messages) * (FRAME + sum(len(text) for _, text in talk.messages))
        if size > TOGETHER:
            yield from _stretches(group, tokenizer, last)
            group, size = [], 0
    yield from _stretches(group, tokenizer, last)


def _stretches(talks: Sequence[Example], tokenizer: Any, last: bool) -> list[list[Stretch]]:
    """The same for a few of them, which are rendered together."""
    wholes = render(tokenizer, [Job(talk.name, talk.messages) for talk in talks])
    for whole in wholes:
        whole.check()
    answers = [
        [] if whole.spans else _answers(talk, last)
        for talk, whole in zip(talks, wholes, strict=True)
    ]
    jobs = [job for some in answers for answer in some for job in answer[1:] if job]
    parts = iter(render(tokenizer, jobs))
    found = []
    for talk, whole, some in zip(talks, wholes, answers, strict=True):
        spans = whole.spans
        for answer in some:
            before = next(parts) if answer.before else None
            after = next(parts) if answer.after else whole
            begin = _begin(talk, answer.at, whole, before, tokenizer, last)
            if not whole.text.startswith(after.checked()):
                raise _rewrites(talk, last)
            spans = [*spans, (begin, len(after.text))]
        found.append(_cut(whole.text, spans[-1:] if last else spans))
    return found


def prompts(asked: Sequence[tuple[str, Sequence[Message]]], tokenizer: Any) -> list[str]:
    """Turns through the chat template, each with the beginning of the answer that is to follow.

    Args:
      asked: what names the turns for people, and the turns.

    Raises:
      UserError: a template that fails.
    """
    jobs = [Job(name, turns, prompt=True) for name, turns in asked]
    return [rendered.checked() for rendered in render(tokenizer, jobs)]


def _to_last_answer(talk: Example) -> Example:
    """The conversation without what follows its last answer."""
    end = 1 + max(i for i, (role, _) in enumerate(talk.messages) if role == "assistant")
    return dataclasses.replace(talk, messages=talk.messages[:end])


def _answers(talk: Example, last: bool) -> list[_Answer]:
    """The answers that count."""
    turns = talk.messages
    counted = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    return [
        _Answer(
            i,
            Job(talk.name, turns[:i], prompt=True) if i else None,
            Job(talk.name, turns[: i + 1]) if i + 1 < len(turns) else None,
        )
        for i in (counted[-1:] if last else counted)
    ]


def _begin(
    talk: Example, at: int, whole: Rendered, before: Rendered | None, tokenizer: Any, last: bool
) -> int:
    """Where in the whole text an answer begins.

    Some templates have the model go on from more than they put before answers that were given (an
    opened block of reasoning), and some take no conversation that ends before an answer. Another
    answer in its place then shows what is put before it.
    """
    if before is not None and not before.error and whole.text.startswith(before.text):
        return len(before.text)
    (other,) = render(tokenizer, [Job(talk.name, (*talk.messages[:at], ("assistant", PROBE)))])
    begin = other.checked().rfind(PROBE)
    if begin < 0 or not whole.text.startswith(other.text[:begin]):
        raise _rewrites(talk, last)
    return begin


def _rewrites(example: Example, last: bool) -> UserError:
    way = (
        "use prompt and completion columns instead"
        if last
        else "set data.targets=last to learn the last answer only"
    )
    return UserError(
        f"{example.name}: the tokenizer's chat template rewrites earlier turns, so targets cannot "
        f"be told apart; {way}"
    )


def _cut(text: str, spans: Sequence[Span]) -> list[Stretch]:
    """The text up to the last span's end, cut where spans begin and end."""
    found: list[Stretch] = []
    at = 0
    for start, end in spans:
        start, end = max(at, start), max(at, end)  # a template may mark a block within a block
        found += [(text[at:start], False), (text[start:end], True)]
        at = end
    return [(piece, target) for piece, target in found if piece]
