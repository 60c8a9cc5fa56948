"""The table of a sweep: sweep.md, and the same cells for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from capprune.sweeping.results import Document, Figure, Group

COLUMNS: dict[str, Callable[[Group], str]] = {
    "run": lambda group: group.name,
    "weights": lambda group: group.weights,
    "seeds": lambda group: _count(group),
    "CIDEr-D": lambda group: _figure(group, "cider_d", "{:.4f}"),
    "to dense": lambda group: change_text(group.change),
    "BLEU-4": lambda group: _figure(group, "bleu_4", "{:.4f}"),
    "METEOR": lambda group: _figure(group, "meteor", "{:.4f}"),
    "zeros": lambda group: _mean(group, "sparsity", "{:.2%}"),
    "decoder, bytes": lambda group: _mean(group, "decoder_bytes", "{:,.0f}"),
    "encoder, bytes": lambda group: _mean(group, "encoder_bytes", "{:,.0f}"),
    "step, µs": lambda group: _figure(group, "step_us", "{:.0f}"),
    "words": lambda group: _mean(group, "distinct_words", "{:.0f}"),
    "<unk>": lambda group: _mean(group, "unknown_share", "{:.2%}"),
    "bad endings": lambda group: _mean(group, "bad_ending_share", "{:.2%}"),
    "length": lambda group: _mean(group, "mean_words", "{:.2f}"),
    "epochs": lambda group: _mean(group, "epochs_in_all", "{:.0f}"),
    "minutes": lambda group: _minutes(group),
}


def cells(document: Document) -> tuple[list[str], list[list[str]]]:
    """Return the columns that are not empty, and a row for every group."""
    rows = [[tell(group) for tell in COLUMNS.values()] for group in document.groups]
    filled = [place for place in range(len(COLUMNS)) if any(row[place] for row in rows)]
    names = list(COLUMNS)
    return [names[place] for place in filled], [[row[place] for place in filled] for row in rows]


def markdown(document: Document) -> str:
    """Return the content of sweep.md."""
    columns, rows = cells(document)
    ruled = [columns, ["---", *["---:"] * (len(columns) - 1)], *(map(_escaped, rows))]
    parts = [
        f"# Sweep on {document.data}",
        notes(document),
        "\n".join(f"| {' | '.join(row)} |" for row in ruled),
    ]
    failed = [
        f"- {row.run}, {row.weights}: {_error_text(row.error)}" for row in document.rows if row.status == "failed"
    ]
    parts += ["Failed:\n\n" + "\n".join(failed)] if failed else []
    return "\n\n".join(parts) + "\n"


def notes(document: Document) -> str:
    """Return the notes below the table."""
    photos = next((row.training.photos for row in document.rows if row.training), None)
    trained = "" if photos is None else f"Trained on {photos:,} photos. "
    loads = sorted(row.sizes.load for row in document.rows if row.sizes and row.sizes.load is not None)
    busy = f", at a load of {loads[0]} to {loads[-1]}" if loads else ""
    return (
        f"{trained}Scored on {document.photos:,} photos of `{document.split}`: beam {document.beam}, {document.tokenizer} "
        "tokens. Runs that differ only in the seed are one row: mean ± standard deviation. "
        "To dense: relative change of CIDEr-D against the dense run of the same seed, with the 95 % interval over photos "
        "(scores averaged over the seeds, paired by photo). "
        "Captions in float32 are those of the trained model in torch; other formats use their decoder file after an encoder in "
        "float32. "
        f"A step is one word, one row, one thread, median{busy}. Epochs and minutes include those of the run that one starts "
        "from."
    )


def change_text(change: Any) -> str:
    """Return a change of CIDEr-D with its interval as text; empty if there is none."""
    if change is None:
        return ""
    relative = change["relative"]
    if relative is None:
        difference = change["difference"]
        return f"{difference['estimate']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
    return f"{relative['estimate']:+.1%} [{relative['low']:+.1%}, {relative['high']:+.1%}]"


def _count(group: Group) -> str:
    parts = [str(len(group.runs))]
    parts += [f"{group.failed} failed"] if group.failed else []
    parts += [f"{group.waiting} not run"] if group.waiting else []
    return ", ".join(parts if group.runs else parts[1:])


def _mean(group: Group, name: str, form: str) -> str:
    figure = group.figures.get(name)
    return "" if figure is None else form.format(figure.mean)


def _figure(group: Group, name: str, form: str) -> str:
    figure: Figure | None = group.figures.get(name)
    spread = "" if figure is None or figure.spread is None else f" ± {form.format(figure.spread)}"
    return _mean(group, name, form) + spread


def _minutes(group: Group) -> str:
    seconds = group.figures.get("seconds_in_all")
    return "" if seconds is None else f"{seconds.mean / 60:.1f}"


def _error_text(error: Any) -> str:
    return ": ".join(str(error[key]) for key in ("what", "where") if error and key in error)


def _escaped(row: Sequence[str]) -> list[str]:
    return [cell.replace("<unk>", "`<unk>`") for cell in row]
