"""PEFT's adapter_config.json: what it says, checked field by field, and what is refused.

The keys of its patterns are regular expressions of somebody else. They are matched by RE2, which
takes time linear in their length, and never by Python's own engine, which can take for ever.
"""

import dataclasses
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path as LocalPath
from typing import Any

from forget_jax import files, foreign
from forget_jax.errors import UserError
from forget_jax.lm.hf import about

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
LARGEST = 2**16  # of a rank

# Settings that change the function computed: only these values are understood.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "lora_bias": (False, None),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False, None),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "use_bdlora": (None, False),
}
# Initialisations that change the base weights, so the adapter does not fit the original base.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
PATTERN_LENGTH = 500  # characters of a pattern's key
WRAPPED = r"^(.*\.)?({})$"  # PEFT's rule: a key matches a whole name, or an ending of it at a dot


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """What is used of an adapter's config.

    Attributes:
      rank, alpha: of modules that no pattern names.
      rank_pattern, alpha_pattern: by module name, ending of one, or regular expression.
      dora: whether kernels are scaled to magnitudes of their own (arXiv 2402.09353).
      merges: whether it holds more than low-rank updates, and so is merged into its base.
      ties: whether tied embeddings stay tied to what the adapter makes of them.
      base: what it names as its base.
    """

    rank: int
    alpha: float
    rslora: bool
    dropout: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    dora: bool
    merges: bool
    ties: bool
    base: str | None

    def of(self, modules: Sequence[str]) -> dict[str, tuple[int, float]]:
        """Rank and scale of every module: alpha/r, or alpha/sqrt(r) with rsLoRA."""
        ranks = _matched(self.rank_pattern, modules, self.rank)
        alphas = _matched(self.alpha_pattern, modules, self.alpha)
        return {
            name: (rank, alpha / (rank**0.5 if self.rslora else rank))
            for name, rank, alpha in zip(modules, ranks, alphas, strict=True)
        }


def _matched(patterns: dict[str, Any], modules: Sequence[str], default: Any) -> list[Any]:
    """The value of the first pattern that matches each module."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = [default] * len(modules)
    for key, value in reversed(patterns.items()):
        hits = pc.match_substring_regex(pa.array(modules, pa.string()), WRAPPED.format(key))
        found = [value if hit else x for hit, x in zip(hits.to_pylist(), found, strict=True)]
    return found


def folder(path: files.PathLike) -> LocalPath:
    """The folder of an adapter, local, on a store or on the hub, which has PEFT's two files.

    Raises:
      UserError: one of them is missing.
    """
    where = os.fspath(path)
    if files.is_local(where) and not (LocalPath(where) / CONFIG).exists():
        raise UserError(f"{where} holds no {CONFIG}: not a PEFT adapter, or an unfinished one")
    local = about.folder(path)
    if not (local / TENSORS).exists():
        raise UserError(f"{where} holds no {TENSORS} (.bin adapters are pickles: convert them)")
    return local


def read(folder: LocalPath, where: str) -> PeftConfig:
    """Reads `adapter_config.json`.

    Args:
      folder: where it lies.
      where: the adapter's name for people.

    Raises:
      UserError: a file that is missing or broken, a field of another type or out of its bounds, or
        a kind of adapter that is not covered.
    """
    hf = foreign.record(files.read_json(folder / CONFIG), f"{where}/{CONFIG}")
    for key, allowed in REQUIRED.items():
        if hf.get(key, allowed[0]) not in allowed:
            raise UserError(
                f"{where}: {key} is {foreign.in_words(hf[key])}, which is not supported"
            )
    start = hf.get("init_lora_weights")
    if str(start).lower().startswith(CHANGES_BASE):
        raise UserError(
            f"{where}: init_lora_weights={str(start)[:40]!r} changed the base weights; save the "
            "adapter converted to plain LoRA (path_initial_model_for_weight_conversion)"
        )
    at = f"{where}/{CONFIG}"
    bias = foreign.field(hf, "bias", str, at, "none")
    if bias not in ("none", "all", "lora_only"):
        raise UserError(f"{at}: bias is {bias[:40]!r}; it must be none, all or lora_only")
    saved = foreign.field(hf, "modules_to_save", list, at, [])
    _check_names(saved, f"{at}: modules_to_save")
    if not isinstance(hf.get("target_modules"), str):  # a text is a regular expression, not used
        targets = foreign.field(hf, "target_modules", list, at, [])
        _check_names(targets, f"{at}: target_modules")
    base = foreign.field(hf, "base_model_name_or_path", str, at, "")
    if not base.isprintable():
        raise UserError(f"{at}: base_model_name_or_path is {foreign.in_words(base)}: not a name")
    dora = foreign.field(hf, "use_dora", bool, at, False)
    return PeftConfig(
        rank=foreign.field(hf, "r", int, at, least=1, most=LARGEST),
        alpha=foreign.field(hf, "lora_alpha", float, at),
        rslora=foreign.field(hf, "use_rslora", bool, at, False),
        dropout=foreign.field(hf, "lora_dropout", float, at, 0.0, least=0, most=1),
        rank_pattern=_pattern(hf, "rank_pattern", int, at),
        alpha_pattern=_pattern(hf, "alpha_pattern", float, at),
        dora=dora,
        merges=dora or bool(saved) or bias != "none",
        ties=foreign.field(hf, "ensure_weight_tying", bool, at, False),
        base=base or None,
    )


def _check_names(names: list[Any], where: str) -> None:
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{where} holds {foreign.in_words(name)} among the modules' names")


def _pattern(hf: dict[str, Any], key: str, kind: type, where: str) -> dict[str, Any]:
    held = foreign.field(hf, key, dict, where, {})
    bounds = {"least": 1, "most": LARGEST} if kind is int else {}
    found = {}
    for name in held:
        _check_expression(name, f"{where}: {key}")
        found[name] = foreign.field(held, name, kind, f"{where}: {key}", **bounds)
    return found


def _check_expression(text: str, where: str) -> None:
    """Refuses a regular expression that is none, or that RE2 would not read as Python does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shown = foreign.in_words(text)
    if len(text) > PATTERN_LENGTH or not text.isprintable():
        raise UserError(f"{where}: {shown} names no modules; name them in full, one by one")
    try:
        with warnings.catch_warnings():  # Python warns of what it may read otherwise one day
            warnings.simplefilter("error")
            re.compile(WRAPPED.format(text))
    except (re.error, OverflowError, RecursionError, Warning) as e:
        raise UserError(f"{where}: {shown} is not a regular expression ({e})") from e
    try:
        pc.match_substring_regex(pa.array(["x"]), WRAPPED.format(text))
        known = "{," not in text
    except (pa.ArrowException, UnicodeError):
        known = False
    if not known:
        raise UserError(
            f"{where}: {shown} is a regular expression that is not matched here, for it may take "
            "for ever (no lookaround, references or {,n}); name the modules in full"
        )
