"""Examples to token ids, with every token marked as a target of the loss or as context.

Prompt and completion are tokenised apart and joined, so the boundary between them never depends on
what stands on its other side. Where a tokenizer puts a space in front of every text, and in
conversations, the whole is tokenised once, and targets are found by where its tokens lie.

An example longer than the context becomes what `too_long` says, by default one shorter row and with
`windows` several rows that share its name.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax import stopping
from forget_jax.data import conversations, windows
from forget_jax.data.examples import Example
from forget_jax.errors import UserError

Piece = tuple[str | None, bool]  # a stretch of text (None: the EOS token), and whether a target


@dataclasses.dataclass(frozen=True)
class Template:
    """How an example becomes text, and which special tokens are put around it.

    Attributes:
      prompt, completion: format strings over the stripped prompt and completion.
      bos: put the beginning-of-sequence token first.
      eos: end completions and assistant turns with the end-of-sequence token.
      eos_target: whether that token is a target.
      eos_text: end plain texts with it too, as a target (for pretraining; scores leave it out,
        lowrank.md §1).
    """

    prompt: str = "{prompt}\n"
    completion: str = "{completion}"
    bos: bool = True
    eos: bool = True
    eos_target: bool = True
    eos_text: bool = False


TEMPLATES = {
    "plain": Template(),
    "answer": Template(prompt="{prompt}\nThe answer is: "),
    "tulu": Template(prompt="<|user|>\n{prompt}\n<|assistant|>\n"),
    "tulu_answer": Template(prompt="<|user|>\n{prompt}\nThe answer is:\n<|assistant|>\n"),
}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One row of tokens: a whole example, what was kept of it, or one window of it.

    Attributes:
      ids: int32 (L,).
      is_target: bool (L,): whether predicting this token from those before it is scored.
      cut: how many tokens were cut to fit the context.
      window: which window of a long example this is, from 1; 0 for a row that is all there is.
    """

    name: str
    source: str
    ids: np.ndarray
    is_target: np.ndarray
    cut: int = 0
    window: int = 0

    @property
    def tokens(self) -> int:
        """Number of target tokens."""
        return int(self.is_target.sum())


AT_A_TIME = 1024  # examples that are tokenised together
TOO_LONG = ("truncate", "left", "drop", "error", "windows")
TARGETS = ("completion", "last", "all")


def _pieces(example: Example, template: Template, tokenizer: Any, targets: str) -> list[Piece]:
    """The example as stretches of text, each a target or not; None stands for the EOS token."""
    if example.text is not None:
        return [(example.text, True), *([(None, True)] if template.eos_text else [])]
    eos: list[Piece] = [(None, template.eos_target)] if template.eos else []
    if example.completion is not None:
        completion = template.completion.format(completion=example.completion.strip())
        return [(_prompt(example, template), False), (completion, True), *eos]
    if getattr(tokenizer, "chat_template", None):
        return list(conversations.stretches(example, tokenizer, last=targets == "last"))
    pieces: list[Piece] = []
    for role, text in example.messages:  # as remix.md §1 has it, the newline after a turn included
        if role == "assistant":
            pieces += [(f"<|{role}|>\n", False), (text.strip(), True), *eos, ("\n", True)]
        else:
            pieces.append((f"<|{role}|>\n{text.strip()}\n", False))
    return pieces[:-1] if pieces[-1][1] else pieces


def _prompt(example: Example, template: Template) -> str:
    return template.prompt.format(prompt=(example.prompt or "").strip())


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
        its beginning, a prompt with completion its end (lowrank.md §2); `left`: every example keeps
        its end; `drop`: left out of the result; `windows`: several rows of its name, one after the
        other, that hold each of its targets once (those without any are left out); `error`.
      targets: `completion`: the tokens of completions, assistant turns and texts; `last`: of the
        last assistant turn only; `all`: every token but the first.
      stride: tokens that each further window adds; 0 is half the context.

    Raises:
      UserError: an example without a single target token, a special token that the tokenizer
        lacks, or an example over the context where `too_long` is `error`.
    """
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
    bos = tokenizer.bos_token_id if template.bos else None
    chat, apart = getattr(tokenizer, "chat_template", None), not adds_prefix(tokenizer)
    result = []
    for start in range(0, len(examples), AT_A_TIME):
        stopping.check()
        some = examples[start : start + AT_A_TIME]
        pieces = [_targeted(_pieces(e, template, tokenizer, targets), targets) for e in some]
        runs = [
            run
            for e, parts in zip(some, pieces, strict=True)
            for run in _runs(parts, apart and not (e.messages and chat))
        ]
        tokens = iter(_marked([run for run in runs if run[0][0] is not None], tokenizer))
        each = iter(runs)
        for example, parts in zip(some, pieces, strict=True):
            ids: list[int] = []
            target: list[bool] = []
            by_template = bool(example.messages and chat)
            if bos is not None and not by_template:
                ids, target = [bos], [False]
            for _ in _runs(parts, apart and not by_template):
                run = next(each)
                if run[0][0] is None:
                    ids.append(tokenizer.eos_token_id)
                    target.append(run[0][1])
                    continue
                more, marks = next(tokens)
                ids += more
                target += marks
            result += _fitted(example, ids, target, context, too_long, stride or context // 2)
    return result


def adds_prefix(tokenizer: Any) -> bool:
    """Whether a tokenizer puts something in front of a text, as SentencePiece puts a space.

    Pieces of one text then cannot be tokenised apart: each would get its own.
    """
    alone, after = _tokens(["a", "\na"], tokenizer)
    return after[-len(alone) :] != alone


def _runs(parts: Sequence[Piece], apart: bool) -> list[list[Piece]]:
    """Pieces that are tokenised as one text; each EOS token is a run of its own."""
    runs: list[list[Piece]] = []
    for piece in parts:
        if apart or not runs or None in (piece[0], runs[-1][0][0]):
            runs.append([piece])
        else:
            runs[-1].append(piece)
    return runs


def _marked(runs: Sequence[list[Piece]], tokenizer: Any) -> list[tuple[list[int], list[bool]]]:
    """The tokens of each run, and which are targets: those with a character of a target in them.

    Raises:
      UserError: pieces that belong to one text, and a tokenizer that cannot say where tokens lie.
    """
    texts = ["".join(text or "" for text, _ in run) for run in runs]
    if all(len(run) == 1 for run in runs):
        found = _tokens(texts, tokenizer)
        return [(ids, [run[0][1]] * len(ids)) for ids, run in zip(found, runs, strict=True)]
    if not tokenizer.is_fast:
        raise UserError(
            "the tokenizer cannot say where in a text its tokens lie (it is no fast one), so the "
            "targets of a conversation cannot be told apart"
        )
    coded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    marked = []
    for run, ids, offsets in zip(runs, coded["input_ids"], coded["offset_mapping"], strict=True):
        ends = np.cumsum([len(text or "") for text, _ in run])
        flags = np.array([is_target for _, is_target in run])
        start_L, end_L = np.array(offsets, int).reshape(-1, 2).T
        # a token's characters lie in the stretches from `first` to `final`
        first_L = np.searchsorted(ends, start_L, side="right")
        final_L = np.searchsorted(ends, np.maximum(end_L, start_L + 1), side="left")
        counts = np.concatenate([[0], np.cumsum(flags)])
        most = len(flags)
        has_L = counts[np.minimum(final_L + 1, most)] > counts[np.minimum(first_L, most)]
        marked.append((list(ids), has_L.tolist()))
    return marked


def prompts(
    examples: Sequence[Example], tokenizer: Any, template: Template, most: int
) -> tuple[list[list[int]], int]:
    """What the completions are generated from: token ids, and how many examples were cut.

    Args:
      examples: all with prompt and completion.
      most: tokens of a prompt; a longer one keeps its end.
    """
    bos = [tokenizer.bos_token_id] if template.bos and tokenizer.bos_token_id is not None else []
    whole = [bos + ids for ids in _tokens([_prompt(e, template) for e in examples], tokenizer)]
    return [ids[-most:] for ids in whole], sum(len(ids) > most for ids in whole)


def _tokens(texts: list[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def _targeted(pieces: list[Piece], targets: str) -> list[Piece]:
    """The pieces with the targets that are asked for; an EOS that does not count never does."""
    if targets == "all":
        return [(text, is_target or text is not None) for text, is_target in pieces]
    if targets == "last":
        end = max(i for i, (_, is_target) in enumerate(pieces) if is_target)
        context = [i for i, (text, is_target) in enumerate(pieces[:end]) if text and not is_target]
        turn = max(context, default=-1)
        return [(text, is_target and i > turn) for i, (text, is_target) in enumerate(pieces)]
    return pieces


def _fitted(
    example: Example, ids: list[int], target: list[bool], context: int, too_long: str, stride: int
) -> list[Encoded]:
    """The rows of one example: one, or what `too_long` makes of it."""
    target[:1] = [False]  # nothing stands before the first token
    if not any(target):
        raise UserError(f"{example.name} has no token to predict; it is empty or a single token")
    n = len(target) - target[::-1].index(True)  # what follows the last target predicts nothing
    ids_L, target_L = np.array(ids[:n], np.int32), np.array(target[:n])
    cut = max(0, n - context)

    def row(start: int, end: int, fresh: int, cut: int = 0) -> Encoded:
        at_W = np.arange(start, end)
        is_target_W = target_L[start:end] & (at_W > start) & (at_W >= fresh)
        return Encoded(example.name, example.source, ids_L[start:end], is_target_W, cut)

    if not cut:
        return [row(0, n, 0)]
    if too_long == "error":
        raise UserError(
            f"{example.name} has {n} tokens, over the context of {context}; "
            "set data.too_long=truncate, left, windows or drop, or a larger data.context"
        )
    if too_long == "drop":
        return []
    if too_long == "windows":
        rows = [row(*span) for span in windows.spans(n, context, stride)]
        scored = [r for r in rows if r.tokens]
        return [dataclasses.replace(r, window=w + 1) for w, r in enumerate(scored)]
    if too_long == "truncate" and example.text is not None:
        return [row(0, context, 0, cut)]
    return [row(cut, n, 0, cut)]


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
