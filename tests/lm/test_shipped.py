"""Models that installed packages hold: found without an import, and said how to get."""

from pathlib import Path

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
    model = shipped.Shipped((("brought_by_a_package", "tiny.gguf"),), "pip install brought")
    monkeypatch.setitem(shipped.MODELS, "tiny", model)
    return folder


def test_the_file_of_a_package_that_is_never_imported(package):
    assert shipped.located("builtin:tiny") == str(package / "tiny.gguf")
    assert shipped.located("some/folder") == "some/folder"


def test_parts_of_several_packages_are_joined_once(package, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (package / "rest").write_bytes(b" and the rest")
    parts = (("brought_by_a_package", "tiny.gguf"), ("brought_by_a_package", "rest"))
    monkeypatch.setitem(shipped.MODELS, "tiny", shipped.Shipped(parts, "pip install brought"))
    whole = Path(shipped.located("builtin:tiny"))
    assert whole.read_bytes() == b"GGUF and the rest"
    written = whole.stat().st_mtime_ns
    assert shipped.located("builtin:tiny") == str(whole) and whole.stat().st_mtime_ns == written
    whole.write_bytes(b"GGUF")  # as a stopped copy would leave it
    assert Path(shipped.located("builtin:tiny")).read_bytes() == b"GGUF and the rest"
    assert [file.name for file in whole.parent.iterdir()] == ["tiny.gguf"]


@pytest.mark.fault("models by name", "one line")
def test_a_package_that_is_not_there(package):
    (package / "tiny.gguf").unlink()
    with pytest.raises(UserError, match="`pip install brought` brings it"):
        shipped.located("builtin:tiny")


@pytest.mark.fault("models by name", "one line")
@pytest.mark.parametrize("name", ["builtin:smolm2", "builtin:", "builtin:../smollm2"])
def test_a_name_that_is_none(name):
    with pytest.raises(UserError, match="no such model; there is smollm2"):
        shipped.located(name)
    with pytest.raises(UserError, match="no such model"):
        tokenizer.load(name)
