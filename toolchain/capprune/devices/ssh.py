"""A machine with Python over an SSH connection, such as a Raspberry Pi.

    look ─▶ copy the runtime ─▶ ask what it has ─▶ copy bundle and photos ─▶ run, line by line ─▶ remove everything

All files are copied into one folder of the user's home. The remote shell removes it when the run ends for any reason. A
broken connection also stops the run at the next photo.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.devices.answers import equipment_of, free_space, journal_line, object_of
from capprune.devices.far_end import FarEnd
from capprune.devices.job import (
    BenchJob,
    Progress,
    RunJob,
    RunJournal,
    bench_measurements,
    document_of,
    photo_number,
    require_runtime,
    short_hash,
)
from capprune.devices.schemes import DeviceOptions
from capprune_runtime.archive import ARCHIVE, archive_bytes
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import DeviceError, LinkLost, UsageError
from capprune_runtime.formats import model_kind
from capprune_runtime.measure.results import Measurement, bundle_facts

RETRIES_S = (2, 5, 10)  # waits before each attempt to reconnect
SPARE_BYTES = 8 << 20  # on the remote disk, beyond the copied files
FULL_BYTES = 1 << 20  # if less is free, a failed copy is reported as a full disk
VENV_PYTHON = "~/capprune/bin/python3"  # as in runtime_samples/raspberry_pi/README.md
_KILLED = 137  # exit codes of the remote shell: this one is the system's, the others ours
_NO_FOLDER, _NO_PYTHON = 9, 8
DOCTOR_S = 300  # for importing the interpreters, which takes a minute on an emulated processor
_PATH = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")  # of a Python, as the device prints it


@dataclass(frozen=True)
class _Far:
    """Facts about the remote host: its Python, and our folder."""

    python: str
    folder: str
    free_bytes: int | None  # None if the output of df cannot be parsed


def open_ssh(found: re.Match[str], options: DeviceOptions) -> SshDevice:
    """Return the host that a spec names; see `schemes.Scheme`.

    Raises:
        UsageError: There is no such port.
    """
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 1 <= port <= 65_535:
        raise UsageError("there is no such port", where="--device", expected="1 to 65535", found=port)
    return SshDevice(found["user"], found["host"], port, python=options.python, cache=options.cache)


class SshDevice:
    """A host that runs `capprune_runtime`; see `device.Device`.

    Args:
        user: Login name; None for ssh's default.
        host: Its name or address.
        port: Its port; None for ssh's default.
        python: The Python on the host; searched for if not given.
        cache: Folder of the journals of unfinished runs.
    """

    def __init__(
        self, user: str | None, host: str, port: int | None, *, python: str | None = None, cache: Path | None = None
    ) -> None:
        self.name = "ssh:" + ("" if user is None else f"{user}@") + host + ("" if port is None else f":{port}")
        self._user, self._host, self._port = user, host.strip("[]"), port
        self._python, self._cache = python, cache

    def run(self, job: RunJob, progress: Progress) -> Measurement:
        """Caption the photos on the host; a broken link is reconnected, and finished photos are kept."""
        require_runtime(job.runtime, [job.bundle], self.name)
        journal = RunJournal(job, self.name, self._cache, progress)
        try:
            with FarEnd(self._user, self._host, self._port) as far:
                document = self._persistently(far, journal, lambda: self._run_once(far, journal))
            return journal.finish(document)
        finally:
            journal.close()

    def bench(self, job: BenchJob, progress: Progress) -> tuple[Measurement, ...]:
        """Time bundles on the host, all in one process."""
        require_runtime(job.runtime, job.bundles, self.name)
        folders = [f"bundle-{number}" for number in range(len(job.bundles))]
        command = f"bench {' '.join(folders)} {' '.join(job.options())} {_settings(job)}"
        identity = short_hash({"bench": [bundle_facts(bundle).manifest_sha256 for bundle in job.bundles]})

        def take(tree: Mapping[str, Any]) -> None:
            done = tree.get("round")
            if isinstance(done, int) and 0 <= done <= job.rounds:
                progress(done, job.rounds)

        with FarEnd(self._user, self._host, self._port) as far, self._place(far, identity, job.bundles) as place:
            self._send(far, place, list(zip(folders, job.bundles, strict=True)), {})
            captions = (job.rounds + job.warm_up) * len(job.bundles)
            waits_s = 0.0 if job.gate is None else job.gate.timeout_s
            document = self._start(far, place, command, take, captions, waits_s)
            return bench_measurements(document, job, self.name)

    def _persistently(self, far: FarEnd, journal: RunJournal, attempt: Callable[[], Any]) -> Any:
        """Return the result of an attempt, which is repeated after the link broke and was reconnected."""
        waits = list(RETRIES_S)
        while True:
            done = journal.done
            try:
                return attempt()
            except LinkLost as error:
                waits = list(RETRIES_S) if journal.done > done else waits
                if not self._again(far, waits):
                    error.expected = f"{len(journal.job.photos)} captions"
                    error.found = f"{journal.done}, which are kept; {error.found}"
                    error.hint = "run the same command again when the device is back, which resumes"
                    raise

    def _again(self, far: FarEnd, waits: list[int]) -> bool:
        while waits:
            time.sleep(waits.pop(0))
            with contextlib.suppress(DeviceError):
                far.open()
                return True
        return False

    def _run_once(self, far: FarEnd, journal: RunJournal) -> Mapping[str, Any]:
        job = journal.job

        def take(tree: Mapping[str, Any]) -> None:
            if (said := journal_line(tree, self.name)) is not None:
                journal.take(said)

        with (
            self._place(far, journal.id, [job.bundle]) as place,
            tempfile.TemporaryDirectory(prefix="capprune-") as folder,
        ):
            photos = {}
            for index in journal.remaining():
                name = photo_number(index, Path(job.photos[index]).suffix)
                photos[f"photos/{name}"] = Path(folder, name)
                photos[f"photos/{name}"].write_bytes(job.read(job.photos[index]))
            self._send(far, place, [("bundle", job.bundle)], photos)
            command = f"run bundle photos {_settings(job)}"
            document: Mapping[str, Any] = self._start(far, place, command, take, len(job.photos))
            return document

    @contextlib.contextmanager
    def _place(self, far: FarEnd, identity: str, bundles: Sequence[Bundle]) -> Iterator[_Far]:
        """Make a remote folder with the runtime and check that the host can run the bundles; removed at the end."""
        # A new name each time: an attempt that lost its link may remove its folder while this one is running.
        folder = f".capprune-{identity}-{secrets.token_hex(4)}"
        place = self._look(far, folder, f".capprune-{identity}-*")
        try:
            with tempfile.TemporaryDirectory(prefix="capprune-") as local:
                archive = Path(local, ARCHIVE)
                archive.write_bytes(archive_bytes())
                self._put(far, place, {f"{folder}/{ARCHIVE}": archive}, [])
            for kind in sorted({model_kind(bundle.decoder) for bundle in bundles}):
                self._equip(far, place, kind)
            yield place
        finally:
            with contextlib.suppress(DeviceError):
                far.run(f"rm -rf {folder}")

    def _look(self, far: FarEnd, folder: str, stale: str) -> _Far:
        """Inspect the host with shell commands only, remove the files of killed attempts, and make the folder."""
        pythons = f"{VENV_PYTHON} python3" if self._python is None else self._python
        done = far.run(
            f"rm -rf {stale}; df -Pk . | tail -n 1; mkdir {folder} || exit {_NO_FOLDER}; "
            f"for python in {pythons}; do command -v $python && exit 0; done; rm -rf {folder}; exit {_NO_PYTHON}"
        )
        lines = done.stdout.splitlines()
        free_bytes = free_space(lines[0]) if lines else None
        if done.returncode == _NO_FOLDER:
            if free_bytes is not None and free_bytes < FULL_BYTES:
                raise self._no_room(free_bytes, 0)
            raise DeviceError("the device's home cannot be written to", where=self.name, found=done.stderr.strip())
        if done.returncode or len(lines) < 2 or not _PATH.fullmatch(lines[-1]):
            raise DeviceError(
                "the device has no Python",
                where=self.name,
                expected=pythons,
                found=done.stderr.strip() or None,
                hint="there: sudo apt install python3 python3-venv; or name one with --python",
            )
        return _Far(python=lines[-1], folder=folder, free_bytes=free_bytes)

    def _equip(self, far: FarEnd, place: _Far, kind: str) -> None:
        """Check with the runtime that the host can run a bundle.

        Raises:
            DeviceError: Something is missing, or the processor is emulated and its type was not specified.
        """
        command = f"cd {place.folder} && {shlex.quote(place.python)} {ARCHIVE} doctor --kind {kind} --json"
        done = far.run(command, seconds=DOCTOR_S)
        tree = object_of(done.stdout)
        if "machine" not in tree:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise DeviceError("the device's Python cannot run capprune", where=f"{self.name}, {place.python}",
                              expected="Python 3.11 or later", found=said)  # fmt: skip
        found = equipment_of(tree, self.name)
        if found.missing:
            if found.install is None:
                raise DeviceError(
                    f"there is no interpreter of .{kind} models for this machine",
                    where=self.name,
                    expected="aarch64 or x86_64 with Python 3.11 or later, or armv7l with Python 3.11 for .tflite",
                    found=f"{found.machine}, Python {found.python}",
                )
            raise DeviceError(f"the device lacks {', '.join(found.missing)}", where=f"{self.name}, {found.executable}",
                              hint=f"there: {found.install}")  # fmt: skip
        if found.emulated and not found.emulated_cpu:
            raise DeviceError(
                "the device is an emulated one, of no particular processor",
                where=self.name,
                expected="QEMU_CPU=cortex-a72 or the like: on QEMU's own choice interpreters compute wrongly",
                found="QEMU_CPU is not set",
            )

    def _send(self, far: FarEnd, place: _Far, bundles: list[tuple[str, Bundle]], photos: Mapping[str, Path]) -> None:
        """Copy bundles and photos into the folder.

        Raises:
            DeviceError: There is not enough space for them.
        """
        needed = sum(bundle_facts(bundle).total_bytes for _, bundle in bundles)
        needed += sum(path.stat().st_size for path in photos.values())
        if place.free_bytes is not None and needed + SPARE_BYTES > place.free_bytes:
            raise self._no_room(place.free_bytes, needed)
        with tempfile.TemporaryDirectory(prefix="capprune-") as local:
            files, folders = {f"{place.folder}/{name}": path for name, path in photos.items()}, []
            for folder, bundle in bundles:
                names = {*map(_parent, bundle.files)} - {""}
                folders += [f"{place.folder}/{folder}", *(f"{place.folder}/{folder}/{name}" for name in sorted(names))]
                for number, (name, content) in enumerate(bundle.files.items()):
                    copy = Path(local, f"{folder}-{number}")
                    copy.write_bytes(content)
                    files[f"{place.folder}/{folder}/{name}"] = copy
            if photos:
                folders.append(f"{place.folder}/photos")
            self._put(far, place, files, folders)

    def _put(self, far: FarEnd, place: _Far, files: Mapping[str, Path], folders: list[str]) -> None:
        if (complaint := far.put(files, folders)) is None:
            return
        needed = sum(path.stat().st_size for path in files.values())
        free_bytes = free_space(far.run("df -Pk . | tail -n 1").stdout)
        if free_bytes is not None and free_bytes < FULL_BYTES:
            raise self._no_room(free_bytes, needed)
        raise DeviceError("files cannot be copied to the device", where=self.name, found=complaint.splitlines()[-1])

    def _start(
        self,
        far: FarEnd,
        place: _Far,
        command: str,
        take: Callable[[Mapping[str, Any]], None],
        photos: int,
        waits_s: float = 0.0,
    ) -> Any:
        """Run the runtime and return its final document.

        Raises:
            CapPruneError: An error in the runtime.
            DeviceError: It ended without a message.
        """
        script = (
            f"trap 'cd; rm -rf {place.folder}' EXIT; trap 'exit 143' HUP INT TERM; "
            f"cd {place.folder} && {shlex.quote(place.python)} {ARCHIVE} {command} --stream"
        )
        complaints: list[str] = []
        ended = document_of(far.lines(script, complaints, photos, waits_s), take, self.name)
        if ended is None:
            raise self._died(*complaints)
        return ended

    def _died(self, says: str, code: str) -> DeviceError:
        if int(code) == _KILLED:
            return DeviceError("the run was killed on the device", where=self.name, found=f"exit code {code}",
                               hint="its memory may be too small for this bundle")  # fmt: skip
        if "No space left" in says:
            return self._no_room(None, 0)
        last = "\n            ".join(says.strip().splitlines()[-3:])
        return DeviceError(
            "the run ended on the device without a result",
            where=self.name,
            found=f"exit code {code}: {last}",
            hint="run the same command again, which resumes",
        )

    def _no_room(self, free_bytes: int | None, needed_bytes: int) -> DeviceError:
        return DeviceError(
            "the device's disk is full",
            where=self.name,
            expected=f"{needed_bytes + SPARE_BYTES:,} bytes free in the user's home",
            found=None if free_bytes is None else f"{free_bytes:,}",
            hint="free some space there (df -h), or use fewer photos with --limit",
        )


def _settings(job: RunJob | BenchJob) -> str:
    beam = "" if job.beam is None else f" --beam {job.beam}"
    threads = job.one_number("ssh") if isinstance(job, BenchJob) else job.threads
    return f"--runtime {shlex.quote(job.runtime)} --threads {threads}{beam}"


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
