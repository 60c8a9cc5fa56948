"""The plots of a sweep: quality by bytes and by microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from capprune.reporting.svg import COLOURS, drawn
from capprune.sweeping.results import Document, Group
from capprune_runtime.atomic import write_text

if TYPE_CHECKING:  # `svg` reports the extra that installs matplotlib
    from matplotlib.axes import Axes

PLOTS = {"bytes": ("decoder_bytes", "decoder, bytes"), "step": ("step_us", "one step, µs")}
MARKS = "os^Dv<>P*X"
HEIGHT_INCHES = 4.5


def draw_sweep(document: Document, folder: Path) -> list[Path]:
    """Draw both plots as SVG: a mark per group, a colour per method, and an error bar for several seeds.

    Args:
        document: The sweep's document.
        folder: The sweep's folder.

    Returns:
        Paths of the plots; empty if no row has sizes.

    Raises:
        CapPruneError: If the disk is full.
    """
    made = []
    for name, (figure, label) in PLOTS.items():
        groups = [group for group in document.groups if figure in group.figures and "cider_d" in group.figures]
        if groups:
            quality = f"CIDEr-D, {document.split}"
            plot = partial(_plot, groups=groups, figure=figure, label=label, quality=quality)
            path = folder / f"{name}.svg"
            write_text(path, drawn(name, f"{quality} against {label}", plot, height_inches=HEIGHT_INCHES) + "\n")
            made.append(path)
    return made


def _plot(panels: Sequence[Axes], *, groups: Sequence[Group], figure: str, label: str, quality: str) -> None:
    (axes,) = panels
    axes.set(xscale="log", xlabel=label, ylabel=quality)
    formats = list(dict.fromkeys(group.weights for group in groups))
    methods = list(dict.fromkeys(group.method for group in groups))
    for method, weights in dict.fromkeys((group.method, group.weights) for group in groups):
        own = [group for group in groups if (group.method, group.weights) == (method, weights)]
        axes.errorbar(
            [group.figures[figure].mean for group in own],
            [group.figures["cider_d"].mean for group in own],
            yerr=[group.figures["cider_d"].spread or 0.0 for group in own],
            fmt=MARKS[formats.index(weights) % len(MARKS)],
            color=COLOURS[methods.index(method) % len(COLOURS)],
            capsize=3,
            label=f"{method}, {weights}",
        )
    axes.legend(fontsize="small")
