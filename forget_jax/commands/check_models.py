"""The scores of `check` where models are given: likelihoods, options, noise, and what they say."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from forget_jax.commands import check_behaviour, score, values
from forget_jax.commands.check_behaviour import Said
from forget_jax.commands.check_scores import Measured, Noise
from forget_jax.commands.settings import Check
from forget_jax.data import reading
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.errors import UserError
from forget_jax.fleet.cells import BASE
from forget_jax.lm.hf import base as bases
from forget_jax.lm.hf import peft, peft_merge
from forget_jax.lm.hf.base import Base
from forget_jax.runs.once import once
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import recite
from forget_jax.scoring.recite import Asked, Loaded
from forget_jax.scoring.table import NLL, rescored

RESCORED = 64  # examples of each set that measure the noise
OPTION = "|option "  # in a column's name: the example's, answered by one of its other options


def measured(settings: Check, work: Workdir) -> tuple[Measured, Said | None]:
    """Scores every set and asks all prompts under the base and all fine-tunes; resumes."""
    reader = values.reader(settings.model, settings.data, score=settings.score, work=work)
    read = _read(settings.sets, settings, reader)
    rows = _read(settings.prompts, settings, reader, prompts=True)
    asked = check_behaviour.questions(settings, reader, rows)
    base = values.base(settings.model, reader)
    if settings.sets:
        found = _scored(settings, work, base, reader, read)
    else:
        found = Measured(settings.model.path, pd.DataFrame({"set": []}), {})
    if not asked:
        return found, None
    load = functools.partial(_loaded, settings, base)
    return found, check_behaviour.ask(settings, work, base, reader, asked, load)


def _scored(
    settings: Check,
    work: Workdir,
    base: Base,
    reader: Reader,
    read: Mapping[str, Sequence[Example]],
) -> Measured:
    """The scores of all sets, of which the rows were read."""
    wanted = score.asked(settings, settings.sets)
    examples = [e for of in read.values() for e in of]
    sets = {e.name: name for name, of in read.items() for e in of}
    encoded, _ = reader.encode([*examples, *_others(examples)], scored=True)
    scored = score.tabled(wanted, base, encoded, work)
    noise = once(work / "noise.json", lambda: _moves(settings, base, encoded, scored, sets))
    kept = {e.name for e in encoded}
    examples = [e for e in examples if e.name in kept]
    frames = _frames(scored, examples, sets)
    if settings.answers:
        _recite(settings, work, base, reader, examples, frames)
    floors = {
        name: Noise.of(np.array(moved, float), settings.level) for name, moved in noise.items()
    }
    return Measured(settings.model.path, frames.pop(BASE), frames, floors)


def _read(
    named: Sequence[str], settings: Check, reader: Reader, prompts: bool = False
) -> dict[str, list[Example]]:
    """By set, its examples in order.

    Args:
      named: each NAME=DATASET.
      prompts: they are only asked (`reading.load`).

    Raises:
      UserError: an example in two sets.
    """
    found: dict[str, list[Example]] = {}
    sets: dict[str, str] = {}
    for name, spec in map(reading.split_name, named):
        for e in reading.load((spec,), settings.data, reader.seen, prompts):
            if e.name in sets:
                raise UserError(
                    f"example {e.name} is in {sets[e.name]} and again in {name}; name each row "
                    "once (data sets of one file name need a `name` column)"
                )
            sets[e.name] = name
            found.setdefault(name, []).append(e)
    return found


def _options(example: Example) -> list[str]:
    """What a completion is chosen from, itself first; empty for an open question.

    Raises:
      UserError: it is none of its options.
    """
    options = list(dict.fromkeys(text.strip() for text in example.options))
    if example.completion is None or len(options) < 2:
        return []
    right = example.completion.strip()
    if right not in options:
        raise UserError(
            f"{example.name}: its completion is none of its options; write it as one of them, or "
            "leave these out with data.columns=options="
        )
    options.remove(right)
    return [right, *options]


def _others(examples: Iterable[Example]) -> list[Example]:
    """Examples of several options answered by each of the wrong ones."""
    return [
        dataclasses.replace(e, name=f"{e.name}{OPTION}{i}", completion=text, answers=(), options=())
        for e in examples
        for i, text in enumerate(_options(e)[1:], 1)
    ]


def _frames(
    scored: xr.Dataset, examples: Sequence[Example], sets: dict[str, str]
) -> dict[str, pd.DataFrame]:
    """By model, a row for every example (`integrations.score_files.COLUMNS`)."""
    names = [e.name for e in examples]
    columns = scored.indexes["example"]
    at_N = columns.get_indexer(names)
    others = [
        columns.get_indexer([f"{e.name}{OPTION}{i}" for i in range(1, len(_options(e)))])
        for e in examples
    ]
    # an option that was left out for its length leaves the question open
    others = [at if (at >= 0).all() else at[:0] for at in others]
    found = {}
    for k, model in enumerate(map(str, scored.model.values)):
        nll_C = scored[NLL].values[k]
        best_N = np.array([nll_C[at].min() if at.size else np.nan for at in others])
        known_N = np.isfinite(best_N) & np.isfinite(nll_C[at_N])
        found[model] = pd.DataFrame(
            {
                "set": [sets[name] for name in names],
                "example": names,
                "nll": nll_C[at_N],
                "tokens": scored.tokens.values[k][at_N].astype(float),
                "correct": np.where(known_N, nll_C[at_N] < best_N, np.nan),
                "options": [len(at) + 1 if len(at) else np.nan for at in others],
                "text": [reading.whole(e) for e in examples],
                "key": "",
            }
        )
    return found


def _moves(
    settings: Check,
    base: Base,
    encoded: Sequence[reading.Encoded],
    scored: xr.Dataset,
    sets: dict[str, str],
) -> dict[str, list[float]]:
    """By set, how far the base's NLLs move, nats a token, when its first examples are batched
    otherwise: last first, in one bucket of twice the rows.
    """
    first: dict[str, list[str]] = {}
    for name in dict.fromkeys(e.name for e in encoded if e.name in sets):
        first.setdefault(sets[name], []).append(name)
    names = [name for of in first.values() for name in of[:RESCORED]]
    wanted = set(names)
    rows = [e for e in encoded if e.name in wanted]
    order = list(dict.fromkeys(e.name for e in rows))
    (again_N,) = rescored(base.model, None, rows, settings.score.rows)
    before = scored.sel(model=BASE, example=order)
    moved_N = (again_N - before[NLL].values) / before.tokens.values
    by_name = dict(zip(order, moved_N.tolist(), strict=True))
    return {name: [by_name[e] for e in of[:RESCORED]] for name, of in first.items()}


def _recite(
    settings: Check,
    work: Workdir,
    base: Base,
    reader: Reader,
    examples: Sequence[Example],
    frames: dict[str, pd.DataFrame],
) -> None:
    """Fills in which open questions each model completes exactly."""
    rule = settings.exact_match
    open_ = [e for e in examples if e.completion is not None and not _options(e)]
    if not open_:
        raise UserError(
            "answers=true, but no set has prompts and completions to ask for: leave it out"
        )
    recite.check(rule, reader.longest, open_)
    prompts, cut = reader.prompts(open_, rule.max_new_tokens)
    how = (base.eos_ids, rule, settings.score.chunk, settings.score.rows)
    asked = Asked(open_, prompts, cut, reader.tokenizer, *how)
    load = functools.partial(_loaded, settings, base)
    recited = recite.recite(work / "answers", asked, list(frames), load)
    for name, correct_N in zip(recited.names, recited.correct_KxN, strict=True):
        right = dict(zip([e.name for e in open_], correct_N.astype(float), strict=True))
        frame = frames[name]
        frame["correct"] = frame.example.map(right).fillna(frame.correct)


def _loaded(settings: Check, base: Base, name: str) -> Loaded:
    """A model of the run by name, with its adapter."""
    shape = base.model.config
    if name == BASE:
        return base.model, None
    if name in settings.models:
        return bases.read(name).computing(context=shape.context, dtype=shape.dtype), None
    if peft.is_plain(name):
        return base.model, peft.load(name, base.model, base.path)
    return peft_merge.load(name, base.model, base.path), None
