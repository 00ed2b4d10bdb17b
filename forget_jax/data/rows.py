"""One row of a data set, whatever it was read from, becomes an `Example`, or a clear error."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from forget_jax.data.examples import Example
from forget_jax.data.notes import Notes
from forget_jax.data.row_values import as_list, label, text_of, texts_of
from forget_jax.data.turns import is_talk, joined, turns_of
from forget_jax.errors import UserError, nearest
from forget_jax.foreign import in_words

FIELDS = ("text", "prompt", "completion", "messages", "name", "source", "answers", "options")
# A column of such a name may mean something else.
OPTIONAL = ("name", "source", "answers", "options")
SHAREGPT = "conversations"
_FORMS = {
    "text": ("text",),
    "prompt and completion": ("prompt", "completion"),
    "messages": ("messages",),
}
_LISTED = 20  # columns that an error names
_IN_JSON = (
    "completion is a list in JSON text",
    ": its first text is the target, and all are accepted answers",
)
_IN_PYTHON = (
    "completion looks like a list that Python wrote",
    ' and is taken as the text that it is; write such lists as JSON (["a", "b"])',
)
_EMPTY = ("completion is an empty list", ": the end of an empty completion is the target")


def check_columns(columns: Mapping[str, str]) -> None:
    """Raises UserError for a key that is not one of `FIELDS`; the values are the file's names."""
    for ours in columns:
        if ours not in FIELDS:
            raise UserError(
                f"columns: {ours!r} is not a field; the fields are {', '.join(FIELDS)}, each "
                f"given the name of a column of the file{nearest(ours, FIELDS)}"
            )


def to_example(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    *,
    where: str,
    name: str,
    source: str,
    notes: Notes | None = None,
) -> Example | None:
    """The example in a row, or None where its text is blank (as in WikiText's empty lines).

    Args:
      row: column names and values. A null value counts as an absent column.
      columns: our field names onto the row's columns; `a.b` reaches into a nested object, and an
        empty name switches a field off. Where they name a column of a form (text; prompt and
        completion; messages), the row is in that form.
      where: the file and row, for error messages.
      name, source: used where the row has no such column.
      notes: takes what was read in another way, or left out.

    Prompt and completion may be lists of turns (TRL's conversational sets), `instruction`, `input`
    and `output` are read as both (Alpaca's). A completion may be a list of accepted answers: the
    first is the target. An empty completion is
    legal (the end-of-sequence token is its target). Lists may also be given as JSON text, as CSV
    files do.
    """
    notes = Notes() if notes is None else notes
    values = {field: _optional(row, columns, field, where, notes) for field in OPTIONAL}
    form = _form(row, columns, where, values, notes)
    name = label(values["name"], "name", where) or name
    source = sys.intern(label(values["source"], "source", where) or source)
    answers = texts_of(values["answers"], "answers", where)
    options = texts_of(values["options"], "options", where)
    if form == "text":
        text = text_of(values["text"], "text", where)
        return Example(name, source, text=text, answers=answers) if text.strip() else None
    if form == "messages":
        messages = turns_of(values["messages"], where, notes)
        return Example(name, source, messages=messages, answers=answers)
    if is_talk(values["prompt"]) or is_talk(values["completion"]):
        messages = joined(values["prompt"], values["completion"], where, notes)
        return Example(name, source, messages=messages, answers=answers)
    prompt = text_of(values["prompt"], "prompt", where)
    completion, accepted = _completion(values["completion"], where, notes)
    if accepted:
        answers = tuple(filter(None, dict.fromkeys((*accepted, *answers))))
    return Example(
        name, source, prompt=prompt, completion=completion, answers=answers, options=options
    )


def to_prompt(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    *,
    where: str,
    name: str,
    source: str,
    notes: Notes | None = None,
) -> Example | None:
    """As `to_example`, of a row that is asked: a prompt without a completion is a text."""
    answer = columns.get("completion", "completion")
    there = answer.partition(".")[0] in row
    answered = there and _cell(row, {"completion": answer}, "completion", where) is not None
    if not answered and _cell(row, columns, "prompt", where) is not None:
        kept = {field: columns[field] for field in OPTIONAL if field in columns}
        columns = {**kept, "text": columns.get("prompt", "prompt")}
    return to_example(row, columns, where=where, name=name, source=source, notes=notes)


def row_of(example: Example) -> dict[str, Any]:
    """The row that `to_example` makes this very example of, under our own field names."""
    row: dict[str, Any] = {"name": example.name, "source": example.source}
    if example.text is not None:
        row["text"] = example.text
    elif example.messages:
        row["messages"] = [{"role": role, "content": text} for role, text in example.messages]
    else:
        target = example.completion or ""
        # a text that is itself a list in JSON would be read as one
        row |= {"prompt": example.prompt, "completion": [target] if as_list(target) else target}
    for field in ("answers", "options"):
        if texts := getattr(example, field):
            row[field] = list(texts)
    return row


def _completion(value: Any, where: str, notes: Notes) -> tuple[str, Sequence[str]]:
    """A completion, and the accepted answers where it is given as a list of them."""
    if isinstance(value, str):
        listed = as_list(value)
        if listed:
            notes.rows[_IN_JSON] += 1
            value = listed
        elif value.startswith("['") and value.rstrip().endswith("]"):
            notes.rows[_IN_PYTHON] += 1
    if not isinstance(value, list):
        return text_of(value, "completion", where), ()
    accepted = texts_of(value, "completion", where)
    if not accepted:
        notes.rows[_EMPTY] += 1
    return (accepted or ("",))[0], accepted


def _optional(
    row: Mapping[str, Any], columns: Mapping[str, str], field: str, where: str, notes: Notes
) -> Any:
    """The row's value for a field that it need not have.

    A column that only happens to be called so, and that nobody asked for, may hold anything.
    """
    if field in columns:
        return _cell(row, columns, field, where)
    if field not in row:
        return None
    try:
        value = row[field]
    except UserError:
        said = "cannot be read"
    else:
        if _is_of(field, value):
            return value
        said = f"is {in_words(value).partition(' (')[0]}"
    if not any(column.startswith(f"{field}.") for column in columns.values()):
        after = f" and is left out (data.columns={field}= does so without a word)"
        notes.rows[f"{field} {said}", after] += 1
    return None


def _is_of(field: str, value: Any) -> bool:
    """Whether a value can be what an optional field holds."""
    if value is None or isinstance(value, str):
        return True
    if field in ("answers", "options"):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _cell(row: Mapping[str, Any], columns: Mapping[str, str], field: str, where: str) -> Any:
    """The row's value for a field; a column that was asked for by name must exist."""
    column = columns.get(field, field)
    if not column:
        return None
    if column in row:
        return row[column]
    outer, *inner = column.split(".")
    if outer not in row:
        if field not in columns:
            return None
        raise UserError(
            f"{where}: there is no column {column!r} (wanted for {field}); the columns are "
            f"{_listed(row)}{nearest(column, row)}"
        )
    value: Any = row[outer]
    for key in inner:
        if value is not None and not isinstance(value, Mapping):
            raise UserError(
                f"{where}: {outer} is {in_words(value)}, so there is no {column} in it (wanted for "
                f"{field})"
            )
        value = None if value is None else value.get(key)
    return value


def _form(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    where: str,
    values: dict[str, Any],
    notes: Notes,
) -> str:
    """Which of the three forms the row is in: `values` takes what it holds in that form's fields.

    Only forms that `columns` name are looked for, where they name any.
    """
    asked = [form for form, need in _FORMS.items() if any(columns.get(field) for field in need)]
    for form in asked or _FORMS:
        for field in _FORMS[form]:
            values[field] = _cell(row, columns, field, where)
    present = [
        form for form, need in _FORMS.items() if all(values.get(f) is not None for f in need)
    ]
    if len(present) == 1:
        return present[0]
    if present:
        raise UserError(
            f"{where}: holds {' as well as '.join(present)}; say which to use by naming its "
            "columns (such as columns.text=text)"
        )
    if not asked and "messages" not in columns and row.get(SHAREGPT) is not None:
        notes.read_as[SHAREGPT] = "messages"
        values["messages"] = row[SHAREGPT]
        return "messages"
    if not asked and row.get("instruction") is not None and row.get("output") is not None:
        notes.read_as |= {"instruction and input": "prompt", "output": "completion"}
        values["prompt"], values["completion"] = _alpaca(row, where), row["output"]
        return "prompt and completion"
    wanted = [field for form in asked for field in _FORMS[form]]
    if not asked and (values["prompt"] is not None or values["completion"] is not None):
        wanted = ["prompt", "completion"]
    for missing in wanted:
        if values[missing] is None:
            column = columns.get(missing, missing)
            state = "is null" if column in row else "is missing"
            raise UserError(
                f"{where}: {missing} {state}; the columns are {_listed(row)} "
                f"(data.columns={missing}=NAME says which of them to use)"
            )
    raise UserError(
        f"{where}: holds neither text, nor prompt and completion, nor messages; the columns are "
        f"{_listed(row)} (data.columns=FIELD=NAME says which of them to use)"
    )


def _alpaca(row: Mapping[str, Any], where: str) -> str:
    """The prompt of a row as Stanford Alpaca has it: the instruction, and what it is about."""
    parts = [text_of(row["instruction"], "instruction", where)]
    if row.get("input") is not None:
        parts.append(text_of(row["input"], "input", where))
    return "\n\n".join(part for part in parts if part.strip())


def _listed(row: Mapping[str, Any]) -> str:
    """The names of a row's columns, for an error's line."""
    names = [" ".join(str(name).split())[:80] for name in list(row)[:_LISTED]]
    more = [f"and {len(row) - _LISTED} more"] if len(row) > _LISTED else []
    return ", ".join(names + more) or "(none)"
