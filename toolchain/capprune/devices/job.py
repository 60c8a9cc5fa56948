"""The work of a device, and the local journal of its finished photos.

Photos are sent under numbers, so that the name of a user's file never reaches a shell. Here they get their names back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.data.cache_folder import default_cache
from capprune.devices.answers import journal_line, object_of, run_lines, too_much
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import (
    MOST_CHARACTERS,
    BundleError,
    CapPruneError,
    DataError,
    DeviceError,
    PhotoError,
    UsageError,
    error_from_json,
)
from capprune_runtime.formats import model_kind, runtimes_for
from capprune_runtime.measure.bench import ROUNDS
from capprune_runtime.measure.bench import WARM_UP as WARM_UP_ROUNDS
from capprune_runtime.measure.cooldown import Gate
from capprune_runtime.measure.journal import Journal, Line
from capprune_runtime.measure.results import (
    SCHEMA_VERSION,
    FailedPhoto,
    Measurement,
    bundle_facts,
    parse_measurement,
    require_times,
)
from capprune_runtime.measure.session import judged

_NUMBERED = re.compile(r"(\d{5,9})\.[a-z]+", re.ASCII)  # names from `photo_number`

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

    def options(self) -> tuple[str, ...]:
        """Return the options of `capprune_runtime bench` besides those of every job: beam, runtime and threads."""
        counts = {"--rounds": self.rounds, "--warm-up": self.warm_up, "--cold-loads": self.cold_loads}
        gate = Gate(timeout_s=0) if self.gate is None else self.gate
        limit = {} if gate.max_temperature_c is None else {"--max-temperature": gate.max_temperature_c}
        given = {**counts, **limit, "--cooldown-timeout": gate.timeout_s}
        return tuple(str(part) for pair in given.items() for part in pair)

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
        self._begun, self._taken = False, 0

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
            DeviceError: The photo is not one of those that were sent, or the device sends photos again and again.
            PhotoError: The device could not read it.
        """
        self._taken += 1
        if self._taken > (most := run_lines(len(self.job.photos))):
            raise too_much(self._device, most, "lines")
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
            entries = document.get(key)
            for entry in entries if isinstance(entries, list) else []:
                if (line := journal_line({kind: entry}, self._device)) is not None:
                    self.take(line)

    def finish(self, document: Any) -> Measurement:
        """Return the measurement from the journal and the document of the last attempt, and remove the journal.

        Raises:
            DeviceError: The document is invalid or of another bundle, or captions are missing.
        """
        if not isinstance(document, dict):
            raise DeviceError("the results are not as expected", where=self._device, expected="an object",
                              found=type(document).__name__)  # fmt: skip
        measurement = parse_measurement({**document, "captions": [], "failures": []}, self._device)
        measurement = _of_bundle(measurement, self.job.bundle, self._device)
        said = [self._journal.said[name] for name in self.job.photos if name in self._journal.said]
        if len(said) != len(self.job.photos):
            raise DeviceError(
                "the device ended before all photos were captioned",
                where=self._device,
                expected=f"{len(self.job.photos)} captions",
                found=len(said),
                hint="run the same command again, which resumes",
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


def document_of(lines: Iterable[bytes], take: Callable[[Mapping[str, Any]], None], device: str) -> Any:
    """Read the lines of a run to their end.

    Args:
        lines: What the runtime prints with `--stream`, among the lines of other programs.
        take: Called with every object that is neither the document nor an error.
        device: The device's name, for messages.

    Returns:
        The document at the end; None if there was none.

    Raises:
        CapPruneError: The error that the runtime reports.
    """
    document = None
    for line in lines:
        tree = object_of(line)
        if "failure" in tree:
            raise device_error(tree["failure"], device)
        if "document" in tree:
            document = tree["document"]
        elif tree:
            take(tree)
    return document


def bench_measurements(document: Any, job: BenchJob, device: str) -> tuple[Measurement, ...]:
    """Return a device's measurements of a bench, in the order of the bundles.

    Raises:
        DeviceError: The document is invalid, or of other bundles.
    """
    runs = document.get("runs") if isinstance(document, dict) else None
    if not isinstance(runs, list) or len(runs) != len(job.bundles):
        raise DeviceError("the device did not time every bundle", where=device, expected=f"{len(job.bundles)} runs")
    found = [parse_measurement(run, device) for run in runs]
    for measurement in found:
        require_times(measurement, device)
    return tuple(judged(_of_bundle(one, bundle, device)) for one, bundle in zip(found, job.bundles, strict=True))


def photo_number(index: int, suffix: str) -> str:
    """Return the name under which a photo is sent."""
    return f"{index:05d}{suffix.lower()}"


def short_hash(session: Mapping[str, Any]) -> str:
    """Return a hash of the settings as a name that is safe in a shell."""
    return hashlib.sha256(json.dumps(session, sort_keys=True).encode()).hexdigest()[:16]


def require_runtime(runtime: str, bundles: Sequence[Bundle], device: str) -> None:
    """Check that a runtime, if one is named, runs these kinds of models, before anything is copied to a device.

    Raises:
        UsageError: There is no such runtime, or it does not run such models.
    """
    for kind in sorted({model_kind(bundle.decoder) for bundle in bundles}):
        if runtime not in ("auto", *runtimes_for(kind)):
            raise UsageError(f"this runtime does not run .{kind} models", where=f"{device}, --runtime",
                             expected=", ".join(runtimes_for(kind)), found=runtime)  # fmt: skip


def device_error(failure: Any, device: str) -> CapPruneError:
    """Return the error that a device reports, with the name of the device.

    Only errors of data, bundles and devices keep their class and exit code. All others are errors of the device.
    """
    if not isinstance(failure, dict) or not isinstance(failure.get("what"), str):
        return DeviceError("the device failed without a reason", where=device)
    said = {key: value[:MOST_CHARACTERS] for key, value in failure.items() if isinstance(value, str)}
    place = f"{device}, {said['where']}" if "where" in said else device
    error = error_from_json({**said, "where": place}, DeviceError)
    if isinstance(error, DataError | BundleError | DeviceError):
        return error
    return DeviceError(error.what, where=place, expected=error.expected, found=error.found, hint=error.hint)


def _of_bundle(measurement: Measurement, bundle: Bundle, device: str) -> Measurement:
    """Check that a measurement is of this bundle, and return it with the bundle's own name."""
    facts = bundle_facts(bundle)
    if measurement.bundle.manifest_sha256 != facts.manifest_sha256:
        raise DeviceError("the device measured another bundle", where=device, expected=facts.manifest_sha256,
                          found=measurement.bundle.manifest_sha256[:64])  # fmt: skip
    return dataclasses.replace(measurement, bundle=facts)
