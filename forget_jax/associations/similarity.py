"""Does similarity tell what is forgotten? Similarities of tasks × examples, and correlations.

Similarities come from features that were computed elsewhere (text embeddings, TF-IDF, mean-pooled
representations, gradients), and are compared with forgetting by Pearson's and Spearman's
correlation of the flattened matrices (arXiv 2406.14026, section 3).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.associations import checks, metrics
from forget_jax.errors import UserError


def correlation(z: Any, similarity: Any) -> dict[str, float]:
    """Pearson and Spearman correlation over entries known in both matrices.

    Args:
      z: M × N forgetting, float, NaN where missing.
      similarity: M × N, float, NaN where missing.

    Returns:
      `pearson`, `spearman` (NaN for a constant) and `entries`, how many were compared.

    Raises:
      UserError: shapes that differ, infinities, or fewer than three common entries.
    """
    z_MxN = checks.as_matrix(z)
    other_MxN = checks.as_matrix(similarity, "the similarity matrix")
    if z_MxN.shape != other_MxN.shape:
        raise UserError(f"a {other_MxN.shape} similarity beside a {z_MxN.shape} matrix")
    both = ~(np.isnan(z_MxN) | np.isnan(other_MxN))
    if both.sum() < 3:
        raise UserError("a correlation needs three entries known in both matrices")
    a, b = z_MxN[both][None], other_MxN[both][None]
    return {
        "pearson": float(metrics.pearson(a, b)[0]),
        "spearman": float(metrics.pearson(metrics.ranks(a), metrics.ranks(b))[0]),
        "entries": int(both.sum()),
    }


def _unit(x_KxD: np.ndarray) -> np.ndarray:
    return x_KxD / np.maximum(np.linalg.norm(x_KxD, axis=-1, keepdims=True), 1e-30)


def cosine(task_features: Sequence[Any], example_features: Any) -> np.ndarray:
    """M × N cosine between each task's mean feature and each example's feature.

    Args:
      task_features: for each task, its examples' features (K_i × D), or one feature (D).
      example_features: N × D.

    Returns:
      M × N float64; 0 where a feature is all zeros.

    Raises:
      UserError: features that differ in their number of dimensions.
    """
    example_NxD = np.asarray(example_features, np.float64)
    means = [np.atleast_2d(np.asarray(task, np.float64)).mean(0) for task in task_features]
    if example_NxD.ndim != 2 or any(mean.shape != example_NxD.shape[1:] for mean in means):
        raise UserError("features of tasks and of examples differ in their number of dimensions")
    return _unit(np.stack(means)) @ _unit(example_NxD).T


def _projected(gradients_KxP: Any, dimension: int, seed: int) -> np.ndarray:
    """K × `dimension` Rademacher projection of gradients; inner products keep their mean.

    The signs come from `seed` in blocks, so gradients of any size are projected in little memory,
    and two calls with the same seed and size use the same signs.
    """
    gradients = np.asarray(gradients_KxP, np.float32)
    if gradients.ndim != 2 or dimension < 1:
        raise UserError("a projection needs K × P gradients and a dimension of at least 1")
    projected_KxD = np.zeros((gradients.shape[0], dimension), np.float32)
    for start in range(0, gradients.shape[1], 4096):
        block = gradients[:, start : start + 4096]
        generator = np.random.default_rng((seed, start))
        signs = generator.integers(0, 2, (block.shape[1], dimension), np.int8) * 2 - 1
        projected_KxD += block @ signs.astype(np.float32)
    return projected_KxD / np.float32(np.sqrt(dimension))


def gradient_products(
    task_gradients: Sequence[Any], example_gradients: Any, dimension: int = 1024, seed: int = 0
) -> np.ndarray:
    """M × N inner products of each task's mean gradient with each example's, both projected.

    Args:
      task_gradients: for each task K_i × P gradients, or one weight difference (P).
      example_gradients: N × P.
      dimension: of the projection; a product errs by about the gradients' norms over √dimension.
      seed: of the projection's signs.

    Returns:
      M × N float32.

    Raises:
      UserError: gradients that are not K × P, or of different P, or a dimension below 1.
    """
    sizes = {np.shape(g)[-1:] for g in (*task_gradients, example_gradients)}
    if len(sizes) > 1:
        raise UserError("gradients of tasks and of examples differ in their number of entries")
    example_NxD = _projected(example_gradients, dimension, seed)
    means = [
        _projected(np.atleast_2d(np.asarray(task, np.float32)), dimension, seed).mean(0)
        for task in task_gradients
    ]
    return np.stack(means) @ example_NxD.T
