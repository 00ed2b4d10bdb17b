"""The names of `import forget_jax`: light until used, seen by tab completion and type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import forget_jax


def test_nothing_is_loaded_before_it_is_used():
    code = (
        "import sys, forget_jax\n"
        "assert {'finetune', 'UserError'} <= set(dir(forget_jax))\n"
        "forget_jax.UserError\n"
        "heavy = {'jax', 'transformers', 'numpy', 'pandas', 'xarray', 'flax'}\n"
        "assert not heavy & set(sys.modules)\n"
        "from forget_jax import choose_probes, complete, fit, plan_steps, predict_row\n"
        "assert not {'transformers', 'flax', 'optax', 'forget_jax.lm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_once_and_is_what_type_checkers_see():
    tree = ast.parse(Path(forget_jax.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {a.name: node.module for node in block.body for a in node.names}
    assert sorted(seen) == forget_jax.__all__
    for name, module in seen.items():
        assert getattr(forget_jax, name) is getattr(sys.modules[module], name)
        assert name == "UserError" or getattr(forget_jax, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"forget_jax.*finetun"):
        forget_jax.finetun  # noqa: B018
    with pytest.raises(ImportError):
        exec("from forget_jax import finetun")
