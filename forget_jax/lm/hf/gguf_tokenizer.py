"""The tokenizer in a GGUF file's metadata, as `transformers` makes it, with its chat template."""

from typing import Any

from forget_jax import foreign, stderr
from forget_jax.errors import UserError, one_line

# llama.cpp's names of how text is cut before merges, where byte-level BPE's own way is right
PLAIN = ("default", "gpt-2", "olmo", "mpt", "phi-2")
DIGITS = ("smollm", "starcoder", "refact", "command-r", "exaone", "codeshell")  # digits one by one
STOPS = ("eos", "eot", "eom")
LISTS = {"tokens": str, "merges": str, "scores": float, "token_type": int}
VALUES = {"model": str, "pre": str, "add_bos_token": bool, "add_eos_token": bool}


def build(architecture: str, metadata: dict[str, Any], shown: str) -> Any:
    """The tokenizer.

    Args:
      architecture: the file's, which says how a SentencePiece vocabulary is read.
      metadata: the file's entries by name.
      shown: the file's name for people.

    Raises:
      UserError: no tokenizer in it, or one that is not covered.
    """
    from forget_jax.lm.hf import tokenizer as tokenizers  # which reads GGUF files through this

    tokenizers.transformers()
    from transformers.integrations.gguf import gguf_tokenizer_mapping as mapping

    _check(metadata, shown)
    names = mapping.GGUF_TOKENIZER_MAPPING["tokenizer"]
    held = {
        ours: metadata[f"tokenizer.{theirs}"]
        for theirs, ours in names.items()
        if f"tokenizer.{theirs}" in metadata
    }
    kind, cut = held.get("tokenizer_type"), held.get("pre_tokenizer_type", "default")
    if kind == "gpt2" and cut not in (*PLAIN, *DIGITS, *mapping.GGUF_PRE_TOKENIZER_SPLITS):
        raise UserError(f"{shown}: tokenizer.ggml.pre={cut!r} is not covered")
    try:
        with stderr.held(tokenizers.is_panic):
            return _build(architecture, metadata, held, mapping.convert_gguf_tokenizer)
    except BaseException as e:
        if not tokenizers.is_broken(e):
            raise
        reason = one_line(str(e), 200)
        raise UserError(f"{shown}: its tokenizer is not covered ({reason})") from e


def _check(metadata: dict[str, Any], shown: str) -> None:
    """Refuses entries of another type than theirs, and tokens that are not in the vocabulary."""
    for name, kind in LISTS.items():
        key = f"tokenizer.ggml.{name}"
        wanted = (int, float) if kind is float else kind
        for value in foreign.field(metadata, key, list, shown, []):
            if not isinstance(value, wanted):
                raise UserError(f"{shown}: {key} holds {foreign.in_words(value)}")
    for name, kind in VALUES.items():
        foreign.field(metadata, f"tokenizer.ggml.{name}", kind, shown, None)
    foreign.field(metadata, "tokenizer.chat_template", str, shown, None)
    most = len(metadata.get("tokenizer.ggml.tokens", ())) - 1
    for key in metadata:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            foreign.field(metadata, key, int, shown, least=0, most=most)


def _build(architecture: str, metadata: dict[str, Any], held: dict[str, Any], convert: Any) -> Any:
    """The tokenizer of entries that are of their types; fails as transformers and Rust do."""
    from transformers import PreTrainedTokenizerFast

    backend, _ = convert(architecture, held)
    kind, cut = held.get("tokenizer_type"), held.get("pre_tokenizer_type", "default")
    if kind == "gpt2" and cut in DIGITS:
        from tokenizers import pre_tokenizers

        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
    tokens = held["tokens"]
    special = {
        f"{ours}_token": tokens[metadata[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if metadata.get(f"tokenizer.ggml.{theirs}_token_id") is not None
    }
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        add_bos_token=metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"),
        add_eos_token=metadata.get("tokenizer.ggml.add_eos_token", False),
        **special,
    )
    template = metadata.get("tokenizer.chat_template")
    if template:
        made.chat_template = template
    return made


def stops(metadata: dict[str, Any]) -> list[int]:
    """The tokens that end an answer, by id: end of sequence, of a turn, of a message."""
    found = (metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in STOPS)
    return sorted({int(token) for token in found if token is not None})
