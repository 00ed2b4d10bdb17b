"""Fitting a law with intervals against scipy, in one run: time for the same starts and draws.

    python benchmarks/laws.py [--quick] [--json PATH] [--points PATH]

One law, 200 starts and 1,000 cluster bootstraps on 3,850 points (22 runs). scipy fits every start
of a resampled table, from the same shapes with least-squares coefficients and with analytic
derivatives; a few tables are timed and scaled to all, which the table says. On each of these the
best of scipy's 200 answers is held against ours. We search from the 200 starts once, and every
resampled table begins from that answer of theirs that fits it best; what scipy would take for so
many fits, begun as ours are, is a ratio of its own. `--quick` leaves L-BFGS-B out: single tables
take it a minute. Without `--points` (the Gemstones grid of
losses, in `../shared/data/laws/gemstones_loss_grid.jsonl` by default) the points are synthetic.
"""

import functools
import pathlib
from collections.abc import Callable

import numpy as np
import scipy.optimize

from forget_jax import scaling
from forget_jax.benchmarks import table
from forget_jax.benchmarks.completion import timed
from forget_jax.benchmarks.table import Found, Keep
from forget_jax.scaling import tables
from forget_jax.scaling.resample import draw_runs
from forget_jax.scaling.solve import draw_starts
from forget_jax.scaling.squares import shape_values

LAW = "additive"
STARTS, DRAWS = 200, 1000
HERE = pathlib.Path(__file__).resolve().parent
GEMSTONES = HERE.parents[1] / "shared" / "data" / "laws" / "gemstones_loss_grid.jsonl"
Points = dict[str, np.ndarray]


def measured(path: pathlib.Path) -> Points:
    """Gemstones' columns by our names, or those of a table that has ours."""
    found = tables.read(path)
    ours = {"params_active_precise": "P", "tokens": "steps", "final_loss": "l_f", "run_name": "run"}
    found = found.rename(columns={k: v for k, v in ours.items() if k in found})
    return {name: found[name].to_numpy() for name in ours.values()}


def synthetic(seed: int = 0) -> Points:
    """22 runs of 175 points on an additive surface, with noise of runs and of points."""
    rng = np.random.default_rng(seed)
    P = np.repeat(np.geomspace(5e7, 2e9, 22), 175)
    steps = np.tile(np.linspace(2e9, 3.5e11, 175), 22)
    l_f = 1.9 + 91.0 * P**-0.234 + 4.07e6 * steps**-0.701
    l_f += np.repeat(rng.normal(0, 0.01, 22), 175) + rng.normal(0, 0.01, P.size)
    return {"P": P, "steps": steps, "l_f": l_f, "run": np.repeat(np.arange(22), 175)}


class Peer:
    """The additive law as scipy sees it: parameters s, A, B, x, y on centred logs."""

    def __init__(self, points: Points) -> None:
        logs = (np.log(points[name].astype(float)) for name in ("P", "steps"))
        self.p_N, self.n_N = (x - x.mean() for x in logs)
        self.y_N = points["l_f"].astype(float)

    def design(self, x: float, y: float) -> np.ndarray:
        """The terms, N × 3."""
        return np.stack(
            [np.ones_like(self.p_N), np.exp(-x * self.p_N), np.exp(-y * self.n_N)], axis=1
        )

    def residual(self, v: np.ndarray, root_N: np.ndarray) -> np.ndarray:
        """Weighted prediction less measurement."""
        return np.asarray(root_N * (self.design(v[3], v[4]) @ v[:3] - self.y_N))

    def jacobian(self, v: np.ndarray, root_N: np.ndarray) -> np.ndarray:
        """Of the residual, N × 5."""
        d = self.design(v[3], v[4])
        slopes = np.stack([-v[1] * self.p_N * d[:, 1], -v[2] * self.n_N * d[:, 2]], axis=1)
        return np.concatenate([d, slopes], axis=1) * root_N[:, None]

    def start(self, shape: np.ndarray, root_N: np.ndarray) -> np.ndarray:
        """A start's shape with its least-squares coefficients."""
        d = self.design(*shape) * root_N[:, None]
        return np.r_[np.linalg.lstsq(d, self.y_N * root_N, rcond=None)[0], shape]


def _least_squares(peer: Peer, start: np.ndarray, root_N: np.ndarray) -> float:
    found = scipy.optimize.least_squares(
        peer.residual, start, peer.jacobian, method="lm", args=(root_N,), max_nfev=200
    )
    return 2.0 * float(found.cost)


def _lbfgs(peer: Peer, start: np.ndarray, root_N: np.ndarray) -> float:
    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        r_N = peer.residual(v, root_N)
        return float(r_N @ r_N), 2.0 * peer.jacobian(v, root_N).T @ r_N

    found = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "maxfun": 2000}
    )
    return float(found.fun)


PEERS: dict[str, Callable[[Peer, np.ndarray, np.ndarray], float]] = {
    "scipy least_squares": _least_squares,
    "scipy L-BFGS-B": _lbfgs,
}


def _best(
    fit: Callable[[Peer, np.ndarray, np.ndarray], float],
    peer: Peer,
    shapes_SxK: np.ndarray,
    root_N: np.ndarray,
) -> float:
    """The least loss over all starts."""
    with np.errstate(all="ignore"):
        losses = [fit(peer, peer.start(shape, root_N), root_N) for shape in shapes_SxK]
    return float(np.nanmin(losses))


def run(quick: bool = False, points: str | None = None, keep: Keep = table.at_once) -> Found:
    """Measures both sides and returns `rows`, `ratio` (of wall times) and `notes`.

    Args:
      points: a table with P, steps, l_f and run in place of the Gemstones grid.
      keep: of `table.measure`.
    """
    return table.measure({LAW: lambda _: _both(quick, points)}, keep)


def _both(quick: bool, points: str | None) -> Found:
    """Our fits, and the peers' of the same resampled tables."""
    path = pathlib.Path(points) if points else GEMSTONES
    given = measured(path) if path.exists() else synthetic()
    notes = [f"points of {path.name}" if path.exists() else f"{path.name} is absent: synthetic"]
    setting = f"{len(given['l_f'])} points, {STARTS} starts, {DRAWS} draws"

    def ours() -> scaling.Fit:
        return scaling.fit(
            LAW, given, starts=STARTS, bootstraps=DRAWS, heldout=False, warn=False, seed=0
        )

    made, first, _ = timed(ours)
    times = np.array([timed(ours)[1:] for _ in range(1 if quick else 3)])
    wall, cpu = np.median(times, axis=0)
    rows = [
        {
            "system": "forget_jax fit",
            "setting": setting,
            "seconds": float(wall),
            "cpu_seconds": float(cpu),
            "compile_seconds": float(first - wall),
            "rmse": made.noise,
        }
    ]
    rng = np.random.default_rng(0)  # the draws of `fit`, in its order
    law = scaling.LAWS[LAW]
    z_SxZ = draw_starts(law, STARTS, rng)
    shapes = [[float(v) for v in shape_values(law, z).values()] for z in z_SxZ]
    run_N = np.unique(given["run"].astype(str), return_inverse=True)[1]
    weight_SxN = draw_runs(run_N, DRAWS, rng)
    peer, sample = Peer(given), np.linspace(0, DRAWS - 1, 1 if quick else 5).astype(int)
    curves_SxN = made.samples(given["P"], given["steps"])
    loss_S = [float(weight_SxN[b] @ (peer.y_N - curves_SxN[b]) ** 2) for b in sample]
    ratio: dict[str, float] = {}
    for name, fit in list(PEERS.items())[: 1 if quick else None]:
        found, walls, cpus = [], [], []
        for b in sample:
            work = functools.partial(_best, fit, peer, np.asarray(shapes), np.sqrt(weight_SxN[b]))
            best, took, used = timed(work)
            found.append(best)
            walls.append(took)
            cpus.append(used)
        tables_all = DRAWS + 1
        rows.append(
            {
                "system": f"{name} ({len(sample)} of {tables_all} tables, scaled)",
                "setting": setting,
                "seconds": float(np.median(walls) * tables_all),
                "cpu_seconds": float(np.median(cpus) * tables_all),
            }
        )
        ratio[name] = rows[-1]["seconds"] / rows[0]["seconds"]
        fits = (STARTS + DRAWS) / (STARTS * tables_all)
        ratio[f"{name}, {STARTS + DRAWS} fits"] = ratio[name] * fits
        excess = max(a / b - 1.0 for a, b in zip(loss_S, found, strict=True))
        notes.append(
            f"our loss over the best of {STARTS} of {name}, less 1: at most {excess:.1e} on "
            f"{len(sample)} resampled tables; {rows[-1]['cpu_seconds'] / cpu:,.0f} times our CPU"
        )
    return {"rows": rows, "ratio": ratio, "notes": notes}


if __name__ == "__main__":
    table.main(__doc__, run, points="a table with P, steps, l_f and run instead of Gemstones'")
