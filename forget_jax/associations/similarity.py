"""Does similarity tell what is forgotten? Similarities of tasks × examples, and correlations.

Similarities come from text (TF-IDF, or any `sentence-transformers` model), from features that
someone else computed (mean-pooled representations, gradients), and are compared with forgetting by
Pearson's and Spearman's correlation of the flattened matrices (arXiv 2406.14026, section 3).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.associations import checks, metrics
from forget_jax.errors import UserError


def correlation(z: Any, similarity: Any) -> dict[str, float]:
    """Pearson and Spearman correlation over entries known in both M × N matrices.

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
    """
    example_NxD = np.asarray(example_features, np.float64)
    means = [np.atleast_2d(np.asarray(task, np.float64)).mean(0) for task in task_features]
    if example_NxD.ndim != 2 or any(mean.shape != example_NxD.shape[1:] for mean in means):
        raise UserError("features of tasks and of examples differ in their number of dimensions")
    return _unit(np.stack(means)) @ _unit(example_NxD).T


def tfidf(task_texts: Sequence[Sequence[str]], example_texts: Sequence[str]) -> np.ndarray:
    """M × N cosine of TF-IDF vectors; a task is the mean of its texts'.

    Needs scikit-learn (the `similarity` extra).
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as e:
        raise UserError("TF-IDF needs scikit-learn: pip install 'forget-jax[similarity]'") from e
    if not example_texts or not all(task_texts):
        raise UserError("TF-IDF needs at least one text for every task, and one example")
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    try:
        vectorizer.fit([text for task in task_texts for text in task] + list(example_texts))
    except ValueError as e:
        raise UserError(f"TF-IDF finds no word in the texts ({e})") from e
    examples = vectorizer.transform(example_texts)
    means = np.stack(
        [np.asarray(vectorizer.transform(task).mean(0)).ravel() for task in task_texts]
    )
    return np.asarray((examples @ _unit(means).T).T)


def embeddings(
    task_texts: Sequence[Sequence[str]], example_texts: Sequence[str], model: str
) -> np.ndarray:
    """M × N cosine of text embeddings by a `sentence-transformers` model (name or folder)."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as e:
        raise UserError(
            "text embeddings need sentence-transformers: pip install 'forget-jax[similarity]'"
        ) from e
    encoder = SentenceTransformer(model)
    return cosine(
        [encoder.encode(list(t)) for t in task_texts], encoder.encode(list(example_texts))
    )


def projected(gradients_KxP: Any, dimension: int, seed: int) -> np.ndarray:
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
    """
    example_NxD = projected(example_gradients, dimension, seed)
    means = [
        projected(np.atleast_2d(np.asarray(task, np.float32)), dimension, seed).mean(0)
        for task in task_gradients
    ]
    return np.stack(means) @ example_NxD.T
