"""A law from a formula such as `s + K*P^-x*lr^y`: parsed against a list of what is allowed.

Nothing is evaluated as Python. A name is a column where the table has it (`N` is `steps`), and a
parameter otherwise. Each summand needs one parameter of its own as a factor, which is solved for
exactly; the other parameters are searched: between -5 and 5 where they stand in an exponent,
positive where they stand elsewhere.
"""

import ast
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from forget_jax.errors import UserError, nearest
from forget_jax.scaling.laws import Law, Shape
from forget_jax.scaling.terms import Columns, Values

LONGEST = 400
FUNCTIONS = {"exp": jnp.exp, "log": jnp.log, "log1p": jnp.log1p, "sqrt": jnp.sqrt}
OPERATORS: dict[type, Any] = {
    ast.Add: jnp.add,
    ast.Sub: jnp.subtract,
    ast.Mult: jnp.multiply,
    ast.Div: jnp.divide,
    ast.Pow: jnp.power,
}


def is_formula(text: str) -> bool:
    """Whether a text is a formula rather than the name of a law."""
    return not text.replace("_", "").isalnum()


def check(text: str) -> None:
    """Refuses what cannot be a formula, before a table is there to read names from.

    Raises:
      UserError: as `parse` does for what is not allowed.
    """
    if not is_formula(text):
        raise UserError(f"formula {text!r} holds no operator; laws takes laws by name")
    _tree(text)


def parse(text: str, columns: Collection[str]) -> Law:
    """The law that a formula says.

    Args:
      text: the formula, with `+ - * / ^` (or `**`), numbers, names, and exp, log, log1p, sqrt.
      columns: those of the table; names among them are read from it.

    Raises:
      UserError: what cannot be read or is not allowed, or a summand without a coefficient.
    """
    tree = _tree(text)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = Counter(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in functions
    )
    known = {*columns, *({"N"} if "steps" in columns else ())}
    parameters = [name for name in names if name not in known]
    pairs = []
    for sign, factors in _summands(tree, 1.0):
        own = [k for k, (f, up) in enumerate(factors) if up and _is_own(f, parameters, names)]
        said = f"formula {text!r}: summand {_said(factors)!r}"
        if not own:
            raise UserError(f"{said} has no coefficient of its own; write K*(...) with a new name")
        if len(own) > 1:
            twice = " and ".join(ast.unparse(factors[k][0]) for k in own)
            raise UserError(f"{said} has {twice}, of which one is enough")
        coefficient = ast.unparse(factors[own[0]][0])
        rest = tuple(f for k, f in enumerate(factors) if k != own[0])
        pairs.append((coefficient, (sign, rest)))
    linear = tuple(name for name, _ in pairs)
    exponents = {
        node.id
        for power in ast.walk(tree)
        if isinstance(power, ast.BinOp) and isinstance(power.op, ast.Pow)
        for node in ast.walk(power.right)
        if isinstance(node, ast.Name)
    }

    searched = tuple(
        Shape(name, -5.0, 5.0, -1.0, 1.5, log=False)
        if name in exponents
        else Shape(name, 1e-9, 1e9, 1e-3, 1e3)
        for name in parameters
        if name not in linear
    )
    read = tuple(dict.fromkeys("steps" if n == "N" else n for n in names if n in known))
    terms = Terms(" | ".join(f"{s} {_said(rest)}" for s, rest in dict(pairs).values()))
    return Law(text, text, "a formula", read, linear, terms, searched, centred=False)


def _tree(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise UserError(f"formula {text[:40]!r}…: longer than {LONGEST} characters")
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
        for node in ast.walk(tree):
            _check(node, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"formula {text!r} cannot be read: {getattr(e, 'msg', e)}") from None
    return tree


def _check(node: ast.AST, text: str) -> None:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else "this"
        if name not in FUNCTIONS or len(node.args) != 1 or node.keywords:
            raise UserError(
                f"formula {text!r}: {name}(...) is no function{nearest(name, FUNCTIONS)}; there "
                f"are {', '.join(FUNCTIONS)}, of one argument each"
            )
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise UserError(f"formula {text!r}: {node.value!r} is no number")
        if not abs(node.value) < 1e300:
            raise UserError(f"formula {text!r}: a number in it is too large")
    elif isinstance(node, ast.operator) and type(node) not in OPERATORS:
        raise UserError(f"formula {text!r}: only + - * / ^ are operators")
    elif not isinstance(
        node,
        ast.BinOp | ast.UnaryOp | ast.USub | ast.UAdd | ast.Name | ast.Load | ast.operator,
    ):
        raise UserError(
            f"formula {text!r}: {type(node).__name__} is not allowed; use numbers, names, "
            f"+ - * / ^ and {', '.join(FUNCTIONS)}"
        )


Factors = tuple[tuple[ast.expr, bool], ...]  # a node, and whether it multiplies (else divides)


def _summands(node: ast.expr, sign: float) -> Iterator[tuple[float, Factors]]:
    """The summands at the top of a formula, each a sign and its factors."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from _summands(node.left, sign)
        yield from _summands(node.right, -sign if isinstance(node.op, ast.Sub) else sign)
    elif isinstance(node, ast.UnaryOp):
        yield from _summands(node.operand, -sign if isinstance(node.op, ast.USub) else sign)
    else:
        yield sign, tuple(_factors(node, True))


def _factors(node: ast.expr, up: bool) -> Iterator[tuple[ast.expr, bool]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        yield from _factors(node.left, up)
        yield from _factors(node.right, up if isinstance(node.op, ast.Mult) else not up)
    else:
        yield node, up


def _is_own(node: ast.expr, parameters: Collection[str], names: Counter[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in parameters and names[node.id] == 1


def _said(factors: Factors) -> str:
    """The factors as a formula."""
    text = ""
    for node, up in factors:
        part = ast.unparse(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            part = f"({part})"
        text = f"{text}{'*' if up else '/'}{part}" if text else part if up else f"1/{part}"
    return text or "1"


@dataclass(frozen=True)
class Terms:
    """The terms of a formula, as a value: equal formulas share a compiled program.

    Attributes:
      text: a sign and a product for each term.
    """

    text: str

    def __call__(self, shape: Values, columns: Columns) -> list[Any]:
        """One array a term; see `laws.Law`."""
        given = {**columns, **shape}
        for name in ("P", "steps"):
            if f"log_{name}" in columns:
                given[name] = jnp.exp(columns[f"log_{name}"])
        if "steps" in given:
            given["N"] = given["steps"]
        one = jnp.ones_like(next(iter(columns.values())))
        terms = []
        for part in self.text.split(" | "):
            sign, _, product = part.partition(" ")
            value = _value(ast.parse(product, mode="eval").body, given)
            terms.append(float(sign) * value * one)
        return terms


def _value(node: ast.expr, given: Values) -> Any:
    match node:
        case ast.Constant():
            return jnp.asarray(float(node.value))  # type: ignore[arg-type]
        case ast.Name():
            return given[node.id]
        case ast.UnaryOp():
            inner = _value(node.operand, given)
            return -inner if isinstance(node.op, ast.USub) else inner
        case ast.BinOp():
            left, right = _value(node.left, given), _value(node.right, given)
            return OPERATORS[type(node.op)](left, right)
        case ast.Call():
            assert isinstance(node.func, ast.Name)
            return FUNCTIONS[node.func.id](_value(node.args[0], given))
    raise AssertionError(f"{type(node).__name__} was let through")
