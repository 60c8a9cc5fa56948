"""This machine as a device: the same code, without a connection."""

from __future__ import annotations

import re

from capprune.devices.job import BenchJob, Progress, RunJob
from capprune.devices.schemes import LOCAL, DeviceOptions
from capprune.validation.validate import measure_here
from capprune_runtime.measure.bench import bench_bundles
from capprune_runtime.measure.results import Measurement


def open_local(found: re.Match[str], options: DeviceOptions) -> LocalDevice:
    """Return this machine; see `schemes.Scheme`."""
    return LocalDevice()


class LocalDevice:
    """This machine; see `device.Device`."""

    name = LOCAL

    def run(self, job: RunJob, progress: Progress) -> Measurement:
        """Caption the photos in this process."""
        return measure_here(
            job.bundle,
            job.photos,
            job.read,
            beam=job.beam,
            runtime=job.runtime,
            threads=job.threads,
            progress=progress,
        )

    def bench(self, job: BenchJob, progress: Progress) -> tuple[Measurement, ...]:
        """Time bundles in this process."""
        return bench_bundles(
            job.bundles,
            rounds=job.rounds,
            warm_up=job.warm_up,
            beam=job.beam,
            runtime=job.runtime,
            threads=job.threads,
            cold_loads=job.cold_loads,
            gate=job.gate,
            progress=progress,
        )
