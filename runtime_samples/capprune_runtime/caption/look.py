"""Read and caption a photo named on a command line."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from capprune_runtime.caption.captioner import Caption, Captioner
from capprune_runtime.caption.inputs import decode_input
from capprune_runtime.caption.said import Said
from capprune_runtime.errors import CapPruneError, PhotoWarning
from capprune_runtime.photo_argument import argument_name, read_argument


@dataclass(frozen=True)
class Look:
    """One captioned photo.

    Attributes:
        name: The photo's name in messages.
        content: The bytes of its file.
        photo: The captioner's input.
        caption: The generated caption.
        warning: The damage of a photo that was captioned nevertheless.
    """

    name: str
    content: bytes
    photo: NDArray[Any]
    caption: Caption
    warning: str | None


def look_at(captioner: Captioner, named: Path, beam: int | None = None, *, content: bytes | None = None) -> Look:
    """Read and caption a photo.

    Args:
        captioner: A loaded bundle.
        named: A file, or `-` for standard input.
        beam: Beam width; None for the bundle's own.
        content: The photo's bytes, if it is not a file of its own.

    Raises:
        CapPruneError: The photo cannot be read or captioned.
    """
    name = argument_name(named)
    content = read_argument(named) if content is None else content
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PhotoWarning)
        photo = decode_input(content, name, captioner.bundle.manifest.preprocessing)
    found = [str(one.message) for one in caught if issubclass(one.category, PhotoWarning)]
    return Look(name, content, photo, captioner.caption(photo, beam=beam), found[0] if found else None)


def say_of(captioner: Captioner, named: Path, low_below: float | None, beam: int | None = None) -> Said:
    """Caption a photo as `look_at` does, but return a photo's error, so that other photos can still be read.

    Args:
        captioner: A loaded bundle.
        named: A file, or `-` for standard input.
        low_below: The bundle's threshold for unsure captions.
        beam: Beam width; None for the bundle's own.
    """
    try:
        look = look_at(captioner, named, beam)
    except CapPruneError as error:
        return Said(named, None, None, error)
    return Said(named, look.caption, low_below, None, look.warning)
