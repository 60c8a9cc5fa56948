"""Read a file as a captioner's input: the pixels of a photo, or the features of its regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from capprune_runtime import regions
from capprune_runtime.bundle.preprocessing import PreprocessingSection, RegionsSection
from capprune_runtime.photo import ENDINGS, read_photo

Preprocessing: TypeAlias = PreprocessingSection | RegionsSection


def input_endings(preprocessing: Preprocessing) -> frozenset[str]:
    """Return the extensions of the files in a folder that a bundle can caption, in lower case."""
    return frozenset({regions.ENDING}) if isinstance(preprocessing, RegionsSection) else ENDINGS


def read_input(path: Path, preprocessing: Preprocessing) -> NDArray[Any]:
    """Read one file.

    Returns:
        The input of `Captioner.caption`.

    Raises:
        DataError: The file is missing, broken or of another kind.
    """
    if isinstance(preprocessing, RegionsSection):
        return regions.read_regions(path)
    return read_photo(path, preprocessing.size)


def decode_input(data: bytes, where: object, preprocessing: Preprocessing) -> NDArray[Any]:
    """Decode the bytes of one file; see `read_input`.

    Args:
        data: The whole file.
        where: Its name, for messages.
        preprocessing: The bundle's preprocessing.
    """
    if isinstance(preprocessing, RegionsSection):
        return regions.decode_regions(data, where)
    return read_photo(data, preprocessing.size, where)
