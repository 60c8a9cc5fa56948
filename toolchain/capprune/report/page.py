"""The page as HTML: one file, no script, nothing fetched."""

from __future__ import annotations

from capprune.report.contents import Page
from capprune_runtime.errors import MissingExtra

TEMPLATE = "page.html.j2"


def render(page: Page) -> str:
    """The page as one HTML document.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtra("the report needs Jinja2", found=error, hint="pip install 'capprune[report]'") from error
    # Everything is escaped but the charts, which `svg.drawn` made.
    environment = Environment(
        loader=PackageLoader("capprune.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(page=page)
