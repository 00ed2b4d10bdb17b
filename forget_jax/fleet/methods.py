"""What a fine-tune trains: adapters of some kernels and layers, or the model above some layers."""

import dataclasses
import re

import jax

from forget_jax.errors import UserError, nearest
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.lora import kernels
from forget_jax.training.plan import Task
from forget_jax.training.state import adapted_layers
from forget_jax.types import Tree

PARTS = {"lora": "", "attention": r"layers/attn/\w+", "mlp": r"layers/mlp/\w+"}
COUNTED = ("top", "frozen")
WORDS = (*PARTS, "full", *(f"{word}:N" for word in COUNTED))


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
      name: as it was written.
      whole: the model itself is trained, without adapters.
      targets, top: of `Task`, for adapters.
      frozen: of `Recipe`, for the whole model.
    """

    name: str
    whole: bool = False
    targets: str = ""
    top: int = 0
    frozen: int = 0

    def check(self, config: DecoderConfig) -> None:
        """Refuses more layers than a model has, or all of them frozen.

        Raises:
          UserError: it does.
        """
        most = config.layers if self.top else config.layers - 1
        if max(self.top, self.frozen) > most:
            raise UserError(
                f"methods: {self.name} is too many of this model's {config.layers} layers; "
                f"{most} or less fit"
            )


def of(text: str) -> Method:
    """`lora`, `attention`, `mlp`, `top:N`, `full` or `frozen:N` as what they train.

    Raises:
      UserError: another word, or a number that is not above 0.
    """
    word, colon, count = text.partition(":")
    if word in PARTS and not colon:
        return Method(text, targets=PARTS[word])
    if text == "full":
        return Method(text, whole=True)
    if word in COUNTED and re.fullmatch(r"[1-9]\d{0,8}", count):
        top = word == "top"
        return Method(text, not top, top=int(count) * top, frozen=int(count) * (not top))
    raise UserError(
        f"config.methods has {text!r}{nearest(text, WORDS)}; there are {', '.join(WORDS)}"
    )


def parameters(method: Method, params: Tree, targets: str, rank: int) -> int:
    """Trained parameters, as arXiv 2401.05605 counts them: without embeddings and head.

    Args:
      params: of the base.
      targets: of the run's adapters.
      rank: of the method's adapters; not used where the model itself is trained.

    Raises:
      UserError: it trains nothing.
    """
    if method.whole:
        inner = {k: v for k, v in params.items() if k != "head" and not k.startswith("embed")}
        count = sum(x.size for x in jax.tree.leaves(inner))
        frozen = sum(x.size // len(x) for x in jax.tree.leaves(params["layers"])) * method.frozen
        return int(count - frozen)
    task = Task("", (), 0, 1, targets=method.targets, top=method.top)
    count = sum(
        int(adapted_layers(task, path, layers).sum()) * (D + F) * rank
        for path, (layers, D, F) in kernels(params).items()
        if re.fullmatch(targets, path)
    )
    if not count:
        raise UserError(f"methods: {method.name} trains nothing of lora.targets {targets!r}")
    return count
