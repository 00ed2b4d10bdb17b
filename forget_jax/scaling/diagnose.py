"""How good a fit is, and what about it should not be believed."""

import numpy as np

from forget_jax.scaling import profiles
from forget_jax.scaling.laws import Law
from forget_jax.scaling.points import Points
from forget_jax.scaling.solve import Solution, bound_share

_AT_BOUND = {True: 0.1, False: 0.02}  # share of the searched range, in log and in linear scale
_WIDE = 10.0
_TRIED = 9  # values of each shape parameter over its range


def criteria(law: Law, data: Points, fitted_N: np.ndarray) -> tuple[float, float, float, float]:
    """R², BIC, AICc (Gaussian, on the main target, with the effective n) and the residual SD.

    Parameters are counted with the noise variance. AICc is infinite when the effective n does not
    exceed the parameters by two.
    """
    main = data.main_N
    y, residual = data.y_N[main], (data.y_N - fitted_N)[main]
    n, n_eff = len(y), data.n_eff
    # A companion target brings its own parameters, which do not describe the main one.
    own = [p for p in law.parameters if not (law.companion and p.endswith("_ft"))]
    k = len(own) + 1
    squares = float((residual**2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    deviance = n_eff * np.log(max(squares, 1e-28 * total) / n)
    spare = n_eff - k - 1
    aicc = deviance + 2 * k + 2 * k * (k + 1) / spare if spare > 0 else np.inf
    noise = np.sqrt(squares / max(n - len(own), 1))
    return 1.0 - squares / total, float(deviance + k * np.log(n_eff)), float(aicc), float(noise)


def warn(
    law: Law, data: Points, starts: Solution, samples: Solution | None, loss: str
) -> tuple[str, ...]:
    """One line for each reason to distrust the parameters; `starts` come best first."""
    notes = []
    clusters = int(data.cluster_N.max()) + 1
    if not starts.converged_S[0]:
        notes.append("the best start stopped before its gradient vanished")
    if data.fold_name == "point":
        notes.append("no run or P column: every point counts as a run of its own")
    if samples is None and clusters < 2:
        notes.append("one run only: no intervals")
    elif clusters < 8:
        notes.append(f"{clusters} runs only: intervals are rough; add seeds")
    if not law.shape:
        return tuple(notes)
    best = float(starts.loss_S[0])
    for s, share in zip(law.shape, bound_share(law, starts.shape_SxK[0]), strict=True):
        if not _AT_BOUND[s.log] < share < 1 - _AT_BOUND[s.log]:
            side = "lower" if share < 0.5 else "upper"
            notes.append(f"{s.name} lies at its {side} bound: the law's shape is not identified")
    found = int((starts.loss_S <= best * (1 + 1e-6) + 1e-14).sum())
    if len(starts.loss_S) >= 20 and found < len(starts.loss_S) / 20:
        notes.append(f"top starts disagree: {found} of {len(starts.loss_S)} reached the best loss")
    # What the data cannot tell from the best: log likelihood within 1/2.
    alike = starts.loss_S <= max(best, 1e-20) * np.exp(1.0 / max(data.n_eff, 1.0))
    tried = {s.name: profiles.grid(law, s.name, _TRIED) for s in law.shape}
    deviance = profiles.deviances(law, data, starts, tried) if loss == "mse" else {}
    for k, s in enumerate(law.shape):
        values = [starts.shape_SxK[alike, k]]
        if deviance:
            values.append(tried[s.name][deviance[s.name] <= 1.0])
        if samples is not None:
            values.append(np.quantile(samples.shape_SxK[:, k], [0.025, 0.975]))
        low, high = np.min(np.concatenate(values)), np.max(np.concatenate(values))
        spread = high / low > _WIDE if s.log else high - low > 0.25 * (s.high - s.low)
        if spread:
            notes.append(f"{s.name} is not identified: {low:.3g} to {high:.3g} fit alike")
    return tuple(notes)
