"""The headline: quality, bytes, speed compared with the dense and int8 forms, and parity with the trained model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from capprune.metrics.intervals import Change, Interval
from capprune.metrics.speed import ITSELF, SpeedRow, doubts, factor
from capprune.reporting.contents import BAD, GOOD, PLAIN, Tile
from capprune.reporting.sources import Sources, Validated
from capprune_exporters.ledger import LedgerFile
from capprune_runtime.bundle.manifest import QuantisationSection


@dataclass(frozen=True)
class Figures:
    """Figures computed from the sources.

    Attributes:
        change: Change of CIDEr-D from the dense bundle to this one, if both were validated on the same photos.
        ledger: Ledgers of the bundle's encoder and decoder.
        speed: Rows of the bench, the bundle's own first.
    """

    change: Change | None
    ledger: tuple[LedgerFile, LedgerFile] | None
    speed: tuple[SpeedRow, ...]


def headline(sources: Sources, figures: Figures) -> tuple[Tile, ...]:
    """Return the tiles for which there are figures."""
    tiles = (_quality(sources, figures), _size(sources, figures), _speed(sources, figures), _verdict(sources))
    return tuple(tile for tile in tiles if tile is not None)


def warnings(sources: Sources) -> tuple[str, ...]:
    """Return warnings about sources that do not belong together, and about unreliable times."""
    measured = [one.measurement for one in sources.validated[:1]]
    measured += list(sources.bench.measurements) if sources.bench else []
    return (*_strangers(sources), *(f"Do not trust the times: {text}." for text in doubts(measured)))


def _strangers(sources: Sources) -> Iterator[str]:
    """Yield warnings about results of another bundle, and a run that the bundle was not made from.

    The hash of the manifest is not compared, because it changes when results are recorded in the bundle.
    """
    bundle = sources.bundle
    if bundle is None:
        return
    models = (bundle.manifest.encoder.file, bundle.manifest.decoder.file)
    sizes = [len(bundle.files[name]) for name in models]
    found = [(one.path, one.measurement) for one in sources.validated[:1]]
    found += [(sources.bench.path, sources.bench.measurements[0])] if sources.bench else []
    for path, measurement in found:
        if [measurement.bundle.files.get(name) for name in models] != sizes:
            yield f"{path} is from another bundle than {bundle.place}."
    if sources.run is not None and sources.run.kept != bundle.manifest.pruning.kept_weights:
        yield f"{bundle.place} was not made from the run {sources.run.folder}."


def comparable(one: Validated, other: Validated) -> bool:
    """Return whether the scores of two results documents may be compared."""
    return (one.scored.data, one.scored.quality.beam, one.scored.quality.scores.tokenizer) == (
        other.scored.data,
        other.scored.quality.beam,
        other.scored.quality.scores.tokenizer,
    )


def share(value: float) -> str:
    """Return a share in percent, with suitable precision."""
    return f"{value:.1%}" if value < 0.995 else f"{value:.2%}"


def percent_interval(interval: Interval) -> str:
    """Return a relative change with its interval as text."""
    return f"{interval.estimate:+.1%}, 95 % interval {interval.low:+.1%} to {interval.high:+.1%}"


def _quality(sources: Sources, figures: Figures) -> Tile | None:
    if not sources.validated:
        return _trained_quality(sources)
    scored = sources.validated[0].scored
    where = f"{scored.data.photos:,} photos of {scored.data.name}, {scored.data.split}; beam {scored.quality.beam}, "
    where += f"{scored.quality.scores.tokenizer} tokens"
    dense, own = sources.dense_validated, scored.quality.scores.cider_d
    if dense is not None and comparable(sources.validated[0], dense) and dense.scored.quality.scores.cider_d > 0:
        before = dense.scored.quality.scores.cider_d
        note = f"of the dense model's CIDEr-D: {own:.3f} instead of {before:.3f}"
        if figures.change is not None and figures.change.relative is not None:
            note += f" ({percent_interval(figures.change.relative)})"
        return Tile("Quality kept", share(own / before), f"{note}. {where}.")
    if scored.reference is not None and scored.reference.cider_d_change.before > 0:
        change = scored.reference.cider_d_change
        note = f"of the trained model's CIDEr-D: {change.after:.3f} instead of {change.before:.3f}"
        if change.relative is not None:
            note += f" ({percent_interval(change.relative)})"
        return Tile("Quality kept", share(change.after / change.before), f"{note}. {where}.")
    interval = scored.quality.cider_d_interval
    return Tile("CIDEr-D", f"{own:.3f}", f"95 % interval {interval.low:.3f} to {interval.high:.3f}. {where}.")


def _trained_quality(sources: Sources) -> Tile | None:
    """Return the quality measured in training, if nothing was validated."""
    if sources.run is None:
        return None
    own = float(sources.run.facts["cider"])
    where = "on val, greedy, as training measured it; the exported model was not validated"
    before = None if sources.dense is None else float(sources.dense.facts["cider"])
    if before:
        return Tile("Quality kept", share(own / before), f"CIDEr-D {own:.3f} instead of {before:.3f} dense, {where}.")
    return Tile("CIDEr-D", f"{own:.3f}", f"{where[0].upper()}{where[1:]}.")


def _size(sources: Sources, figures: Figures) -> Tile | None:
    if sources.bundle is None or figures.ledger is None:
        return None
    total = sum(len(data) for data in sources.bundle.files.values())
    decoder = figures.ledger[1]
    packed = sum(file.packed_bytes for file in figures.ledger)
    note = (
        f"the whole bundle. Its decoder: {decoder.size_bytes:,} bytes, {decoder.dense_bytes / decoder.size_bytes:.1f}x "
        f"smaller than in dense float32. Packed for download, both models take {packed:,}."
    )
    return Tile("Bytes", f"{total:,}", note)


def _speed(sources: Sources, figures: Figures) -> Tile | None:
    if figures.speed:
        first = figures.speed[0]
        if any("emulated" in row.reason or "stand-in" in row.reason for row in figures.speed):
            return Tile(
                "Speed", "not shown", "Times of an emulated processor or a stand-in say nothing about a device."
            )
        others = "; ".join(_against(row) for row in figures.speed[1:])
        note = f"a step of the decoder, one row, median{'. ' + others if others else ''}."
        return Tile("Speed", microseconds(first.step.estimate), note)
    if not sources.validated:
        return None
    measurement = sources.validated[0].measurement
    where = measurement.environment
    if where.emulated or where.stand_in is not None:
        return Tile("Speed", "not shown", "Times of an emulated processor or a stand-in say nothing about a device.")
    note = f"a step of the decoder, one row, {where.threads} thread, median; no baselines were timed."
    return Tile("Speed", microseconds(measurement.latency.step.p50_us), note)


def _against(row: SpeedRow) -> str:
    """Return the text about a baseline for the headline."""
    took = f"{row.name} {microseconds(row.step.estimate)}"
    if row.faster is None:
        return took if row.reason == ITSELF else f"{took} ({row.reason})"
    return f"{took} (this bundle is {factor(row)})"


def microseconds(us: float) -> str:
    """Return a time with its unit."""
    return f"{us:,.0f} µs" if us < 10_000 else f"{us / 1000:,.1f} ms"


def _verdict(sources: Sources) -> Tile | None:
    if not sources.validated or not sources.validated[0].scored.parity:
        return None
    scored = sources.validated[0].scored
    said = "; ".join(
        f"{runtime} {parity.identical:,} of {parity.photos:,}" for runtime, parity in scored.parity.items()
    )
    if all(parity.holds for parity in scored.parity.values()):
        return Tile("Verdict", "equals the trained model", f"Captions equal to torch's, token by token: {said}.", GOOD)
    if sources.bundle is not None and _exact(sources.bundle.manifest.quantisation):
        return Tile(
            "Verdict", "differs from the trained model", f"Captions equal to torch's, token by token: {said}.", BAD
        )
    change = None if scored.reference is None else scored.reference.cider_d_change.relative
    cost = "" if change is None else f" CIDEr-D against torch: {percent_interval(change)}."
    value = "not always equal" if sources.bundle is None else "quantised"
    return Tile("Verdict", value, f"Captions equal to torch's, token by token: {said}.{cost}", PLAIN)


def _exact(quantisation: QuantisationSection) -> bool:
    return quantisation.encoder == quantisation.decoder == "float32"
