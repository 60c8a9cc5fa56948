"""A phone with the app of android_demo/, through adb.

    find the phone ─▶ check the app ─▶ copy bundle and photos ─▶ start it by its intent ─▶ read its journal ─▶ remove
    everything

A phone has no Python, so the app measures. docs/results_schema.md describes intent, extras and paths. The app continues
if the link is lost, and its journal is then read from the last position.
"""

from __future__ import annotations

import contextlib
import io
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capprune.devices.adb_program import Adb
from capprune.devices.answers import free_space, journal_line, object_of, run_bytes
from capprune.devices.job import BenchJob, Progress, RunJob, RunJournal, device_error, photo_number
from capprune.devices.schemes import DeviceOptions
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.proof import read_golden
from capprune_runtime.errors import DeviceError, LinkLost, UsageError
from capprune_runtime.formats import model_kind
from capprune_runtime.measure.bench_photos import bench_photos
from capprune_runtime.measure.cooldown import MAX_BATTERY_C, combined, wait_until_cool
from capprune_runtime.measure.results import BENCH, ColdLoads, Cooldown, Golden, Measurement, bundle_facts
from capprune_runtime.measure.session import judged
from capprune_runtime.photo import decode_photo, resize

PACKAGE = "org.capprune.demo"
ACTIVITY = f"{PACKAGE}/.RunActivity"
ACTION = f"{PACKAGE}.RUN"
SENT = "/data/local/tmp"  # apps may read it and adb may write it
WRITTEN = f"/sdcard/Android/data/{PACKAGE}/files"  # the app's own folder, which adb may read
ABIS = ("arm64-v8a", "x86_64")

LOOK_EVERY_S = 1.0
SILENCE_S = 180.0  # time without a line after which the app counts as stuck
GONE_S = 60.0  # time to wait for a disconnected phone
MOST_BREAKS = 5  # of the link without a photo between them
SPARE_BYTES = 8 << 20
BLOCKS = 3  # blocks of rounds in a bench: the app starts once per bundle and block


@dataclass(frozen=True)
class _Places:
    """Folders of a job on the phone."""

    sent: str
    written: str

    @property
    def results(self) -> str:
        return f"{self.written}/results.json"

    @property
    def journal(self) -> str:
        return f"{self.written}/results.jsonl"


def open_adb(found: re.Match[str], options: DeviceOptions) -> AdbDevice:
    """Return the phone that a spec names; see `schemes.Scheme`."""
    return AdbDevice(found["serial"], cache=options.cache)


class AdbDevice:
    """A phone with the app; see `device.Device`.

    Args:
        serial: Its serial number; None for the only connected phone.
        cache: Folder of the journals of unfinished runs.
    """

    def __init__(self, serial: str | None, *, cache: Path | None = None) -> None:
        self.name = "adb" if serial is None else f"adb:{serial}"
        self._serial, self._cache = serial, cache

    def run(self, job: RunJob, progress: Progress) -> Measurement:
        """Caption the photos in the app; finished photos are kept if the link breaks."""
        if (kind := model_kind(job.bundle.decoder)) != "tflite":
            raise UsageError("the app runs only .tflite models", where="--device", found=f".{kind}",
                             hint="capprune export RUN --target tflite")  # fmt: skip
        adb = Adb(self._serial)
        _check_phone(adb)
        journal = RunJournal(job, f"adb:{adb.serial}", self._cache, progress)
        places = _Places(f"{SENT}/capprune-{journal.id}", f"{WRITTEN}/capprune-{journal.id}")
        try:
            _remove(adb, places)  # files of a killed attempt
            _send(adb, places, journal)
            _start(adb, places, job)
            return journal.finish(_follow(adb, places, journal))
        except LinkLost as error:
            error.expected = f"{len(job.photos)} captions"
            error.found = f"{journal.done}, which are kept; {error.found}"
            error.hint = "run the same command again when the phone is back, which resumes"
            raise
        finally:
            journal.close()
            with contextlib.suppress(DeviceError):
                _remove(adb, places)

    def bench(self, job: BenchJob, progress: Progress) -> tuple[Measurement, ...]:
        """Time bundles on their golden photos, in the app.

        The app loads one bundle at a time, so bundles are interleaved in a few blocks of rounds instead of every round.
        """
        threads = job.one_number(self.name)
        adb, cooldowns = Adb(self._serial), list[Cooldown]()
        blocks = [block for block in np.array_split(np.arange(job.rounds), min(BLOCKS, job.rounds)) if len(block)]
        found: list[list[Measurement]] = [[] for _ in job.bundles]
        for block in blocks:
            for bundle, own in zip(job.bundles, found, strict=True):
                if job.gate is not None:
                    cooldowns.append(wait_until_cool(job.gate, default_c=MAX_BATTERY_C, read=adb.battery_c))
                own.append(self.run(_rounds_as_photos(bundle, block, job.beam, threads), lambda *_: None))
            progress(int(block[-1]) + 1, job.rounds)
        cold, cooldown = bool(job.cold_loads), combined(cooldowns) if cooldowns else None
        whole = [_as_bench(bundle, own, cold=cold) for bundle, own in zip(job.bundles, found, strict=True)]
        return tuple(replace(one, cooldown=cooldown) for one in whole)


def _rounds_as_photos(bundle: Bundle, rounds: NDArray[np.int64], beam: int | None, threads: int) -> RunJob:
    """Return the job of captioning the photos that a bundle is timed on, one per round."""
    photos = bench_photos(bundle)
    files = {f"{number:05d}": photos[number % len(photos)][1] for number in rounds.tolist()}
    width = bundle.manifest.decoding.beam if beam is None else beam
    return RunJob(bundle, tuple(files), lambda name: _png(files[name]), width, threads=threads)


def _as_bench(bundle: Bundle, runs: Sequence[Measurement], *, cold: bool) -> Measurement:
    """Combine all rounds in one measurement, and compare the golden photos that have the same beam width."""
    names, golden = [name for name, _ in bench_photos(bundle)], read_golden(bundle)
    first, captions = runs[0], [caption for run in runs for caption in run.captions]
    named = [replace(caption, photo=names[number % len(names)]) for number, caption in enumerate(captions)]
    tokens = {one.photo: one.tokens for one in named}
    proven = [
        tokens[one.name] == one.tokens for one in golden if one.beam == first.settings.beam and one.name in tokens
    ]
    return judged(
        replace(
            first,
            kind=BENCH,
            captions=tuple(named),
            settings=replace(first.settings, sessions=sum(run.settings.sessions for run in runs)),
            golden=Golden(len(proven), sum(proven)) if proven else None,
            cold=_cold_loads(runs) if cold else None,
        )
    )


def _cold_loads(runs: Sequence[Measurement]) -> ColdLoads:
    """Return the medians over the starts of the app, one per block. It does not report the other values."""
    load_us = [us for run in runs if (us := run.latency.load_us) is not None]
    peaks = [peak for run in runs if (peak := run.memory.peak_rss_bytes) is not None]
    return ColdLoads(
        loads=len(runs),
        packed=False,
        process_us=None,
        load_us=round(statistics.median(load_us), 1) if load_us else None,
        first_caption_us=None,
        peak_rss_bytes=round(statistics.median(peaks)) if peaks else None,
        retained_rss_bytes=None,
    )


def _check_phone(adb: Adb) -> None:
    """Check that the app is installed and can run."""
    abi = adb.shell("getprop", "ro.product.cpu.abi").stdout.strip()
    if abi not in ABIS:
        raise DeviceError("the app does not run on this phone", where=f"adb:{adb.serial}", expected=" or ".join(ABIS),
                          found=ascii(abi))  # fmt: skip
    if not adb.shell("pm", "path", PACKAGE).stdout.startswith("package:"):
        raise DeviceError("the app is not installed on the phone", where=f"adb:{adb.serial}", expected=PACKAGE,
                          hint="build android_demo/ and: adb install app.apk")  # fmt: skip


def _send(adb: Adb, places: _Places, journal: RunJournal) -> None:
    """Copy the bundle and the remaining photos, as PNG of the bundle's size, because JPEG decoders differ."""
    job, facts = journal.job, bundle_facts(journal.job.bundle)
    with tempfile.TemporaryDirectory(prefix="capprune-") as local:
        bundle, photos = Path(local, "bundle"), Path(local, "photos")
        for name, content in job.bundle.files.items():
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            (bundle / name).write_bytes(content)
        photos.mkdir()
        for index in journal.remaining():
            (photos / photo_number(index, ".png")).write_bytes(prepared(job, job.photos[index]))
        needed = facts.total_bytes + sum(photo.stat().st_size for photo in photos.iterdir())
        answer = adb.shell("df", "-k", SENT).stdout.strip().splitlines()
        free = free_space(answer[-1]) if answer else None
        if free is not None and needed + SPARE_BYTES > free:
            raise DeviceError("the phone's disk is full", where=f"adb:{adb.serial}, {SENT}",
                              expected=f"{needed + SPARE_BYTES:,} bytes free", found=f"{free:,}",
                              hint="free some space there, or use fewer photos with --limit")  # fmt: skip
        adb.shell("mkdir", "-p", places.sent)
        adb.push([bundle, photos], f"{places.sent}/")
        adb.shell("chmod", "-R", "a+rX", places.sent)


def _start(adb: Adb, places: _Places, job: RunJob) -> None:
    done = adb.shell(
        *("am", "start", "-W", "-S", "-n", ACTIVITY, "-a", ACTION),
        *("--es", "bundle", f"{places.sent}/bundle", "--es", "photos", f"{places.sent}/photos"),
        *("--es", "results", places.results, "--ei", "beam", str(job.beam), "--ei", "threads", str(job.threads)),
    )
    says = done.stdout + done.stderr
    if done.returncode or "Error" in says or "Exception" in says:
        lines = [line for line in says.splitlines() if "Error" in line or "Exception" in line] or says.splitlines()
        raise DeviceError("the app does not start", where=f"adb:{adb.serial}, {ACTIVITY}", found=lines[-1] if lines else None,
                          hint="install the app of this version of capprune: adb install -r app.apk")  # fmt: skip


def _follow(adb: Adb, places: _Places, journal: RunJournal) -> Mapping[str, Any]:
    """Read the app's output until its document exists.

    Raises:
        CapPruneError: An error in the app.
        DeviceError: The app stopped, or its output stopped.
        LinkLost: The phone did not reconnect, or lost the link again and again.
    """
    offset, heard, breaks = 0, time.monotonic(), 0
    most_bytes = run_bytes(len(journal.job.photos))
    while True:
        try:
            # This order matters: the app writes the journal, then the results, then removes the journal, then may end.
            alive = bool(adb.shell("pidof", PACKAGE).stdout.strip())
            results = adb.read(places.results, most_bytes)
            fresh = adb.read(places.journal, most_bytes - offset, offset)
        except LinkLost:
            breaks += 1
            if breaks > MOST_BREAKS:
                raise
            _wait_until_back(adb)
            heard = time.monotonic()
            continue
        whole = fresh[: fresh.rfind(b"\n") + 1]
        offset += len(whole)
        for line in whole.splitlines():
            if (said := journal_line(object_of(line), f"adb:{adb.serial}")) is not None:
                heard, breaks = time.monotonic(), 0
                journal.take(said)
        if results:
            return _document(results, journal, adb)
        if not alive:
            raise DeviceError("the app stopped", where=f"adb:{adb.serial}, {PACKAGE}",
                              hint="logcat says why: adb logcat -d -b crash")  # fmt: skip
        if time.monotonic() - heard > SILENCE_S:
            raise DeviceError(f"the app has not responded for {SILENCE_S:.0f} s", where=f"adb:{adb.serial}, {PACKAGE}",
                              hint="look at the phone's screen")  # fmt: skip
        time.sleep(LOOK_EVERY_S)


def _document(results: bytes, journal: RunJournal, adb: Adb) -> Mapping[str, Any]:
    """Return the app's document and record its captions. The journal may have been removed before its end was read."""
    tree = object_of(results)
    if not tree:
        raise DeviceError("the app's results cannot be read", where=f"adb:{adb.serial}", found=ascii(results[:60]))
    if "failure" in tree:
        raise device_error(tree["failure"], f"adb:{adb.serial}")
    journal.take_all(tree)
    return tree


def _wait_until_back(adb: Adb) -> None:
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        if adb.is_there():
            return
        time.sleep(LOOK_EVERY_S)
    raise LinkLost("the link to the phone was lost", where=f"adb:{adb.serial}", found=f"gone for {GONE_S:.0f} s")


def _remove(adb: Adb, places: _Places) -> None:
    adb.shell("am", "force-stop", PACKAGE)
    adb.shell("rm", "-rf", places.sent, places.written)


def prepared(job: RunJob, name: str) -> bytes:
    """Return a photo in the bundle's size as PNG, which every decoder reproduces exactly."""
    square = resize(decode_photo(job.read(name), name), job.bundle.manifest.photo_size)
    return _png(square)


def _png(square: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(square).save(buffer, "PNG")
    return buffer.getvalue()
