"""`capprune caption` with several processes or on a Ray cluster; the results equal those of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capprune.api.caption_inputs import Named, content_of

if TYPE_CHECKING:
    from capprune.workers import Workers
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.caption.said import Said

TOGETHER = 8  # photos per task


@dataclass(frozen=True)
class CaptionSettings:
    """Settings for captioning, as sent to a worker.

    Attributes:
        bundle: Path of the bundle.
        runtime: Name of the interpreter.
        threads: Threads of the interpreter.
        beam: Beam width; None for the bundle's own.
        confidence: The bundle's threshold for unsure captions.
        cache: Folder of all caches.
    """

    bundle: str
    runtime: str
    threads: int
    beam: int | None
    confidence: float | None
    cache: Path


@dataclass(frozen=True)
class _Task:
    photos: tuple[Named, ...]
    settings: CaptionSettings


def places_to_caption(on: str | None, workers: int | None, explain: Path | None) -> Workers | None:
    """Return the workers; None to caption in this process.

    Raises:
        UsageError: `--explain` is given too, or `--on` is unknown.
    """
    if on is None and workers in (None, 1):
        return None
    from capprune.workers import parse_on
    from capprune_runtime.errors import UsageError

    if explain is not None:
        raise UsageError("--explain works in one process only", found="--workers or --on", hint="leave one of them out")
    return parse_on(on, workers)


def can_be_spread(one: Named) -> bool:
    """Return whether another process can read a photo, which is not the case for standard input."""
    return one.problem is None and str(one.path) != "-"


def caption_by_workers(
    photos: Sequence[Named], places: Workers, settings: CaptionSettings, progress: Callable[[int, int], None]
) -> Iterator[tuple[Named, Said]]:
    """Caption photos, and yield each result when it is ready, in any order."""
    groups = [tuple(photos[start : start + TOGETHER]) for start in range(0, len(photos), TOGETHER)]
    tasks = [_Task(tuple(replace(one, path=one.path.absolute()) for one in group), settings) for group in groups]
    done = 0
    for number, found in places.run(caption_group, tasks):
        for one, said in zip(groups[number], found, strict=True):
            if said.error is not None and said.error.where is not None:
                said.error.where = said.error.where.replace(str(one.path.absolute()), str(one.path))
            yield one, replace(said, photo=one.path)
        done += len(found)
        progress(done, len(photos))


def caption_group(task: _Task) -> list[Said]:
    """Caption some photos; runs in a worker."""
    from capprune_runtime.caption.look import look_at
    from capprune_runtime.caption.said import Said
    from capprune_runtime.errors import CapPruneError

    settings, found = task.settings, []
    captioner = _captioner(settings.bundle, settings.runtime, settings.threads)
    for one in task.photos:
        try:
            look = look_at(captioner, one.path, settings.beam, content=content_of(one, settings.cache))
        except CapPruneError as error:  # other photos may be readable
            found.append(Said(one.path, None, None, error))
        else:
            caption = replace(look.caption, attention=np.zeros((0, 0), np.float32))
            found.append(Said(one.path, caption, settings.confidence, None, look.warning))
    return found


@lru_cache(maxsize=1)
def _captioner(bundle: str, runtime: str, threads: int) -> Captioner:
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.captioner import Captioner

    return Captioner(verify_bundle(Path(bundle)), runtime=runtime, threads=threads)
