"""What a mitigation minimises, and what of a model it trains, as values of the training step."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.data.tokenise import Encoded
from forget_jax.factoids.mitigations import Mitigation
from forget_jax.lm.model import Adapters, Model, trainable
from forget_jax.training import fisher
from forget_jax.training.objective import Objective, Quadratic, Reference, nll, nll_and_kl_to
from forget_jax.types import Tree

Loaded = tuple[Model, Adapters | None]


def of(
    what: Mitigation, starts: Sequence[Loaded], earlier: Sequence[Sequence[Encoded]], layers: int
) -> Objective:
    """What runs of one mitigation minimise, that train together.

    Args:
      starts: the model that each starts from, with its single adapter or None.
      earlier: the facts of the stages before, of each; the Fisher information is of these.
      layers: of the model.
    """
    penalty = _penalty(what, starts, earlier) if what.ewc or what.l2 else None
    rows, reference = (nll,), None
    if what.kl:  # such runs train alone
        rows = (nll, nll_and_kl_to)  # type: ignore[assignment]
        reference = Reference(*starts[0], jnp.float32(what.kl))
    trained = frozen(trainable(*starts[0]), what.frozen, layers) if what.frozen else None
    return Objective(rows, penalty, reference, trained)


def costs(what: Mitigation | None, rows: int) -> np.ndarray | None:
    """Which cost of the objective each row has (`Task.costs`)."""
    return np.ones(rows, int) if what is not None and what.kl else None


def _penalty(
    what: Mitigation, starts: Sequence[Loaded], earlier: Sequence[Sequence[Encoded]]
) -> Quadratic:
    """The sum of ewc · Fisher (with a mean of 1) + l2, about where each run starts."""

    def stack(trees: Sequence[Tree]) -> Tree:
        return jax.tree.map(lambda *x: jnp.stack(x).astype(jnp.float32), *trees)

    anchor = stack([trainable(*start) for start in starts])
    if not what.ewc:
        return Quadratic(jnp.full(len(starts), what.l2, jnp.float32), anchor)
    weights = []
    for (model, adapter), facts in zip(starts, earlier, strict=True):
        importance = fisher.normalised(fisher.diagonal(model, adapter, facts))
        weights.append(jax.tree.map(lambda x: what.ewc * x + what.l2, importance))
    return Quadratic(jnp.ones(len(starts), jnp.float32), anchor, stack(weights))


def frozen(tree: Tree, share: float, layers: int) -> Tree:
    """What is trained where the lowest share of the layers stays as it is: broadcast to a tree.

    Embeddings stay too; a head that is tied to them does so with them.
    """
    lowest = round(share * layers)

    def one(path: tuple[jax.tree_util.DictKey, ...], x: jax.Array) -> jax.Array:
        top = str(path[0].key)
        if top.partition("/")[0] == "layers":
            is_trained = jnp.arange(layers) >= lowest
            return is_trained.astype(jnp.float32).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.float32(not top.startswith("embed"))

    return jax.tree.map_with_path(one, tree)
