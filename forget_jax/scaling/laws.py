"""The forgetting laws: what each one predicts, which columns it reads and where its shape may lie.

Every law is linear in some of its parameters once its *shape* (exponents and the like) is fixed:

    prediction = sum_j  coefficient_j * term_j(shape, columns)

so a law is a small function returning the terms. `fit.py` searches the shape and solves the
coefficients exactly. Terms read `log_P` and `log_steps`; shifting those logs only rescales
coefficients (and offsets), which `natural` undoes, so fits may centre them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from forget_jax.errors import UserError, nearest
from forget_jax.scaling import terms as t
from forget_jax.scaling.terms import Columns, Values


@dataclass(frozen=True)
class Shape:
    """One non-linear parameter.

    Attributes:
      name: as in the formula.
      low, high: its bounds.
      start_low, start_high: the narrower range that starts are drawn from.
      log: whether it is positive, and searched and drawn in its logarithm.
    """

    name: str
    low: float
    high: float
    start_low: float
    start_high: float
    log: bool = True


@dataclass(frozen=True)
class Law:
    """A law.

    Attributes:
      name, formula, source: as they are printed.
      columns: what it reads, such as `P`, `steps`, `l_ft`, `kl_ft` and `mix`.
      linear: names of its coefficients.
      terms: `terms(shape, columns)` returns one array for each name in `linear`; P and steps come
        as `log_P` and `log_steps`, other columns as they are.
      shape: its non-linear parameters.
      natural: `natural(values, centre)` turns parameters fitted on `log_x - centre[x]` into those
        of the printed formula.
      searched: turns printed parameters into those of `shape`.
      printed: non-linear parameters of the formula, where they are not those of `shape`.
      target: the column it predicts.
      companion: a second target that is fitted jointly.
      centred: whether its logs may be shifted; if not, `natural` is not asked.
      by, levels: a column that tells groups with coefficients of their own, and these groups.
    """

    name: str
    formula: str
    source: str
    columns: tuple[str, ...]
    linear: tuple[str, ...]
    terms: Callable[[Values, Columns], list[Any]]
    shape: tuple[Shape, ...] = ()
    natural: Callable[[Values, Values], dict[str, Any]] = t.unchanged
    searched: Callable[[Values], Values] = dict
    printed: tuple[str, ...] = ()
    target: str = "l_f"
    companion: str | None = None
    centred: bool = True
    by: str = ""
    levels: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the formula's parameters, coefficients first."""
        return self.linear + (self.printed or tuple(s.name for s in self.shape))


def _exponent(name: str) -> Shape:
    return Shape(name, 1e-3, 10.0, 0.02, 2.0)


def _signed_exponent(name: str) -> Shape:
    return Shape(name, -5.0, 5.0, -1.0, 1.5, log=False)


_KALAJDZIEVSKI = "Kalajdzievski 2024, arXiv 2401.05605"
_P_N = ("P", "steps")
_JOINT_SHAPE = (
    Shape("w", 0.01, 0.99, 0.1, 0.9, log=False),
    Shape("x", 1e-3, 10.0, 0.02, 2.0),
    Shape("y", 1e-3, 10.0, 0.02, 2.0),
)
_RHO = Shape("rho", 0.1, 100.0, 0.3, 30.0)

_ALL = (
    Law("constant", "s", "null", (), ("s",), t.constant_terms),
    Law(
        "linear",
        "s - c*l_ft",
        f"{_KALAJDZIEVSKI}, Eq. 4, by least squares",
        ("l_ft",),
        ("s", "c"),
        t.linear_terms,
    ),
    Law(
        "deming",
        "s - c*l_ft",
        f"{_KALAJDZIEVSKI}, Eq. 4, with errors in l_ft too (Deming; orthogonal by default)",
        ("l_ft",),
        ("s", "c"),
        t.linear_terms,
    ),
    Law(
        "power_P",
        "s + K*P^-x",
        "shifted power; the P-only null",
        ("P",),
        ("s", "K"),
        t.shifted_power_terms,
        (_exponent("x"),),
        t.shifted_power_natural,
    ),
    Law(
        "power_N",
        "s + K*N^-x",
        "shifted power; the N-only null",
        ("steps",),
        ("s", "K"),
        t.shifted_power_terms,
        (_exponent("x"),),
        t.shifted_power_natural,
    ),
    Law(
        "additive",
        "s + A*P^-x + B*N^-y",
        "Hoffmann et al. 2022, arXiv 2203.15556, Eq. 2, in trained parameters and steps",
        _P_N,
        ("s", "A", "B"),
        t.additive_terms,
        (_exponent("x"), _exponent("y")),
        t.additive_natural,
    ),
    Law(
        "multiplicative",
        "s + K*P^-x*N^-y",
        "Zhang et al. 2024, arXiv 2402.17193, Eq. 1",
        _P_N,
        ("s", "K"),
        t.multiplicative_terms,
        (_exponent("x"), _exponent("y")),
        t.multiplicative_natural,
    ),
    Law(
        "joint_rho",
        "s + K*(w*P^-alpha + (1-w)*N^-beta)^rho",
        f"{_KALAJDZIEVSKI}, Eqs. 5-6, without the redundant c",
        _P_N,
        ("s", "K"),
        t.joint_terms,
        (*_JOINT_SHAPE, _RHO),
        t.joint_natural,
        t.joint_searched,
        ("w", "alpha", "beta", "rho"),
    ),
    Law(
        "joint_rho_tied",
        "joint_rho for l_f and for l_ft together, sharing rho",
        f"{_KALAJDZIEVSKI}, Eqs. 5-6 together",
        _P_N,
        ("s", "K", "s_ft", "K_ft"),
        t.tied_terms,
        (
            *_JOINT_SHAPE,
            *(
                Shape(f"{s.name}_ft", s.low, s.high, s.start_low, s.start_high, s.log)
                for s in _JOINT_SHAPE
            ),
            _RHO,
        ),
        t.tied_natural,
        t.tied_searched,
        ("w", "alpha", "beta", "w_ft", "alpha_ft", "beta_ft", "rho"),
        companion="l_ft",
    ),
    Law(
        "kl_origin",
        "K*P^x*N^y",
        "zero before the first step; for the divergence from the base model",
        _P_N,
        ("K",),
        t.growth_terms,
        (_signed_exponent("x"), _signed_exponent("y")),
        t.growth_natural,
        target="kl",
    ),
    Law(
        "kl_task",
        "a*kl_ft + b*kl_ft^2",
        "Shenfeld et al. 2025, arXiv 2509.04259: quadratic in the divergence from the base on the "
        "task's own data",
        ("kl_ft",),
        ("a", "b"),
        t.quadratic_terms,
        target="kl",
    ),
    Law(
        "kl_task_power",
        "K*kl_ft^x",
        "a power of the same",
        ("kl_ft",),
        ("K",),
        t.power_terms,
        (Shape("x", 0.05, 8.0, 0.3, 3.0),),
        target="kl",
    ),
    Law(
        "apple_injection",
        "s + A*N^beta/((1 + B*mix)*P)^alpha",
        "Bethune et al. 2025, arXiv 2502.06042 (P: model size, N: fine-tuning data, mix: share of "
        "pre-training data)",
        ("P", "steps", "mix"),
        ("s", "A"),
        t.injection_terms,
        (_exponent("alpha"), _exponent("beta"), Shape("B", 1e-2, 1e6, 1.0, 1e4)),
        t.injection_natural,
    ),
    Law(
        "dcpt",
        "E + A/P^alpha + B*mix^eta/N^beta + C/(mix + eps)^gamma",
        "Que et al. 2024, arXiv 2406.01375",
        ("P", "steps", "mix"),
        ("E", "A", "B", "C"),
        t.dcpt_terms,
        (
            _exponent("alpha"),
            _exponent("eta"),
            _exponent("beta"),
            Shape("eps", 1e-3, 10.0, 0.02, 1.0),
            _exponent("gamma"),
        ),
        t.dcpt_natural,
    ),
    Law(
        "rectified",
        "E + B/(D + N^beta)",
        "Lin et al. 2024, arXiv 2402.02314 (N: fine-tuning data)",
        ("steps",),
        ("E", "B"),
        t.rectified_terms,
        (Shape("D", 1e-4, 1e4, 1e-2, 1e2), _exponent("beta")),
        t.rectified_natural,
    ),
)

LAWS: dict[str, Law] = {law.name: law for law in _ALL}
NULLS = ("constant", "power_N", "power_P")


def get_law(name: str) -> Law:
    """The law called `name`; an unknown name is a UserError that says which name is nearest."""
    if name in LAWS:
        return LAWS[name]
    raise UserError(f"unknown law {name!r}{nearest(str(name), LAWS)}; there are {', '.join(LAWS)}")


def log_columns(columns: Columns, centre: Values | None = None) -> dict[str, Any]:
    """What `Law.terms` reads: `log_P` and `log_steps` less their centre; other columns as given."""
    out: dict[str, Any] = {}
    for name, column in columns.items():
        if name in ("P", "steps"):
            shift = 0.0 if centre is None else centre[f"log_{name}"]
            with np.errstate(divide="ignore"):  # steps 0 is the limit of growth laws: log 0 = -inf
                out[f"log_{name}"] = np.log(np.asarray(column, np.float64)) - shift
        else:
            out[name] = np.asarray(column, np.float64)
    return out


def from_table(
    a: float, b: float, alpha: float, beta: float, rho: float, scale: float, shift: float
) -> dict[str, float]:
    """Parameters of `joint_rho` from the printed form shift + scale*[(a/P)^alpha + (b/N)^beta]^rho.

    Source: Kalajdzievski 2024 (arXiv 2401.05605), Eqs. 5-6; for Eq. 6, scale is -c_{f,ft}*c_ft and
    shift is s_{f,ft} - c_{f,ft}*s_ft. The arguments are the columns of the paper's Table 1, or made
    of them; the result is what `evaluate("joint_rho", ...)` takes.
    """
    from_p, from_n = a**alpha, b**beta
    return {
        "s": shift,
        "K": scale * (from_p + from_n) ** rho,
        "w": from_p / (from_p + from_n),
        "alpha": alpha,
        "beta": beta,
        "rho": rho,
    }


def evaluate(name: str, params: Values, columns: Columns) -> np.ndarray:
    """The law's prediction from printed parameters, in nats.

    Args:
      name: a name in `LAWS`.
      params: all parameters of its formula.
      columns: arrays of the columns it reads (`P`, `steps`, ...), of one shape.

    Returns:
      float64, of the columns' shape. `joint_rho_tied` is evaluated for l_f, its main target.

    Raises:
      UserError: an unknown law, or a parameter or column that is missing.
    """
    law = get_law(name)
    missing = [n for n in (*law.parameters, *law.columns) if n not in {*params, *columns}]
    if missing:
        raise UserError(f"law {name!r} needs {', '.join(missing)} to be evaluated")
    cols = log_columns(columns)
    if law.companion:
        cols["is_companion"] = np.zeros_like(cols["log_P"])
    with jax.enable_x64(True):
        terms = law.terms(law.searched(params), cols)
        return np.asarray(sum(params[n] * g for n, g in zip(law.linear, terms, strict=True)))
