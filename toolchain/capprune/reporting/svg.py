"""matplotlib figures as inline SVG: text stays text, there are no external resources, and ids are unique on a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH_INCHES = 7.2

# Okabe and Ito's colours, which are distinguishable for colour-blind readers and in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#f0e442")

_GRID = "#e3e3e3"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "capprune",  # the same figure gives the same bytes
    "text.parse_math": False,  # names may contain dollar signs
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_USED = re.compile(r'(?:href="#|url\(#)([^")]+)')


def drawn(
    name: str, label: str, draw: Callable[[Sequence[Axes]], None], *, height_inches: float = 2.8, panels: int = 1
) -> str:
    """Draw a chart.

    Args:
        name: Name of the chart, unique on the page: letters, digits and dashes.
        label: Description for screen readers.
        draw: Draws on the given axes, one above the other.
        height_inches: Height of the whole drawing.
        panels: Number of axes.

    Returns:
        An `<svg>` element.
    """
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # the keys are not literals
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        FigureCanvasSVG(figure)
        draw(list(figure.subplots(panels, 1, sharex=panels > 1, squeeze=False)[:, 0]))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    return _inline(stream.getvalue(), name, label)


def _inline(document: str, name: str, label: str) -> str:
    """Return the `<svg>` element of a document, with the page's font and colours, and with unique ids."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    used = set(_USED.findall(svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("#000000", "currentColor").replace(_GRID, f"var(--grid, {_GRID})")
    width_and_height = re.compile(r' (?:width|height)="[\d.]+pt"')
    head, rest = svg.split(">", 1)
    return f'{width_and_height.sub("", head)} role="img" aria-label="{escape(label)}">{rest.strip()}'
