"""The section on speed: the rows of a bench and the distribution of their times, or the times of a validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capprune.metrics.speed import SpeedRow, factor
from capprune.reporting.charts import Spread, latency_chart
from capprune.reporting.contents import Grid, Section
from capprune.reporting.sources import Sources
from capprune_runtime.measure.results import Measurement, Percentiles

BENCH_COLUMNS = (
    "model",
    "runs in",
    "step p50 µs",
    "p90",
    "p99",
    "caption p50 ms",
    "decoder bytes",
    "bundle bytes",
    "this bundle's step is",
)


def speed_section(sources: Sources, rows: Sequence[SpeedRow]) -> Section | None:
    """Return the comparison with the baselines if there was a bench, else the times of the validations."""
    if sources.bench is not None and rows:
        return _bench_section(sources.bench.measurements, sources.bench.names, rows)
    measured = [one.measurement for one in sources.validated]
    if not measured:
        return None
    named = [(one.bundle.name, one) for one in measured]
    return Section(
        "latency",
        "Speed without baselines",
        "Measured while generating the captions; no baselines were timed.",
        *_charts(named, (_times(measured),)),
    )


def _bench_section(measurements: Sequence[Measurement], names: Sequence[str], rows: Sequence[SpeedRow]) -> Section:
    counts = [str(count) for count in dict.fromkeys(one.environment.threads for one in measurements)]
    text = (
        f"The same model in every form, {len(measurements[0].captions)} interleaved rounds, {', '.join(counts)} "
        f"thread{'' if counts == ['1'] else 's'}, in one run. Baseline rows have the same encoder in the same form. A factor "
        "compares rows with the same number of threads. It is shown only if the 95 % intervals of the two medians do not overlap."
    )
    cells = tuple(
        (
            row.name,
            row.runtime,
            *(f"{us:,.0f}" for us in (row.latency.step.p50_us, row.latency.step.p90_us, row.latency.step.p99_us)),
            f"{row.latency.caption.p50_us / 1000:,.1f}",
            f"{row.decoder_bytes:,}",
            f"{row.total_bytes:,}",
            factor(row),
        )
        for row in rows
    )
    charts, grids = _charts(list(zip(names, measurements, strict=True)), (Grid(BENCH_COLUMNS, cells),))
    return Section("speed", "Speed compared with its baselines", text, charts, grids)


def _charts(
    named: Sequence[tuple[str, Measurement]], grids: tuple[Grid, ...]
) -> tuple[tuple[str, ...], tuple[Grid, ...]]:
    """Return charts of steps and captions, and `grids` with the table of the charts after them.

    There are no charts for a device with meaningless times, or if only percentiles are stored.
    """
    timed = [
        (name, one)
        for name, one in named
        if one.captions and not (one.environment.emulated or one.environment.stand_in)
    ]
    if not timed:
        return (), grids
    steps = [_spread(name, [us for said in one.captions for us in said.step_us], 1) for name, one in timed]
    captions = [_spread(name, [said.caption_us for said in one.captions], 1000) for name, one in timed]
    charts = (
        latency_chart("steps", "one step of the decoder, µs", steps),
        latency_chart("captions", "one photo to one caption, ms", captions),
    )
    rows = [*(_quantiles(one, "step, µs") for one in steps), *(_quantiles(one, "caption, ms") for one in captions)]
    columns = ("", "of", "p1", "p25", "p50", "p75", "p90", "p99")
    return charts, (*grids, Grid(columns, tuple(rows), "The values of the charts."))


def _quantiles(one: Spread, what: str) -> tuple[str, ...]:
    return (one.label, what, *(f"{time:,.1f}" for time in (one.p1, one.p25, one.p50, one.p75, one.p90, one.p99)))


def _spread(label: str, times_us: Sequence[float], unit: float) -> Spread:
    quantiles = np.quantile(np.asarray(times_us, np.float64) / unit, [0.01, 0.25, 0.5, 0.75, 0.9, 0.99]).tolist()
    return Spread(label, *quantiles)


def _times(measured: Sequence[Measurement]) -> Grid:
    rows = []
    for one in measured:
        parts = {"encode": one.latency.encode, "step": one.latency.step, "caption": one.latency.caption}
        timed = not (one.environment.emulated or one.environment.stand_in)
        rows += [(f"{one.bundle.name}: {part}", *_cells(times, timed)) for part, times in parts.items()]
    note = "" if all(row[1] != "-" for row in rows) else "Times of an emulated processor or a stand-in are left out."
    return Grid(("", "p50 µs", "p90 µs", "p99 µs", "times"), tuple(rows), note)


def _cells(times: Percentiles, timed: bool) -> tuple[str, ...]:
    if not timed:
        return ("-", "-", "-", f"{times.count:,}")
    return (*(f"{us:,.0f}" for us in (times.p50_us, times.p90_us, times.p99_us)), f"{times.count:,}")
