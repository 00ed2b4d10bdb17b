"""The settings of a `config.json`, each of the type and within the bounds that it must have.

They are checked before transformers' own class sees them: it takes any key for an attribute, and
makes lists as long as a file says.
"""

import dataclasses
import types
import typing
from typing import Any

from forget_jax import foreign
from forget_jax.errors import UserError
from forget_jax.lm.config import MOST, DecoderConfig
from forget_jax.lm.hf.families import HARMLESS, LAYER_TYPES, SPELLINGS, Family

# Spellings that no class lists, which transformers understands all the same.
LEGACY = (
    *("rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_emb_base", "rotary_pct"),
    *("rope_local_base_freq", "sliding_window_pattern"),
)
SMALLEST, LARGEST = 1e-30, 3e38  # of numbers that float32 can calculate with
# Bounds of fields, where any other whole number is 1 or more and any other fraction is finite.
BOUNDS: dict[str, tuple[float, float]] = {
    **{field: (1, most) for field, most in MOST.items()},
    "norm_eps": (0, 1),
    "alibi_max": (0, 1000),
    "clip_qkv": (SMALLEST, LARGEST),
    "window": (1, MOST["context"]),
    "rope_theta": (SMALLEST, LARGEST),
    "rotary_fraction": (0, 1),
    "query_pre_attn_scalar": (1, 2**31 - 1),  # whose own bounds are not its field's
}
# Settings that may be null: what the class makes of it is then what counts.
NULLABLE = {"kv_heads", "head_dim", "mlp_width", "window", "clip_qkv", "attention_scale"}
SCALING: dict[str, type] = {
    **dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor", "beta_fast"), float),
    **dict.fromkeys(("beta_slow", "attention_factor", "mscale", "mscale_all_dim"), float),
    "original_max_position_embeddings": float,
    "truncate": bool,
}


def _kind(field: dataclasses.Field[Any]) -> Any:
    """The type that a setting of `config.json` has, which becomes a field of DecoderConfig."""
    if field.name in SPELLINGS:
        return type(next(iter(SPELLINGS[field.name])))
    union = isinstance(field.type, types.UnionType)
    return typing.get_args(field.type)[0] if union else field.type


KINDS = {f.name: _kind(f) for f in dataclasses.fields(DecoderConfig)}


def typed(held: dict[str, Any], key: str, name: str, field: str, where: str) -> Any:
    """A setting's value, of the type and within the bounds that its field of DecoderConfig has.

    Args:
      held: what holds it, under `key`.
      name: of the setting for people.
    """
    if KINDS[field] not in (int, float, bool, str):
        return held[key]
    default = {"default": None} if field in NULLABLE else {}
    own = BOUNDS.get(key, BOUNDS.get(field))
    least, most = own or ((-LARGEST, LARGEST) if KINDS[field] is float else (None, None))
    named = {name: held[key]}
    value = foreign.field(named, name, KINDS[field], where, **default, least=least, most=most)
    return value if KINDS[field] is int else held[key]  # 8 stays 8 where the class has it so


def first(fields: str | tuple[str, ...]) -> str:
    """Of the fields of DecoderConfig that a setting becomes, the first."""
    return fields if isinstance(fields, str) else fields[0]


def given(raw: dict[str, Any], family: Family, made: Any, where: str) -> dict[str, Any]:
    """What is handed to transformers' class: settings of the right types, and nothing else of it.

    Args:
      raw: the file's contents.
      made: the class; it would take any key for an attribute, properties and methods among them.
      where: the file's name for people.

    Raises:
      UserError: a setting of another type or beyond its bounds.
    """
    known = set(made().to_dict()) | set(made.attribute_map) | set(LEGACY)
    kept = {
        key: value
        for key, value in raw.items()
        if key not in HARMLESS and (key in known or not hasattr(made, key)) and key[:1] != "_"
    }
    for key, fields in family.fields.items():
        node, _, last = key.rpartition(".")
        holder, before = kept, ""
        if node:
            holder = kept[node] = dict(foreign.field(kept, node, dict, where, {}))
            before = f"{node}."
        also = [alias for alias, name in made.attribute_map.items() if name == last]
        for name in (last, *also):
            if name in holder:
                holder[name] = typed(holder, name, before + name, first(fields), where)
    if any(not isinstance(x, str) for x in foreign.field(kept, "layer_types", list, where, [])):
        raise UserError(f"{where}: layer_types must be a list of names")
    for key in ("rope_parameters", "rope_scaling"):
        if key in kept:
            by_layer = key == "rope_parameters" and "layer_types" in family.fields
            read = _rope_of_layers if by_layer else _rope_numbers
            kept[key] = read(foreign.field(kept, key, dict, where, {}), where, f"{key}.")
    if "sliding_window_pattern" in kept and "layer_types" in family.fields:
        foreign.field(kept, "sliding_window_pattern", int, where, least=1, most=MOST["layers"])
    _rope_numbers({key: kept[key] for key in LEGACY if key in kept}, where)
    return kept


def _rope_of_layers(rope: dict[str, Any], where: str, before: str) -> dict[str, Any]:
    """A copy of rotary settings that are given for each kind of layer."""
    if other := sorted(set(rope) - set(LAYER_TYPES)):
        raise UserError(
            f"{where}: {before[:-1]} holds {other[0][:60]!r}; it must give the settings of "
            f"{' and of '.join(LAYER_TYPES)}"
        )
    return {
        kind: _rope_numbers(foreign.field(rope, kind, dict, where, {}), where, f"{before}{kind}.")
        for kind in rope
    }


def _rope_numbers(rope: dict[str, Any], where: str, before: str = "") -> dict[str, Any]:
    """A copy of rotary settings, each number of which is checked."""
    kinds = {
        **SCALING,
        **dict.fromkeys(("rope_type", "type"), str),
        **dict.fromkeys(("rope_theta", "rope_local_base_freq", "rotary_emb_base"), float),
        **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), float),
    }
    shares = ("partial_rotary_factor", "rotary_pct")
    for key, value in rope.items():
        if before and isinstance(value, dict):
            raise UserError(
                f"{where}: {before[:-1]}: {key[:60]!r} is an object: layers must be alike"
            )
        if key in kinds and value is not None:
            least, most = (0, 1) if key in shares else (SMALLEST, LARGEST)
            bounds = {"least": least, "most": most} if kinds[key] is float else {}
            foreign.field({before + key: value}, before + key, kinds[key], where, **bounds)
    return dict(rope)
