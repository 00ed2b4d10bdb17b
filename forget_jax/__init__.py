"""What a language model forgets when it is fine-tuned: the names for notebooks and scripts.

`docs/python.md` shows each of them. Nothing heavy is imported before a name is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forget_jax.api.matrices import choose_probes, complete, predict_row
    from forget_jax.api.models import finetune, load, save_adapter, score
    from forget_jax.errors import UserError
    from forget_jax.fleet.forgetting import forgetting
    from forget_jax.scaling import fit, plan_steps

__all__ = [
    "UserError",
    "choose_probes",
    "complete",
    "finetune",
    "fit",
    "forgetting",
    "load",
    "plan_steps",
    "predict_row",
    "save_adapter",
    "score",
]

_WHERE = {
    "UserError": "errors",
    "choose_probes": "api.matrices",
    "complete": "api.matrices",
    "finetune": "api.models",
    "fit": "scaling",
    "forgetting": "fleet.forgetting",
    "load": "api.models",
    "plan_steps": "scaling",
    "predict_row": "api.matrices",
    "save_adapter": "api.models",
    "score": "api.models",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
