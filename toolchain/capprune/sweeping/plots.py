"""Quality against bytes and against microseconds, as SVG."""

from __future__ import annotations

from pathlib import Path

from capprune.sweeping.results import Document
from capprune_runtime.atomic import atomic_file
from capprune_runtime.errors import MissingExtra

PLOTS = {"bytes.svg": ("decoder_bytes", "decoder, bytes"), "step.svg": ("step_us", "one step, µs")}
MARKS = "os^Dv<>P*X"


def draw(document: Document, folder: Path) -> list[Path]:
    """Draw both plots: a mark for every group, a colour a method, an error bar where there are seeds.

    Args:
        document: Of the sweep.
        folder: Of the sweep.

    Returns:
        What was drawn; nothing where no row has sizes.

    Raises:
        MissingExtra: If matplotlib is not installed.
        CapPruneError: If the disk is full.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("plots need matplotlib", found=error, hint="pip install 'capprune[report]'") from error
    made = []
    for name, (figure_name, label) in PLOTS.items():
        groups = [group for group in document.groups if figure_name in group.figures and "cider_d" in group.figures]
        if not groups:
            continue
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel=label, ylabel=f"CIDEr-D, {document.split}")
        formats = list(dict.fromkeys(group.weights for group in groups))
        for number, method in enumerate(dict.fromkeys(group.method for group in groups)):
            for weights in formats:
                own = [group for group in groups if (group.method, group.weights) == (method, weights)]
                if not own:
                    continue
                axes.errorbar(
                    [group.figures[figure_name].mean for group in own],
                    [group.figures["cider_d"].mean for group in own],
                    yerr=[group.figures["cider_d"].spread or 0.0 for group in own],
                    fmt=MARKS[formats.index(weights) % len(MARKS)],
                    color=f"C{number % 10}",
                    capsize=3,
                    label=f"{method}, {weights}",
                )
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
        with rc_context({"svg.hashsalt": "capprune", "svg.fonttype": "none"}), atomic_file(folder / name) as place:
            figure.savefig(place, format="svg", metadata={"Date": None, "Creator": None})
        made.append(folder / name)
    return made
