"""What a training is refused for before its folder is made and a tokenizer or weights are read."""

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.files import Path
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import about, layout, modules, shipped
from forget_jax.lm.settings import Lora, ModelPath


def check(model: ModelPath, lora: Lora) -> None:
    """Refuses a model that is not named, and adapters that it has no place for.

    Where the config.json is not here, adapters are held to what all families have.

    Raises:
      UserError: no path, or targets that are no expression or match nothing.
    """
    check_named(model)
    if lora.rank == 0:
        return
    config = shape(model)
    if config is None:
        modules.expression(lora.targets)
        return
    paths = layout.shapes(config)
    modules.check(lora.targets, [p.removesuffix("/kernel") for p in paths if p.endswith("/kernel")])


def check_named(model: ModelPath) -> None:
    """Refuses a model that is not named."""
    if not model.path:
        raise UserError(
            "model.path is not given; name a Hugging Face folder, or make a small base with "
            "`forget-jax pretrain --workdir=DIR` and give DIR/model"
        )


def shape(model: ModelPath) -> DecoderConfig | None:
    """The model's shape where a config.json of this machine tells it; nothing is downloaded.

    None also where that file is none: reading the model says what is wrong with it.
    """
    path = model.path
    here = path.startswith(shipped.PREFIX) or (files.is_local(path) and Path(path).is_dir())
    try:
        return about.config_of(path) if here else None
    except UserError:
        return None
