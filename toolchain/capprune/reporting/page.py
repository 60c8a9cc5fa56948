"""Renders the page as one HTML file, without scripts or external resources."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from capprune.reporting.contents import Page

TEMPLATE = "page.html.j2"


def page_start() -> bytes:
    """Return the bytes that every page starts with, its generator's name excluded."""
    return Path(__file__).with_name(TEMPLATE).read_bytes().partition(b"{{")[0]


def render(page: Page) -> str:
    """Return the page as one HTML document. Everything is escaped except the charts from `svg.drawn`."""
    environment = Environment(
        loader=PackageLoader("capprune.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(page=page)
