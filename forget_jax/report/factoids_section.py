"""The section about facts: which of them outlived a second training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forget_jax.report.plots import Row, row_plot
from forget_jax.report.section import (
    Figure,
    Section,
    Table,
    count,
    finite_mean,
    number,
    percent,
    shorten,
)


@dataclass(frozen=True)
class FactsKept:
    """An arm's figures, one number a seed; empty where they were not measured.

    Attributes:
      accuracy_a_after_a, accuracy_a_after_b, accuracy_b: share of the facts recited exactly after
        stages A and B.
      answer_nll_a_after_a, answer_nll_a_after_b, answer_nll_b: of the answers, nats per token.
      right_a_after_b, prefix_a_after_b, rouge_l_a_after_b: share accepted with aliases, share that
        begins with the answer, and ROUGE-L.
      known_a_after_b: share still known of what the base knew before.
      accuracy_a_after_last: after the last stage; it is B where this is empty.
      asked_before_recovery, asked_after_recovery: of facts of A that are asked again, before and
        after others were trained on.
      steps_a, steps_b: optimizer updates of the stages.
    """

    accuracy_a_after_a: Sequence[float] = ()
    accuracy_a_after_b: Sequence[float] = ()
    accuracy_b: Sequence[float] = ()
    answer_nll_a_after_a: Sequence[float] = ()
    answer_nll_a_after_b: Sequence[float] = ()
    answer_nll_b: Sequence[float] = ()
    right_a_after_b: Sequence[float] = ()
    prefix_a_after_b: Sequence[float] = ()
    rouge_l_a_after_b: Sequence[float] = ()
    known_a_after_b: Sequence[float] = ()
    accuracy_a_after_last: Sequence[float] = ()
    asked_before_recovery: Sequence[float] = ()
    asked_after_recovery: Sequence[float] = ()
    steps_a: Sequence[float] = ()
    steps_b: Sequence[float] = ()

    @property
    def last(self) -> Sequence[float]:
        """Of A after the last stage."""
        return self.accuracy_a_after_last or self.accuracy_a_after_b


@dataclass(frozen=True)
class FactsCompared:
    """What the arms show beside their figures.

    Attributes:
      differences: by comparison, mean with the ends of its interval, p and Holm's p, shares of the
        facts; NaN for what there is not.
      after: by arm, stage and set, the share recited exactly.
      headroom: in words, whether arms could differ.
      over_facts: by comparison, how many facts the one keeps more often and less often, the ends
        of the interval over facts, p and Holm's p.
    """

    differences: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    after: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    headroom: str = ""
    over_facts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


Cells = tuple[tuple[str | float, ...], ...]


def factoids_section(
    arms: Mapping[str, FactsKept], seeds: int, compared: FactsCompared = FactsCompared()
) -> Section:
    """Facts kept: what is known of A and B after each stage, for each arm, and tests between arms.

    Args:
      arms: by name.
      seeds: how many seeds each arm was trained under.
    """
    after = {arm: tuple(kept.last) for arm, kept in arms.items()}
    rows = [Row(arm, _mean(v), points=v if len(v) > 1 else ()) for arm, v in after.items()]
    many = any("C" in stages for stages in compared.after.values())
    what = "the last stage" if many else "B"
    alt = (
        f"Accuracy on A after {what}: "
        + ", ".join(f"{shorten(r.name, 60)} {number(r.value)}" for r in rows)
        + "."
    )
    figure = Figure(
        f"Facts of A still known after training on {'the other sets' if many else 'B'}",
        f"Share of A's facts recited exactly; {count(seeds, 'seed')} an arm"
        + (", small dots are single seeds" if any(r.points for r in rows) else "")
        + ". Further right is better.",
        alt,
        row_plot("factoids-kept", rows, f"accuracy on A after {what}", alt, zero=True),
    )
    tables = [t for t in (*_tables(arms), *_stages(compared), *_tests(compared)) if t.rows]
    lead = (
        "A model memorises facts A, then trains on B without seeing A again. The arms differ in "
        "what is done against forgetting in the two stages."
    )
    known = [r for r in rows if np.isfinite(r.value)]
    if len(known) > 1:
        low, high = min(known, key=lambda r: r.value), max(known, key=lambda r: r.value)
        spread = (
            f"runs from {percent(low.value)} ({low.name}) to {percent(high.value)} ({high.name})"
        )
        if low.value == high.value:
            spread = f"is {percent(low.value)} in every arm"
        lead += f" Accuracy on A after {what} {spread}."
    if seeds == 1:
        lead += " With one seed, the order of the arms holds for these runs only."
    if compared.headroom:
        lead += f" {compared.headroom[:1].upper()}{compared.headroom[1:]}."
    return Section("factoids", "What was kept", lead, (figure,) if rows else (), tuple(tables))


def _tables(arms: Mapping[str, FactsKept]) -> list[Table]:
    """All figures, and those of which any was measured."""
    columns = ("arm", "A after A", "A after B", "B after B")

    def rows(*names: str) -> Cells:
        return tuple((arm, *(_mean(getattr(k, n)) for n in names)) for arm, k in arms.items())

    nll = rows("answer_nll_a_after_a", "answer_nll_a_after_b", "answer_nll_b")
    other = rows("right_a_after_b", "prefix_a_after_b", "rouge_l_a_after_b", "known_a_after_b")
    again = rows("asked_before_recovery", "asked_after_recovery")
    return [
        Table(
            "All figures",
            columns,
            rows("accuracy_a_after_a", "accuracy_a_after_b", "accuracy_b"),
        ),
        Table(
            "NLL of the answers (nats per token)",
            columns,
            _measured(nll),
            note="What exact match cannot see: how far a lost answer is from being recited.",
        ),
        Table(
            "A after B, judged otherwise",
            ("arm", "with aliases", "begins with it", "ROUGE-L", "known to the base"),
            _measured(other),
            note="The last is the share still known of what the base knew before and was not "
            "trained on.",
        ),
        Table(
            "Optimizer updates",
            ("arm", "A", "B"),
            _measured(rows("steps_a", "steps_b")),
            note="Where stages end by their loss, arms differ in these too, and an arm of more "
            "steps is no control of a mix: it ends as soon as its facts are learnt.",
        ),
        Table(
            "Lost, or only misaligned",
            ("arm", "before", "after some of A"),
            _measured(again),
            note="Accuracy on facts of A, before and after a few steps on others of A: what comes "
            "back was still there.",
        ),
    ]


def _measured(rows: Cells) -> Cells:
    """The rows, or none where nothing in them was measured."""
    there = any(np.isfinite(np.array(row[1:], float)).any() for row in rows)
    return rows if there else ()


def _stages(compared: FactsCompared) -> list[Table]:
    """What is known of every set after every stage, where there are more than two."""
    letters = sorted({a for stages in compared.after.values() for a in stages if len(a) == 1})
    if len(letters) < 3:
        return []
    pairs = [(which, after) for after in letters for which in letters if which <= after]
    rows: Cells = tuple(
        (arm, *(stages.get(after, {}).get(which, float("nan")) for which, after in pairs))
        for arm, stages in compared.after.items()
    )
    return [Table("Every set after every stage", ("arm", *(f"{w} after {a}" for w, a in pairs)),
                  rows)]  # fmt: skip


def _tests(compared: FactsCompared) -> list[Table]:
    rows: Cells = tuple((name, *figures) for name, figures in compared.differences.items())
    return [
        Table(
            "Differences between arms",
            ("comparison", "difference", "from", "to", "p", "p by Holm"),
            rows,
            note="Shares of A's facts, with 95 % intervals; p by flips of the signs of whole "
            "clusters (sequences of sets, or seeds where there is one), which with K of them is "
            "never below 2 / 2^K.",
        ),
        Table(
            "The same, fact by fact",
            ("comparison", "kept more", "kept less", "from", "to", "p", "p by Holm"),
            tuple((name, *figures) for name, figures in compared.over_facts.items()),
            note="Facts of A that the first of the two keeps in more of these trainings than the "
            "second, and in fewer; the 95 % interval of the difference over facts, and an exact "
            "sign test. It speaks of these trainings alone, not of other seeds or sets.",
        ),
    ]


def _mean(values: Sequence[float]) -> float:
    return float(finite_mean(np.asarray(values, float)))
