"""`forget-jax check`: what fine-tunes lost of named sets of examples, against limits."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from forget_jax import files
from forget_jax.associations import changes
from forget_jax.commands import (
    check_behaviour,
    check_models,
    check_scores,
    check_texts,
    score,
)
from forget_jax.commands.check_scores import ALL, Measured
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Check
from forget_jax.commands.summaries import Check as Summary
from forget_jax.commands.summaries import CheckedSet, WorstExample
from forget_jax.data import reading
from forget_jax.errors import UserError, nearest
from forget_jax.runs.workdir import Workdir

WORST = 5  # examples of every set that are shown
BEGINNING = 280  # characters of their texts


def check(settings: Check) -> None:
    """Refuses settings under which nothing could be compared."""
    limits = {field: _limits(field, getattr(settings, field)) for field in LIMITS}
    if settings.before or settings.after:
        _check_files(settings)
        return
    if not (settings.sets or settings.prompts):
        raise UserError(
            "give sets (what must not be lost, each NAME=DATASET), prompts (whose answers are "
            "compared), or before and after (score files measured elsewhere)"
        )
    if not (settings.adapters or settings.models):
        raise UserError("give adapters or models: the fine-tunes to check")
    if settings.seeds and len((*settings.adapters, *settings.models)) < 2:
        raise UserError("seeds=true needs two fine-tunes or more: one recipe under several seeds")
    for field, given in limits.items():
        named = settings.prompts if field == REFUSALS else settings.sets
        _check_known(field, given, [reading.split_name(name)[0] for name in named])
    if settings.answers and not settings.sets:
        raise UserError("answers=true is said of sets; answers to prompts are always compared")
    if not all(phrase.strip() for phrase in settings.refusals):
        raise UserError("refusals holds an empty text, which every answer has in it")
    if settings.limits_refusals and not settings.refusals:
        raise UserError("limits_refusals needs refusals: the texts that make an answer one")
    score.check(score.asked(settings, settings.sets))


def _check_files(settings: Check) -> None:
    for field in ("adapters", "models", "sets", "prompts", REFUSALS):
        if getattr(settings, field):
            raise UserError(
                f"{field} has no effect beside before and after, which hold scores and their sets; "
                "give one or the other"
            )
    if settings.answers:
        raise UserError("answers=true needs models: score files hold what was answered")
    if not settings.before:
        raise UserError("give before too: the scores of the base")
    for path in (settings.before, *settings.after):
        if not check_scores.exists(path):
            raise UserError(f"{path} does not exist")


OF_SETS, REFUSALS = ("limits", "limits_lost"), "limits_refusals"
# By field, the least and the most.
LIMITS = {"limits": (0.0, math.inf), "limits_lost": (0.0, 1.0), REFUSALS: (0.0, 1.0)}


def _limits(field: str, given: Sequence[str]) -> dict[str, float]:
    """Limits by set, and under the empty name the one of all sets.

    Raises:
      UserError: no number, one out of bounds, or two for one set.
    """
    low, high = LIMITS[field]
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if not (low <= limit <= high) or math.isinf(limit):
            bounds = "between 0 and 1" if high == 1 else "of 0 or more"
            raise UserError(f"{field} takes numbers {bounds}, or SET=NUMBER, not {text!r}")
        if name in found:
            raise UserError(f"{field} names {name or 'all sets'} twice")
        found[name] = limit
    return found


def _check_known(field: str, limits: Mapping[str, float], sets: Sequence[str]) -> None:
    for name in limits:
        if name != ALL and name not in sets:
            known = ", ".join(dict.fromkeys(sets)) or "none"
            what = "set of prompts" if field == REFUSALS else "set"
            raise UserError(
                f"{field}: there is no {what} {name!r}{nearest(name, sets)}; there are: {known}"
            )


def run(settings: Check, work: Workdir) -> Ended:
    """Compares every fine-tune with the base on every set, and writes the verdict."""
    by_files = bool(settings.before)
    measured, said = (
        (check_scores.read(settings), None) if by_files else check_models.measured(settings, work)
    )
    names = list(dict.fromkeys(measured.before.set))
    for field in OF_SETS:
        _check_known(field, _limits(field, getattr(settings, field)), names)
    pairs = {name: check_scores.paired(measured, name) for name in measured.after}
    counted = all(np.isfinite(p.tokens[np.isfinite(p.nll)]).all() for p in pairs.values())
    sets = {
        name: {set_: _checked(settings, p[p.set == set_], counted) for set_ in names}
        for name, p in pairs.items()
    }
    spread = _spread(sets) if settings.seeds and sets else {}
    sets = {
        name: {s: _judged(settings, s, c, measured, spread) for s, c in of.items()}
        for name, of in sets.items()
    }
    limits = _limits(REFUSALS, settings.limits_refusals)
    behaviour = check_behaviour.compared(settings, said, limits) if said else {}
    summary = Summary(
        unit="nats/token" if counted else "nats/example",
        level=settings.level,
        before=measured.name,
        sets=sets,
        behaviour=behaviour,
        over=(*check_texts.over(sets), *check_texts.over_refusals(behaviour)),
        seconds=work.seconds(),
    )
    files.write_json(work / "check.json", check_texts.as_json(summary))
    files.write_text(work / "check.md", check_texts.as_markdown(summary))
    return Ended(summary, check_texts.line(summary))


def _checked(settings: Check, rows: pd.DataFrame, counted: bool) -> CheckedSet:
    """The figures of one fine-tune on one set, without limits and noise."""
    tokens_N = rows.tokens.to_numpy(float)
    per_N = tokens_N if counted else np.ones(len(rows))
    z_N = ((rows.nll_after - rows.nll) / per_N).to_numpy(float)
    change = changes.change(z_N, tokens_N, settings.level)
    right_Nx2 = rows[["correct", "correct_after"]].to_numpy(float)
    flips = check_scores.flipped(right_Nx2, rows.options.to_numpy(float))
    known = np.isfinite(z_N)
    return CheckedSet(
        examples=change.examples or (flips.answers if flips else 0),
        tokens=int(tokens_N[known].sum()) if counted and known.any() else None,
        z=_or_none(change.mean),
        low=_or_none(change.low),
        high=_or_none(change.high),
        z_tokens=_or_none(change.over_tokens),
        worse=_or_none(change.worse),
        noise=None,
        noise_example=None,
        flips=flips,
        limit=None,
        limit_lost=None,
        over=(),
        sure=True,
        worst=_worst(rows.assign(z=z_N)),
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _worst(rows: pd.DataFrame) -> tuple[WorstExample, ...]:
    """Those whose loss rose most; where no loss is known, the answers lost."""
    lost = (rows.correct == 1) & (rows.correct_after == 0)
    chosen = rows.assign(lost=lost).sort_values(
        ["z", "lost"], ascending=False, kind="stable", na_position="last"
    )
    return tuple(
        WorstExample(example=r.example, z=float(r.z), lost=bool(r.lost), text=r.text[:BEGINNING])
        for r in chosen.head(WORST).itertuples()
        if r.z > 0 or r.lost
    )


def _spread(sets: Mapping[str, Mapping[str, CheckedSet]]) -> dict[str, float]:
    """By set, how far the seeds' mean z lie apart."""
    found = {}
    for name in next(iter(sets.values())):
        z = [of[name].z for of in sets.values()]
        known = [x for x in z if x is not None]
        found[name] = max(known) - min(known) if known else 0.0
    return found


def _judged(
    settings: Check,
    name: str,
    found: CheckedSet,
    measured: Measured,
    spread: Mapping[str, float],
) -> CheckedSet:
    """The figures with limits, noise and what of it is over.

    A mean z is over its limit where it is above both that and the noise.
    """
    limits, lost = (_limits(field, getattr(settings, field)) for field in OF_SETS)
    limit, limit_lost = (of.get(name, of.get(ALL)) for of in (limits, lost))
    noise = measured.noise.get(name)
    floors = [x for x in (noise.mean if noise else None, spread.get(name)) if x is not None]
    floor = max(floors) if floors else None
    over, sure = [], True
    if limit is not None and found.z is not None:
        if found.z > max(limit, floor or 0.0):
            over.append("z")
            sure = found.low is not None and found.low > limit
        else:
            sure = found.high is not None and found.high <= max(limit, floor or 0.0)
    if limit_lost is not None and found.flips is not None:
        flips = found.flips
        share = flips.adjusted.lost if flips.adjusted else flips.lost / flips.answers
        if share > limit_lost:
            over.append("lost")
            sure = sure and flips.p < 1 - settings.level
    return dataclasses.replace(
        found,
        noise=floor,
        noise_example=noise.example if noise else None,
        limit=limit,
        limit_lost=limit_lost,
        over=tuple(over),
        sure=sure,
    )
