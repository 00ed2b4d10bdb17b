"""How data sets are read and tokenised: the `data` fields."""

import dataclasses

from forget_jax.data.special_tokens import READINGS
from forget_jax.data.templates import TEMPLATES, is_text
from forget_jax.data.tokenise import BOS, TARGETS, TOO_LONG
from forget_jax.settings import names, or_text, setting


@dataclasses.dataclass(frozen=True)
class Data:
    """From rows of files to rows of tokens."""

    columns: tuple[str, ...] = setting(
        (), "our column names onto the files', such as prompt=question"
    )
    shuffle: int = setting(
        0,
        "seed that shuffles each data set before its rows [a:b] are taken; -1: no, [a:b] are those "
        "rows of the file",
        least=-1,
    )
    template: str = or_text(
        is_text,
        setting(
            "plain",
            "how prompt and completion become text: plain, raw (one after the other as they "
            "stand), answer, tulu or tulu_answer, chat (two turns of the tokenizer's own chat "
            "template: for instruct models), or a text such as 'Q: {prompt} A: {completion}'",
            choices=TEMPLATES,
        ),
    )
    bos: str = setting(
        "auto",
        "put the beginning-of-sequence token first, where the tokenizer has one: true, false, or "
        "auto (where the tokenizer by itself puts it)",
        choices=BOS,
    )
    eos: bool = setting(
        True, "end completions with the end-of-sequence token, as a target (all three papers)"
    )
    eos_scored: bool = setting(
        True,
        "count that token where examples are scored; false for instruction data scored as in "
        "arXiv 2406.14026, true for 2411.07175 (texts never have one)",
    )
    targets: str = setting(
        "completion",
        "tokens trained on and scored: completion (all three papers), last (the last assistant "
        "turn only: 2406.14026's conversations), or all but the first token",
        choices=TARGETS,
    )
    too_long: str = setting(
        "truncate",
        "examples over the context: truncate (pairs keep their end, texts their beginning: "
        "2406.14026), left (all keep their end), windows (read whole, piece by piece), "
        "drop (2411.07175) or error; what was done is counted in the summary",
        choices=TOO_LONG,
    )
    stride: int = setting(
        0,
        "tokens that each further window adds, below the context; 0: half the context",
        least=0,
    )
    special_tokens: str = setting(
        "parse",
        "special tokens that stand in the texts themselves, such as <s> in a page of HTML: parse "
        "(they become special tokens, as tokenizers have it) or text (they are read as text)",
        choices=READINGS,
    )
    context: int = setting(0, "the most tokens of an example; 0: the model's own", least=0)


@dataclasses.dataclass(frozen=True)
class Paths(Data):
    """The same, and which data sets."""

    path: tuple[str, ...] = names(
        "rows",
        setting(
            (),
            "data sets: files, builtin:NAME, hf:NAME or tfds:NAME, each with rows [a:b]",
        ),
    )


@dataclasses.dataclass(frozen=True)
class Corpus(Paths):
    """The same, and what of them is kept out of training."""

    heldout: float = setting(
        0.03,
        "share of the examples kept out of training for the held-out loss",
        above=0,
        below=1,
    )
