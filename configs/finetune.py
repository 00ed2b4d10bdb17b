"""Fine-tune one model on one task with LoRA; `lora.rank=0` trains the whole model."""

from ml_collections import ConfigDict

from forget_jax.configs import parts


def get_config(arg: str = "") -> ConfigDict:
    """The argument is the model's path."""
    c = ConfigDict()
    c.model = parts.model(arg)
    c.data = parts.data()
    c.data.path = ()
    c.train = parts.train()
    c.lora = parts.lora()
    c.mesh = parts.mesh()
    return c
