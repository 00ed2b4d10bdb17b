"""A Hugging Face `config.json` to a DecoderConfig and back, by the tables in `families`.

transformers' own configuration classes (they need no torch) fill in defaults and translate old
spellings first, so a key means here what it means there.
"""

from typing import Any

from forget_jax.errors import UserError
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf.families import FAMILIES, HARMLESS, SPELLINGS, Family
from forget_jax.lm.hf.tokenizer import transformers
from forget_jax.lm.positions import ROPE_TYPES


def flat(hf: dict[str, Any]) -> dict[str, Any]:
    """A transformers configuration with `attn_config` (MPT's) spread out as `attn_config.key`."""
    inner = hf.get("attn_config") or {}
    return {k: v for k, v in hf.items() if k != "attn_config"} | {
        f"attn_config.{k}": v for k, v in inner.items() if k not in HARMLESS
    }


def _check_family(raw: dict[str, Any], where: str) -> Family:
    family = FAMILIES.get(str(raw.get("model_type")))
    code = set(map(str, (raw.get("auto_map") or {}).values()))
    if code - (family.known_code if family else set()):
        raise UserError(
            f"{where}: the checkpoint needs code of its own (auto_map: {sorted(code)[0]}), which "
            "is never run; use a checkpoint in transformers' own format"
        )
    if raw.get("quantization_config"):
        raise UserError(f"{where}: a quantised checkpoint; load the unquantised original instead")
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(
            f"{where}: model family {raw.get('model_type')!r} is not supported; supported: {known}"
        )
    return family


def read(raw: dict[str, Any], where: str) -> DecoderConfig:
    """The decoder of a Hugging Face `config.json`.

    Args:
      raw: the file's contents, in the spelling of any version of transformers.
      where: the file's name for people.

    Raises:
      UserError: an unsupported family, an unsupported setting of a known family (both named), a
        quantised checkpoint, or one that needs code of its own.
    """
    family = _check_family(raw, where)
    try:
        known = flat(transformers().CONFIG_MAPPING[family.model_type]().to_dict())
        hf = flat(transformers().CONFIG_MAPPING[family.model_type](**raw).to_dict())
    except Exception as e:
        raise UserError(f"{where}: {' '.join(str(e).split())[:300]}") from e

    def refuse(key: str, value: Any, allowed: str) -> UserError:
        return UserError(
            f"{where}: {key}={value!r} is not supported for {family.model_type} "
            f"(supported: {allowed})"
        )

    for key in known.keys() - {"rope_parameters"}:
        if key in family.required:
            if hf[key] not in family.required[key]:
                raise refuse(key, hf[key], " or ".join(map(repr, family.required[key])))
        elif key not in family.fields and key not in HARMLESS | family.harmless:
            raise UserError(f"{where}: setting {key}={hf[key]!r} of {family.model_type} is unknown")
    if "layer_types" in hf and set(hf["layer_types"] or ["full_attention"]) != {"full_attention"}:
        raise refuse("layer_types", sorted(set(hf["layer_types"])), "full_attention only")
    values: dict[str, Any] = {}
    for key, fields in family.fields.items():
        value, first = hf[key], fields if isinstance(fields, str) else fields[0]
        if first in SPELLINGS:
            if value not in SPELLINGS[first]:
                raise refuse(key, value, ", ".join(map(str, SPELLINGS[first])))
            value = SPELLINGS[first][value]
        values |= dict.fromkeys((fields,) if isinstance(fields, str) else fields, value)
    heads, width = values["heads"], values["width"]
    values["kv_heads"] = values.get("kv_heads") or heads
    if "head_dim" not in values and hf.get("head_dim") not in (None, width // heads):
        raise refuse("head_dim", hf["head_dim"], f"{width // heads}")
    values["head_dim"] = values.get("head_dim") or width // heads
    values["mlp_width"] = values.get("mlp_width") or 4 * width
    if "rope_parameters" in known:
        values |= _read_rope(hf["rope_parameters"] or {}, family, refuse)
    return DecoderConfig(family=family.model_type, **(family.fixed | values))


def _read_rope(rope: dict[str, Any], family: Family, refuse: Any) -> dict[str, Any]:
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise refuse("rope_type", kind, ", ".join(ROPE_TYPES))
    fraction = float(rope.get("partial_rotary_factor", 1.0))
    if fraction != 1.0 and family.model_type != "gpt_neox":
        raise refuse("partial_rotary_factor", fraction, "1.0")
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    scaling = {k: v for k, v in rope.items() if k not in known and v is not None}
    if kind != "default":
        scaling["rope_type"] = kind
    return {
        "rope_theta": float(rope["rope_theta"]),
        "rotary_fraction": fraction,
        "rope_scaling": tuple(sorted(scaling.items())) if kind != "default" else (),
    }


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
            value = next(k for k, v in SPELLINGS[field].items() if v == value)
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
    return {"rope_parameters": rope} | old
