"""Stretches of text to token ids, each id marked as a target of the loss or as context."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tokenizers

Piece = tuple[str | None, bool]  # a stretch of text (None: the EOS token), and whether a target
Marked = tuple[list[int], list[bool]]  # token ids, and which of them are targets

GIANT = 2**18  # characters of a text that is not tokenised whole where little of it is kept
CHARACTERS = 16  # the same for a token that is kept
SHIFT = 1021  # characters, a prime number: see `kept`


@dataclasses.dataclass(frozen=True)
class Marker:
    """How pieces of text become tokens.

    Attributes:
      tokenizer: of transformers.
      literal: special tokens that stand in a text are text like any other.
    """

    tokenizer: Any
    literal: bool = False

    def whole(self, parts: Sequence[Sequence[Piece]], apart: bool) -> list[Marked]:
        """Every example's pieces as tokens.

        Args:
          apart: every piece is tokenised by itself; else the pieces between EOS tokens are one
            text, and a token with a character of a target in it is a target.

        Raises:
          UserError: pieces that belong to one text, and a tokenizer that cannot say where tokens
            lie.
        """
        runs = [list(_runs(pieces, apart)) for pieces in parts]
        each = iter(self._marked([r for some in runs for r in some if r[0][0] is not None]))
        found = []
        for some in runs:
            ids: list[int] = []
            target: list[bool] = []
            for run in some:
                eos = run[0][0] is None
                more, marks = ([self.tokenizer.eos_token_id], [run[0][1]]) if eos else next(each)
                ids += more
                target += marks
            found.append((ids, target))
        return found

    def kept(self, parts: Sequence[Piece], apart: bool, keep: int, end: bool) -> Marked | None:
        """The tokens of a part of an example that is too long to be tokenised whole, or None.

        None where the example is not that long. A tokenizer looks only a little way around a
        character, so far from where a text was cut its tokens are those of the whole. Two cuts, a
        prime number of characters apart, have to agree on all that is kept, or more is taken.

        Args:
          keep: how many tokens at one end are wanted; there are more in what is returned.
          end: they are wanted of the example's end, not of its beginning.
        """
        size = max(GIANT, CHARACTERS * keep)
        while sum(len(text or "") for text, _ in parts) > size:
            some = [_trimmed(parts, n, end) for n in (size, size - SHIFT)]
            more, less = self.whole(some, apart)
            span = slice(-keep, None) if end else slice(keep)
            same = more[0][span] == less[0][span] and more[1][span] == less[1][span]
            if len(less[0]) > keep and same:
                return more
            size *= 4
        return None

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts, without special tokens around them."""
        ids: list[list[int]] = self._coded(texts)["input_ids"] if texts else []
        return ids

    def _coded(self, texts: Sequence[str], **options: Any) -> Any:
        if self.literal:
            options["split_special_tokens"] = True
        return tokenizers.encode(self.tokenizer, texts, **options)

    def _marked(self, runs: Sequence[list[Piece]]) -> list[Marked]:
        """The tokens of each run, and which are targets."""
        texts = ["".join(text or "" for text, _ in run) for run in runs]
        if all(len(run) == 1 for run in runs):
            found = self.tokens(texts)
            return [(ids, [run[0][1]] * len(ids)) for ids, run in zip(found, runs, strict=True)]
        if not self.tokenizer.is_fast:
            raise UserError(
                "the tokenizer cannot say where in a text its tokens lie (it is no fast one), so "
                "the targets of a conversation cannot be told apart"
            )
        coded = self._coded(texts, return_offsets_mapping=True)
        both = zip(runs, coded["input_ids"], coded["offset_mapping"], strict=True)
        return [(list(ids), _holding(run, offsets)) for run, ids, offsets in both]


def adds_prefix(tokenizer: Any) -> bool:
    """Whether a tokenizer puts something in front of a text, as SentencePiece puts a space.

    Pieces of one text then cannot be tokenised apart: each would get its own.
    """
    try:
        alone, after = Marker(tokenizer).tokens(["a", "\na"])
    except tokenizers.Unreadable:  # its few words cannot show it, and one text is always right
        return True
    return after[-len(alone) :] != alone


def _runs(parts: Sequence[Piece], apart: bool) -> Iterator[list[Piece]]:
    """Pieces that are tokenised as one text; each EOS token is a run of its own."""
    run: list[Piece] = []
    for piece in parts:
        if run and (apart or None in (piece[0], run[-1][0])):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _holding(run: Sequence[Piece], offsets: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token, by where it lies in the run's text, has a target's character in it."""
    ends = np.cumsum([len(text or "") for text, _ in run])
    flags = np.array([is_target for _, is_target in run])
    start_L, end_L = np.array(offsets, int).reshape(-1, 2).T
    # a token's characters lie in the stretches from `first` to `final`
    first_L = np.searchsorted(ends, start_L, side="right")
    final_L = np.searchsorted(ends, np.maximum(end_L, start_L + 1), side="left")
    counts = np.concatenate([[0], np.cumsum(flags)])
    most = len(flags)
    has_L = counts[np.minimum(final_L + 1, most)] > counts[np.minimum(first_L, most)]
    return has_L.tolist()


def _trimmed(parts: Sequence[Piece], size: int, end: bool) -> list[Piece]:
    """The pieces up to so many characters, counted from the beginning or from the end."""
    found: list[Piece] = []
    for text, is_target in reversed(parts) if end else parts:
        if size <= 0:
            break
        if text is not None:
            size, text = size - len(text), text[-size:] if end else text[:size]
        found.append((text, is_target))
    return found[::-1] if end else found
