"""`forget-jax export`: a merged Hugging Face checkpoint, or a PEFT adapter, from a fine-tune."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax import files, foreign
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Export
from forget_jax.commands.summaries import Export as Summary
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.lm.hf import about, checkpoint, families, layout, peft, peft_config, peft_merge
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.model import Model
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
        if (folder / peft_config.CONFIG).exists():
            return folder, None
    for folder in (Path(source) / "model", Path(source)):
        file = folder / "config.json"
        if file.exists() and "model_type" in foreign.record(files.read_json(file), str(file)):
            return None, folder
    raise UserError(
        f"{source} holds no adapter and no model; has the fine-tune ended (summary.json)?"
    )


def base_of(path: str, adapter: Path) -> str:
    """The base model of an adapter: `model.path`, or what the adapter itself names."""
    named = path or peft_config.read(peft_config.folder(adapter), str(adapter)).base
    if not named:
        raise UserError(f"{adapter} does not name its base model; give model.path")
    return named


def check(settings: Export) -> None:
    """Refuses a source that does not hold what is to be written."""
    adapter, _ = find(settings.source)
    if settings.format == "adapter" and adapter is None:
        raise UserError(f"{settings.source} is a whole model: format=adapter needs an adapter")


def run(settings: Export, work: Workdir) -> Ended:
    """Writes `model/` (merged, with its tokenizer) or `adapter/`."""
    adapter, whole = find(settings.source)
    base = str(whole) if adapter is None else base_of(settings.model.path, adapter)
    out = work / ("adapter" if settings.format == "adapter" else "model")
    if settings.format == "adapter":
        assert adapter is not None
        if not peft.is_plain(adapter):
            raise UserError(f"{adapter} is more than plain LoRA; export it with format=merged")
        model = checkpoint.load(base)
        one = peft.load(adapter, model, base)
        peft.save(out, one, model.config, base)
        size = sum(x.nbytes for x in jax.tree.leaves(one))
    else:
        model, dtype = _whole(settings.dtype, base, adapter)
        check_range(model, dtype)
        tokenizer = tokenizers.load(_speaks(model, base, adapter))
        about.check_tokenizer(model.config, tokenizer, base)
        raw = about.raw_config(base) | _changed(model, base)
        checkpoint.save(out, model, tokenizer, dtype, raw, settings.shard_mib * 2**20)
        about.keep_generation_config(base, out)
        size = sum(x.nbytes for x in jax.tree.leaves(model))
    summary = Summary(path=str(out), base=base, format=settings.format, bytes=size)
    return Ended(summary, f"wrote {out}")


def _whole(dtype: str, base: str, adapter: Path | None) -> tuple[Model, str | None]:
    """The model to write, with the adapter in it, and in what precision; None: as it stands.

    It is put together in what holds both the base's precision and the one to be written, so that
    nothing is rounded twice.
    """
    own = about.dtype_of(base)
    wide = str(jnp.promote_types(own, dtype)) if dtype else None
    model = checkpoint.load(base, wide)
    if adapter is None:
        return model, dtype or None
    if peft.is_plain(adapter):
        return merged(model, peft.load(adapter, model, base)), dtype or None
    return peft_merge.load(adapter, model, base), dtype or own


def check_range(model: Model, dtype: str | None) -> None:
    """Refuses a precision that the values of a model lie beyond.

    Args:
      model: what is to be written.
      dtype: of the tensors written; None: each one's own.

    Raises:
      UserError: a value that would become infinite; names the tensor.
    """
    names = {w.path: w.name for w in families.FAMILIES[model.config.family].weights}
    for path, leaf in layout.leaves(model.params):
        kind = jnp.dtype(dtype or leaf.dtype)
        bad = np.flatnonzero(~_finite_by_layer(leaf, kind))
        if len(bad):
            most = float(jnp.abs(leaf[bad[0]].astype(jnp.float32)).max())
            said = f"as large as {most:.6g}" if np.isfinite(most) else "beyond that"
            raise UserError(
                f"tensor {names[path].format(bad[0])} has values {said}, and {kind} ends at "
                f"{float(jnp.finfo(kind).max):.6g}; give dtype=bfloat16 or dtype=float32"
            )


def _finite_by_layer(leaf: jax.Array, kind: Any) -> np.ndarray:
    """Whether all values of each row of the first axis are finite in a precision."""
    finite = jnp.isfinite(leaf.astype(kind))
    return np.asarray(finite.reshape(len(leaf), -1).all(1))


def _changed(model: Model, base: str) -> dict[str, Any]:
    """What config.json must say otherwise than the base's: a head of its own, or more tokens."""
    raw, config = about.raw_config(base), about.config_of(base)
    found: dict[str, Any] = {}
    if not model.config.tied_head and raw.get("tie_word_embeddings", True):
        found["tie_word_embeddings"] = False
    if model.config.vocab_size != config.vocab_size:
        found["vocab_size"] = model.config.vocab_size
    return found


def _speaks(model: Model, base: str, adapter: Path | None) -> str:
    """Where the tokenizer lies: beside an adapter that brings more tokens, if it brings one too."""
    more = adapter is not None and model.config.vocab_size != about.config_of(base).vocab_size
    if more and adapter is not None and any(adapter.glob("tokenizer*")):
        return str(adapter)
    return base
