"""The model's input from a data folder: its photos, or precomputed region features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from capprune.data.photos import open_photos
from capprune.data.regions import RegionStore, open_regions
from capprune_runtime.bundle.preprocessing import PreprocessingSection, RegionsSection
from capprune_runtime.caption.inputs import decode_input

REGION_FOLDER = "regions"  # folder inside a data folder with the features, if they are not in the data folder itself

Preprocessing = PreprocessingSection | RegionsSection


class Store(Protocol):
    """Files of photos by name: `data.photos.PhotoStore` or `data.regions.RegionStore`."""

    def read(self, name: str) -> bytes:
        """Return the file of one photo."""
        ...

    def require(self, names: Sequence[str]) -> None:
        """Check that every photo exists."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_store(folder: Path, preprocessing: Preprocessing) -> Store:
    """Open the model's input in a data folder.

    Args:
        folder: A data folder. Region features are in it or in its folder `regions`.
        preprocessing: The model's preprocessing.

    Raises:
        UsageError: There is no such folder.
        DataError: It holds no photos, or no region features.
    """
    return region_store(folder) if isinstance(preprocessing, RegionsSection) else open_photos(folder)


def region_store(folder: Path) -> RegionStore:
    """Open the region features of a data folder: those in its folder `regions`, or in the folder itself.

    Raises:
        UsageError: There is no such folder.
        DataError: It holds no region features.
    """
    inner = folder / REGION_FOLDER
    return open_regions(inner if inner.is_dir() else folder)


def read_all(folder: Path, names: Sequence[str], preprocessing: Preprocessing) -> Iterator[NDArray[Any]]:
    """Yield the captioner's input for each photo; see `open_store`."""
    with open_store(folder, preprocessing) as store:
        for name in names:
            yield decode_input(store.read(name), name, preprocessing)
