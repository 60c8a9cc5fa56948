"""A device in one file: another Python of this machine, such as one that has another interpreter.

capprune bench BUNDLE --device python:/opt/other/bin/python3
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capprune.devices.answers import ask, object_of, run_bytes
from capprune.devices.job import (
    BenchJob,
    Progress,
    RunJob,
    RunJournal,
    bench_measurements,
    device_error,
    photo_number,
    require_runtime,
)
from capprune.devices.schemes import DeviceOptions, Scheme
from capprune_runtime.archive import archive_bytes
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.measure.results import Measurement

SCHEME = Scheme("python:PATH", re.compile(r"python:(?P<path>[\w./~-]+)", re.ASCII), "other_python:open_python")

SECONDS = 3600  # for all photos


def open_python(found: re.Match[str], options: DeviceOptions) -> OtherPython:
    """Return the Python that a spec names; it is not started yet."""
    return OtherPython(Path(found["path"]).expanduser(), options.cache)


class OtherPython:
    """It needs what a bundle needs, and nothing of capprune: the runtime travels as one file."""

    def __init__(self, python: Path, cache: Path | None) -> None:
        self.name = f"python:{python}"
        self._python, self._cache = python, cache

    def run(self, job: RunJob, progress: Progress) -> Measurement:
        """Caption every photo once; photos that were captioned before an interruption are not captioned again."""
        require_runtime(job.runtime, [job.bundle], self.name)
        journal = RunJournal(job, self.name, self._cache, progress)
        try:
            with tempfile.TemporaryDirectory() as folder:
                bundle, photos = write(job.bundle, Path(folder, "bundle")), Path(folder, "photos")
                photos.mkdir()
                for index in journal.remaining():
                    name = job.photos[index]
                    (photos / photo_number(index, Path(name).suffix)).write_bytes(job.read(name))
                document = self._runtime(folder, job, len(job.photos), "run", bundle, photos)
            journal.take_all(document)
            return journal.finish(document)
        finally:
            journal.close()

    def bench(self, job: BenchJob, progress: Progress) -> tuple[Measurement, ...]:
        """Time bundles in one process."""
        with tempfile.TemporaryDirectory() as folder:
            bundles = [write(one, Path(folder, f"bundle-{number}")) for number, one in enumerate(job.bundles)]
            document = self._runtime(folder, job, job.rounds * len(bundles), "bench", *bundles, *job.options())
            return bench_measurements(document, job, self.name)

    def _runtime(self, folder: str, job: RunJob | BenchJob, captions: int, *arguments: object) -> Mapping[str, Any]:
        archive = Path(folder, "capprune_runtime.pyz")
        archive.write_bytes(archive_bytes())
        beam = () if job.beam is None else ("--beam", job.beam)
        settings = (*beam, "--runtime", job.runtime, "--threads", job.threads, "--json")
        command = [str(part) for part in (self._python, archive, *arguments, *settings)]
        try:
            done = ask(command, self.name, seconds=SECONDS, most_bytes=run_bytes(captions))
        except OSError as error:
            raise device_error({"what": "this Python ran no bundle", "found": str(error)}, self.name) from error
        document = object_of(done.stdout)
        if not document or "error" in document:
            raise device_error({"what": "this Python ran no bundle", **document}, self.name)
        return document


def write(bundle: Bundle, folder: Path) -> Path:
    """Write a verified bundle's files."""
    for name, content in bundle.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
