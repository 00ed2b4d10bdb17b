"""The turns of a conversation, from the ways that people store them."""

from collections.abc import Mapping
from typing import Any

from forget_jax.data.examples import Message
from forget_jax.data.notes import Notes
from forget_jax.data.row_values import from_json, text_of
from forget_jax.errors import UserError
from forget_jax.foreign import in_words

ROLES = {role: role for role in ("system", "user", "assistant", "tool")}
CALLED = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
}
_CALLS = "tool_calls"  # of an assistant, in place of a content or beside it
_CALLS_LEFT = ("messages hold tool_calls", ", which are not read: write them into the content")
# The columns of a turn, here and in ShareGPT's files.
_KEYS = (("role", "content"), ("from", "value"))
_EARLIER = (
    "a prompt of several turns",
    " has answers in it, which are targets too; data.targets=last learns the last one only",
)


def turns_of(value: Any, where: str, notes: Notes) -> tuple[Message, ...]:
    """The turns of a conversation: each a role of `ROLES` and text, at least one the assistant's.

    Args:
      value: a list of turns, or an object that holds a list of roles and one of contents; or either
        as JSON text.
      where: the file and row, for error messages.
      notes: takes names that were read as ours.

    Raises:
      UserError: anything else.
    """
    if isinstance(value, str):
        value = from_json(value, "[") or from_json(value, "{")
    if isinstance(value, Mapping):
        value = _by_columns(value, where)
    if not isinstance(value, list) or not value:
        raise UserError(
            f"{where}: messages is not a list of {{role, content}} with at least one turn"
        )
    turns = tuple(_turn(turn, f"{where}, message {n}", notes) for n, turn in enumerate(value))
    if all(role != "assistant" for role, _ in turns):
        raise UserError(f"{where}: messages has no assistant turn, so there is nothing to learn")
    return turns


def is_talk(value: Any) -> bool:
    """Whether a prompt or completion is a list of turns, as TRL's conversational sets have it."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def joined(prompt: Any, completion: Any, where: str, notes: Notes) -> tuple[Message, ...]:
    """The conversation of a prompt and a completion of which one, or both, are lists of turns.

    Raises:
      UserError: as `turns_of` does.
    """
    before = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    after = completion
    if not isinstance(completion, list):
        after = [{"role": "assistant", "content": completion}]
    if any(isinstance(t, Mapping) and t.get("role") == "assistant" for t in before):
        notes.rows[_EARLIER] += 1
    return turns_of([*before, *after], where, notes)


def _by_columns(value: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The turns of a conversation that is stored column by column."""
    for keys in _KEYS:
        roles, contents = (value.get(key) for key in keys)
        if isinstance(roles, list) and isinstance(contents, list) and len(roles) == len(contents):
            return [
                dict(zip(keys, turn, strict=True)) for turn in zip(roles, contents, strict=True)
            ]
    raise UserError(
        f"{where}: messages is an object; it must be a list of {{role, content}}, or hold lists of "
        "both of one length"
    )


def _turn(turn: Any, here: str, notes: Notes) -> Message:
    held = turn if isinstance(turn, Mapping) else {}
    keys = next((keys for keys in _KEYS if set(keys) <= set(held)), None)
    if keys is None:
        raise UserError(f"{here}: needs role and content")
    if keys != _KEYS[0]:
        notes.read_as |= dict(zip(keys, _KEYS[0], strict=True))
    role, content = (held[key] for key in keys)
    if held.get(_CALLS):
        if content is None:
            raise UserError(
                f"{here}: has tool_calls and no content; calls are not read: write them into the "
                "content, as the model is to write them"
            )
        notes.rows[_CALLS_LEFT] += 1
    name = role if isinstance(role, str) else ""
    if name not in ROLES | CALLED:
        known = ", ".join((*ROLES, *CALLED))
        raise UserError(f"{here}: role is {in_words(role)}; the roles are {known}")
    if name in CALLED:
        notes.read_as[name] = CALLED[name]
    return (ROLES | CALLED)[name], text_of(_joined(content), "content", here)


def _joined(content: Any) -> Any:
    """The text of a turn that is given in parts, as `{"type": "text", "text": …}`."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts and len(texts) == len(parts) else content
