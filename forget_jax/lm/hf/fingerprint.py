"""Which base a set of weights is, in 32 characters: equal for equal models, whatever their files.

The fingerprint covers the shape of the model, the kind and shape of every tensor that the model
uses, and a few kilobytes of each one's values. Any training changes it, and so does another
precision; shards, the order of tensors and the prefix of their names do not.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
from pathlib import Path as LocalPath
from typing import Any

from forget_jax import files, foreign
from forget_jax.errors import UserError
from forget_jax.lm.hf import about, families, hf_config, layout
from forget_jax.lm.hf.tensor_files import INDEX, SINGLE, Entry, header, weight_map

FILE = "base_fingerprint.json"  # beside an adapter: which base it belongs to
SHAPE = ("family", "vocab_size", "width", "layers", "heads", "kv_heads", "head_dim", "mlp_width")
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
BLOCK, BLOCKS = 1024, 4  # bytes read at each of a tensor's evenly spaced places


def of(base: files.PathLike) -> str:
    """The fingerprint of a checkpoint: a local folder, a `gs://` folder or a hub name.

    Raises:
      UserError: no checkpoint there, one of an unknown family, or files that cannot be read.
    """
    name = os.fspath(base)
    folder = files.Path(about.folder(name) if files.is_local(name) else name)
    try:
        shards = _shards(folder)
        return _of(os.fspath(folder), name, shards, tuple(_stamp(folder / s) for s in shards))
    except OSError as e:
        raise UserError(f"{name}: its weights cannot be read ({e.strerror or e})") from e


def _shards(folder: files.Path) -> tuple[str, ...]:
    """The names of the files that hold the tensors, those that the loader reads."""
    if (folder / SINGLE).exists() or not (folder / INDEX).exists():
        return (SINGLE,)
    return tuple(sorted(set(weight_map(folder / INDEX).values())))


def _stamp(file: files.Path) -> tuple[int, int]:
    """Length and time of a file: while they stay, it need not be read again."""
    if files.is_local(file):
        found = os.stat(file)  # noqa: PTH116 - epath knows whole seconds only
        return found.st_size, found.st_mtime_ns
    stat = file.stat()
    return stat.length, int(stat.mtime)


@functools.lru_cache(maxsize=16)
def _of(
    folder: str, name: str, shards: tuple[str, ...], stamps: tuple[tuple[int, int], ...]
) -> str:
    digests: dict[str, str] = {}
    for shard, (size, _) in zip(shards, stamps, strict=True):
        with (files.Path(folder) / shard).open("rb") as f:
            for tensor, entry in header(f, size, f"{name}/{shard}").items():
                digests[tensor] = _digest(f, entry)
    model = hf_config.read(files.read_json(files.Path(folder) / "config.json"), name)
    family = families.FAMILIES[model.family]
    head, embed = (digests.get(layout.name(family, p, digests)) for p in ("head", "embed"))
    if head not in (None, embed):  # then it is loaded, tied or not
        model = dataclasses.replace(model, tied_head=False)
    used = layout.names(model, digests, name)
    tensors = sorted((path, [digests[n] for n in names]) for path, (_, names) in used.items())
    whole = json.dumps([[getattr(model, field) for field in SHAPE], tensors])
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _digest(f: Any, entry: Entry) -> str:
    """Kind, shape and some blocks of one tensor: at its beginning, its end and evenly between."""
    digest = hashlib.sha256(f"{entry.dtype} {list(entry.shape)}".encode())
    last = max(0, entry.end - entry.start - BLOCK)
    for at in sorted({last * i // (BLOCKS - 1) for i in range(BLOCKS)}):
        f.seek(entry.start + at)
        digest.update(f.read(min(BLOCK, entry.end - entry.start - at)))
    return digest.hexdigest()


def write(folder: files.Path, base: str) -> None:
    """Keeps beside an adapter which base it belongs to.

    Where the base cannot be read any more, a line on stderr says so: no trained adapter is lost.

    Args:
      folder: the adapter's.
      base: as for `of`.
    """
    try:
        files.write_json(folder / FILE, {"base": base, "fingerprint": of(base)})
    except UserError as e:
        print(f"{folder}: saved without its base's fingerprint: {e}", file=sys.stderr)


def check(where: str, folder: LocalPath, named: str | None, base: str) -> None:
    """Refuses an adapter of another base than `base`, where that can be told.

    Args:
      where: the adapter's name for people; `folder` is where its files lie.
      named: the base that PEFT's own config names. An adapter without a fingerprint of ours is held
        to this, if it is a local folder; if not, a line on stderr says that nothing was compared.
      base: the base that the adapter is loaded for, as for `of`.

    Raises:
      UserError: another base; the line names both.
    """
    if (folder / FILE).exists():
        at = f"{where}/{FILE}"
        kept = foreign.record(files.read_json(folder / FILE), at)
        named = foreign.field(kept, "base", str, at)
        theirs = foreign.field(kept, "fingerprint", str, at)
        if not (named.isprintable() and FINGERPRINT.fullmatch(theirs)):
            raise UserError(f"{at} holds no base and fingerprint; remove it")
        way_out = f", or remove {FILE} from it to use it all the same"
    elif named == base:
        return
    elif named and (found := _of_folder(named)):
        theirs, way_out = found, ""
    else:
        made = f"it names {named} as its base" if named else "it does not name its base"
        print(f"{where}: {made}; only its shapes are compared with {base}", file=sys.stderr)
        return
    ours = of(base)
    if theirs != ours:
        raise UserError(
            f"{where} was trained on {named} (fingerprint {theirs[:8]}), but the base here is "
            f"{base} ({ours[:8]}), whose weights are others; give model.path={named}{way_out}"
        )


def _of_folder(name: str) -> str | None:
    """The fingerprint of a local folder, None where there is no checkpoint of a known kind."""
    try:
        return of(name) if LocalPath(name).is_dir() else None
    except (UserError, OSError):
        return None
