"""Where in a conversation's text the model speaks: what of it is learned and scored."""

from collections.abc import Sequence
from typing import Any

from forget_jax.data.examples import Example
from forget_jax.data.rendering import Job, render
from forget_jax.errors import UserError

Stretch = tuple[str, bool]  # text, and whether it is a target


def stretches(example: Example, tokenizer: Any, last: bool) -> list[Stretch]:
    """A conversation through the tokenizer's chat template, as stretches of text in order.

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
    turns = example.messages
    answers = [i for i, (role, _) in enumerate(turns) if role == "assistant"]
    end = answers[-1] + 1
    counted = answers[-1:] if last else answers
    jobs = [Job(turns[:end])]
    for i in counted:
        jobs += [Job(turns[:i], prompt=True), Job(turns[: i + 1])]
    whole, *parts = render(tokenizer, jobs, example.name)
    if whole.spans:
        return _cut(whole.text, whole.spans[-1:] if last else whole.spans)
    spans = []
    for before, after in zip(parts[::2], parts[1::2], strict=True):
        text = after.text
        if not (text.startswith(before.text) and whole.text.startswith(before.text)):
            raise UserError(_rewrites(example, last))
        if not whole.text.startswith(text):
            raise UserError(_rewrites(example, last))
        spans.append((len(before.text), len(text)))
    return _cut(whole.text, spans)


def _rewrites(example: Example, last: bool) -> str:
    way = (
        "use prompt and completion columns instead"
        if last
        else "set data.targets=last to learn the last answer only"
    )
    return (
        f"{example.name}: the tokenizer's chat template rewrites earlier turns, so targets cannot "
        f"be told apart; {way}"
    )


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> list[Stretch]:
    """The text up to the last span's end, cut where spans begin and end."""
    found: list[Stretch] = []
    at = 0
    for start, end in spans:
        found += [(text[at:start], False), (text[start:end], True)]
        at = end
    return [(piece, target) for piece, target in found if piece]
