"""One row of a data set, whatever it was read from, becomes an `Example`, or a clear error."""

from collections.abc import Mapping
from typing import Any

from forget_jax import foreign
from forget_jax.data.examples import Example, Message
from forget_jax.errors import UserError, nearest
from forget_jax.foreign import in_words

FIELDS = ("text", "prompt", "completion", "messages", "name", "source", "answers")
ROLES = ("system", "user", "assistant")
# Roles as others call them, and the columns of ShareGPT's conversations.
CALLED = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
SHAREGPT = "conversations"
OPTIONAL = ("name", "source", "answers")  # a column of such a name may mean something else
_FORMS = {
    "text": ("text",),
    "prompt and completion": ("prompt", "completion"),
    "messages": ("messages",),
}


def check_columns(columns: Mapping[str, str]) -> None:
    """Raises UserError for a key that is not one of `FIELDS`; the values are the file's names."""
    for ours in columns:
        if ours not in FIELDS:
            raise UserError(
                f"columns: {ours!r} is not a field; the fields are {', '.join(FIELDS)}, each "
                f"given the name of a column of the file{nearest(ours, FIELDS)}"
            )


def to_example(
    row: Mapping[str, Any], columns: Mapping[str, str], *, where: str, name: str, source: str
) -> Example | None:
    """The example in a row, or None where its text is blank (as in WikiText's empty lines).

    Args:
      row: column names and values. A null value counts as an absent column.
      columns: our field names onto the row's columns; `a.b` reaches into a nested object, and an
        empty name switches a field off.
      where: the file and row, for error messages.
      name, source: used where the row has no such column.

    A completion may be a list of accepted answers: the first is the target. An empty completion is
    legal (the end-of-sequence token is its target). Lists may also be given as JSON text, as CSV
    files do.
    """
    values = {field: _cell(row, columns, field, where) for field in FIELDS}
    if values["messages"] is None and "messages" not in columns and SHAREGPT in row:
        values["messages"] = row[SHAREGPT]
    for field in OPTIONAL:
        if field not in columns and not _is_of(field, values[field]):
            values[field] = None
    form = _form(values, columns, row, where)
    name = _label(values["name"], "name", where) or name
    source = _label(values["source"], "source", where) or source
    answers = _texts(values["answers"], "answers", where)
    if form == "text":
        text = _text(values["text"], "text", where)
        return Example(name, source, text=text, answers=answers) if text.strip() else None
    if form == "messages":
        return Example(name, source, messages=_messages(values["messages"], where), answers=answers)
    prompt = _text(values["prompt"], "prompt", where)
    completion = values["completion"]
    if isinstance(completion, str):
        completion = _json_list(completion, texts=True) or completion
    if isinstance(completion, list):  # an empty one, as of a question without an answer, is no text
        accepted = _texts(completion, "completion", where) or ("",)
        completion, answers = accepted[0], tuple(filter(None, dict.fromkeys((*accepted, *answers))))
    completion = _text(completion, "completion", where)
    return Example(name, source, prompt=prompt, completion=completion, answers=answers)


def _cell(row: Mapping[str, Any], columns: Mapping[str, str], field: str, where: str) -> Any:
    """The row's value for a field; a column that was asked for by name must exist."""
    column = columns.get(field, field)
    if not column:
        return None
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        value = value.get(key, None) if isinstance(value, Mapping) else None
    if value is None and field in columns and column.split(".")[0] not in row:
        raise UserError(
            f"{where}: there is no column {column!r} (wanted for {field}); the columns are "
            f"{_listed(row)}{nearest(column, row)}"
        )
    return value


def _form(
    values: Mapping[str, Any], columns: Mapping[str, str], row: Mapping[str, Any], where: str
) -> str:
    """Which of the three forms the row is in; forms that `columns` names go before others."""
    present = [form for form, need in _FORMS.items() if all(values[f] is not None for f in need)]
    asked = [form for form in present if any(f in columns for f in _FORMS[form])]
    if len(asked or present) == 1:
        return (asked or present)[0]
    if present:
        raise UserError(
            f"{where}: holds {' as well as '.join(asked or present)}; say which to use by naming "
            "its columns (such as columns.text=text)"
        )
    if values["prompt"] is not None or values["completion"] is not None:
        missing = "completion" if values["completion"] is None else "prompt"
        column = columns.get(missing, missing)
        state = "is null" if column in row else "is missing"
        raise UserError(
            f"{where}: {missing} {state}; the columns are {_listed(row)} "
            f"(columns.{missing}=NAME says which of them to use)"
        )
    raise UserError(
        f"{where}: holds neither text, nor prompt and completion, nor messages; the columns are "
        f"{_listed(row)} (columns.FIELD=NAME says which of them to use)"
    )


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "(none)"


def _text(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {field} is {in_words(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as e:  # JSON can hold such escapes; no tokenizer takes them
        broken = value[e.start].encode("ascii", "backslashreplace").decode()
        raise UserError(f"{where}: {field} holds {broken}, which is no character") from e
    return value


def _label(value: Any, field: str, where: str) -> str:
    """A name or source: text, or a number as data bases give their ids."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, field, where)


def _texts(value: Any, field: str, where: str) -> tuple[str, ...]:
    """A list of texts, given as a list, as JSON text of a list, or as one text."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = _json_list(value) or [value]
    if not isinstance(value, list):
        raise UserError(f"{where}: {field} is {in_words(value)}, not a list of texts")
    for item in value:
        if not isinstance(item, str):
            raise UserError(f"{where}: {field} holds {in_words(item)}, not only texts")
    return tuple(value)


def _json_list(value: str, texts: bool = False) -> list[Any] | None:
    """The list that a text is in JSON; with `texts`, of texts alone."""
    if not value.lstrip().startswith("["):
        return None
    try:
        held = foreign.parse(value, "")
    except UserError:
        return None
    if not isinstance(held, list) or (texts and not all(isinstance(x, str) for x in held)):
        return None
    return held


def _is_of(field: str, value: Any) -> bool:
    """Whether a value can be what an optional field holds."""
    if field == "answers":
        listed = isinstance(value, list) and all(isinstance(x, str) for x in value)
        return value is None or isinstance(value, str) or listed
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _joined(content: Any) -> Any:
    """The text of a turn that is given in parts, as `{"type": "text", "text": …}`."""
    if not isinstance(content, list):
        return content
    texts: list[Any] = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return "".join(texts) if texts and all(isinstance(text, str) for text in texts) else content


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    """The turns of a conversation: each a role of ROLES and text, at least one of the assistant."""
    if isinstance(value, str):
        value = _json_list(value)
    if isinstance(value, Mapping):  # column-wise storage
        lists: list[Any] = [value.get(key) for key in ("role", "content")]
        if not all(isinstance(x, list) for x in lists) or len(lists[0]) != len(lists[1]):
            raise UserError(
                f"{where}: messages is an object; it must be a list of {{role, content}}, or hold "
                "lists of both of one length"
            )
        value = [{"role": r, "content": c} for r, c in zip(*lists, strict=True)]
    if not isinstance(value, list) or not value:
        raise UserError(
            f"{where}: messages is not a list of {{role, content}} with at least one turn"
        )
    turns: list[Message] = []
    for n, turn in enumerate(value):
        here = f"{where}, message {n}"
        if isinstance(turn, Mapping) and {"from", "value"} <= set(turn):  # as ShareGPT has it
            turn = {"role": turn["from"], "content": turn["value"]}
        if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
            raise UserError(f"{here}: needs role and content")
        role, content = turn["role"], turn["content"]
        role = CALLED.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            known = ", ".join((*ROLES, *CALLED))
            raise UserError(f"{here}: role is {in_words(role)}; the roles are {known}")
        turns.append((role, _text(_joined(content), "content", here)))
    if all(role != "assistant" for role, _ in turns):
        raise UserError(f"{where}: messages has no assistant turn, so there is nothing to learn")
    return tuple(turns)
