"""The one place that fills this room's HTML templates: user text is always escaped."""

import functools
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from forget_jax.errors import printable
from forget_jax.report.section import Bar, Table, column_decimals, number, shorten


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_plain,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["shorten"] = shorten
    environment.filters["decimals"] = _decimals
    environment.tests["bar"] = lambda cell: isinstance(cell, Bar)
    environment.tests["text"] = lambda cell: isinstance(cell, str)
    return environment.from_string(source(name))


def _plain(value: Any) -> Any:
    """Texts without what no page can hold; `Markup` is ours."""
    return printable(value) if type(value) is str else value


def _decimals(table: Table) -> list[int | None]:
    return [column_decimals(column) for column in zip(*table.rows, strict=True)]


@functools.cache
def source(name: str) -> Markup:
    """The text of this package's file `name`, as it is."""
    return Markup(resources.files("forget_jax.report").joinpath(name).read_text("utf-8"))


def render(name: str, **values: Any) -> Markup:
    """The template file `name` of this package filled with values, as HTML."""
    return Markup(_template(name).render(**values))
