"""Time bundles on this machine by number of threads: python benchmark.py BUNDLE... [--threads 1,2,4] [--out FOLDER]

All bundles are timed in every round, so that temperature and clock affect them equally. Between numbers of threads, the script
waits until the processor has cooled down. Every table lists reasons not to trust its times. docs/results_schema.md describes
the documents.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.bench import bench_bundles, bench_document
from capprune_runtime.measure.environment import moment
from capprune_runtime.measure.results import Measurement

WARMER_C = 2.0  # allowed temperature above that at the start
LONGEST_WAIT_S = 120


def main() -> int:
    """Measure and print a table for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--threads", default="1,2,4", metavar="N,…", help="[1,2,4]")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="captions of each bundle  [50]")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write a results document for each number of threads"
    )
    options = parser.parse_args()
    cool_c = moment().temperature_c
    try:
        for threads in (int(number) for number in options.threads.split(",")):
            cool_down(cool_c)
            measurements = bench_bundles(options.bundles, rounds=options.rounds, threads=threads)
            show(measurements, threads)
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                text = json.dumps(bench_document(measurements), indent=1) + "\n"
                (options.out / f"threads-{threads}.json").write_text(text, encoding="utf-8")
    except CapPruneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def cool_down(cool_c: float | None) -> None:
    """Wait until the processor is nearly as cool as at the start, if it reports its temperature."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while cool_c is not None and (moment().temperature_c or 0) > cool_c + WARMER_C and time.monotonic() < deadline:
        time.sleep(1)


def show(measurements: tuple[Measurement, ...], threads: int) -> None:
    """Print a row for each bundle: median and 90th percentile in milliseconds."""
    where = measurements[0].environment
    print(f"\n{where.model or where.cpu_model}, {where.runtime} {where.runtime_version}, {threads} thread(s), "
          f"governor {where.governor or 'unknown'}")  # fmt: skip
    print(f"{'bundle':24} {'bytes':>12} {'encode ms':>16} {'step ms':>14} {'caption ms':>18}  golden")
    for one in measurements:
        times = (one.latency.encode, one.latency.step, one.latency.caption)
        cells = (f"{part.p50_us / 1000:.2f} / {part.p90_us / 1000:.2f}" for part in times)
        golden = "-" if one.golden is None else f"{one.golden.identical}/{one.golden.photos}"
        print("{:24} {:>12,} {:>16} {:>14} {:>18}  {}".format(one.bundle.name, one.bundle.total_bytes, *cells, golden))
    for text in dict.fromkeys(reason.text for one in measurements for reason in one.verdict.reasons):
        print(f"do not trust these times: {text}")


if __name__ == "__main__":
    sys.exit(main())
