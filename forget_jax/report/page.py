"""The whole report as one HTML file: no network, no fonts or scripts from elsewhere."""

from collections.abc import Mapping, Sequence

from forget_jax.report.section import Section
from forget_jax.report.template import render


def page(title: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """The page's HTML; what it is given may hold anything, for it is escaped.

    Args:
      title: of the page.
      sections: in order; three or more get a table of contents.
      facts: of the run, by name.

    Raises:
      ValueError: two sections of one key.
    """
    keys = [s.key for s in sections]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the keys of a page's sections must differ: {keys}")
    return str(render("page.html", title=title, sections=sections, facts=facts))
