"""`forget-jax export`: a merged Hugging Face checkpoint, or a PEFT adapter, from a fine-tune."""

import sys
from typing import Any

import jax
from ml_collections import ConfigDict

from forget_jax import files
from forget_jax.commands import report
from forget_jax.commands.config import plain
from forget_jax.errors import UserError
from forget_jax.files import Path, PathLike
from forget_jax.lm import lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.runs.workdir import Workdir

FORMATS = ("merged", "adapter")
DTYPES = ("", "float32", "bfloat16", "float16")


def find(source: str) -> tuple[Path | None, Path | None]:
    """The adapter, or else the whole checkpoint, of a workdir or of a folder that is one.

    Raises:
      UserError: neither is there.
    """
    if not source:
        raise UserError("source is not given; name a workdir of finetune, or an adapter's folder")
    for folder in (Path(source), Path(source) / "adapter"):
        if (folder / peft.CONFIG).exists():
            return folder, None
    for folder in (Path(source) / "model", Path(source)):
        file = folder / "config.json"
        if file.exists() and "model_type" in files.read_json(file):
            return None, folder
    raise UserError(
        f"{source} holds no adapter and no model; has the fine-tune ended (summary.json)?"
    )


def base_of(config: ConfigDict, adapter: Path) -> str:
    """The base model of an adapter: model.path, or what the adapter itself names."""
    named = config.model.path or files.read_json(adapter / peft.CONFIG).get(
        "base_model_name_or_path"
    )
    if not named:
        raise UserError(f"{adapter} does not name its base model; give model.path")
    return str(named)


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Writes `model/` (merged, with its tokenizer) or `adapter/`."""
    if config.format not in FORMATS:
        raise UserError(f"format is {config.format!r}; it must be one of {', '.join(FORMATS)}")
    if config.dtype not in DTYPES:
        raise UserError(f"dtype is {config.dtype!r}; it must be one of {', '.join(DTYPES[1:])}")
    if config.shard_mib < 1:
        raise UserError(f"shard_mib is {config.shard_mib}; it must be 1 or more")
    adapter, whole = find(config.source)
    if config.format == "adapter" and adapter is None:
        raise UserError(f"{config.source} is a whole model: format=adapter needs an adapter")
    base = str(whole) if adapter is None else base_of(config, adapter)
    work = Workdir(workdir, "export", plain(config))
    if report.has_ended(work):
        return
    model, params = checkpoint.load(base)
    out: Any
    if adapter is not None:
        lora_config, one = peft.load(adapter, model, params, base)
    if config.format == "adapter":
        out = work / "adapter"
        peft.save(out, lora_config, one, model, base)
        size = sum(x.nbytes for x in jax.tree.leaves(one))
    else:
        tokenizer = tokenizers.load(base)
        checkpoint.check_tokenizer(model, tokenizer, base)
        if adapter is not None:
            params = lora.merge(lora_config, params, one)
        out = work / "model"
        checkpoint.save(
            out,
            model,
            params,
            tokenizer,
            config.dtype or None,
            checkpoint.raw_config(base),
            config.shard_mib * 2**20,
        )
        size = sum(x.nbytes for x in jax.tree.leaves(params))
    work.finish({"path": str(out), "base": base, "format": config.format, "bytes": size})
    report.build(workdir)
    print(f"wrote {out}", file=sys.stderr)
