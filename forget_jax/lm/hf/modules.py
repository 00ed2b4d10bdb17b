"""Which layers adapters lie on, by the names that PEFT's `target_modules` have."""

import re

from forget_jax.errors import UserError
from forget_jax.lm.hf.families import FAMILIES

ALL = "all-linear"  # PEFT's word for every linear layer but the head


def names() -> dict[str, list[str]]:
    """Kernel paths by the last part of the modules' names, over all families.

    No family has a module of a name whose meaning another one gives to a path that it has too
    (GPT-2's `c_proj` are two modules there as well), so one table serves all.
    """
    found: dict[str, list[str]] = {}
    for family in FAMILIES.values():
        for weight in family.weights:
            path, _, what = weight.path.rpartition("/")
            if path.startswith("layers/") and what == "kernel":
                paths = found.setdefault(weight.name.split(".")[-2], [])
                if path not in paths:
                    paths.append(path)
    return found


def expression(targets: str) -> str:
    """`lora.targets` as a regular expression over kernel paths.

    Args:
      targets: such an expression, or names as PEFT has them: `q_proj,v_proj` or `all-linear`.

    Raises:
      UserError: an expression that is none.
    """
    known = names()
    given = [name.strip() for name in targets.split(",")]
    if given == [ALL]:
        return r"layers/(attn|mlp)/\w+"
    if all(name in known for name in given):
        return "|".join(dict.fromkeys(path for name in given for path in known[name]))
    try:
        re.compile(targets)
    except re.error as e:
        raise UserError(f"lora.targets {targets!r} is not a regular expression: {e}") from e
    return targets
