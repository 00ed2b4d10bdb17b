"""Fine-tune one model on one task with LoRA; `lora.rank=0` trains the whole model."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Finetune, fields


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the model's path."""
    c = fields(Finetune)
    c.model.path = arg
    return c
