"""The sections below the headline; a section without its sources is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from capprune.metrics.health import COLUMNS
from capprune.reporting.charts import Curve, Panel, layer_chart, ledger_chart, training_chart
from capprune.reporting.contents import Grid, PhotoRow, Section
from capprune.reporting.headline import Figures
from capprune.reporting.sources import Sources, Validated
from capprune.training.run import LoadedRun, read_metrics
from capprune_exporters.ledger import LedgerFile
from capprune_runtime.measure.environment import Environment

MOST_POINTS = 300  # of a curve; more would not be seen


def photo_section(photos: Sequence[PhotoRow], chosen: str) -> Section | None:
    """Return the photos with captions; `chosen` describes how they were chosen."""
    if not photos:
        return None
    text = (
        f"{chosen} In each caption, the first word that differs from the caption to its left is marked. "
        "The dense and the pruned model were trained separately and may differ. The pruned and the exported model must have "
        "the same captions in float32."
    )
    return Section("photos", "Captions", text, photos=tuple(photos))


def layer_section(run: LoadedRun | None) -> Section | None:
    """Return the sparsity of each layer of a pruned run."""
    if run is None or not run.masks:
        return None
    kept = {name: (int(mask.sum()), mask.numel(), tuple(mask.shape)) for name, mask in run.masks.items()}
    rows = [
        (
            name,
            "x".join(map(str, shape)),
            "single" if run.widths[name] == 1 else f"1x{run.widths[name]}",
            f"{left:,}",
            f"{total:,}",
            f"{1 - left / total:.2%}",
        )
        for name, (left, total, shape) in kept.items()
    ]
    overall = 1 - run.kept / run.prunable
    rows.append(("all", "", "", f"{run.kept:,}", f"{run.prunable:,}", f"{overall:.2%}"))
    chart = layer_chart([(name, 1 - left / total) for name, (left, total, _) in kept.items()], overall)
    columns = ("weights", "shape", "gates", "kept", "of", "sparse")
    return Section("layers", "Sparsity of the layers", charts=(chart,), grids=(Grid(columns, tuple(rows)),))


def training_section(sources: Sources) -> Section | None:
    """Return loss, CIDEr-D on val and sparsity during training, for the pruned and the dense run."""
    runs = {_run_name(run): read_metrics(run.folder) for run in (sources.run, sources.dense) if run is not None}
    panels = [
        Panel("loss", [_curve(name, lines, "loss") for name, lines in runs.items()]),
        Panel("CIDEr-D on val", [_curve(name, lines, "cider") for name, lines in runs.items()]),
        Panel("sparsity", [_curve(name, lines, "sparsity") for name, lines in runs.items()], percent=True),
        Panel("bad endings", [_curve(name, _endings(lines), "share") for name, lines in runs.items()], percent=True),
    ]
    shown = [
        Panel(panel.quantity, [curve for curve in panel.curves if curve.steps], panel.percent)
        for panel in panels
        if any(curve.steps for curve in panel.curves)
    ]
    if not shown:
        return None
    text = "Caption loss of single batches; CIDEr-D of greedy captions after each epoch; closed gates; captions with bad endings."
    return Section("training", "Training", text, charts=(training_chart(shown),), grids=(_curve_grid(shown),))


def _curve_grid(panels: Sequence[Panel]) -> Grid:
    """Return the values of the curves: five points of each, and their minimum and maximum."""
    rows = []
    for panel in panels:
        for curve in panel.curves:
            last = len(curve.values) - 1
            points = [curve.values[round(last * quarter / 4)] for quarter in range(5)]
            figures = (*points, min(curve.values), max(curve.values))
            rows.append((f"{panel.quantity}, {curve.label}", *(_figure(value, panel.percent) for value in figures)))
    columns = ("", "first", "at a quarter", "half way", "at three quarters", "last", "least", "most")
    return Grid(columns, tuple(rows), "The values of the curves.")


def _figure(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.3f}"


def _run_name(run: LoadedRun) -> str:
    return f"{run.config.name} ({'pruned' if run.masks else 'dense'})"


def _endings(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the share of bad endings after each epoch."""
    return [
        {"step": line["step"], "share": line["health"]["bad_ending_share"]}
        for line in lines
        if "bad_ending_share" in line.get("health", ())
    ]


def _curve(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Curve:
    found = [(float(line["step"]), float(line[key])) for line in lines if key in line]
    found = found[:: max(len(found) // MOST_POINTS, 1)]
    return Curve(name, [step for step, _ in found], [value for _, value in found])


def ledger_section(figures: Figures) -> Section | None:
    """Return the bytes of the decoder, by tensor and stage."""
    if figures.ledger is None:
        return None
    encoder, decoder = figures.ledger
    stages = [
        ("dense float32", [(line.tensor, line.dense_bytes) for line in decoder.lines]),
        ("kept weights", [(line.tensor, line.kept_bytes) for line in decoder.lines]),
        ("in the file", [(line.tensor, line.file_bytes) for line in decoder.lines]),
        ("packed", [(line.tensor, line.packed_bytes) for line in decoder.lines]),
    ]
    text = (
        "Dense: 4 bytes per weight, zeros included. Kept: 4 bytes per non-zero weight. Packed: its share of a .capz. "
        "Floor: the entropy of positions and values."
    )
    rows = tuple(
        (
            line.tensor,
            line.form,
            line.kernel,
            *(f"{size:,}" for size in (line.dense_bytes, line.kept_bytes, line.file_bytes, line.packed_bytes)),
            "" if line.floor_bytes is None else f"{line.floor_bytes:,.0f}",
        )
        for line in decoder.lines
    )
    columns = ("tensor of the decoder", "stored as", "runs as", "dense", "kept", "in file", "packed", "floor")
    totals = tuple(
        (file.name, f"{file.dense_bytes:,}", f"{file.size_bytes:,}", f"{file.packed_bytes:,}")
        for file in (encoder, decoder)
    )
    grids = (Grid(columns, (*rows, _total(decoder))), Grid(("file", "dense", "in file", "packed"), totals))
    return Section("ledger", "Bytes of the decoder", text, charts=(ledger_chart(_unique(stages)),), grids=grids)


def _total(file: LedgerFile) -> tuple[str, ...]:
    return (
        "all",
        "",
        "",
        f"{file.dense_bytes:,}",
        f"{sum(line.kept_bytes for line in file.lines):,}",
        f"{file.size_bytes:,}",
        f"{file.packed_bytes:,}",
        "",
    )


def _unique(stages: list[tuple[str, list[tuple[str, int]]]]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return the stages with unique tensor names, because files may use a name twice."""
    return [
        (stage, [(f"{tensor}" if place == 0 else f"{tensor} ({place})", float(size)) for place, tensor, size in named])
        for stage, named in ((stage, _numbered(lines)) for stage, lines in stages)
    ]


def _numbered(lines: list[tuple[str, int]]) -> list[tuple[int, str, int]]:
    seen: dict[str, int] = {}
    found = []
    for tensor, size in lines:
        found.append((seen.get(tensor, 0), tensor, size))
        seen[tensor] = seen.get(tensor, 0) + 1
    return found


def health_section(sources: Sources) -> Section | None:
    """Return scores and signs of degenerate captions of every results document."""
    validated = [*sources.validated, *([sources.dense_validated] if sources.dense_validated else [])]
    if not validated:
        return None
    columns = (
        "bundle",
        "CIDEr-D",
        "BLEU-4",
        "METEOR",
        "ROUGE-L",
        *COLUMNS,
    )
    rows = tuple(_health_row(one) for one in validated)
    text = "Scores on the same photos, and problems that scores do not show: few words, unknown words, bad endings."
    return Section("quality", "Quality of the captions", text, grids=(Grid(columns, rows),))


def _health_row(one: Validated) -> tuple[str, ...]:
    scores, health = one.scored.quality.scores, one.scored.quality.health
    return (
        one.measurement.bundle.name,
        f"{scores.cider_d:.3f}",
        f"{scores.bleu_4:.3f}",
        "-" if scores.meteor is None else f"{scores.meteor:.3f}",
        f"{scores.rouge_l:.3f}",
        *health.cells(),
    )


def environment_section(sources: Sources) -> Section | None:
    """Return the machines of the measurements, each once."""
    measured = [one.measurement for one in sources.validated]
    measured += list(sources.bench.measurements[:1]) if sources.bench else []
    if not measured:
        return None
    names = [f"{one.kind} of {one.bundle.name}" for one in measured]
    described = [_described(one.environment) for one in measured]
    keys = list(dict.fromkeys(key for one in described for key in one))
    rows = tuple((key, *(one.get(key, "-") for one in described)) for key in keys)
    return Section("environment", "Machines", grids=(Grid(("", *names), rows, prose=True),))


def _described(where: Environment) -> dict[str, str]:
    """Return the known facts of an environment as text."""
    facts = {
        key: value
        for key, value in asdict(where).items()
        if value is not None and key not in ("before", "after", "frequency_khz", "emulated")
    }
    found = {key.replace("_", " "): str(value) for key, value in facts.items()}
    found["emulated"] = "yes: its times are meaningless" if where.emulated else "no"
    if where.frequency_khz:
        found["clock"] = " to ".join(f"{khz / 1e6:.2f} GHz" for khz in where.frequency_khz)
    for key, unit in (("load_average", ""), ("temperature_c", " °C")):
        before, after = getattr(where.before, key), getattr(where.after, key)
        if before is not None and after is not None:
            found[key.replace("_", " ").replace(" c", "")] = f"{before}{unit} before, {after}{unit} after"
    return found
