"""Take a fine-tune out: a merged Hugging Face checkpoint, or a PEFT adapter."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the workdir of a fine-tune, or a folder with an adapter or a checkpoint."""
    c = ConfigDict()
    c.source = arg
    c.model = ConfigDict()
    c.model.path = ""
    c.format = "merged"
    c.dtype = ""
    c.shard_mib = 2048
    return c
