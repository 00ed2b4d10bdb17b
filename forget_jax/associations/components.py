"""What the leading components of a forgetting matrix are made of, and groups of tasks and examples.

Component k is σ_k u_k v_kᵀ of the uncentred SVD. Its top tasks and examples are those with the
largest mean entry in it; whether a source of examples is over-represented among the top ones is a
two-proportion z-test (arXiv 2406.14026, section 3).
"""

import dataclasses
from typing import Any

import numpy as np

from forget_jax.associations import checks
from forget_jax.associations.matrix import Matrix
from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Component:
    """One rank-1 part of the matrix.

    Attributes:
      task_M: what multiplies each example's part: u · √σ.
      example_N: v · √σ.
      top_tasks, top_examples: names, the largest mean entry of the component first.
      sources: for each source, how it is represented among the top examples: `share`, `share_all`,
        `z` and two-sided `p`; empty without sources.
    """

    task_M: np.ndarray
    example_N: np.ndarray
    top_tasks: tuple[str, ...]
    top_examples: tuple[str, ...]
    sources: dict[str, dict[str, float]]


def components(
    matrix: Matrix, rank: int, n_tasks: int = 5, n_examples: int = 100
) -> list[Component]:
    """The `rank` leading components, largest first; signs make each component's sum positive.

    Raises:
      UserError: missing entries, or a rank beyond the matrix.
    """
    z_MxN = checks.as_complete(matrix.z_MxN).astype(np.float64)
    checks.check_rank(rank, *z_MxN.shape)
    wide = z_MxN.shape[0] <= z_MxN.shape[1]
    a = z_MxN if wide else z_MxN.T
    values, vectors = np.linalg.eigh(a @ a.T)
    found = []
    for k in range(rank):
        sigma = np.sqrt(max(values[-1 - k], 0.0))
        left = vectors[:, -1 - k]
        right = left @ a / max(sigma, 1e-30)
        task_M, example_N = (left, right) if wide else (right, left)
        task_M, example_N = task_M * np.sqrt(sigma), example_N * np.sqrt(sigma)
        # u vᵀ does not change when both signs do; the mean entry decides which ends are "top".
        if task_M.sum() < 0:
            task_M, example_N = -task_M, -example_N
        tasks = np.argsort(-task_M * example_N.sum(), kind="stable")[:n_tasks]
        examples = np.argsort(-example_N * task_M.sum(), kind="stable")[:n_examples]
        found.append(
            Component(
                task_M,
                example_N,
                tuple(matrix.tasks[i] for i in tasks),
                tuple(matrix.examples[j] for j in examples),
                source_test(matrix.sources, examples) if matrix.sources else {},
            )
        )
    return found


def source_test(sources: tuple[str, ...], top: np.ndarray) -> dict[str, dict[str, float]]:
    """Two-proportion z-test of each source: its share among `top` against that among the others."""
    from scipy.stats import norm

    names = np.array(sources, object)
    chosen = np.zeros(len(names), bool)
    chosen[top] = True
    n_top, n_rest = int(chosen.sum()), int((~chosen).sum())
    if not n_top or not n_rest:
        raise UserError(f"{n_top} top examples of {len(names)} leave nothing to compare with")
    tests = {}
    for name in dict.fromkeys(sources):
        here = names == name
        share, rest = here[chosen].mean(), here[~chosen].mean()
        pooled = here.mean()
        error = np.sqrt(pooled * (1 - pooled) * (1 / n_top + 1 / n_rest))
        z = float((share - rest) / error) if error > 0 else 0.0
        tests[str(name)] = {
            "share": float(share),
            "share_all": float(pooled),
            "z": z,
            "p": float(2 * norm.sf(abs(z))),
        }
    return tests


def clusters(z: Any, n_clusters: int, axis: str = "task") -> np.ndarray:
    """Group numbers from 0 of tasks (M) or examples (N) that forget, or are forgotten, alike.

    Average-linkage clustering of tasks by correlation distance (they differ in scale); examples are
    grouped by k-means with seed 0 on their coordinates in the space of tasks.

    Raises:
      UserError: missing entries, an unknown axis, or more clusters than members.
    """
    z_MxN = checks.as_complete(z).astype(np.float64)
    if axis not in ("task", "example"):
        raise UserError(f"axis must be `task` or `example`, not {axis!r}")
    members = z_MxN.shape[0 if axis == "task" else 1]
    if not 1 <= n_clusters <= members:
        raise UserError(f"{n_clusters} clusters of {members} {axis}s: take 1 to {members}")
    if n_clusters == 1 or members == 1:
        return np.zeros(members, np.int64)
    if axis == "example":
        from scipy.cluster.vq import kmeans2

        return kmeans2(z_MxN.T, n_clusters, minit="++", seed=0, missing="warn")[1].astype(np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    off = z_MxN - z_MxN.mean(1, keepdims=True)
    off /= np.maximum(np.linalg.norm(off, axis=1, keepdims=True), 1e-30)
    distance = np.clip(1 - off @ off.T, 0, None)
    condensed = distance[np.triu_indices(members, 1)]
    return fcluster(linkage(condensed, "average"), n_clusters, "maxclust").astype(np.int64) - 1
