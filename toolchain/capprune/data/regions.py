"""Precomputed region features, one `.npy` file per photo: the input of an Up-Down model instead of pixels.

A file is named `ID.npy`. The samples of the reference code have `ID_att.npy` with the mean of the regions in
`ID_fc.npy` beside it. The latter is not read, because the mean is computed. A file holds float32 (N, F): N regions of F
channels, N from 1 to 100.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import DataError, UsageError
from capprune_runtime.regions import MAX_REGIONS, read_region_file, read_regions

_REGIONS_END, _MEAN_END = "_att", "_fc"
_COCO: Final = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)")  # file names of COCO's photos
_NAMED_IN_ERRORS: Final = 3


class Padded(NamedTuple):
    """Regions of P photos, padded to R each."""

    features: NDArray[np.float32]  # (P, R, F), zeros in the padding
    present: NDArray[np.float32]  # (P, R), 1 for a region and 0 for padding


class RegionStore:
    """The region features in a folder; see `open_regions`."""

    def __init__(self, folder: Path, files: dict[str, Path]) -> None:
        self.folder, self._files = folder, files

    def names(self) -> tuple[str, ...]:
        """Return the ids of all photos, sorted."""
        return tuple(sorted(self._files))

    def find(self, photo: str) -> str | None:
        """Return the id under which a photo's regions are stored, or None.

        Args:
            photo: The id, or the photo's file name: `391895`, `391895.jpg` and `COCO_val2014_000000391895.jpg` are the
                same photo.
        """
        stem = PurePosixPath(photo).stem
        coco = _COCO.fullmatch(stem)
        candidates = (photo, stem, coco.group(1) if coco else stem)
        return next((name for name in candidates if name in self._files), None)

    def read(self, name: str) -> bytes:
        """Read the file of one photo, for `capprune_runtime.regions.decode_regions`.

        Raises:
            DataError: There is no such photo, or its file cannot be read.
        """
        return read_region_file(self._file(name))

    def regions(self, name: str) -> NDArray[np.float32]:
        """Read the regions of one photo.

        Args:
            name: See `find`.

        Returns:
            (N, F), N at most `MAX_REGIONS`.

        Raises:
            DataError: There is no such photo, or its file is broken or holds something else.
        """
        return read_regions(self._file(name))

    def padded(self, names: Sequence[str], regions: int = MAX_REGIONS) -> Padded:
        """Read several photos and pad each to the same number of regions.

        Args:
            names: P photos; see `find`.
            regions: R, the number of regions after padding.

        Raises:
            DataError: A photo is missing, is broken, or has more regions or other channels than the others.
        """
        found = [self.regions(name) for name in names]
        channels = found[0].shape[1] if found else 0
        features = np.zeros((len(found), regions, channels), np.float32)
        present = np.zeros((len(found), regions), np.float32)
        for row, (name, photo) in enumerate(zip(names, found, strict=True)):
            if photo.shape[0] > regions or photo.shape[1] != channels:
                raise DataError(
                    "the regions of a photo do not fit",
                    where=f"{self.folder}, {name}",
                    expected=f"at most {regions} regions of {channels} channels",
                    found=f"{photo.shape[0]} of {photo.shape[1]}",
                )
            features[row, : len(photo)], present[row, : len(photo)] = photo, 1
        return Padded(features, present)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names without regions."""
        return tuple(name for name in names if self.find(name) is None)

    def require(self, names: Sequence[str]) -> None:
        """Check that every photo has regions.

        Raises:
            DataError: Some have none; the message counts them and names the first.
        """
        if missing := self.missing(names):
            raise self._not_there(missing, len(names))

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a SHA-256 over names and sizes of the files, in order."""
        digest = hashlib.sha256()
        for name in names:
            found = self.find(name)
            size = self._files[found].stat().st_size if found is not None else None
            digest.update(f"{name}\n{size}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> RegionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, name: str) -> Path:
        found = self.find(name)
        if found is None:
            raise self._not_there((name,), 1)
        return self._files[found]

    def _not_there(self, missing: Sequence[str], asked: int) -> DataError:
        first = ", ".join(missing[:_NAMED_IN_ERRORS])
        return DataError(
            "photos without region features",
            where=self.folder,
            expected=f"ID.npy or ID{_REGIONS_END}.npy for each of {asked:,} photos",
            found=f"{len(missing):,} missing: {first}{', …' if len(missing) > _NAMED_IN_ERRORS else ''}",
        )


class RegionTable:
    """Region features of N photos for training: rows by index, padded with zeros, read from disk at every access.

    Args:
        store: The folder of features.
        names: N existing photos.
        regions: R, the number of regions after padding.
        channels: F of every region.

    Attributes:
        shape: (N, R, F).
        from_cache: 0; there is no cache.
    """

    from_cache = 0

    def __init__(self, store: RegionStore, names: Sequence[str], *, regions: int, channels: int) -> None:
        self._store, self._names = store, tuple(names)
        self.shape: tuple[int, ...] = (len(self._names), regions, channels)

    def __getitem__(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of some photos, (P, R, F).

        Args:
            indices: (P,) positions among the names.

        Raises:
            DataError: The regions of a photo are broken or do not fit.
        """
        _, regions, channels = self.shape
        features = self._store.padded([self._names[index] for index in indices], regions).features
        if features.shape[-1] != channels:
            raise DataError(
                "the region features have another number of channels",
                where=self._store.folder,
                expected=channels,
                found=features.shape[-1],
                hint=f"encoder.channels={features.shape[-1]}",
            )
        return features


def open_regions(folder: Path) -> RegionStore:
    """Find the region features in a folder; its subfolders are not searched.

    Raises:
        UsageError: There is no such folder.
        DataError: There are no features in it, or two files for one photo.
    """
    if not folder.is_dir():
        raise UsageError("this folder of region features does not exist", where=folder)
    stems = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix == ".npy" and path.is_file()}
    files: dict[str, Path] = {}
    for stem, path in stems.items():
        if stem.endswith(_MEAN_END) and stem.removesuffix(_MEAN_END) + _REGIONS_END in stems:
            continue  # the mean of regions that are read from the other file
        name = stem.removesuffix(_REGIONS_END)
        if name in files:
            raise DataError(
                "two files hold one photo's regions", where=folder, found=f"{files[name].name}, {path.name}"
            )
        files[name] = path
    if not files:
        raise DataError("there are no region features", where=folder, expected=f"ID.npy or ID{_REGIONS_END}.npy")
    return RegionStore(folder, files)
