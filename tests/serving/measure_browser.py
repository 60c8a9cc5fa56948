"""Time warm captions inside headless Chromium beside the native runtime, one after the other in every round.

python tests/serving/measure_browser.py [--rounds 40] [BUNDLE...]

Prints one JSON document: least and median times in ms, CPU time of a caption with all that is around it, and their ratios.
On a machine that does other work, read CPU time. The browser is that of the tests, on one thread; so is
the native runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "worlds"), str(HERE.parents[1])]

from browser import Tab, opened  # noqa: E402

from capprune.ready import READY  # noqa: E402
from capprune_runtime.bundle.verify import verify_bundle  # noqa: E402
from capprune_runtime.caption.captioner import Captioner  # noqa: E402
from capprune_runtime.photo import read_photo  # noqa: E402
from serving.static_site import captions, static_site  # noqa: E402

ROOT = HERE.parents[2]
PHOTO = ROOT / "docs" / "gallery" / "chelsea.jpg"
WARM_UP = 10
BEAM = 1
Rounds = list[dict[str, float]]


def native_round(captioner: Captioner) -> dict[str, float]:
    started = time.perf_counter()
    photo = read_photo(PHOTO, captioner.bundle.manifest.photo_size)
    decode = 1000 * (time.perf_counter() - started)
    said = captioner.caption(photo, beam=BEAM)
    return figures(decode, said.encode_us, said.step_us)


def browser_round(tab: Tab, model: str) -> dict[str, float]:
    (said,) = captions(tab, model, [PHOTO.name], BEAM)
    return figures(said["decode_us"] / 1000, said["encode_us"], said["step_us"])


def figures(decode_ms: float, encode_us: float, step_us: Sequence[float]) -> dict[str, float]:
    steps_ms = sum(step_us) / 1000
    whole = decode_ms + encode_us / 1000 + steps_ms
    return {"photo": decode_ms, "encoder": encode_us / 1000, "step": steps_ms / len(step_us), "caption": whole}


def measure(tab: Tab, place: Path, rounds: int) -> dict[str, Any]:
    captioner = Captioner(verify_bundle(place))
    native: Rounds = []
    browser: Rounds = []
    for number in range(WARM_UP + rounds):
        both = native_round(captioner), browser_round(tab, place.stem)
        if number >= WARM_UP:
            native.append(both[0])
            browser.append(both[1])
    cpu = {
        "native_ms": cpu_ms(lambda: native_round(captioner), time.process_time, rounds),
        "browser_ms": cpu_ms(lambda: browser_round(tab, place.stem), children_cpu_seconds, rounds),
    }
    cpu["browser_over_native"] = cpu["browser_ms"] / cpu["native_ms"]
    print(json.dumps({"cpu": cpu}), file=sys.stderr)
    return {
        "bundle": place.name,
        "cpu": {k: round(v, 2) for k, v in cpu.items()},
        "least": compared(native, browser, min),
        "p50": compared(native, browser, median),
    }


def cpu_ms(work: Callable[[], object], clock: Callable[[], float], rounds: int) -> float:
    """CPU time of one round of some work, in ms."""
    before = clock()
    for _ in range(rounds):
        work()
    return 1000 * (clock() - before) / rounds


def children_cpu_seconds() -> float:
    """User and system time of all processes below this one: the browser's."""
    stats = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            stats[int(place.parent.name)] = (int(fields[1]), int(fields[11]) + int(fields[12]))
    below = {os.getpid()}
    while more := {pid for pid, (parent, _) in stats.items() if parent in below} - below:
        below |= more
    return sum(stats[pid][1] for pid in below - {os.getpid()}) / os.sysconf("SC_CLK_TCK")


def compared(native: Rounds, browser: Rounds, of: Callable[[Sequence[float]], float]) -> dict[str, Any]:
    """One figure of all rounds, and the browser's over the native one."""
    found = {
        name: {part: of([one[part] for one in rounds]) for part in rounds[0]}
        for name, rounds in (("native_ms", native), ("browser_ms", browser))
    }
    found["browser_over_native"] = {part: found["browser_ms"][part] / time for part, time in found["native_ms"].items()}
    return {name: {part: round(value, 3) for part, value in parts.items()} for name, parts in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "bundles", nargs="*", type=Path, default=[READY, ROOT / "ready_model" / "flickr8k-coco-blocks.capz"]
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        static_site(options.bundles, Path(folder) / "page") as site,
        opened(options.chromium, site.address, Path(folder)) as tab,
    ):
        tab.listen(1)
        site.add_photos([PHOTO])
        results = [measure(tab, place, options.rounds) for place in options.bundles]
    print(json.dumps({"rounds": options.rounds, "photo": PHOTO.name, "results": results}, indent=2))


if __name__ == "__main__":
    main()
