"""Cold loads: a new process reads, verifies and loads a bundle, and generates its first caption.

The parent starts several such processes of every bundle, interleaved, and keeps the medians. The files are in the
system's file cache; packed bundles are expanded each time.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capprune_runtime import stopping
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.errors import BundleError, CapPruneError
from capprune_runtime.isolation import ERROR_CODE, run_isolated
from capprune_runtime.measure.bench_photos import bench_photos
from capprune_runtime.measure.results import ColdLoads, bundle_facts
from capprune_runtime.strict_json import parse

COLD_LOADS = 3  # processes of each bundle
LONGEST_S = 600.0
STATUS = Path("/proc/self/status")  # Linux; its peak starts at zero in a new program, unlike that of getrusage

_CODE = "from capprune_runtime.measure.cold import answer; answer()"


def cold_loads(
    bundles: Sequence[Path | Bundle], loads: int, *, beam: int | None, runtime: str, threads: Sequence[int]
) -> tuple[ColdLoads | None, ...]:
    """Measure cold loads of bundles, interleaved.

    Args:
        bundles: Folders or packed bundles, or verified ones; those that are not on disk are written to a folder.
        loads: Number of processes of each bundle; 0 for none.
        beam: Beam width; None for each bundle's own.
        runtime: See `interpreter.open_model`.
        threads: Number of threads of the interpreter, for each bundle.

    Raises:
        BundleError: A process crashes or takes too long, or a bundle has changed on disk.
    """
    if not loads:
        return (None,) * len(bundles)
    found: list[list[dict[str, Any]]] = [[] for _ in bundles]
    with tempfile.TemporaryDirectory(prefix="capprune-") as folder:
        places = [_on_disk(bundle, Path(folder, str(number))) for number, bundle in enumerate(bundles)]
        for _ in range(loads):
            for place, bundle, count, own in zip(places, bundles, threads, found, strict=True):
                own.append(_one(place, bundle, {"beam": beam, "runtime": runtime, "threads": count}))
                stopping.raise_if_requested()
        return tuple(_medians(own, packed=place.is_file()) for own, place in zip(found, places, strict=True))


def answer() -> None:
    """Run the process's part: load the bundle of `sys.argv`, generate a caption, and write the times to stdout."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # interpreters print to stdout
    code = 0
    try:
        json.dump(_load(Path(sys.argv[1]), **json.loads(sys.argv[2])), lines)
    except CapPruneError as error:
        json.dump(error.as_json(), lines)
        code = ERROR_CODE
    lines.flush()
    os._exit(code)  # interpreters may crash during cleanup


def _load(place: Path, beam: int | None, runtime: str, threads: int) -> dict[str, Any]:
    started = time.perf_counter_ns()
    bundle = verify_bundle(place)
    captioner = Captioner(bundle, runtime, threads)
    load_us = (time.perf_counter_ns() - started) / 1000
    _, pixels = bench_photos(bundle)[0]
    started = time.perf_counter_ns()
    captioner.caption(pixels, beam)
    first_caption_us = (time.perf_counter_ns() - started) / 1000
    gc.collect()
    peak_bytes, retained_bytes = _status_bytes("VmHWM", "VmRSS")
    return {
        "manifest_sha256": bundle_facts(bundle).manifest_sha256,
        "load_us": load_us,
        "first_caption_us": first_caption_us,
        "peak_rss_bytes": peak_bytes,
        "retained_rss_bytes": retained_bytes,
    }


def _one(place: Path, bundle: Path | Bundle, settings: Mapping[str, Any]) -> dict[str, Any]:
    started = time.perf_counter_ns()
    tree = parse(run_isolated(_CODE, [str(place), json.dumps(settings)], b"", place, LONGEST_S))
    process_us = (time.perf_counter_ns() - started) / 1000
    if not isinstance(tree, dict):
        raise BundleError("a cold load gave no times", where=place)
    if isinstance(bundle, Bundle) and tree["manifest_sha256"] != bundle_facts(bundle).manifest_sha256:
        raise BundleError("the bundle has changed on disk", where=place, expected=bundle_facts(bundle).manifest_sha256,
                          found=tree["manifest_sha256"])  # fmt: skip
    return {**tree, "process_us": process_us}


def _on_disk(bundle: Path | Bundle, folder: Path) -> Path:
    """Return where the files of a bundle lie; a bundle without a place on disk is written to the folder."""
    if not isinstance(bundle, Bundle):
        return bundle
    if bundle.place.exists():
        return bundle.place
    bundle.write_files(folder)
    return folder


def _medians(found: Sequence[Mapping[str, Any]], *, packed: bool) -> ColdLoads:
    def median(key: str) -> float | None:
        values = [one[key] for one in found]
        return None if None in values else float(statistics.median(values))

    def whole(key: str) -> int | None:
        return None if (value := median(key)) is None else round(value)

    times = {key: round(value, 1) for key in ("process_us", "load_us", "first_caption_us") if (value := median(key))}
    return ColdLoads(
        loads=len(found),
        packed=packed,
        process_us=times.get("process_us"),
        load_us=times.get("load_us"),
        first_caption_us=times.get("first_caption_us"),
        peak_rss_bytes=whole("peak_rss_bytes"),
        retained_rss_bytes=whole("retained_rss_bytes"),
    )


def _status_bytes(*keys: str) -> list[int | None]:
    """Return values of /proc/self/status in bytes, all from one reading; None for what the system does not report."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return [None] * len(keys)
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    numbers = [fields.get(key, "").split()[:1] for key in keys]  # "VmHWM:     81232 kB"
    return [int(number[0]) * 1024 if number and number[0].isdecimal() else None for number in numbers]
