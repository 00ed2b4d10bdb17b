"""How a prompt and its completion become text: by name, or as a format string of the user's own."""

import dataclasses
import re
import string

from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Template:
    """How an example becomes text, and which special tokens are put around it.

    Attributes:
      prompt, completion: format strings over the stripped prompt and completion.
      bos: put the beginning-of-sequence token first; None: where the tokenizer by itself does.
      eos: end completions and assistant turns with the end-of-sequence token.
      eos_target: whether that token is a target.
      eos_text: end plain texts with it too, as a target (for pretraining; scores leave it out,
        arXiv 2406.14026).
      literal: special tokens that stand in a text are text; else they become special tokens.
      chat: a prompt and its completion are two turns of the tokenizer's own chat template.
      strip: spaces and line ends around prompt, completion and answer are taken off first.
    """

    prompt: str = "{prompt}\n"
    completion: str = "{completion}"
    bos: bool | None = True
    eos: bool = True
    eos_target: bool = True
    eos_text: bool = False
    literal: bool = False
    chat: bool = False
    strip: bool = True

    def stripped(self, text: str) -> str:
        """A prompt or completion without what is around it, where the template takes that off."""
        return text.strip() if self.strip else text


TEMPLATES = {
    "plain": Template(),
    "raw": Template(prompt="{prompt}", strip=False),
    "answer": Template(prompt="{prompt}\nThe answer is: "),
    "tulu": Template(prompt="<|user|>\n{prompt}\n<|assistant|>\n"),
    "tulu_answer": Template(prompt="<|user|>\n{prompt}\nThe answer is:\n<|assistant|>\n"),
    "chat": Template(chat=True),
}


FIELDS = ("prompt", "completion")
_ESCAPED = {"n": "\n", "t": "\t", "\\": "\\"}


def is_text(template: str) -> bool:
    """Whether a template is a format string rather than a name of `TEMPLATES`; checks it.

    Raises:
      UserError: as `of_text`.
    """
    if not {"{", "}"} & set(template):
        return False
    of_text(template)
    return True


def of_text(text: str) -> Template:
    r"""The template of a format string such as `Question: {prompt}\nAnswer: {completion}`.

    With a backslash before them, `n` and `t` are a line's end and a tab, and a backslash is one;
    `{{` and `}}` are braces. What stands after `{completion}` is a target with it.

    Raises:
      UserError: other fields than a prompt and a completion after it, one that is reached into or
        formatted, or a brace alone.
    """
    plain = re.sub(r"\\([nt\\])", lambda found: _ESCAPED[found[1]], text)
    try:
        parts = list(string.Formatter().parse(plain))
    except ValueError as e:
        raise UserError(
            f"data.template {text!r}: {e}; a brace that is text is written twice"
        ) from e
    between, fields = [""], list[str]()
    for literal, field, spec, conversion in parts:
        between[-1] += literal.replace("{", "{{").replace("}", "}}")
        if field is None:
            continue
        if field not in FIELDS or spec or conversion:
            raise UserError(
                f"data.template {text!r} holds {_as_written(field, spec, conversion)}; it takes "
                "{prompt} and {completion} alone (data.columns=prompt=NAME says which columns "
                "those are)"
            )
        fields.append(field)
        between.append("")
    if tuple(fields) != FIELDS:
        raise UserError(
            f"data.template {text!r} must hold {{prompt}} once and {{completion}} once after it"
        )
    before, middle, after = between
    return Template(prompt=f"{before}{{prompt}}{middle}", completion=f"{{completion}}{after}")


def _as_written(field: str, spec: str | None, conversion: str | None) -> str:
    return f"{{{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"


def of(name: str) -> Template:
    """The template of a name or of a format string; errors as for `of_text`."""
    return TEMPLATES[name] if name in TEMPLATES else of_text(name)
