"""The charts of the page, as inline SVG from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from capprune.reporting.svg import COLOURS, drawn

ROW_INCHES = 0.34  # height of a bar and the space around it
FRAME_INCHES = 0.9  # height of axis and legend
WIDE = 8  # ratio of the largest to the smallest value above which an axis is logarithmic
MOST_SEGMENTS = 6  # tensors with a separate colour in the ledger; the rest is one segment


@dataclass(frozen=True)
class Curve:
    """One line over training steps: y values at x steps."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One axis with its curves and a label."""

    quantity: str
    curves: Sequence[Curve]
    percent: bool = False


@dataclass(frozen=True)
class Spread:
    """Percentiles of times in microseconds; half of the times are from `p25` to `p75`."""

    label: str
    p1: float
    p25: float
    p50: float
    p75: float
    p90: float
    p99: float


def training_chart(panels: Sequence[Panel]) -> str:
    """Draw curves over steps, with a panel for each quantity."""
    colours = _colours([curve.label for panel in panels for curve in panel.curves])

    def draw(axes: Sequence[Axes]) -> None:
        for panel, axis in zip(panels, axes, strict=True):
            for curve in panel.curves:
                marker = "o" if len(curve.steps) <= 40 else None
                axis.plot(
                    curve.steps,
                    curve.values,
                    label=curve.label,
                    color=colours[curve.label],
                    marker=marker,
                    markersize=3,
                )
            axis.set_ylabel(panel.quantity)
            if panel.percent:
                axis.yaxis.set_major_formatter(_percent)
        axes[0].legend(ncols=3)
        axes[-1].set_xlabel("training step")

    height = FRAME_INCHES + 1.6 * len(panels)
    label = "Over training: " + ", ".join(panel.quantity for panel in panels)
    return drawn("training", label, draw, height_inches=height, panels=len(panels))


def layer_chart(sparsity: Sequence[tuple[str, float]], overall: float) -> str:
    """Draw the sparsity (0 to 1) of each layer as bars, and the overall sparsity as a line."""

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        bars = axis.barh(
            [name for name, _ in sparsity], [share for _, share in sparsity], color=COLOURS[0], height=0.65
        )
        axis.bar_label(bars, [f"{share:.1%}" for _, share in sparsity], padding=3)
        axis.axvline(overall, color=COLOURS[1], label=f"overall {overall:.2%}")
        axis.set_xlim(0, 1.12)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axis.xaxis.set_major_formatter(_percent)
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.1))

    return drawn("layers", "Sparsity of each layer", draw, height_inches=_height(len(sparsity)))


def ledger_chart(stages: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """Draw the bytes at each stage, from dense to packed, as stacked bars of the largest tensors.

    Args:
        stages: For each stage its name and the bytes of every tensor, in the same order.
    """
    order = [name for name, _ in sorted(stages[0][1], key=lambda one: -one[1])]
    shown, rest = order[:MOST_SEGMENTS], order[MOST_SEGMENTS:]
    names = [name for name, _ in stages]
    sizes = [dict(segments) for _, segments in stages]
    segments = [(tensor, [size[tensor] for size in sizes]) for tensor in shown]
    if rest:
        segments.append(("all others", [sum(size[tensor] for tensor in rest) for size in sizes]))

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        left = [0.0] * len(names)
        for (label, widths), colour in zip(segments, COLOURS, strict=False):
            axis.barh(names, widths, left=left, label=label, color=colour, height=0.65)
            left = [before + width for before, width in zip(left, widths, strict=True)]
        for place, total in enumerate(left):
            axis.text(total, place, f" {total:,.0f}", va="center")
        axis.set_xlim(0, max(left) * 1.18)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size / 1e6:g} MB"))
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.legend(ncols=3, loc="upper left", bbox_to_anchor=(0, -0.12))

    return drawn("ledger", "Bytes of the decoder at each stage", draw, height_inches=_height(len(names)) + 0.6)


def latency_chart(name: str, quantity: str, spreads: Sequence[Spread]) -> str:
    """Draw the distribution of times: a line from p1 to p99, a bar from p25 to p75, a tick at p90, a dot at the median."""

    def draw(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        for place, one in enumerate(spreads):
            colour = COLOURS[1] if place == 0 else COLOURS[0]
            axis.plot([one.p1, one.p99], [place, place], color=colour, linewidth=1.2)
            axis.plot([one.p25, one.p75], [place, place], color=colour, linewidth=8, alpha=0.45, solid_capstyle="butt")
            axis.plot([one.p90], [place], color=colour, marker="|", markersize=9)
            axis.plot([one.p50], [place], color=colour, marker="o", markersize=6)
            axis.text(one.p50, place - 0.3, f"{one.p50:,.0f}", ha="center", va="bottom", fontsize=9)
        axis.set_yticks(range(len(spreads)), [one.label for one in spreads])
        axis.set_ylim(len(spreads) - 0.4, -0.8)
        axis.set_xlabel(quantity)
        largest, smallest = max(one.p99 for one in spreads), min(one.p1 for one in spreads)
        if largest > WIDE * smallest > 0:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if largest < WIDE**3 * smallest else (1,)))
            axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        axis.grid(visible=False, axis="y")

    return drawn(name, f"Distribution: {quantity}", draw, height_inches=_height(len(spreads)))


def _height(rows: int) -> float:
    return FRAME_INCHES + ROW_INCHES * rows


def _colours(labels: Sequence[str]) -> dict[str, str]:
    """Return a colour for each label, the same in every panel."""
    return dict(zip(dict.fromkeys(labels), COLOURS * len(labels), strict=False))


_percent = FuncFormatter(lambda share, _: f"{share:.0%}")
