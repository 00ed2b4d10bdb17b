"""What tests of the notebook's names share: the tiny base, loaded once."""

from pathlib import Path

import pytest

import forget_jax
from forget_jax.lm.hf.base import Base


@pytest.fixture(scope="session")
def base(tiny_base: Path) -> Base:
    return forget_jax.load(tiny_base)
