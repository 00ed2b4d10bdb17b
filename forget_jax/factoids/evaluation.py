"""What a model still knows of a set: every question asked, every answer judged and scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.factoids.sets import Facts
from forget_jax.lm import generate
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Adapters, Model
from forget_jax.scoring import likelihood
from forget_jax.scoring.exact_match import is_correct, spoken
from forget_jax.scoring.judge import RULES, is_prefix, rouge_l
from forget_jax.scoring.stream import Layout

Answers = dict[str, list[Any]]  # a column by name, a value a fact
FIGURES = ("exact", "right", "prefix", "rouge_l")  # means over facts
ROWS = 8  # scored at a time

Loaded = tuple[Model, Adapters | None]


def ask(base: Base, loaded: Loaded, facts: Facts, max_new_tokens: int, paper: bool) -> Answers:
    """All facts of a set recited and scored under one model.

    Args:
      base: whose tokenizer it is.
      loaded: the model, with its single adapter or None.
      paper: judge as the authors do: the trained answer alone, or for WebQA any part of it.

    Returns:
      By fact `example`, `answer`, `prediction`, and `exact` (equal to the trained answer but for
      case and blank ends), `right` (by the set's rule, with its aliases), `prefix`, `rouge_l`, all
      NaN and empty where nothing is recited; and `nll` (nats, summed over the answer) and `tokens`.
    """
    model, adapter = loaded
    stack = None if adapter is None else Adapters(adapter.config, _stacked(adapter.tree))
    buckets = Buckets.of(facts.encoded, 2)
    layout = Layout.of(facts.encoded, buckets, ROWS)
    nll_N = likelihood.score(model, stack, facts.encoded, layout)[0]
    found: Answers = {
        "example": [e.name for e in facts.encoded],
        "nll": nll_N.tolist(),
        "tokens": [e.tokens for e in facts.encoded],
    }
    if facts.recited:
        until = generate.until(base.tokenizer, max_new_tokens, base.eos_ids)
        said = generate.answers(model, adapter, facts.prompts, until)
        found |= judged(base.tokenizer, facts.examples, said, rule(facts.rule, paper))
    else:
        nothing = [float("nan")] * len(facts.encoded)
        found |= {"answer": [""] * len(nothing), "prediction": [""] * len(nothing)}
        found |= dict.fromkeys(FIGURES, nothing)
    return found


def rule(own: str, paper: bool) -> str:
    """By which rule a set is judged: of `clean` its own; the authors ask for the trained answer.

    Of WebQA they take any part of it, even nothing (arXiv 2411.07175); `clean` takes its aliases.
    """
    if paper:
        return "within" if own == "within" else "strict"
    return "alias" if own == "within" else own


def _stacked(tree: Any) -> Any:
    import jax

    return jax.tree.map(lambda x: x[None], tree)


def judged(tokenizer: Any, examples: Sequence[Example], said: Sequence[str], by: str) -> Answers:
    """What answers are worth.

    Args:
      by: one of RULES; `strict` asks for the trained answer alone.
    """
    exact, right = [], []
    for e, text in zip(examples, said, strict=True):
        trained = (e.completion or "").strip()
        exact.append(is_correct(text, spoken(tokenizer, (trained,))))
        accepted = spoken(tokenizer, (trained, *e.answers))
        right.append(exact[-1] if by == "strict" else RULES[by](text, accepted) or exact[-1])
    answers = [(e.completion or "").strip() for e in examples]
    both = list(zip(said, answers, strict=True))
    return {
        "answer": answers,
        "prediction": list(said),
        "exact": [float(x) for x in exact],
        "right": [float(x) for x in right],
        "prefix": [float(is_prefix(*pair)) for pair in both],
        "rouge_l": [rouge_l(*pair) for pair in both],
    }


def figures(answers: Answers, without: Sequence[str] = ()) -> dict[str, float]:
    """Means over the facts, and `nll` over the answers' tokens, nats a token.

    Args:
      without: facts that do not count.
    """
    left_out = set(without)
    keep = np.array([name not in left_out for name in answers["example"]])
    found = {name: float(np.mean(np.array(answers[name], float)[keep])) for name in FIGURES}
    nll, tokens = (np.array(answers[name], float)[keep].sum() for name in ("nll", "tokens"))
    return {**found, "nll": float(nll / tokens), "facts": int(keep.sum())}
