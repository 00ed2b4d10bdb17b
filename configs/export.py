"""Take a fine-tune out: a merged Hugging Face checkpoint, or a PEFT adapter."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Export, fields


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the workdir of a fine-tune, or a folder with an adapter or a checkpoint."""
    return fields(Export, source=arg)
