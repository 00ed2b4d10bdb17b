"""What an arm does against forgetting in each stage, as values, and how arms are written.

An arm is `naive` or parts joined by ` + `, each `WHAT[:NUMBER][ in STAGES]`, such as
`random/25:1 in A + redraw:5 in B`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

from forget_jax.errors import UserError, nearest

LETTERS = "ABCDEFGHIJ"  # of stages
NAIVE = "naive"


@dataclasses.dataclass(frozen=True)
class Mix:
    """Unrelated rows in the pool of a stage (REMIX, arXiv 2411.07175).

    Attributes:
      source: `random` or `generic`.
      ratio: rows per fact.
      length: words of a row's prompt, and of its completion; 0 for the run's own.
    """

    source: str
    ratio: float
    length: int = 0


@dataclasses.dataclass(frozen=True)
class Mitigation:
    """What is done in one stage.

    Attributes:
      mixes: rows that are mixed in.
      steps: further facts per fact: as many steps as a mix of this ratio has, without its rows.
      replay: share of every earlier stage's facts in each epoch.
      redrawn: whether each epoch has others of them.
      ewc, l2, kl: strength of elastic weight consolidation and of L2 to the parameters that the
        stage starts from, and nats that one nat of divergence from that model costs.
      lora: rank of adapters that are trained in place of the whole model; 0 trains what the run
        does.
      frozen: share of the layers, from the lowest, that stay as they are, and the embeddings.
    """

    mixes: tuple[Mix, ...] = ()
    steps: float = 0.0
    replay: float = 0.0
    redrawn: bool = False
    ewc: float = 0.0
    l2: float = 0.0
    kl: float = 0.0
    lora: int = 0
    frozen: float = 0.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One word of an arm.

    Attributes:
      meaning: for people; `N` is the number behind the colon.
      number: what the number is where none is given; None for the run's ratio.
      apply: the mitigation with the part added, from the number and the length behind a slash.
      most: the largest number.
      later: whether it needs an earlier stage, and so is done in all but the first by default.
    """

    meaning: str
    number: float | None
    apply: Callable[[Mitigation, float, int], Mitigation]
    most: float = 1e12
    later: bool = True


def _mixed(source: str) -> Callable[[Mitigation, float, int], Mitigation]:
    def apply(m: Mitigation, number: float, length: int) -> Mitigation:
        return dataclasses.replace(m, mixes=(*m.mixes, Mix(source, number, length)))

    return apply


def _set(field: str, scale: float = 1.0, **more: bool) -> Callable[..., Mitigation]:
    def apply(m: Mitigation, number: float, length: int) -> Mitigation:
        del length
        value = int(number) if field == "lora" else number * scale
        return dataclasses.replace(m, **{field: value}, **more)  # type: ignore[arg-type]

    return apply


PARTS: Mapping[str, Part] = {
    "mix": Part("rows of `mix`, N per fact", None, _mixed("random"), 1e6, later=False),
    "random": Part("the same", None, _mixed("random"), 1e6, later=False),
    "generic": Part("passages of `generic`, N per fact", None, _mixed("generic"), 1e6, later=False),
    "steps": Part(
        "N more facts per fact: the control of a mix, with its steps and without its rows",
        None,
        _set("steps"),
        1e6,
        later=False,
    ),
    "replay": Part("N % of each earlier set, always the same", 5, _set("replay", 0.01), 100),
    "redraw": Part(
        "N % of each earlier set, others each epoch", 5, _set("replay", 0.01, redrawn=True), 100
    ),
    "joint": Part("all earlier facts: the ceiling", 100, _set("replay", 0.01), 100),
    "ewc": Part("elastic weight consolidation of strength N", 1.0, _set("ewc")),
    "l2": Part("L2 of strength N to what the stage starts from", 1.0, _set("l2")),
    "kl": Part("N times the KL to the model that the stage starts from", 1.0, _set("kl")),
    "lora": Part("adapters of rank N in place of the whole model", 8, _set("lora"), 2**16),
    "freeze": Part(
        "the lowest share N of the layers, and embeddings, stay", 0.5, _set("frozen"), 1
    ),
}
FORM = re.compile(
    r"(?P<what>\w+)(?:/(?P<length>\d{1,4}))?(?::(?P<number>[-+.\deE]+))?(?: in (?P<where>\S+))?"
)


@functools.cache
def parse(arm: str, stages: int, ratio: float = 2.0) -> tuple[Mitigation, ...]:
    """What an arm does in each of so many stages.

    Args:
      ratio: of a mix that says none.

    Raises:
      UserError: no such part, a number that it cannot have, or stages that there are not.
    """
    found = [Mitigation() for _ in range(stages)]
    for text in () if arm == NAIVE else arm.split(" + "):
        form = FORM.fullmatch(text.strip())
        part = None if form is None else PARTS.get(form["what"])
        if form is None or part is None:
            near = nearest(text.strip().partition(":")[0].partition(" ")[0], PARTS)
            raise UserError(
                f"arms: {text.strip()!r} of {arm!r} is no part of an arm{near}; write {NAIVE}, or "
                f"WHAT[:NUMBER][ in STAGES] with one of {', '.join(PARTS)}, joined by ' + '"
            )
        if form["length"] and form["what"] not in ("mix", "random", "generic"):
            raise UserError(f"arms: {form['what']} of {arm!r} has no length")
        number = _number(arm, form["number"], part, ratio)
        for k in _places(arm, form["where"], part, stages):
            found[k] = part.apply(found[k], number, int(form["length"] or 0))
    return tuple(found)


def _number(arm: str, text: str | None, part: Part, ratio: float) -> float:
    if text is None:
        return ratio if part.number is None else part.number
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= part.most:
        raise UserError(
            f"arms: {text!r} of {arm!r} must be a number above 0 and at most {part.most:g}"
        )
    return number


def _places(arm: str, where: str | None, part: Part, stages: int) -> list[int]:
    """Numbers of the stages: as named by letters, `both` or `all`, or where it can be done."""
    first = 1 if part.later else 0
    if where in (None, "both", "all"):
        found = list(range(first, stages))
    else:
        found = [LETTERS.find(letter) for letter in where or ""]
    if any(not 0 <= k < stages for k in found):
        raise UserError(
            f"arms: {where!r} of {arm!r} names no stage; there are {LETTERS[:stages]}, and both"
        )
    if part.later and 0 in found:
        raise UserError(f"arms: {arm!r} needs an earlier stage, and there is none before A")
    return found
