"""The picture of README.md: a matrix that `associate` measured, and one of its rows predicted.

    python docs/picture.py runs/matrix docs/picture.png

The row is the task whose mean z is the median; it is predicted from 30 of its entries and the rows
of all other tasks, by the program's own `predict_row`.
"""

import itertools
import sys

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from forget_jax.associations import choose_probes, fit_predictor, matrix, predict_row
from forget_jax.report.heatmap import robust_range

PROBES = 30


def main(workdir: str, out: str) -> None:
    """Draws the matrix of a workdir of `associate`."""
    found = matrix.load(f"{workdir}/forgetting.zarr")
    z_MxN, sources = np.asarray(found.z_MxN), np.array(found.sources)
    kinds = np.array([s.partition("/")[0] for s in sources])
    columns = np.lexsort((-z_MxN.mean(0), kinds))
    rows = np.argsort(-z_MxN.mean(1))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 3.9), width_ratios=(1.55, 1), layout="constrained"
    )
    limit = robust_range(z_MxN)
    image = left.imshow(
        z_MxN[rows][:, columns],
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    left.set_yticks(range(len(rows)), [found.tasks[i] for i in rows], fontsize=8)
    ends = np.flatnonzero(np.diff(np.unique(kinds[columns], return_inverse=True)[1])) + 0.5
    for end in ends:
        left.axvline(end, color="black", linewidth=0.7)
    edges = [-0.5, *ends, len(columns) - 0.5]
    names = [kinds[columns][int(np.ceil(a))] for a in edges[:-1]]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    left.set_xticks(middles, [n.replace("_", " ") for n in names], fontsize=8)
    left.set_title(f"What {len(rows)} fine-tunes made one model forget", fontsize=10, loc="left")
    left.set_xlabel(f"{len(columns)} upstream examples", fontsize=9)
    bar = figure.colorbar(image, ax=left, pad=0.01)
    bar.set_label("forgetting, nats a token", fontsize=8)

    new = int(rows[len(rows) // 2])
    rest = [i for i in range(len(rows)) if i != new]
    probes = choose_probes(z_MxN[rest], PROBES)
    row = predict_row(fit_predictor(z_MxN[rest], PROBES, 0.9), probes, z_MxN[new][probes])
    unseen = np.setdiff1d(np.arange(z_MxN.shape[1]), probes)
    z_U, mean_U = z_MxN[new][unseen], row.mean_N[unseen]
    spread = np.abs(np.stack([mean_U - row.low_N[unseen], row.high_N[unseen] - mean_U]))
    right.errorbar(
        z_U, mean_U, spread, fmt="o", ms=2.5, color="#2b6cb0", ecolor="#2b6cb040", elinewidth=0.8
    )
    ends = [float(np.nanmin(z_U)), float(np.nanmax(z_U))]
    right.plot(ends, ends, color="black", linewidth=0.8)
    held = np.mean((row.low_N[unseen] <= z_U) & (z_U <= row.high_N[unseen]))
    r = np.corrcoef(z_U, mean_U)[0, 1]
    title = f"{found.tasks[new]},\n{len(unseen)} examples from {PROBES} measured"
    right.set_title(title, fontsize=10, loc="left")
    right.set_xlabel("forgetting that was measured", fontsize=9)
    right.set_ylabel("predicted, with 90 % intervals", fontsize=9)
    right.tick_params(labelsize=8)
    right.text(0.04, 0.9, f"r = {r:.2f}, intervals hold {held:.0%}", transform=right.transAxes)
    figure.savefig(out, dpi=96, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
