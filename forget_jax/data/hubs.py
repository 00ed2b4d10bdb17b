"""Rows of data sets that come through `datasets` (`hf:`) and `tensorflow_datasets` (`tfds:`).

Both libraries are imported only here and only when asked for. No remote code is ever run.
"""

import re
from collections.abc import Mapping
from typing import Any

from forget_jax.data.row_files import Rows
from forget_jax.errors import UserError, nearest
from forget_jax.files import Path


def _parts(name: str) -> list[str]:
    """The parts between colons; those of `gs://` and of `train[10:20]` do not separate."""
    return re.split(r":(?!//)(?![^\[]*\])", name)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else text[:300] + "…").rstrip(".")


def hf_rows(name: str) -> Rows:
    """Rows of `NAME[:config][:split]`: a hub name, a saved data set or a folder of data files.

    The split is `train` unless given. A single part after the name is a config where the data set
    has one of that name, and a split otherwise. Raises UserError for anything not found.
    """
    import datasets

    path, *rest = _parts(name)
    spec = f"hf:{name}"
    if len(rest) > 2 or not path:
        raise UserError(f"{spec}: give hf:NAME, hf:NAME:split or hf:NAME:config:split")
    folder = Path(path).expanduser()
    if folder.is_dir() and any((folder / f).exists() for f in ("dataset_dict.json", "state.json")):
        data, config = _saved(spec, folder, rest)
    else:
        try:
            config, split = _config_and_split(str(folder), rest)
            data = datasets.load_dataset(str(folder), config, split=split)
        except UserError:
            raise
        except Exception as e:  # the library and its HTTP client share no base class
            raise UserError(f"{spec}: {_explained(e)}") from e
    stem = "/".join(filter(None, (folder.name, config)))
    if len(data) == 0:
        raise UserError(f"{spec} is empty: it has no rows")
    return Rows(stem, len(data), data.__getitem__, lambda i: f"{spec}, row {i}")


def _config_and_split(path: str, rest: list[str]) -> tuple[str | None, str]:
    """The config (None: the only one) and split that the parts after the name stand for."""
    import datasets

    if len(rest) == 2:
        return rest[0] or None, rest[1] or "train"
    if len(rest) == 1 and rest[0] in datasets.get_dataset_config_names(path):
        return rest[0], "train"
    return None, (rest[0] if rest else "train")


def _saved(spec: str, folder: Path, rest: list[str]) -> tuple[Any, None]:
    """A data set written by `save_to_disk`, with splits or without."""
    import datasets

    split = rest[-1] if rest else ""
    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as e:  # a broken folder raises whatever its first broken file makes it raise
        raise UserError(f"{spec}: cannot be read as a saved data set ({_one_line(e)})") from e
    if isinstance(data, datasets.DatasetDict):
        wanted = split or "train"
        if wanted not in data:
            raise UserError(
                f"{spec}: there is no split {wanted!r}; the splits are {', '.join(data)}"
                f"{nearest(wanted, data)}"
            )
        return data[wanted], None
    if split and split != str(data.split):
        raise UserError(f"{spec}: the saved data set has no splits; leave out ':{split}'")
    return data, None


def _explained(error: Exception) -> str:
    """One line on why a library could not load, and what helps."""
    text = _one_line(error)
    if "scripts are no longer supported" in text:
        return (
            f"{text}; the parquet files on its hub branch `refs/convert/parquet` do work: download "
            "them and give hf:FOLDER"
        )
    if type(error).__name__ == "DatasetNotFoundError":
        return (
            f"not found ({text}); check the spelling and, where access is gated, log in with "
            "`hf auth login`"
        )
    if isinstance(error, ConnectionError) or "connect" in type(error).__name__.lower():
        return (
            f"no network ({text}); fetch the data set's parquet files elsewhere and give hf:FOLDER "
            "or the path of one file"
        )
    return text


def tfds_rows(name: str) -> Rows:
    """Rows of `NAME[:version][:split]` as tfds knows it, or of a prepared folder; no TensorFlow.

    Reading without TensorFlow is random access (`as_data_source`), which takes data sets stored as
    array_record or parquet. The split is `train` unless given.
    """
    spec = f"tfds:{name}"
    try:
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise UserError(f"{spec}: {e}; install with `pip install forget-jax[tfds]`") from e
    path, *rest = _parts(name)
    version = rest.pop(0) if rest and re.match(r"\d+\.", rest[0]) else None
    if len(rest) > 1 or not path:
        raise UserError(f"{spec}: give tfds:NAME, tfds:NAME:split or tfds:NAME:version:split")
    split = rest[0] if rest else "train"
    try:
        folder = Path(path).expanduser()
        if (folder / "dataset_info.json").exists():
            builder = tfds.builder_from_directory(str(folder))
        else:
            full = f"{path}:{version}" if version else path
            builder = tfds.builder(full, file_format="array_record")
            builder.download_and_prepare()
        known = list(builder.info.splits)
        if split.partition("[")[0] not in (*known, "all"):
            raise UserError(
                f"{spec}: there is no split {split!r}; the splits are {', '.join(known)}"
                f"{nearest(split, known)}"
            )
        data = builder.as_data_source(split=split)
    except UserError:
        raise
    except tfds.core.registered.DatasetNotFoundError as e:
        raise UserError(f"{spec}: {_one_line(e)}; `tfds.list_builders()` lists the names") from e
    except Exception as e:  # tfds raises errors of its own, of its HTTP client and of absl
        raise UserError(f"{spec}: {_explained(e)}") from e
    if len(data) == 0:
        raise UserError(f"{spec} is empty: it has no rows")
    stem = builder.info.full_name.rpartition("/")[0]  # without the version
    return Rows(stem, len(data), lambda i: _plain_row(data[i]), lambda i: f"{spec}, row {i}")


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Text, numbers and lists for the bytes and arrays that tfds gives."""
    return {key: _plain(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value  # an image, or broken text: an error only if it is a field of ours
    if isinstance(value, Mapping):
        return _plain_row(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(v) for v in value] if isinstance(value, list) else value
