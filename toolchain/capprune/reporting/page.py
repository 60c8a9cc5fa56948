"""The page as HTML: one file, no script, nothing fetched."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from capprune.reporting.contents import Page

TEMPLATE = "page.html.j2"


def render(page: Page) -> str:
    """The page as one HTML document; everything in it is escaped but the charts, which `svg.drawn` made."""
    environment = Environment(
        loader=PackageLoader("capprune.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(page=page)
