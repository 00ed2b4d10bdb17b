"""`forget-jax export`: a merged Hugging Face checkpoint, or a PEFT adapter, from a fine-tune."""

import jax

from forget_jax import files
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Export
from forget_jax.commands.summaries import Export as Summary
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.lm.hf import checkpoint, peft, peft_merge
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring.likelihood import merged


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


def base_of(path: str, adapter: Path) -> str:
    """The base model of an adapter: `model.path`, or what the adapter itself names."""
    named = path or files.read_json(adapter / peft.CONFIG).get("base_model_name_or_path")
    if not named:
        raise UserError(f"{adapter} does not name its base model; give model.path")
    return str(named)


def check(settings: Export) -> None:
    """Refuses a source that does not hold what is to be written."""
    adapter, _ = find(settings.source)
    if settings.format == "adapter" and adapter is None:
        raise UserError(f"{settings.source} is a whole model: format=adapter needs an adapter")


def run(settings: Export, work: Workdir) -> Ended:
    """Writes `model/` (merged, with its tokenizer) or `adapter/`."""
    adapter, whole = find(settings.source)
    base = str(whole) if adapter is None else base_of(settings.model.path, adapter)
    model = checkpoint.load(base)
    plain = adapter is None or peft.is_plain(adapter)
    if adapter is not None and not plain and settings.format == "merged":
        model = peft_merge.load(adapter, model, base)
    one = peft.load(adapter, model, base) if adapter is not None and plain else None
    out = work / ("adapter" if settings.format == "adapter" else "model")
    if settings.format == "adapter":
        if one is None:
            raise UserError(f"{adapter} is more than plain LoRA; export it with format=merged")
        peft.save(out, one, model.config, base)
        size = sum(x.nbytes for x in jax.tree.leaves(one))
    else:
        tokenizer = tokenizers.load(base)
        checkpoint.check_tokenizer(model.config, tokenizer, base)
        if one is not None:
            model = merged(model, one)
        checkpoint.save(
            out,
            model,
            tokenizer,
            settings.dtype or None,
            checkpoint.raw_config(base),
            settings.shard_mib * 2**20,
        )
        checkpoint.keep_generation_config(base, out)
        size = sum(x.nbytes for x in jax.tree.leaves(model))
    summary = Summary(path=str(out), base=base, format=settings.format, bytes=size)
    return Ended(summary, f"wrote {out}")
