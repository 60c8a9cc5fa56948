"""The work of a device, and the local journal of its finished photos.

Photos are sent under numbers, so that the name of a user's file never reaches a shell. Here they get their names back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import CapPruneError, DeviceError, PhotoError, UsageError, error_from_json
from capprune_runtime.measure.bench import ROUNDS
from capprune_runtime.measure.bench import WARM_UP as WARM_UP_ROUNDS
from capprune_runtime.measure.cooldown import Gate
from capprune_runtime.measure.journal import Journal, Line, parse_line
from capprune_runtime.measure.results import SCHEMA_VERSION, FailedPhoto, Measurement, bundle_facts, parse_measurement
from capprune_runtime.measure.session import judged

_NUMBERED = re.compile(r"(\d{5,})\.[a-z]+", re.ASCII)  # names from `photo_number`

Progress = Callable[[int, int], None]  # finished photos or rounds, total


@dataclass(frozen=True)
class RunJob:
    """Photos to caption with a bundle.

    Attributes:
        bundle: A verified bundle.
        photos: Names of the photos.
        read: Returns the bytes of a photo's file.
        beam: Beam width.
        runtime: Interpreter, or "auto".
        threads: Threads of the interpreter.
    """

    bundle: Bundle
    photos: Sequence[str]
    read: Callable[[str], bytes]
    beam: int
    runtime: str = "auto"
    threads: int = 1

    def session(self, device: str) -> dict[str, Any]:
        """Return the settings that must match for captions of an earlier attempt to be used."""
        names = hashlib.sha256("\n".join(self.photos).encode()).hexdigest()
        return {
            "schema_version": SCHEMA_VERSION,
            "device": device,
            "manifest_sha256": bundle_facts(self.bundle).manifest_sha256,
            "photos": names,
            "beam": self.beam,
            "runtime": self.runtime,
            "threads": self.threads,
        }


@dataclass(frozen=True)
class BenchJob:
    """Verified bundles to time in interleaved rounds; other attributes are those of `RunJob`.

    Attributes:
        threads: Threads of the interpreter, for all bundles or for each. Devices other than `local` take one number.
        cold_loads: New processes that load each bundle, timed before the rounds. A phone times its app's own starts.
        gate: Temperature gate before a case starts; None for none.
    """

    bundles: Sequence[Bundle]
    rounds: int = ROUNDS
    warm_up: int = WARM_UP_ROUNDS
    beam: int | None = None
    runtime: str = "auto"
    threads: int | Sequence[int] = 1
    cold_loads: int = 0
    gate: Gate | None = None

    def one_number(self, device: str) -> int:
        """Return the number of threads of all bundles, for a device that takes one.

        Raises:
            UsageError: They have several.
        """
        if isinstance(self.threads, int):
            return self.threads
        raise UsageError("this device takes one number of threads", where="--threads", expected=f"one number for {device}",
                         found=", ".join(map(str, self.threads)))  # fmt: skip


class RunJournal:
    """A run on another device: its remaining photos, and the journal that is kept when the link is lost.

    Args:
        job: The photos to caption.
        device: The device's name.
        cache: The folder of journals; None for the user's.
        progress: Called after every photo.
    """

    def __init__(self, job: RunJob, device: str, cache: Path | None, progress: Progress) -> None:
        self.job = job
        self._session = job.session(device)
        self._device = device
        self.id = short_hash(self._session)
        folder = default_cache() if cache is None else cache
        self._journal = Journal(folder / "devices" / f"{self.id}.jsonl", self._session)
        self._progress = progress
        self._begun = False

    @property
    def done(self) -> int:
        """Number of captioned photos."""
        return sum(name in self._journal.done for name in self.job.photos)

    def remaining(self) -> list[int]:
        """Return the indices of the photos that remain to be captioned.

        It is never empty: the document at the end of a run requires a photo, so the last photo is repeated if only the
        document was lost.
        """
        missing = [index for index, name in enumerate(self.job.photos) if name not in self._journal.done]
        return missing or [len(self.job.photos) - 1]

    def take(self, line: Line) -> None:
        """Record a photo's result, or the start of the run.

        Raises:
            DeviceError: The photo is not one of those that were sent.
            PhotoError: The device could not read it.
        """
        if line.photo is None or not self._begun:  # a phone's journal may be removed before its first line was read
            self._journal.write(Line(self._session, line.before))
            self._begun = True
        if line.photo is None:
            return
        name = self._name(line.photo.photo)
        if isinstance(line.photo, FailedPhoto):
            raise PhotoError("the device cannot read a photo", where=name, found=line.photo.message)
        self._journal.write(Line(photo=dataclasses.replace(line.photo, photo=name)))
        self._progress(self.done, len(self.job.photos))

    def take_all(self, document: Mapping[str, Any]) -> None:
        """Record the captions and failures in a whole document; raises the same errors as `take`."""
        for key, kind in (("captions", "said"), ("failures", "failed")):
            for entry in document.get(key) or []:
                if (line := parse_line(json.dumps({kind: entry}))) is not None:
                    self.take(line)

    def finish(self, document: Mapping[str, Any]) -> Measurement:
        """Return the measurement from the journal and the document of the last attempt, and remove the journal.

        Raises:
            DeviceError: The document is invalid or of another bundle, or captions are missing.
        """
        measurement = parse_measurement({**document, "captions": [], "failures": []}, self._device)
        measurement = _of_bundle(measurement, self.job.bundle, self._device)
        said = [self._journal.said[name] for name in self.job.photos if name in self._journal.said]
        if len(said) != len(self.job.photos):
            raise DeviceError(
                "the device ended before all photos were captioned",
                where=self._device,
                expected=f"{len(self.job.photos)} captions",
                found=len(said),
                hint="run the same command again: it goes on from there",
            )
        where = measurement.environment
        whole = dataclasses.replace(
            measurement,
            captions=tuple(said),
            settings=dataclasses.replace(measurement.settings, sessions=self._journal.sessions),
            environment=dataclasses.replace(where, before=self._journal.before or where.before),
        )
        self._journal.close(remove=True)
        return judged(whole)

    def close(self) -> None:
        """Close the journal; it is kept for the next attempt if it holds captions."""
        self._journal.close(remove=not self.done)

    def _name(self, sent: str) -> str:
        number = _NUMBERED.fullmatch(sent)
        if number is None or int(number[1]) >= len(self.job.photos):
            raise DeviceError("the device speaks of a photo that it was not sent", where=self._device,
                              found=ascii(sent[:80]))  # fmt: skip
        return self.job.photos[int(number[1])]


def bench_measurements(document: Any, job: BenchJob, device: str) -> tuple[Measurement, ...]:
    """Return a device's measurements of a bench, in the order of the bundles.

    Raises:
        DeviceError: The document is invalid, or of other bundles.
    """
    runs = document.get("runs") if isinstance(document, dict) else None
    if not isinstance(runs, list) or len(runs) != len(job.bundles):
        raise DeviceError("the device did not time every bundle", where=device, expected=f"{len(job.bundles)} runs")
    found = [parse_measurement(run, device) for run in runs]
    return tuple(judged(_of_bundle(one, bundle, device)) for one, bundle in zip(found, job.bundles, strict=True))


def photo_number(index: int, suffix: str) -> str:
    """Return the name under which a photo is sent."""
    return f"{index:05d}{suffix.lower()}"


def short_hash(session: Mapping[str, Any]) -> str:
    """Return a hash of the settings as a name that is safe in a shell."""
    return hashlib.sha256(json.dumps(session, sort_keys=True).encode()).hexdigest()[:16]


def default_cache() -> Path:
    """Return the user's cache folder."""
    return Path(os.environ.get("CAPPRUNE_CACHE") or Path.home() / ".cache" / "capprune")


def device_error(failure: Any, device: str) -> CapPruneError:
    """Return the device's error, with the name of the device."""
    if not isinstance(failure, dict) or not isinstance(failure.get("what"), str):
        return DeviceError("the device failed and did not say why", where=device)
    place = device if failure.get("where") is None else f"{device}, {failure['where']}"
    return error_from_json({**failure, "where": place}, DeviceError)


def _of_bundle(measurement: Measurement, bundle: Bundle, device: str) -> Measurement:
    """Check that a measurement is of this bundle, and return it with the bundle's own name."""
    facts = bundle_facts(bundle)
    if measurement.bundle.manifest_sha256 != facts.manifest_sha256:
        raise DeviceError("the device measured another bundle", where=device, expected=facts.manifest_sha256,
                          found=measurement.bundle.manifest_sha256[:64])  # fmt: skip
    return dataclasses.replace(measurement, bundle=facts)
