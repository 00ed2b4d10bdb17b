"""What the leading components of a forgetting matrix are made of, and groups of tasks and examples.

Component i is σ_i u_i v_iᵀ of the uncentred SVD. Its top tasks and examples are those with the
largest mean entry in it; whether a source of examples is over-represented among the top ones is a
two-proportion z-test (arXiv 2406.14026, section 3).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.associations import checks
from forget_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Component:
    """One rank-1 part of the matrix.

    Attributes:
      task_M: what multiplies each example's part: u · √σ.
      example_N: v · √σ; the component is the outer product of the two, in the unit of the matrix.
      top_tasks, top_examples: row and column numbers, the largest mean entry of the component
        first.
      sources: for each source, how it is represented among the top examples: as `source_test`
        returns; empty without sources.
    """

    task_M: np.ndarray
    example_N: np.ndarray
    top_tasks: np.ndarray
    top_examples: np.ndarray
    sources: dict[str, dict[str, float]]


def leading_components(
    z: Any, rank: int, sources: Sequence[str] = (), n_tasks: int = 5, n_examples: int = 100
) -> list[Component]:
    """The `rank` leading components, largest first; signs make each component's sum positive.

    Args:
      z: M × N forgetting, float, in any unit, complete.
      rank: how many components, at most min(M, N).
      sources: of each of the N examples, where it is from; or none.
      n_tasks, n_examples: how many of each are named as a component's top.

    Raises:
      UserError: missing entries, a rank beyond the matrix, or another number of sources than of
        examples.
    """
    z_MxN = checks.as_complete(z).astype(np.float64)
    if sources and len(sources) != z_MxN.shape[1]:
        raise UserError(f"{z_MxN.shape[1]} examples with {len(sources)} sources")
    checks.check_rank(rank, *z_MxN.shape)
    wide = z_MxN.shape[0] <= z_MxN.shape[1]
    a = z_MxN if wide else z_MxN.T
    values, vectors = np.linalg.eigh(a @ a.T)
    found = []
    for i in range(rank):
        sigma = np.sqrt(max(values[-1 - i], 0.0))
        left = vectors[:, -1 - i]
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
                tasks,
                examples,
                source_test(sources, examples) if sources else {},
            )
        )
    return found


def source_test(sources: Sequence[str], top: np.ndarray) -> dict[str, dict[str, float]]:
    """Two-proportion z-test of each source: its share among `top` against that among the others.

    Args:
      sources: N names of where the examples are from.
      top: numbers of some examples.

    Returns:
      For each source its `share` among the top examples, `share_all` among all, `z`, and the
      two-sided `p`.

    Raises:
      UserError: no example, or every example, is a top one.
    """
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

    Args:
      z: M × N forgetting, float, in any unit, complete.
      n_clusters: how many groups, at most as many as members.
      axis: `task` or `example`: what is grouped.

    Returns:
      int64 array of M or N group numbers.

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
