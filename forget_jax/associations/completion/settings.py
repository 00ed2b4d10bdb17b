"""How a completion method declares its settings: a class of names with defaults.

They are pytrees. Settings whose default is a float are leaves, so that trying another value does
not compile again; whole numbers (ranks, steps) are part of the compiled program.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True)
def settings(cls: Class) -> Class:
    """Makes a frozen dataclass, and a pytree, of a class of fields with defaults."""
    made: Any = dataclasses.dataclass(frozen=True)(cls)
    whole = [f.name for f in dataclasses.fields(made) if isinstance(f.default, int)]
    traced = [f.name for f in dataclasses.fields(made) if f.name not in whole]
    return jax.tree_util.register_dataclass(made, data_fields=traced, meta_fields=whole)
