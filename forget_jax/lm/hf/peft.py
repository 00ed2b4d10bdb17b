"""PEFT's files in and out: adapter_config.json and adapter_model.safetensors, one adapter each.

PEFT's ranks and alphas may differ from layer to layer; ours are stacked over layers. A path whose
layers differ gets their largest rank, the smaller ones filled with zeros, which changes nothing.

An adapter is an update of one base: on any other of the same shape it computes something else
without a word. So a fingerprint of the base lies beside PEFT's files and is compared on loading.
"""

import json
import os
import re

import jax.numpy as jnp
import numpy as np

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import families, fingerprint, layout, peft_config, peft_merge
from forget_jax.lm.hf.peft_config import CONFIG, TENSORS, PeftConfig
from forget_jax.lm.hf.tensor_files import Tensors
from forget_jax.lm.lora import LoRAConfig, kernels
from forget_jax.lm.model import Adapters, Model
from forget_jax.types import Tree


def _modules(config: DecoderConfig) -> dict[str, str]:
    """Kernel path -> PEFT's module name with `{}` for the layer."""
    return {
        w.path.removesuffix("/kernel"): w.name.removesuffix(".weight")
        for w in families.FAMILIES[config.family].weights
        if w.path.endswith("/kernel")
    }


def _short(module: str, modules: dict[str, str]) -> str:
    """The shortest ending of a module's name that no other linear layer shares."""
    parts = module.split(".")
    for n in range(1, len(parts)):
        ending = ".".join(parts[-n:])
        if sum(m.endswith(f".{ending}") for m in modules.values()) == 1:
            return ending
    return module


def save(
    path: files.PathLike,
    adapter: Adapters,
    config: DecoderConfig,
    base_name: str | None = None,
) -> None:
    """Writes one adapter (no task axis) in PEFT's format; adapter_config.json comes last.

    Args:
      path: the folder, made where it is missing; files of the same names are replaced.
      adapter: a single one.
      config: the base's shape.
      base_name: folder or hub name of the base, for PEFT's `base_model_name_or_path` and for the
        fingerprint beside it; None leaves out both.

    Raises:
      ValueError: a stack of adapters.
      UserError: the folder cannot be written to.
    """
    from safetensors.numpy import save as to_bytes

    lora_config, modules = adapter.config, _modules(config)
    weights = {w.path: w for w in families.FAMILIES[config.family].weights}
    tensors, ranks, alphas = {}, {}, {}
    for leaf, x in layout.leaves(adapter.tree):
        kernel, _, which = leaf.rpartition("/")
        if np.ndim(x) != 3:
            raise ValueError(f"{leaf} has shape {np.shape(x)}: give one adapter, no task axis")
        short, rank = _short(modules[kernel], modules), lora_config.rank_of(kernel)
        ranks[short] = rank
        alphas[short] = lora_config.scale_of(kernel) * (rank**0.5 if lora_config.rslora else rank)
        for layer, matrix in enumerate(np.asarray(x, np.float32)):
            stored = matrix.T
            if which == "b" and weights[f"{kernel}/kernel"].interleaved:
                stored = layout.interleaved(stored, config.heads)
            name = f"base_model.model.{modules[kernel].format(layer)}.lora_{which.upper()}.weight"
            tensors[name] = np.ascontiguousarray(stored)
    hf = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": lora_config.rank,
        "lora_alpha": lora_config.alpha,
        "use_rslora": lora_config.rslora,
        "lora_dropout": lora_config.dropout,
        "bias": "none",
        "fan_in_fan_out": not weights["layers/mlp/up/kernel"].transposed,
        "target_modules": sorted(ranks),
        "rank_pattern": {m: r for m, r in sorted(ranks.items()) if r != lora_config.rank},
        "alpha_pattern": {m: a for m, a in sorted(alphas.items()) if a != lora_config.alpha},
        "init_lora_weights": True,
    }
    target = files.Path(path)
    files.remove(target / CONFIG)  # until all is there again, the folder is unfinished
    files.write_bytes(target / TENSORS, to_bytes(tensors, {"format": "pt"}))
    if base_name is not None:
        fingerprint.write(target, base_name)
    files.write_text(target / CONFIG, json.dumps(hf, indent=1) + "\n")


def is_plain(path: files.PathLike) -> bool:
    """Whether an adapter is plain LoRA on the layers' kernels, which `load` takes.

    The others `peft_merge.load` makes into whole models.

    Raises:
      UserError: no adapter there, or one that neither takes.
    """
    local, where = peft_config.folder(path), os.fspath(path)
    if peft_config.read(local, where).merges:
        return False
    return peft_merge.is_plain(peft_merge.held(Tensors(local, TENSORS), where))


def load(path: files.PathLike, model: Model, base: str | None = None) -> Adapters:
    """Reads one adapter in PEFT's format for the given base; fp32, a single one.

    Args:
      path: a local folder, a `gs://` folder or a hub name.
      model: the base, whose kernels the adapter must fit.
      base: where the model comes from, folder or hub name; None compares shapes only.

    Raises:
      UserError: another kind of adapter (DoRA, prompt tuning, ...), one that does not fit the base
        or was trained on another, or a broken file.
    """
    where, config = os.fspath(path), model.config
    local = peft_config.folder(path)
    peft = peft_config.read(local, where)
    if peft.merges:
        raise UserError(
            f"{where} is more than plain LoRA (use_dora, bias or modules_to_save); `score` takes "
            "it as it is, and `export` makes it a whole model"
        )
    if base is not None:
        fingerprint.check(where, local, peft.base, base)
    tensors = Tensors(local, TENSORS)
    modules = _modules(config)
    where_is = {
        modules[kernel].format(layer): (kernel, layer)
        for kernel in modules
        for layer in range(config.layers)
    }
    names = peft_merge.held(tensors, where)
    adapted = {}
    for name in sorted(names):
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", name)
        if match is None or match[1] not in where_is:
            raise UserError(f"{where}: tensor {name} has no place in this {config.family} model")
        other = f"{match[1]}.lora_{'B' if match[2] == 'A' else 'A'}.weight"
        if other not in names:
            raise UserError(f"{where}: tensor {other} is missing")
        adapted[match[1]] = where_is[match[1]]
    if not adapted:
        raise UserError(f"{where}: {TENSORS} holds no adapter")
    found: dict[str, dict[int, tuple[np.ndarray, np.ndarray, float]]] = {}
    shapes, of = kernels(model.params), peft.of(list(adapted))
    for module, (kernel, layer) in adapted.items():
        a, b = (tensors.read(names[f"{module}.lora_{which}.weight"]) for which in "AB")
        rank, scale = of[module]
        _, D, F = shapes[kernel]
        if a.shape != (rank, D) or b.shape != (F, rank):
            raise UserError(
                f"{where}: {module} has shapes {a.shape} and {b.shape}, "
                f"but the base and rank {rank} ask for {(rank, D)} and {(F, rank)}"
            )
        found.setdefault(kernel, {})[layer] = (a, b, scale)
    return _stack(found, config, shapes, peft)


def _stack(
    found: dict[str, dict[int, tuple[np.ndarray, np.ndarray, float]]],
    config: DecoderConfig,
    shapes: dict[str, tuple[int, ...]],
    peft: PeftConfig,
) -> Adapters:
    """Layers of each kernel stacked to the largest rank, their scalings evened out in `b`."""
    interleaved = {w.path for w in families.FAMILIES[config.family].weights if w.interleaved}
    tree: Tree = {}
    ranks, alphas = [], []
    for kernel, layers in sorted(found.items()):
        count, D, F = shapes[kernel]
        rank = max(a.shape[0] for a, _, _ in layers.values())
        scale = max((s for _, _, s in layers.values()), key=abs)
        a_out = np.zeros((count, D, rank), np.float32)
        b_out = np.zeros((count, rank, F), np.float32)
        for layer, (a, b, own) in layers.items():
            if f"{kernel}/kernel" in interleaved:
                b = layout.blocked(b, config.heads)
            a_out[layer, :, : a.shape[0]] = a.T
            b_out[layer, : a.shape[0]] = b.T * (own / scale if own != scale else 1)
        layout.put(tree, kernel, {"a": jnp.asarray(a_out), "b": jnp.asarray(b_out)})
        alpha = scale * (rank**0.5 if peft.rslora else rank)
        ranks += [(re.escape(kernel), rank)] if rank != peft.rank else []
        alphas += [(re.escape(kernel), alpha)] if not np.isclose(alpha, peft.alpha) else []
    targets = "|".join(re.escape(kernel) for kernel in sorted(found))
    lora_config = LoRAConfig(
        rank=peft.rank,
        alpha=peft.alpha,
        rslora=peft.rslora,
        targets=targets,
        rank_pattern=tuple(ranks),
        alpha_pattern=tuple(alphas),
        dropout=peft.dropout,
    )
    return Adapters(lora_config, tree)
