"""Which layers adapters lie on, by the names that PEFT's `target_modules` have."""

import re
from collections.abc import Collection

from forget_jax.errors import UserError, nearest
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
      UserError: an expression that is none, or a name among PEFT's that no family has.
    """
    known, given = names(), _given(targets)
    if given == [ALL]:
        return r"layers/(attn|mlp)/\w+"
    if all(name in known for name in given):
        return "|".join(dict.fromkeys(path for name in given for path in known[name]))
    if any(name in known for name in given):
        wrong = next(name for name in given if name not in known)
        raise UserError(
            f"lora.targets names {wrong!r}{nearest(wrong, known)}, a module that no family has"
        )
    try:
        re.compile(targets)
    except re.error as e:
        raise UserError(f"lora.targets {targets!r} is not a regular expression: {e}") from e
    return targets


def check(targets: str, kernels: Collection[str]) -> None:
    """Refuses targets that a model does not have.

    Args:
      targets: as for `expression`.
      kernels: paths of the model's linear kernels.

    Raises:
      UserError: what `expression` refuses, an expression that matches no kernel, or a name among
        PEFT's of which the model has no module.
    """
    known, pattern = names(), expression(targets)
    there = [path for path in kernels if path.startswith("layers/")]
    for name in _given(targets):
        if name in known and not set(known[name]) & set(there):
            here = ", ".join(n for n, paths in known.items() if set(paths) & set(there))
            raise UserError(f"lora.targets names {name}, which this model has not; it has {here}")
    if not any(re.fullmatch(pattern, path) for path in there):
        raise UserError(
            f"lora.targets {targets!r}{nearest(targets, known)} matches no linear layer of this "
            f"model; it has {', '.join(there)}"
        )


def _given(targets: str) -> list[str]:
    """The names that targets are, if they are names."""
    return [name.strip() for name in targets.split(",")]
