"""Renders the page as one HTML file, without scripts or external resources."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from capprune.reporting.contents import Page

TEMPLATE = "page.html.j2"


def render(page: Page) -> str:
    """Return the page as one HTML document. Everything is escaped except the charts from `svg.drawn`."""
    environment = Environment(
        loader=PackageLoader("capprune.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(page=page)
