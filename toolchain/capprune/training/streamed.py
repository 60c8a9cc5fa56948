"""Training from shards: the order of an epoch, with photos or features read when their batch is due.

The order is computed from numbers alone. Shards are permuted, joined until they hold `shuffle_photos` photos, and
permuted again. So every process knows the order without reading anything, and each photo is used once per epoch. A
resumed run continues at its exact place. Memory holds the index rows of the shards in use and a few batches of decoded
photos, independent of the size of the data set.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from capprune.data.features import DECODERS, half
from capprune.data.left_out import first_names
from capprune.data.shards.index import EncoderFacts
from capprune.data.shards.reader import ShardPhotos
from capprune.models.caption_model import BlockExtractor, FeatureExtractor
from capprune.training.batches import BUCKET_NOISE, Batch, padded, share_of
from capprune.training.launch import Place
from capprune_runtime.errors import ConfigError, DataError, PhotoError
from capprune_runtime.photo import decode_photo, resize

AHEAD: Final = 2  # batches that are read in advance
TOGETHER: Final = 4  # photos per call of the encoder, as in `training.prepare`

Encode = Callable[[str], tuple[int, ...]]
Extractor = FeatureExtractor | BlockExtractor


class ShardCaptions(Sequence[Sequence[tuple[int, ...]]]):
    """The captions of every photo as ids, read and encoded on access."""

    def __init__(self, photos: ShardPhotos, encode: Encode) -> None:
        self._photos, self._encode = photos, encode

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, photo: int | slice) -> Any:
        if isinstance(photo, slice):
            return [self[one] for one in range(*photo.indices(len(self)))]
        if not 0 <= photo < len(self):
            raise IndexError(photo)
        return [self._encode(text) for text in self._photos.row(int(photo)).captions]

    def __iter__(self) -> Iterator[Sequence[tuple[int, ...]]]:
        return ([self._encode(text) for text in row.captions] for row in self._photos.all_rows())


class ShardNames(Sequence[str]):
    """The names of photos, read on access."""

    def __init__(self, photos: ShardPhotos) -> None:
        self._photos = photos

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, photo: int | slice) -> Any:
        if isinstance(photo, slice):
            return [self[one] for one in range(*photo.indices(len(self)))]
        return self._photos.row(photo).name


@dataclass
class Skipped:
    """Photos that were left out of batches, with the reasons."""

    reasons: dict[str, str] = field(default_factory=dict)

    def note(self) -> str | None:
        """Return a line for the user; None if nothing was skipped."""
        if not self.reasons:
            return None
        return f"note: skipped {len(self.reasons):,} photos that cannot be read: {first_names(tuple(self.reasons))}"


class ShardTable:
    """The model's input for the photos of shards: pixels, features computed from them, or stored features.

    Args:
        photos: Photos of the shards.
        size: Side of the photos in pixels; None if the shards hold features.
        extractor: Computes features; None if pixels are returned or features are stored.
        stored: Shape of stored features.

    Attributes:
        shape: (N, R, F), (N, H, W, C) or (N, S, S, 3).
    """

    def __init__(
        self,
        photos: ShardPhotos,
        *,
        size: int | None,
        extractor: Extractor | None = None,
        stored: tuple[int, ...] | None = None,
    ) -> None:
        self._photos, self._size, self._extractor, self._stored = photos, size, extractor, stored
        own = stored or (extractor.shape if extractor is not None else (size, size, 3))
        self.shape: tuple[int, ...] = (len(photos), *(int(one or 0) for one in own))
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="shards")
        self._ahead: dict[int, Future[npt.NDArray[Any]]] = {}

    def ahead(self, photos: npt.NDArray[np.int64]) -> None:
        """Start to read photos that are needed later."""
        for photo in photos.tolist():
            if photo not in self._ahead:
                self._ahead[photo] = self._pool.submit(self._read, photo)

    def problem(self, photo: int) -> BaseException | None:
        """Return why a photo cannot be read, after `ahead`; None if it can."""
        return self._ahead[photo].exception()

    def name(self, photo: int) -> str:
        """Return the name of a photo."""
        return self._photos.row(photo).name

    def forget(self, photos: npt.NDArray[np.int64]) -> None:
        """Release photos that were read with `ahead`."""
        for photo in photos.tolist():
            self._ahead.pop(photo, None)

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """See `capprune.training.encoder.InputTable`.

        Raises:
            DataError: A shard is missing or altered, or a photo cannot be decoded.
        """
        chosen = np.asarray(photos, np.int64)
        new = chosen[[photo not in self._ahead for photo in chosen.tolist()]]
        self.ahead(new)
        shown: npt.NDArray[Any]
        try:
            shown = np.stack([self._ahead[photo].result() for photo in chosen.tolist()])
        finally:
            self.forget(new)  # photos of a batch that was read ahead are kept until its step is over
        if self._extractor is None:
            return shown
        made = np.empty((len(shown), *self.shape[1:]), np.float16)
        for start in range(0, len(shown), TOGETHER):
            made[start : start + TOGETHER] = half(self._extractor(shown[start : start + TOGETHER]))
        return made

    def _read(self, photo: int) -> npt.NDArray[Any]:
        content = self._photos.content(photo)
        if self._stored is None:
            pixels: npt.NDArray[Any] = resize(decode_photo(content, self.name(photo)), int(self._size or 0))
            return pixels
        try:
            features: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError("features in a shard are broken", where=self.name(photo), found=error) from error
        if features.shape != self._stored or features.dtype != np.float16:
            found = f"{features.dtype} {features.shape}"
            raise DataError(
                "features in a shard are broken", where=self.name(photo), expected=self._stored, found=found
            )
        return features


class ShardBatches:
    """The batches of every epoch from shards, the same for the same seed; see `capprune.training.batches.Batches`.

    Args:
        photos: Photos of the shards.
        captions: Captions of the photos.
        table: The model's input, which starts to read a batch before it is due.
        photos_per_batch: P over all ranks; the last batch may be smaller.
        shuffle_photos: Number of photos from which batches are drawn. Whole shards are added until it is reached.
        seed: Seed of the order and of the choice of captions.
        skipped: Records photos that cannot be read; None raises at the first.
        place: Position of this process. All processes get the same batches, and each reads the photos of its own share.
        parts: Number of parts in which each process computes its share.
    """

    def __init__(
        self,
        photos: ShardPhotos,
        captions: ShardCaptions,
        table: ShardTable,
        *,
        photos_per_batch: int,
        shuffle_photos: int,
        seed: int,
        skipped: Skipped | None = None,
        place: Place | None = None,
        parts: int = 1,
    ) -> None:
        self._photos, self._captions, self._table = photos, captions, table
        self._size, self._window, self._seed, self._skipped = photos_per_batch, shuffle_photos, seed, skipped
        self._place, self._parts = place or Place(), parts
        self.captions_per_photo = photos.captions_per_photo()
        photos.keep_open(2 * photos.shards_of(shuffle_photos) + 1)  # the shards of this window and of the one before

    def __len__(self) -> int:
        return -(-len(self._photos) // self._size)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting at batch `first`."""
        waiting: deque[npt.NDArray[np.int64]] = deque()
        for place, photos in enumerate(self.order(number, first)):
            if place < first:
                continue
            self._table.ahead(self._own(photos))
            waiting.append(photos)
            if len(waiting) > AHEAD:
                yield from self._ready(waiting.popleft(), number)
        while waiting:
            yield from self._ready(waiting.popleft(), number)

    def order(self, number: int, first: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the photos of each batch of an epoch, over all ranks. Captions are read only from batch `first` on."""
        random = np.random.default_rng([self._seed, number])
        rest, done = np.empty(0, np.int64), 0
        shards = random.permutation(len(self._photos.shards)).tolist()
        while shards:
            parts = [rest]
            while shards and (len(parts) == 1 or sum(map(len, parts)) < self._window):
                start = self._photos.first_of(shard := shards.pop(0))
                parts.append(np.arange(start, start + self._photos.sizes[shard]))
            window = random.permutation(np.concatenate(parts))
            noise = random.uniform(-BUCKET_NOISE, BUCKET_NOISE, len(window))
            whole = len(window) - len(window) % self._size if shards else len(window)
            rest, chosen = window[whole:], window[:whole]
            batches = -(-whole // self._size)
            turns = random.permutation(batches)
            if done + batches > first:
                chosen = chosen[np.argsort(self._lengths(chosen) + noise[:whole], kind="stable")]
            cut = np.array_split(chosen, np.arange(self._size, whole, self._size))
            yield from (cut[turn] for turn in turns)
            done += batches

    def _lengths(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the length of each photo's longest caption in words separated by spaces; it only groups captions."""
        rows = (self._photos.row(photo) for photo in photos.tolist())
        return np.array([max(text.count(" ") for text in row.captions) for row in rows], np.float64)

    def _ready(self, photos: npt.NDArray[np.int64], number: int) -> Iterator[Batch]:
        """Yield the batch of photos when they have been read."""
        broken = [photo for photo in self._own(photos).tolist() if not self._is_good(photo)]
        self._table.forget(np.array(broken, np.int64))
        good = photos[~np.isin(photos, broken)]
        if not len(good):
            raise DataError("no photo of a batch can be read", where=self._photos.folder, expected="at least one")
        chosen = [caption for photo in good.tolist() for caption in self._chosen(photo, number)]
        yield Batch(good, *padded(chosen))
        self._table.forget(good)

    def _own(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the photos of a batch that this process reads: all if broken ones are skipped, else its share."""
        return photos if self._skipped is not None else share_of(photos, self._place, self._parts)

    def _is_good(self, photo: int) -> bool:
        error = self._table.problem(photo)
        if error is None:
            return True
        if self._skipped is None or not isinstance(error, PhotoError):  # a whole shard is never skipped
            raise error
        self._skipped.reasons[self._table.name(photo)] = error.what
        return False

    def _chosen(self, photo: int, number: int) -> Sequence[tuple[int, ...]]:
        own, wanted = self._captions[photo], self.captions_per_photo
        if len(own) == wanted:
            return list(own)
        random = np.random.default_rng([self._seed, number, photo])
        return [own[pick] for pick in random.choice(len(own), wanted, replace=len(own) < wanted)]


def require_encoder(stored: EncoderFacts | None, extractor: Extractor | None, where: str) -> None:
    """Check that stored features are those of the run's encoder.

    Raises:
        ConfigError: They are of another encoder, or the run needs pixels.
    """
    if stored is None:
        return
    found = None if extractor is None else (extractor.key, tuple(extractor.shape))
    if found != (stored.key, stored.shape):
        raise ConfigError(
            "the features in these shards are not what this run sees",
            where=where,
            expected="an encoder that learns, from pixels" if found is None else f"features of {found[0]} {found[1]}",
            found=f"features of {stored.key} {stored.shape}",
            hint="capprune data features DATA --config CONFIG --out FOLDER makes them for this config",
        )
