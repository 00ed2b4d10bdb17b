"""Examples to token ids, with every token marked as a target of the loss or as context.

Prompt and completion are tokenised apart and joined, so the boundary between them never depends on
what stands on its other side.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.data.examples import Example
from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Template:
    """How an example becomes text, and which special tokens are put around it.

    Attributes:
      prompt, completion: format strings over the stripped prompt and completion.
      bos: put the beginning-of-sequence token first.
      eos: end completions and assistant turns with the end-of-sequence token, as a target.
      eos_text: the same for plain texts (for pretraining; scores leave it out, lowrank.md §1).
    """

    prompt: str = "{prompt}\n"
    completion: str = "{completion}"
    bos: bool = True
    eos: bool = True
    eos_text: bool = False


TEMPLATES = {
    "plain": Template(),
    "answer": Template(prompt="{prompt}\nThe answer is: "),
    "tulu": Template(prompt="<|user|>\n{prompt}\n<|assistant|>\n"),
}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One tokenised example.

    Attributes:
      ids: int32 (L,).
      is_target: bool (L,): whether predicting this token from those before it is scored.
      cut: how many tokens were cut to fit the context.
    """

    name: str
    source: str
    ids: np.ndarray
    is_target: np.ndarray
    cut: int = 0

    @property
    def tokens(self) -> int:
        """Number of target tokens."""
        return int(self.is_target.sum())


TOO_LONG = ("truncate", "drop", "error")


def _pieces(example: Example, template: Template, tokenizer: Any) -> list[tuple[str, bool]]:
    """The example as stretches of text, each a target or not; None stands for the EOS token."""
    if example.text is not None:
        return [(example.text, True)]
    if example.completion is not None:
        prompt = template.prompt.format(prompt=(example.prompt or "").strip())
        return [
            (prompt, False),
            (template.completion.format(completion=example.completion.strip()), True),
        ]
    if getattr(tokenizer, "chat_template", None):
        return _chat_pieces(example, tokenizer)
    return [
        (
            f"<|{role}|>\n{text.strip()}\n" if role != "assistant" else text.strip(),
            role == "assistant",
        )
        for role, text in example.messages
    ]


def _chat_pieces(example: Example, tokenizer: Any) -> list[tuple[str, bool]]:
    """Stretches of a conversation as the tokenizer's own chat template renders it."""
    pieces: list[tuple[str, bool]] = []
    done = ""
    turns = [{"role": role, "content": text} for role, text in example.messages]
    for i, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(
            turns[:i], tokenize=False, add_generation_prompt=True
        )
        after = tokenizer.apply_chat_template(turns[: i + 1], tokenize=False)
        if not (before.startswith(done) and after.startswith(before)):
            raise UserError(
                f"{example.name}: the tokenizer's chat template rewrites earlier turns, so targets "
                "cannot be told apart; use prompt and completion columns instead"
            )
        pieces += [(before[len(done) :], False), (after[len(before) :], True)]
        done = after
    return pieces


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    template: Template,
    context: int,
    too_long: str = "truncate",
) -> list[Encoded]:
    """Tokenises examples in order.

    Args:
      context: the most tokens an example may have. Longer ones are counted in `Encoded.cut`: a text
        keeps its beginning, a prompt with completion its end (lowrank.md §2).
      too_long: `truncate`, `drop` (left out of the result) or `error`.

    Raises:
      UserError: an example without a single target token, a special token that the tokenizer
        lacks, or an example over the context where `too_long` is `error`.
    """
    if too_long not in TOO_LONG:
        raise UserError(f"too_long is {too_long!r}; it must be one of {', '.join(TOO_LONG)}")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if (template.eos or template.eos_text) and eos is None:
        raise UserError("the tokenizer has no end-of-sequence token; set template.eos=false")
    pieces = [_pieces(e, template, tokenizer) for e in examples]
    texts = [text for example in pieces for text, _ in example]
    encoded = (
        iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
        if texts
        else iter(())
    )
    chat = getattr(tokenizer, "chat_template", None)
    result = []
    for example, parts in zip(examples, pieces, strict=True):
        ids: list[int] = []
        target: list[bool] = []
        if template.bos and bos is not None and not (example.messages and chat):
            ids, target = [bos], [False]
        for _, is_target in parts:
            piece = list(next(encoded))
            ends = template.eos_text if example.text is not None else template.eos
            if is_target and ends and not (example.messages and chat):
                piece.append(eos)
            ids += piece
            target += [is_target] * len(piece)
        target[:1] = [False]  # nothing stands before the first token
        cut = max(0, len(ids) - context)
        if cut and too_long == "error":
            raise UserError(
                f"{example.name} has {len(ids)} tokens, over the context of {context}; "
                "set data.too_long=truncate or drop, or a larger data.context"
            )
        if cut and too_long == "drop":
            continue
        if cut:
            keep = slice(context) if example.text is not None else slice(cut, None)
            ids, target = ids[keep], target[keep]
            target[:1] = [False]
        if not any(target):
            raise UserError(
                f"{example.name} has no token to predict; it is empty or a single token"
            )
        result.append(
            Encoded(example.name, example.source, np.array(ids, np.int32), np.array(target), cut)
        )
    return result


def stream(encoded: Sequence[Encoded], length: int) -> list[Encoded]:
    """One long row of all examples, cut into blocks of `length` tokens: nothing lost, no padding.

    Every token but a block's first is a target. For pretraining; a last, shorter block is kept
    where it has at least two tokens.
    """
    ids = np.concatenate([e.ids for e in encoded])
    blocks = [ids[i : i + length] for i in range(0, len(ids) - 1, length)]
    return [
        Encoded(f"block{i}", "stream", block, np.arange(len(block)) > 0)
        for i, block in enumerate(blocks)
    ]
