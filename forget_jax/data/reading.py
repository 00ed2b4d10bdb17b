"""From names of data sets to tokenised examples: slices, columns, template, context."""

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from forget_jax.data import sources, special_tokens, templates, tokenise
from forget_jax.data.examples import Example
from forget_jax.data.notes import say
from forget_jax.data.row_files import stem
from forget_jax.data.settings import Data
from forget_jax.data.templates import Template
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.randomness import seed_of


def split_slice(spec: str) -> tuple[str, int, int | None]:
    """`path.jsonl[100:400]` as (path.jsonl, 100, 300): what to load, rows to skip, rows to take."""
    found = re.fullmatch(r"(.+)\[(\d*):(\d*)\]", spec)
    if not found:
        return spec, 0, None
    if max(len(found[2]), len(found[3])) > 18:
        raise UserError(f"{spec[:80]}…: no data set has rows of such numbers")
    name, start, end = found[1], int(found[2] or 0), found[3]
    if not end:
        return name, start, None
    if int(end) <= start:
        raise UserError(f"{spec}: the slice is empty; write [start:end] with start below end")
    return name, start, int(end) - start


def split_name(named: str) -> tuple[str, str]:
    """`facts=path.jsonl[:100]` as (facts, path.jsonl[:100]); without a name it is the task's."""
    name, equals, spec = named.partition("=")
    if equals and re.fullmatch(r"[\w. -]+", name):
        return name, spec
    return task_name(named), named


def columns(data: Data) -> dict[str, str]:
    """`prompt=question` pairs as a mapping from our names to the file's."""
    pairs = [pair.partition("=") for pair in data.columns]
    for ours, equals, _ in pairs:
        if not (equals and ours):
            raise UserError(
                f"data.columns takes pairs such as prompt=question (or source= to leave a field "
                f"out), not {ours!r}"
            )
    return {ours: theirs for ours, _, theirs in pairs}


Seen = Callable[[str, list[Example]], None]  # told of each data set and its rows, as they are read


def load(
    specs: Sequence[str], data: Data, seen: Seen | None = None, prompts: bool = False
) -> list[Example]:
    """The examples of several data sets in order; `spec[a:b]` takes rows of the shuffled set.

    Args:
      prompts: they are only asked, so rows need no completion (`sources.load`).
    """
    if not specs:
        raise UserError("no data set is named; give data.path (or upstream, or tasks)")
    examples: list[Example] = []
    first: dict[str, str] = {}
    for spec in specs:
        name, skip, limit = split_slice(spec)
        mapping = {} if name.startswith("builtin:") else columns(data)
        seed = data.shuffle if data.shuffle >= 0 else None
        if seed is not None and (skip or limit is not None):
            say(
                f"rows [a:b] are taken after a shuffle with seed {seed}; data.shuffle=-1 takes "
                "them in the order of the file"
            )
        rows = sources.load(
            name, columns=mapping, limit=limit, seed=seed, skip=skip, prompts=prompts
        )
        if seen is not None:
            seen(spec, rows)
        for e in rows:
            if e.name in first:
                raise UserError(
                    f"example {e.name} comes from {first[e.name]} and again from {spec}; name each "
                    "row once (data sets of one file name need a `name` column)"
                )
            first[e.name] = spec
            examples.append(e)
    return examples


def whole(example: Example) -> str:
    """An example as one text: for people to read, and to train a tokenizer on."""
    if example.text is not None:
        return example.text
    if example.messages:
        return "\n".join(f"{role}: {text}" for role, text in example.messages)
    return f"{example.prompt}\n{example.completion}"


def task_name(spec: str) -> str:
    """The name of a task: the file's stem, or what follows `builtin:`, `hf:` or `tfds:`."""
    name = split_slice(spec)[0]
    kind, colon, rest = name.partition(":")
    if colon and kind in ("builtin", "hf", "tfds"):
        return rest
    return stem(PurePosixPath(name).name)


def task_names(specs: Sequence[str]) -> list[str]:
    """The names of several tasks: where files share one, with as much of their path as it takes.

    `squad/train` and `piqa/train` rather than twice `train`. One file that is named twice, as by
    two slices of it, keeps one name.
    """
    found = [task_name(spec) for spec in specs]
    parts = [PurePosixPath(split_slice(spec)[0]).parts for spec in specs]
    for more in range(1, max(map(len, parts), default=1)):
        files = set(zip(found, parts, strict=True))
        shared = [name for name, _ in files]
        for i, name in enumerate(found):
            if shared.count(name) > 1 and more < len(parts[i]):
                found[i] = f"{parts[i][-1 - more]}/{name}"
    return found


def task_seed(seed: int, name: str, repeat: int = 0) -> int:
    """A task's own seed, which does not depend on what is trained beside it."""
    return seed_of(seed, "task", repeat, name)


def template(data: Data, scored: bool = False) -> Template:
    """The template that settings name; where examples are `scored`, `data.eos_scored` holds."""
    return dataclasses.replace(
        templates.of(data.template),
        bos={"true": True, "false": False}.get(data.bos),
        eos=data.eos,
        eos_target=data.eos_scored or not scored,
        literal=data.special_tokens == "text",
    )


class Texts(NamedTuple):
    """Data sets as they were read.

    Attributes:
      examples: in order, those left out for their length among them.
      encoded: their rows of tokens; an example in windows has several (`data.windows.owners`).
      over_context: what was done with examples over the context, counted.
    """

    examples: list[Example]
    encoded: list[Encoded]
    over_context: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Reader:
    """What turns data sets into rows of tokens.

    Attributes:
      data: how they are read and tokenised.
      tokenizer: of the model.
      longest: the model's own context, in tokens.
      vocab_size: how many tokens the model knows.
      seen: told of every data set that is read.
    """

    data: Data
    tokenizer: Any
    longest: int
    vocab_size: int
    seen: Seen | None = None

    @property
    def context(self) -> int:
        """The most tokens of an example: `data.context`, or the model's own where that is 0."""
        wanted = self.data.context or self.longest
        if wanted > self.longest:
            raise UserError(
                f"data.context={wanted} is over the model's own context of {self.longest}"
            )
        return wanted

    def read(self, specs: Sequence[str], scored: bool = False) -> Texts:
        """The examples of data sets, tokenised; what was over the context is said aloud.

        Args:
          specs: files, `builtin:NAME`, `hf:NAME` or `tfds:NAME`, each with rows `[a:b]`.
          scored: these examples are scored, not trained on, so `data.eos_scored` holds for them.
        """
        examples = load(specs, self.data, self.seen)
        return Texts(examples, *self.encode(examples, scored))

    def encode(
        self, examples: Sequence[Example], scored: bool
    ) -> tuple[list[Encoded], dict[str, int]]:
        """Examples tokenised, as the function `encode` has it; arguments as for `read`."""
        chosen = template(self.data, scored)
        encoded, counts = encode(examples, self.tokenizer, chosen, self.data, self.context)
        for row in encoded:
            self._check_known(row.name, row.ids)
        return encoded, counts

    def prompts(self, examples: Sequence[Example], new: int) -> tuple[list[list[int]], int]:
        """What completions of up to `new` tokens are generated from, and how many were cut."""
        chosen = template(self.data)
        found, cut = tokenise.prompts(examples, self.tokenizer, chosen, self.longest - new)
        for example, ids in zip(examples, found, strict=True):
            self._check_known(example.name, ids)
        return found, cut

    def _check_known(self, name: str, ids: list[int] | np.ndarray) -> None:
        """Refuses a token that was added to the tokenizer and not to the model."""
        largest = int(np.max(ids, initial=0))
        if largest >= self.vocab_size:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise UserError(
                f"{name} holds the token {token!r}, which the tokenizer has and the model has not; "
                "take it out of the text"
            )


def encode(
    examples: Sequence[Example], tokenizer: Any, chosen: Template, data: Data, context: int
) -> tuple[list[Encoded], dict[str, int]]:
    """Tokenised examples, and what was over the context: said aloud and for the summary.

    Args:
      tokenizer: of transformers.
      chosen: how an example becomes text.
      data: which tokens are targets, and what becomes of examples over the context.
      context: the most tokens of a row.

    Returns:
      The rows, and counts of examples truncated, windowed and dropped, of windows and tokens cut.

    Raises:
      UserError: every example is over the context and was dropped; and what `tokenise.encode` does.
    """
    if said := special_tokens.line(examples, tokenizer, data.special_tokens):
        print(said, file=sys.stderr)
    pairs = any(e.completion is not None for e in examples)
    if pairs and data.template == "plain" and getattr(tokenizer, "chat_template", None):
        say(
            "the model has a chat template, which pairs of prompt and completion do not go through "
            "with data.template=plain; set data.template=chat for an instruct model"
        )
    encoded = tokenise.encode(
        examples, tokenizer, chosen, context, data.too_long, data.targets, data.stride
    )
    if not encoded:
        raise UserError(
            f"every one of the {len(examples)} examples is longer than the context of {context} "
            "tokens; raise data.context or set data.too_long=truncate"
        )
    names = {e.name for e in encoded}
    windowed = {e.name for e in encoded if e.window}
    counts = {
        "truncated": sum(e.cut > 0 for e in encoded),
        "tokens_cut": sum(e.cut for e in encoded),
        "windowed": len(windowed),
        "windows": sum(e.window > 0 for e in encoded),
        "dropped": len(examples) - len(names),
    }
    done = {
        "truncate": "cut",
        "left": "cut to their ends",
        "drop": "left out",
        "windows": f"read in {counts['windows']} windows",
    }
    over = counts["truncated"] + counts["windowed"] + counts["dropped"]
    if over:
        of = f"{over} of {len(examples)} examples of {', '.join(_sources(examples))}"
        print(
            f"{of} are longer than {context} tokens and were {done[data.too_long]}",
            file=sys.stderr,
        )
    return encoded, counts


def _sources(examples: Sequence[Example], most: int = 3) -> list[str]:
    """The names of the first few sources."""
    names = list(dict.fromkeys(e.source for e in examples))
    return names[:most] + (["…"] if len(names) > most else [])


def held_out(rows: Sequence[Encoded], count: int) -> int:
    """Where to cut so that at least the last `count` rows are held out, no example on both sides.

    Windows of one example are rows of one name.
    """
    keep = max(0, len(rows) - count)
    while 0 < keep < len(rows) and rows[keep].name == rows[keep - 1].name:
        keep -= 1
    return keep
