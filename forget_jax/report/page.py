"""The whole report as HTML: no network, no fonts or scripts from elsewhere."""

from collections.abc import Mapping, Sequence

from forget_jax.report.section import Section
from forget_jax.report.template import render, source


def page(title: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """The page's HTML; what it is given may hold anything, for it is escaped.

    Args:
      title: of the page.
      sections: in order; three or more get a table of contents. What their `files` hold must lie in
        a folder `report` beside the page.
      facts: of the run, by name; they stand last.

    Raises:
      ValueError: two sections of one key.
    """
    keys = [s.key for s in sections]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the keys of a page's sections must differ: {keys}")
    interactive = any(f.interactive for s in sections for f in s.figures)
    return str(
        render(
            "page.html",
            title=title,
            opening=" ".join(s.opening for s in sections if s.opening),
            sections=sections,
            facts=facts,
            style=source("page.css"),
            script=source("explorer.js") if interactive else "",
            beside=[name for s in sections for name in s.files],
        )
    )
