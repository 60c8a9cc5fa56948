"""Writes shards: each one atomically, existing ones are kept, the index last."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from capprune.data.features import DECODERS, FeatureEncoder, half
from capprune.data.shards.index import (
    INDEX,
    KIND,
    ROWS,
    SCHEMA,
    TAR,
    Content,
    EncoderFacts,
    IndexedShard,
    Row,
    Shard,
    ShardIndex,
    Skipped,
    parse_index,
    parse_shard,
    rows_bytes,
)
from capprune.data.shards.place import sha256_of
from capprune.data.shards.plan import PlannedShard, ShardPlan, ending_of
from capprune.file_lock import locked
from capprune_runtime.atomic import atomic_file, raise_if_unwritable, write_bytes, write_text
from capprune_runtime.errors import DataError, MissingExtra, PhotoError, UsageError
from capprune_runtime.photo import decode_photo, resize

UNFINISHED: Final = ".unfinished"  # folder in the output with the plan and the lock, removed when the index is written
READ_AHEAD: Final = 16  # photos
TOGETHER: Final = 16  # photos per call of an encoder
BROKEN: Final = "photos that cannot be read"
MISSING: Final = "photos that do not exist"

Broken = Literal["stop", "skip"]
Progress = Callable[[int, int], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """One photo in a shard.

    Attributes:
        name: Name in the data set.
        captions: Its captions.
        ending: Ending of its file in the tar file, without a dot.
        content: Content of that file.
    """

    name: str
    captions: tuple[str, ...]
    ending: str
    content: bytes


@dataclass(frozen=True)
class Made:
    """A finished shard, and the photos that were left out of it, each with the reason."""

    shard: Shard
    broken: tuple[str, ...] = ()


def photo_samples(planned: PlannedShard, broken: Broken, left_out: list[str], cache: Path) -> Iterator[Sample]:
    """Yield the photos of a shard unchanged. Each is decoded once to check it.

    Args:
        planned: The shard.
        broken: Whether a photo that cannot be read stops the command or is skipped.
        left_out: Receives a line for each skipped photo.
        cache: Folder of all caches.

    Raises:
        PhotoError: A photo cannot be read, and broken photos are not skipped.
    """

    def check(content: bytes, name: str) -> bytes:
        decode_photo(content, name)
        return content

    for name, captions, content in read_photos(planned, check, broken, left_out, cache):
        yield Sample(name, captions, ending_of(name), content)


def feature_samples(
    planned: PlannedShard, encoder: FeatureEncoder, broken: Broken, left_out: list[str], cache: Path
) -> Iterator[Sample]:
    """Yield the features of a shard's photos, float16, each as a NumPy file; see `photo_samples`.

    Every shard starts a new batch, so that its bytes do not depend on the shard before it.
    """

    def pixels(content: bytes, name: str) -> npt.NDArray[np.uint8]:
        return resize(decode_photo(content, name), encoder.size)

    photos = read_photos(planned, pixels, broken, left_out, cache)
    while some := list(islice(photos, TOGETHER)):
        features = half(encoder(np.stack([pixel for _, _, pixel in some])))
        for (name, captions, _), own in zip(some, features, strict=True):
            content = io.BytesIO()
            np.save(content, own)
            yield Sample(name, captions, "npy", content.getvalue())


def read_photos(
    planned: PlannedShard,
    read: Callable[[bytes, str], Result],
    broken: Broken,
    left_out: list[str],
    cache: Path,
) -> Iterator[tuple[str, tuple[str, ...], Result]]:
    """Yield name, captions and the result of `read` for a shard's photos; some photos are read in advance."""
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool, closing(planned.contents(cache)) as photos:
        ahead: deque[tuple[str, tuple[str, ...], Future[Result]]] = deque()
        try:
            while True:
                while len(ahead) < READ_AHEAD and (one := next(photos, None)) is not None:
                    name, captions, content = one
                    ahead.append((name, captions, pool.submit(lambda n, c: read(c(), n), name, content)))
                if not ahead:
                    return
                name, captions, future = ahead.popleft()
                try:
                    result = future.result()
                except PhotoError as error:
                    if broken == "stop":
                        error.hint = error.hint or "--broken skip leaves such photos out, and counts them"
                        raise
                    left_out.append(f"{name}: {error.what}")
                    continue
                yield name, captions, result
        finally:
            pool.shutdown(cancel_futures=True)


def write_shard(out: Path, planned: PlannedShard, samples: Iterable[Sample], left_out: Sequence[str]) -> Made:
    """Write a shard's tar file and its rows.

    Args:
        out: Folder of the shards.
        planned: The shard.
        samples: Its photos.
        left_out: The skipped photos, complete when the samples have ended.

    Raises:
        CapPruneError: The disk is full.
        MissingExtra: webdataset is not installed.
    """
    path, captions, hashes = out / (planned.name + TAR), list[tuple[str, ...]](), list[tuple[str, str]]()
    with atomic_file(path) as temporary:
        with temporary.open("wb") as file, closing(_tar_writer(file)) as tar:
            for number, sample in enumerate(samples):
                text = json.dumps({"name": sample.name, "captions": sample.captions}, ensure_ascii=False)
                tar.write(
                    {"__key__": f"{planned.name}-{number:06}", "json": text.encode(), sample.ending: sample.content}
                )
                captions.append(sample.captions)
                hashes.append((sample.name, hashlib.sha256(sample.content).hexdigest()))
        rows = _rows(temporary, hashes, captions)
        sha256 = sha256_of(temporary)
        size = temporary.stat().st_size
    counts = {str(number): count for number, count in sorted(Counter(map(len, captions)).items())}
    shard = Shard(planned.name, planned.split, len(rows), counts, size, sha256)
    if left_out:
        write_text(_left_out_path(out, planned), json.dumps(list(left_out)))
    else:
        _left_out_path(out, planned).unlink(missing_ok=True)
    write_bytes(out / (planned.name + ROWS), rows_bytes(shard, rows))  # last: the rows mark a complete shard
    return Made(shard, tuple(left_out))


def made_before(out: Path, planned: PlannedShard) -> Made | None:
    """Return a shard that an earlier command finished; None if it is incomplete."""
    try:
        with (out / (planned.name + ROWS)).open("rb") as file:
            shard = parse_shard(file.readline(), planned.name)
        if (out / (planned.name + TAR)).stat().st_size != shard.size_bytes:
            return None
        left_out = _left_out_path(out, planned)
        broken = tuple(json.loads(left_out.read_bytes())) if left_out.is_file() else ()
    except (OSError, DataError, ValueError):
        return None
    return Made(shard, broken) if shard.photos + len(broken) == planned.size else None


@dataclass(frozen=True)
class Output:
    """A folder of shards to be made.

    Attributes:
        folder: The folder.
        plan: Its shards.
        content: What they hold: photos or features.
        encoder: The network that computes features.
        settings: The other settings that determine the bytes.
        broken: How photos that cannot be read are handled.
        missing: Missing photos that were left out.
    """

    folder: Path
    plan: ShardPlan
    content: Content
    encoder: EncoderFacts | None = None
    settings: str = ""
    broken: Broken = "stop"
    missing: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the plan, the encoder's key and the settings."""
        of = [self.plan.sha256, self.content, self.encoder and self.encoder.key, self.settings]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()

    def finished(self) -> ShardIndex | None:
        """Return the index of an earlier command with the same plan; None if there is none.

        Raises:
            UsageError: The folder holds shards of another plan.
        """
        path = self.folder / INDEX
        if not path.is_file():
            return None
        index = parse_index(path.read_bytes(), path)
        if index.plan_sha256 != self.sha256:
            raise UsageError(
                "this folder holds shards of other data or settings",
                where=self.folder,
                hint="choose another --out, or remove it first",
            )
        return index


def write_all(
    output: Output, make: Callable[[Sequence[PlannedShard]], Iterator[Made]], progress: Progress | None = None
) -> ShardIndex:
    """Make the missing shards, then the index.

    Args:
        output: The folder to make.
        make: Makes shards, and yields each when it is finished, in any order.
        progress: Called with the number of finished photos and of all photos.

    Raises:
        UsageError: The folder holds something else, or another process makes these shards.
        CapPruneError: The disk is full.
    """
    unfinished = output.folder / UNFINISHED
    busy = UsageError("another process is making these shards", where=output.folder, hint="wait for it")
    _check_folder(output)
    with locked(unfinished / "lock", busy=busy):
        if (index := output.finished()) is None:
            _keep_plan(unfinished / "plan", f"{output.sha256} {output.plan.source} {output.broken}", output.folder)
            made = {one.shard.name: one for shard in output.plan.shards if (one := made_before(output.folder, shard))}
            left = [shard for shard in output.plan.shards if shard.name not in made]
            done = sum(shard.size for shard in output.plan.shards if shard.name in made)
            sizes = {shard.name: shard.size for shard in output.plan.shards}
            if progress is not None and done:
                progress(done, output.plan.photos)
            for one in make(left):
                made[one.shard.name] = one
                done += sizes[one.shard.name]
                if progress is not None:
                    progress(done, output.plan.photos)
            index = _index(output, [made[shard.name] for shard in output.plan.shards])
            write_bytes(output.folder / INDEX, index.as_bytes())
        shutil.rmtree(unfinished, ignore_errors=True)
    return index


def _index(output: Output, made: Sequence[Made]) -> ShardIndex:
    """Return the index, made only from the manifests of the shards."""
    shards = []
    for one in made:
        rows = (output.folder / (one.shard.name + ROWS)).read_bytes()
        facts = {field.name: getattr(one.shard, field.name) for field in fields(Shard)}
        shards.append(IndexedShard(**facts, rows_bytes=len(rows), rows_sha256=hashlib.sha256(rows).hexdigest()))
    broken = tuple(name for one in made for name in one.broken)
    skipped = [Skipped(BROKEN, broken)] if broken else []
    skipped += [Skipped(MISSING, output.missing)] if output.missing else []
    if not any(shard.photos for shard in shards):
        raise DataError("no photo of this data can be read", where=output.plan.name)
    return ShardIndex(
        KIND,
        SCHEMA,
        output.plan.name,
        output.content,
        output.encoder,
        output.sha256,
        output.plan.labelled_by,
        tuple(skipped),
        tuple(shards),
    )


def _check_folder(output: Output) -> None:
    """Raise an error if a folder contains anything but shards of an unfinished or finished command."""
    folder = output.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if output.finished() is None and any(folder.iterdir()) and not (folder / UNFINISHED).is_dir():
            raise UsageError(
                "there is something here already",
                where=folder,
                expected="a new or empty folder, or unfinished shards",
                hint="choose another folder, or remove this one first",
            )
    except OSError as error:
        raise_if_unwritable(error, folder)
        raise


def _keep_plan(path: Path, plan: str, folder: Path) -> None:
    if not path.is_file():
        write_text(path, plan)
    elif path.read_text(encoding="utf-8") != plan:
        raise UsageError(
            "this folder holds unfinished shards of other data or settings, or a photo has changed since",
            where=folder,
            hint="choose another --out, or remove it first",
        )


def _left_out_path(out: Path, planned: PlannedShard) -> Path:
    return out / UNFINISHED / f"{planned.name}.left-out"


def _rows(tar: Path, hashes: Sequence[tuple[str, str]], captions: Sequence[tuple[str, ...]]) -> list[Row]:
    with tarfile.open(tar, "r:") as file:
        places = [(one.offset_data, one.size) for one in file if not one.name.endswith(".json")]
    return [
        Row(name, offset, size, sha256, own)
        for (name, sha256), own, (offset, size) in zip(hashes, captions, places, strict=True)
    ]


def _tar_writer(file: Any) -> Any:
    try:
        from webdataset import TarWriter
    except ModuleNotFoundError as error:
        if error.name != "webdataset":
            raise
        raise MissingExtra("shards need webdataset", hint="pip install 'capprune[shards]'") from error
    return TarWriter(file, user="", group="", mtime=0, encoder=False)
