"""A Hugging Face `config.json` to a DecoderConfig and back, by the tables in `families`.

transformers' own configuration classes (they need no torch) fill in defaults and translate old
spellings first, so a key means here what it means there.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from forget_jax import foreign
from forget_jax.errors import UserError, one_line
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import hf_values
from forget_jax.lm.hf.families import (
    FAMILIES,
    HARMLESS,
    LAYER_TYPES,
    OWN_SPELLINGS,
    SPELLINGS,
    Family,
)
from forget_jax.lm.hf.tokenizer import transformers
from forget_jax.lm.positions import ROPE_TYPES, frequencies

# Settings whose value is another one in DecoderConfig: how it is made, and the way back.
TURNED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "layer_types": (
        lambda kinds: tuple(LAYER_TYPES[kind] for kind in kinds),
        lambda local: [next(k for k, v in LAYER_TYPES.items() if v == here) for here in local],
    ),
    "query_pre_attn_scalar": (lambda scalar: scalar**-0.5, lambda scale: round(scale**-2)),
}


def flat(hf: dict[str, Any]) -> dict[str, Any]:
    """A transformers configuration with `attn_config` (MPT's) spread out as `attn_config.key`."""
    inner = hf.get("attn_config") or {}
    return {k: v for k, v in hf.items() if k != "attn_config"} | {
        f"attn_config.{k}": v for k, v in inner.items() if k not in HARMLESS
    }


def _check_family(raw: dict[str, Any], where: str) -> Family:
    name = foreign.field(raw, "model_type", str, where, "")
    family = FAMILIES.get(name)
    code = _code(raw, where) - (family.known_code if family else set())
    if code:
        raise UserError(
            f"{where}: the checkpoint needs code of its own (auto_map: {min(code)[:100]!r}), which "
            "is never run; use a checkpoint in transformers' own format"
        )
    if raw.get("quantization_config"):
        raise UserError(f"{where}: a quantised checkpoint; load the unquantised original instead")
    if raw.get("per_layer_config"):
        raise UserError(f"{where}: per_layer_config is not supported: layers must be alike")
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(f"{where}: model family {name[:60]!r} is not supported; supported: {known}")
    return family


def _code(raw: dict[str, Any], where: str) -> set[str]:
    """The classes outside transformers that a checkpoint names."""
    held = foreign.field(raw, "auto_map", dict, where, {})
    lists = [v if isinstance(v, list) else [v] for v in held.values()]
    found = [name for names in lists for name in names if name is not None]
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise UserError(
            f"{where}: auto_map holds {foreign.in_words(wrong[0])}; it must name classes"
        )
    return set(found)


def read(raw: Any, where: str) -> DecoderConfig:
    """The decoder of a Hugging Face `config.json`.

    Args:
      raw: the file's contents, in the spelling of any version of transformers.
      where: the file's name for people.

    Raises:
      UserError: no JSON object, an unsupported family, a setting of another type, beyond its
        bounds or not supported (named), a quantised checkpoint, or one that needs its own code.
    """
    raw = foreign.record(raw, where)
    family = _check_family(raw, where)
    try:
        made = transformers().CONFIG_MAPPING[family.model_type]
        known = flat(made().to_dict())
        hf = flat(made(**hf_values.given(raw, family, made, where)).to_dict())
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{where}: {one_line(str(e), 300)}") from e

    def refuse(key: str, value: Any, allowed: str) -> UserError:
        return UserError(
            f"{where}: {key}={repr(value)[:60]} is not supported for {family.model_type} "
            f"(supported: {allowed})"
        )

    for key in known.keys() - {"rope_parameters"}:
        if key in family.required:
            if hf[key] not in family.required[key]:
                raise refuse(key, hf[key], " or ".join(map(repr, family.required[key])))
        elif key not in family.fields and key not in HARMLESS | family.harmless:
            raise UserError(f"{where}: setting {key}={hf[key]!r} of {family.model_type} is unknown")
    kinds = LAYER_TYPES if "layer_types" in family.fields else ("full_attention",)
    if not set(hf.get("layer_types") or ()) <= set(kinds):
        raise refuse("layer_types", sorted(set(hf["layer_types"])), " and ".join(kinds))
    values: dict[str, Any] = {}
    for key, fields in family.fields.items():
        first = hf_values.first(fields)
        value = hf_values.typed(hf, key, key, first, where)
        if first in SPELLINGS:
            if value not in SPELLINGS[first]:
                raise refuse(key, value, ", ".join(map(str, SPELLINGS[first])))
            value = SPELLINGS[first][value]
        elif key in TURNED:
            value = TURNED[key][0](value)
        values |= dict.fromkeys((fields,) if isinstance(fields, str) else fields, value)
    heads, width = values["heads"], values["width"]
    values["kv_heads"] = values.get("kv_heads") or heads
    if "head_dim" not in values and hf.get("head_dim") not in (None, width // heads):
        raise refuse("head_dim", hf["head_dim"], f"{width // heads}")
    values["head_dim"] = values.get("head_dim") or width // heads
    values["mlp_width"] = values.get("mlp_width") or 4 * width
    rope = hf.get("rope_parameters") or {}
    if "local" in values:
        if any(values["local"]) and values["window"] is None:
            raise refuse("sliding_window", None, "a number of tokens")
        near = _read_rope(rope["sliding_attention"], family, where, refuse)
        if near["rope_scaling"]:
            raise refuse("sliding_attention.rope_type", near["rope_scaling"], "default")
        values["local_theta"] = near["rope_theta"]
        rope = rope["full_attention"]
    if "rope_parameters" in known:
        values |= _read_rope(rope, family, where, refuse)
    try:
        config = DecoderConfig(family=family.model_type, **(family.fixed | values))
    except ValueError as e:
        raise UserError(f"{where}: {e}") from e
    if config.position == "rotary":
        _check_frequencies(config, where)
    return config


def _read_rope(rope: dict[str, Any], family: Family, where: str, refuse: Any) -> dict[str, Any]:
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise refuse("rope_type", kind, ", ".join(ROPE_TYPES))
    fraction = foreign.field(rope, "partial_rotary_factor", float, where, 1.0)
    if fraction != 1.0 and family.model_type != "gpt_neox":
        raise refuse("partial_rotary_factor", fraction, "1.0")
    scaling = {k: v for k, v in rope.items() if k in hf_values.SCALING and v is not None}
    scaling["rope_type"] = kind
    return {
        "rope_theta": foreign.field(rope, "rope_theta", float, where),
        "rotary_fraction": fraction,
        "rope_scaling": () if kind == "default" else tuple(sorted(scaling.items())),
    }


def _check_frequencies(config: DecoderConfig, where: str) -> None:
    """Refuses rotary settings, each a number of its own right, that together give no angles."""
    try:
        with np.errstate(all="ignore"):
            inverse, scale = frequencies(config)
        finite = np.isfinite(inverse).all() and math.isfinite(scale)
    except (ArithmeticError, ValueError, KeyError):
        finite = False
    if not finite:
        said = dict(config.rope_scaling) | {"rope_theta": config.rope_theta}
        raise UserError(f"{where}: rope_parameters {said} give no finite angles")


def write(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` from which transformers builds the same model; the inverse of `read`.

    Args:
      dtype: of the stored tensors, such as `float32`.
    """
    family = FAMILIES[config.family]
    hf: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "dtype": dtype,
        "torch_dtype": dtype,  # as transformers before 5 and its followers spell it
    }
    values = {key: allowed[0] for key, allowed in family.required.items()}
    for key, fields in family.fields.items():
        field = fields if isinstance(fields, str) else fields[0]
        value = getattr(config, field)
        if field in SPELLINGS:
            first = next(k for k, v in SPELLINGS[field].items() if v == value)
            value = OWN_SPELLINGS.get((key, value), first)
        elif key in TURNED:
            value = TURNED[key][1](value)
        values[key] = value
    for key, value in values.items():
        node, _, last = key.rpartition(".")
        (hf.setdefault(node, {}) if node else hf)[last] = value
    if config.position == "rotary":
        hf |= _write_rope(config)
    return hf


def _write_rope(config: DecoderConfig) -> dict[str, Any]:
    """The rotary settings as transformers 5 spells them, and as those before it did."""
    scaling = dict(config.rope_scaling)
    rope = {"rope_type": "default"} | scaling | {"rope_theta": config.rope_theta}
    old: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": scaling or None}
    if config.family == "gpt_neox":
        rope["partial_rotary_factor"] = config.rotary_fraction
        old = {"rotary_emb_base": config.rope_theta, "rotary_pct": config.rotary_fraction}
    if config.local:
        near = config.rope_theta if config.local_theta is None else config.local_theta
        local = {"rope_type": "default", "rope_theta": near}
        return {"rope_parameters": {"full_attention": rope, "sliding_attention": local}} | old
    return {"rope_parameters": rope} | old
