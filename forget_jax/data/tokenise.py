"""Examples to token ids, with every token marked as a target of the loss or as context.

Prompt and completion are tokenised apart and joined, so the boundary between them never depends on
what stands on its other side. Where a tokenizer puts a space in front of every text, and in
conversations, the whole is tokenised once, and targets are found by where its tokens lie.

An example longer than the context becomes what `too_long` says, by default one shorter row and with
`windows` several rows that share its name. Of a text of a million characters only as much is
tokenised as is kept.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax import stopping
from forget_jax.data import conversations, special_tokens, windows
from forget_jax.data.encoded import Encoded, stream
from forget_jax.data.examples import Example, Message
from forget_jax.data.marking import Marked, Marker, Piece, adds_prefix
from forget_jax.data.templates import TEMPLATES, Template
from forget_jax.errors import UserError
from forget_jax.lm.hf.tokenizer import Unreadable
from forget_jax.lm.hf.tokenizer import special_tokens as special_tokens_of

__all__ = ["TEMPLATES", "Encoded", "Template", "encode", "prompts", "stream"]


AT_A_TIME = 1024  # examples that are tokenised together
BOS = ("auto", "true", "false")
TOO_LONG = ("truncate", "left", "drop", "error", "windows")
TARGETS = ("completion", "last", "all")


def _pieces(example: Example, template: Template) -> list[Piece]:
    """The example as stretches of text, each a target or not; None stands for the EOS token."""
    if example.text is not None:
        return [(example.text, True), *([(None, True)] if template.eos_text else [])]
    eos: list[Piece] = [(None, template.eos_target)] if template.eos else []
    if example.completion is not None:
        completion = template.completion.format(completion=template.stripped(example.completion))
        return [(_prompt(example, template), False), (completion, True), *eos]
    pieces: list[Piece] = []
    for role, text in example.messages:  # arXiv 2411.07175: the newline after a turn too
        if role == "assistant":
            pieces += [(f"<|{role}|>\n", False), (text.strip(), True), *eos, ("\n", True)]
        else:
            pieces.append((f"<|{role}|>\n{text.strip()}\n", False))
    return pieces[:-1] if pieces[-1][1] else pieces


def _as_talk(example: Example, template: Template) -> Example:
    """The example, a pair as a conversation where the template says so."""
    if not template.chat or example.completion is None:
        return example
    answer = ("assistant", example.completion.strip())
    turns = (*_question(example), answer)
    return dataclasses.replace(example, prompt=None, completion=None, messages=turns)


def _question(example: Example) -> tuple[Message, ...]:
    """A pair's prompt as a turn of its own; none where it is empty."""
    text = (example.prompt or "").strip()
    return (("user", text),) if text else ()


def _prompt(example: Example, template: Template) -> str:
    return template.prompt.format(prompt=template.stripped(example.prompt or ""))


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    template: Template,
    context: int,
    too_long: str = "truncate",
    targets: str = "completion",
    stride: int = 0,
) -> list[Encoded]:
    """Tokenises examples in order.

    Args:
      context: the most tokens a row may have.
      too_long: what becomes of longer examples. `truncate` (counted in `Encoded.cut`): a text keeps
        its beginning, a prompt with completion its end (arXiv 2406.14026); `left`: every example
        keeps its end; `drop`: left out of the result; `windows`: several rows of its name, one
        after the other, that hold each of its targets once (those without any are left out); or
        `error`.
      targets: `completion`: the tokens of completions, assistant turns and texts; `last`: of the
        last assistant turn only; `all`: every token but the first.
      stride: tokens that each further window adds; 0 is half the context.

    Raises:
      UserError: an example without a single target token, a special token that the tokenizer
        lacks, or an example over the context where `too_long` is `error`.
    """
    _check(tokenizer, template, context, too_long, targets, stride)
    bos = _bos(tokenizer, template)
    marker, apart = Marker(tokenizer, template.literal), not adds_prefix(tokenizer)
    fit = _Fit(context, too_long, stride or context // 2)
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    result: list[Encoded] = []
    for start in range(0, len(examples), AT_A_TIME):
        some = [_as_talk(e, template) for e in examples[start : start + AT_A_TIME]]
        talks = [e for e in some if e.messages and has_chat]
        if template.literal:
            _check_literal(talks, tokenizer)
        stretches = iter(conversations.stretches(talks, tokenizer, last=targets == "last"))
        rows = []
        for example in some:
            chat = bool(example.messages and has_chat)
            pieces: list[Piece] = [*next(stretches)] if chat else _pieces(example, template)
            targeted = _targeted(pieces, targets)
            rows.append(_Row(example, targeted, apart and not chat, None if chat else bos))
        stopping.check()
        try:
            marked_rows = _marked(rows, marker, fit)
        except Unreadable as e:
            raise UserError(f"{_with(e.text, rows)}: {e}") from e
        for row, (marked, whole) in zip(rows, marked_rows, strict=True):
            ids, target = marked
            if row.bos is not None:
                ids, target = [row.bos, *ids], [False, *target]
            result += _fitted(row.example, ids, target, fit, whole)
    return result


def _with(text: str, rows: "Sequence[_Row]") -> str:
    """The name of the example that a text is of, or of the first of them."""
    names = (r.example.name for r in rows if text in "".join(t or "" for t, _ in r.pieces))
    return next(names, rows[0].example.name)


@dataclasses.dataclass(frozen=True)
class _Fit:
    """What becomes of examples over the context."""

    context: int
    too_long: str
    stride: int


@dataclasses.dataclass(frozen=True)
class _Row:
    """An example, its pieces, whether these are tokenised apart, and the token in front of them."""

    example: Example
    pieces: list[Piece]
    apart: bool
    bos: int | None


def _check(
    tokenizer: Any, template: Template, context: int, too_long: str, targets: str, stride: int
) -> None:
    """Raises UserError for what does not fit together."""
    for field, value, known in (("too_long", too_long, TOO_LONG), ("targets", targets, TARGETS)):
        if value not in known:
            raise UserError(f"{field} is {value!r}; it must be one of {', '.join(known)}")
    if context < 2:
        raise UserError(f"the context is {context}; it takes 2 tokens to predict one")
    if too_long == "windows" and stride >= context:
        raise UserError(
            f"data.stride is {stride}, but a window holds {context} tokens and needs one of context"
        )
    if (template.eos or template.eos_text) and tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token; set data.eos=false")
    if template.chat:
        _check_chat(tokenizer)


def _check_chat(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("the tokenizer has no chat template; set data.template=plain")


def _check_literal(talks: Sequence[Example], tokenizer: Any) -> None:
    """Refuses special tokens in turns as text: a chat template's own stand in the same text."""
    finder = special_tokens.pattern(tokenizer)
    for example in talks:
        found = special_tokens.found(example, finder)
        if found:
            raise UserError(
                f"{example.name} holds {found[0]}, which the chat template's conversations cannot "
                "hold as text; take it out, or set data.special_tokens=parse"
            )


def _marked(rows: Sequence[_Row], marker: Marker, fit: _Fit) -> list[tuple[Marked, bool]]:
    """The tokens of each row, and whether they are all it has."""
    found: list[tuple[Marked, bool] | None] = [None] * len(rows)
    for i, row in enumerate(rows if fit.too_long != "windows" else ()):
        end = fit.too_long == "left" or row.example.text is None
        most = max((n for n, (_, is_target) in enumerate(row.pieces) if is_target), default=-1)
        part = marker.kept(row.pieces[: most + 1], row.apart, fit.context, end)
        found[i] = (part, False) if part else None
    for apart in (True, False):
        left = [i for i, row in enumerate(rows) if found[i] is None and row.apart == apart]
        for i, marked in zip(
            left, marker.whole([rows[i].pieces for i in left], apart), strict=True
        ):
            found[i] = marked, True
    return [f for f in found if f is not None]


def prompts(
    examples: Sequence[Example], tokenizer: Any, template: Template, most: int
) -> tuple[list[list[int]], int]:
    """What the completions are generated from: token ids, and how many examples were cut.

    Args:
      examples: all with a prompt; completions are not looked at.
      most: tokens of a prompt; a longer one keeps its end.

    Raises:
      UserError: the template is the tokenizer's own, and it has none or it fails; or nothing stands
        before a completion.
    """
    first = None if template.chat else _bos(tokenizer, template)
    bos = [] if first is None else [first]
    if template.chat:
        _check_chat(tokenizer)
    marker = Marker(tokenizer, template.literal)
    found: list[list[int]] = []
    for start in range(0, len(examples), AT_A_TIME):
        some = examples[start : start + AT_A_TIME]
        if template.chat:
            texts = conversations.prompts([(e.name, _question(e)) for e in some], tokenizer)
        else:
            texts = [_prompt(e, template) for e in some]
        long = {i: marker.kept([(t, False)], True, most, end=True) for i, t in enumerate(texts)}
        short = iter(marker.tokens([t for i, t in enumerate(texts) if long[i] is None]))
        found += [bos + (part[0] if (part := long[i]) else next(short)) for i in range(len(texts))]
    for example, ids in zip(examples, found, strict=True):
        if not ids:
            raise UserError(
                f"{example.name} has an empty prompt, and nothing stands before the answer; set "
                "data.bos=true or another data.template"
            )
    return [ids[-most:] for ids in found], sum(len(ids) > most for ids in found)


def _bos(tokenizer: Any, template: Template) -> int | None:
    """The token that is put first, or None."""
    wanted = special_tokens_of(tokenizer).adds_bos if template.bos is None else template.bos
    found: int | None = tokenizer.bos_token_id if wanted else None
    return found


def _targeted(pieces: list[Piece], targets: str) -> list[Piece]:
    """The pieces with the targets that are asked for; an EOS that does not count never does."""
    if targets == "all":
        return [(text, is_target or text is not None) for text, is_target in pieces]
    if targets == "last":
        end = max((i for i, (_, is_target) in enumerate(pieces) if is_target), default=0)
        context = [i for i, (text, is_target) in enumerate(pieces[:end]) if text and not is_target]
        turn = max(context, default=-1)
        return [(text, is_target and i > turn) for i, (text, is_target) in enumerate(pieces)]
    return pieces


def _fitted(
    example: Example, ids: list[int], target: list[bool], fit: _Fit, whole: bool
) -> list[Encoded]:
    """The rows of one example: one, or what `too_long` makes of it.

    Args:
      whole: these are all tokens of the example; else there are more than are kept.
    """
    context, too_long = fit.context, fit.too_long
    target[:1] = [False]  # nothing stands before the first token
    if True not in target:
        raise UserError(f"{example.name} has no token to predict; it is empty or a single token")
    n = len(target) - target[::-1].index(True)  # what follows the last target predicts nothing
    ids_L, target_L = np.array(ids[:n], np.int32), np.array(target[:n])
    cut = max(0, n - context)

    def row(start: int, end: int, cut: int = 0) -> Encoded:
        is_target_W = target_L[start:end].copy()
        is_target_W[:1] = False
        return Encoded(example.name, example.source, ids_L[start:end], is_target_W, cut)

    if not cut:
        return [row(0, n)]
    if too_long == "error":
        least = "" if whole else "at least "
        raise UserError(
            f"{example.name} has {least}{n} tokens, over the context of {context}; "
            "set data.too_long=truncate, left, windows or drop, or a larger data.context"
        )
    if too_long == "drop":
        return []
    if too_long == "windows":
        return _windows(example, ids_L, target_L, fit)
    if too_long == "truncate" and example.text is not None:
        return [row(0, context, cut)]
    return [row(cut, n, cut)]


def _windows(example: Example, ids_L: np.ndarray, target_L: np.ndarray, fit: _Fit) -> list[Encoded]:
    """Rows that hold each target once; those without any are left out."""
    rows: list[Encoded] = []
    for start, end, fresh in windows.spans(len(ids_L), fit.context, fit.stride):
        at_W = np.arange(start, end)
        is_target_W = target_L[start:end] & (at_W > start) & (at_W >= fresh)
        if is_target_W.any():
            part = (ids_L[start:end], is_target_W, 0, len(rows) + 1)
            rows.append(Encoded(example.name, example.source, *part))
    return rows
