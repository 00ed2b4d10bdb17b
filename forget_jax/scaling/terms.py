"""The terms of each law, and how its parameters change when log inputs are not centred.

Functions of three kinds, for `laws.Law`, which has the formulas and sources:

- `*_terms(shape, columns)` returns a law's terms, an array each, at shape values by name (numbers,
  or arrays that broadcast) and columns as `laws.log_columns` makes them;
- `*_natural(values, centre)` turns parameters fitted on log inputs less `centre` into those of the
  printed formula;
- `*_searched(values)` turns printed parameters into those of the shape, for inputs not centred.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

# Exponents of terms are clipped here: a start far from the data must lose, not become NaN.
_EXPONENT_LIMIT = 300.0

Columns = Mapping[str, Any]
Values = Mapping[str, Any]


def unchanged(values: Values, centre: Values) -> dict[str, Any]:
    """The parameters of a law that means the same with and without centred inputs."""
    del centre
    return dict(values)


def _power(log_value: Any) -> Any:
    return jnp.exp(jnp.minimum(log_value, _EXPONENT_LIMIT))


def _one(column: Any) -> Any:
    return jnp.ones_like(column)


def constant_terms(shape: Values, c: Columns) -> list[Any]:
    del shape
    return [_one(next(iter(c.values())))]


def linear_terms(shape: Values, c: Columns) -> list[Any]:
    del shape
    (l_ft,) = c.values()
    return [_one(l_ft), -l_ft]


def quadratic_terms(shape: Values, c: Columns) -> list[Any]:
    del shape
    (value,) = c.values()
    return [value, value**2]


def power_terms(shape: Values, c: Columns) -> list[Any]:
    (value,) = c.values()
    return [_power(shape["x"] * jnp.log(jnp.maximum(value, 1e-300)))]


def shifted_power_terms(shape: Values, c: Columns) -> list[Any]:
    """Reads its only column whatever its name, so that both 1-D laws share a compiled program."""
    (log_value,) = c.values()
    return [_one(log_value), _power(-shape["x"] * log_value)]


def shifted_power_natural(v: Values, centre: Values) -> dict[str, Any]:
    (log_value,) = centre.values()
    return {**v, "K": v["K"] * np.exp(v["x"] * log_value)}


def additive_terms(shape: Values, c: Columns) -> list[Any]:
    return [
        _one(c["log_P"]),
        _power(-shape["x"] * c["log_P"]),
        _power(-shape["y"] * c["log_steps"]),
    ]


def additive_natural(v: Values, centre: Values) -> dict[str, Any]:
    return {
        **v,
        "A": v["A"] * np.exp(v["x"] * centre["log_P"]),
        "B": v["B"] * np.exp(v["y"] * centre["log_steps"]),
    }


def multiplicative_terms(shape: Values, c: Columns) -> list[Any]:
    exponent = -shape["x"] * c["log_P"] - shape["y"] * c["log_steps"]
    return [_one(exponent), _power(exponent)]


def multiplicative_natural(v: Values, centre: Values) -> dict[str, Any]:
    log_scale = v["x"] * centre["log_P"] + v["y"] * centre["log_steps"]
    return {**v, "K": v["K"] * np.exp(log_scale)}


def joint(shape: Values, c: Columns) -> Any:
    """A weighted power mean of two powers, 1 at the centre and of slopes -x and -y there.

    Slopes, unlike alpha and beta, stay put along the valley w, rho where the law is multiplicative.
    """
    w, rho = shape["w"], shape["rho"]
    from_p = jnp.log(w) - shape["x"] / (w * rho) * c["log_P"]
    from_n = jnp.log1p(-w) - shape["y"] / ((1.0 - w) * rho) * c["log_steps"]
    return _power(rho * jnp.logaddexp(from_p, from_n))


def joint_terms(shape: Values, c: Columns) -> list[Any]:
    return [_one(c["log_P"]), joint(shape, c)]


def joint_natural(v: Values, centre: Values, suffix: str = "") -> dict[str, Any]:
    w, rho = v[f"w{suffix}"], v["rho"]
    alpha, beta = v[f"x{suffix}"] / (w * rho), v[f"y{suffix}"] / ((1.0 - w) * rho)
    from_p = np.log(w) + alpha * centre["log_P"]
    from_n = np.log1p(-w) + beta * centre["log_steps"]
    both = np.logaddexp(from_p, from_n)
    return {
        **v,
        f"K{suffix}": v[f"K{suffix}"] * np.exp(rho * both),
        f"w{suffix}": np.exp(from_p - both),
        f"alpha{suffix}": alpha,
        f"beta{suffix}": beta,
    }


def joint_searched(v: Values, suffix: str = "") -> dict[str, Any]:
    w, rho = v[f"w{suffix}"], v["rho"]
    x, y = v[f"alpha{suffix}"] * w * rho, v[f"beta{suffix}"] * (1.0 - w) * rho
    return {**v, f"x{suffix}": x, f"y{suffix}": y}


def tied_terms(shape: Values, c: Columns) -> list[Any]:
    """Rows with `is_companion` 1 follow the L_ft block, the others the L_f block."""
    is_ft = c["is_companion"]
    own = {k: jnp.where(is_ft > 0, shape[f"{k}_ft"], shape[k]) for k in ("w", "x", "y")}
    g = joint({**own, "rho": shape["rho"]}, c)
    return [1.0 - is_ft, (1.0 - is_ft) * g, is_ft, is_ft * g]


def tied_natural(v: Values, centre: Values) -> dict[str, Any]:
    return joint_natural(joint_natural(v, centre), centre, "_ft")


def tied_searched(v: Values) -> dict[str, Any]:
    return joint_searched(joint_searched(v), "_ft")


def growth_terms(shape: Values, c: Columns) -> list[Any]:
    return [_power(shape["x"] * c["log_P"] + shape["y"] * c["log_steps"])]


def growth_natural(v: Values, centre: Values) -> dict[str, Any]:
    log_scale = -v["x"] * centre["log_P"] - v["y"] * centre["log_steps"]
    return {**v, "K": v["K"] * np.exp(log_scale)}


def injection_terms(shape: Values, c: Columns) -> list[Any]:
    exponent = shape["beta"] * c["log_steps"] - shape["alpha"] * (
        jnp.log1p(shape["B"] * c["mix"]) + c["log_P"]
    )
    return [_one(exponent), _power(exponent)]


def injection_natural(v: Values, centre: Values) -> dict[str, Any]:
    log_scale = v["alpha"] * centre["log_P"] - v["beta"] * centre["log_steps"]
    return {**v, "A": v["A"] * np.exp(log_scale)}


def dcpt_terms(shape: Values, c: Columns) -> list[Any]:
    log_mix = jnp.log(jnp.maximum(c["mix"], 1e-30))
    return [
        _one(c["log_P"]),
        _power(-shape["alpha"] * c["log_P"]),
        _power(shape["eta"] * log_mix - shape["beta"] * c["log_steps"]),
        _power(-shape["gamma"] * jnp.log(c["mix"] + shape["eps"])),
    ]


def dcpt_natural(v: Values, centre: Values) -> dict[str, Any]:
    return {
        **v,
        "A": v["A"] * np.exp(v["alpha"] * centre["log_P"]),
        "B": v["B"] * np.exp(v["beta"] * centre["log_steps"]),
    }


def rectified_terms(shape: Values, c: Columns) -> list[Any]:
    (log_steps,) = c.values()
    log_value = -jnp.logaddexp(jnp.log(shape["D"]), shape["beta"] * log_steps)
    return [_one(log_value), _power(log_value)]


def rectified_natural(v: Values, centre: Values) -> dict[str, Any]:
    scale = np.exp(v["beta"] * centre["log_steps"])
    return {**v, "B": v["B"] * scale, "D": v["D"] * scale}
