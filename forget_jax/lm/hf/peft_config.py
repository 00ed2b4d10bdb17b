"""PEFT's adapter_config.json: what it says, checked field by field, and what is refused."""

import dataclasses
import re
from pathlib import Path as LocalPath
from typing import Any

from forget_jax import files, foreign
from forget_jax.errors import UserError

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
# A key of a pattern may be a regular expression; one that could search for hours is refused.
PLAIN = re.compile(r"[\w.\-]*")
QUANTIFIERS, PATTERN_LENGTH = 2, 500


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """What is used of an adapter's config.

    Attributes:
      rank, alpha: of modules that no pattern names.
      rank_pattern, alpha_pattern: by module name, ending of one, or regular expression.
      dora: whether kernels are scaled to magnitudes of their own (arXiv 2402.09353).
      merges: whether it holds more than low-rank updates, and so is merged into its base.
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
    base: str | None

    def of(self, module: str) -> tuple[int, float]:
        """Rank and scale of a module: alpha/r, or alpha/sqrt(r) with rsLoRA."""
        rank = _match(self.rank_pattern, module, self.rank)
        alpha = _match(self.alpha_pattern, module, self.alpha)
        return rank, alpha / (rank**0.5 if self.rslora else rank)


def _match(patterns: dict[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: a key matches a module's whole name or an ending of it at a dot."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


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
        base=foreign.field(hf, "base_model_name_or_path", str, at, None),
    )


def _pattern(hf: dict[str, Any], key: str, kind: type, where: str) -> dict[str, Any]:
    held = foreign.field(hf, key, dict, where, {})
    bounds = {"least": 1, "most": LARGEST} if kind is int else {}
    found = {}
    for name in held:
        _check_expression(name, f"{where}: {key}")
        found[name] = foreign.field(held, name, kind, f"{where}: {key}", **bounds)
    return found


def _check_expression(text: str, where: str) -> None:
    """Refuses a regular expression that is none, or whose search could take long.

    Without repeated groups, references and looks ahead, and with at most QUANTIFIERS repetitions, a
    search takes time of a low power of a name's length.
    """
    if PLAIN.fullmatch(text) and len(text) <= PATTERN_LENGTH:
        return
    unescaped = re.sub(r"\\\W", "", text)
    repeats = re.findall(r"[*+{?]", unescaped.replace("(?:", "("))
    risky = re.search(r"\)[*+{?]|\\\d|\(\?(?!:)", text)
    if len(text) > PATTERN_LENGTH or risky or len(repeats) > QUANTIFIERS:
        raise UserError(
            f"{where}: the expression {text[:60]!r} may take long to match, so it is not used; "
            "name the modules in full"
        )
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as e:
        raise UserError(f"{where}: {text[:60]!r} is not a regular expression ({e})") from e
