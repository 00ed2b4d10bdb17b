"""Layers by PEFT's names are those that PEFT would adapt, in every family."""

import re

import pytest

from forget_jax.errors import UserError
from forget_jax.lm.hf import modules
from forget_jax.lm.hf.families import FAMILIES


def kernels(family):
    """Paths of a family's linear kernels, each with the last part of its module's name."""
    return {
        w.path.removesuffix("/kernel"): w.name.split(".")[-2]
        for w in family.weights
        if w.path.startswith("layers/") and w.path.endswith("/kernel")
    }


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_names_adapt_what_peft_adapts(family):
    there = kernels(family)
    for name in sorted(set(there.values())):
        found = {p for p in there if re.fullmatch(modules.expression(name), p)}
        assert found == {p for p, module in there.items() if module == name}
    two = sorted(set(there.values()))[:2]
    found = {p for p in there if re.fullmatch(modules.expression(", ".join(two)), p)}
    assert found == {p for p, module in there.items() if module in two}
    assert all(re.fullmatch(modules.expression("all-linear"), p) for p in there)


def test_expressions_stay_what_they_are():
    for text in (r"layers/attn/[qv]", r"layers/(attn|mlp)/\w+", "q_prj", "q_proj|v_proj"):
        assert modules.expression(text) == text
    with pytest.raises(UserError, match="is not a regular expression"):
        modules.expression("(q_proj")
