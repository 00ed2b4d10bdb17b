"""The unit of data: one example, as a task trains on it or as the scorer scores it."""

import dataclasses

Message = tuple[str, str]  # (role, text); roles are "system", "user", "assistant", "tool"


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set, in exactly one of three forms.

    Attributes:
      name: unique within its data set, such as `c4_train#12`; labels a column of the matrix.
      source: the group it came from, such as `c4_train` or `docstrings/json`; groups the pictures.
      text: a plain document; every token but the first is a target.
      prompt, completion: the completion and the end-of-sequence token are the targets.
      messages: a conversation; every assistant turn is a target.
      answers: further accepted answers (aliases) for exact match, beside the completion.
      options: what the completion is chosen from, itself among them (multiple choice).
    """

    name: str
    source: str
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: tuple[Message, ...] = ()
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
