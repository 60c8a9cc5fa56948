"""Compare a bundle's captions of its golden photos with those of the trained model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.golden import parse_golden
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.captioner import Caption, Captioner
from capprune_runtime.photo import read_photo


@dataclass(frozen=True)
class GoldenPhoto:
    """One golden photo and its expected caption.

    Args:
        name: Path of the photo in the bundle.
        photo: (S, S, 3) uint8 RGB.
        beam: Beam width K of the search.
        tokens: Expected token ids, without `<start>` and `<end>`.
        caption: The expected caption as text.
    """

    name: str
    photo: NDArray[np.uint8]
    beam: int
    tokens: tuple[int, ...]
    caption: str


def read_golden(bundle: Bundle) -> tuple[GoldenPhoto, ...]:
    """Return every golden photo of a verified bundle; none if it has no golden.json.

    Raises:
        BundleError: golden.json does not follow docs/bundle_format.md.
        PhotoError: A photo cannot be read.
    """
    entries = parse_golden(bundle.files, bundle.place, bundle.manifest, bundle.vocabulary)
    if not entries:
        return ()
    size = bundle.manifest.photo_size
    return tuple(
        GoldenPhoto(entry.photo, read_photo(bundle.files[entry.photo], size), entry.beam, entry.tokens, entry.caption)
        for entry in entries
    )


@dataclass(frozen=True)
class GoldenProof:
    """A bundle's caption of one golden photo, and the expected one."""

    golden: GoldenPhoto
    said: Caption

    @property
    def same(self) -> bool:
        """Whether the tokens equal those of the trained model."""
        return tuple(self.said.tokens) == self.golden.tokens


def prove_golden(bundle: Bundle, *, runtime: str = "auto", threads: int = 1) -> tuple[GoldenProof, ...]:
    """Caption every golden photo of a verified bundle as a device does.

    Raises:
        MissingExtra: No interpreter is installed.
        BundleError: golden.json is invalid, or the interpreter rejects a model.
    """
    return prove_with(Captioner(bundle, runtime=runtime, threads=threads))


def prove_with(captioner: Captioner) -> tuple[GoldenProof, ...]:
    """Caption every golden photo with a bundle that is already loaded.

    Raises:
        BundleError: golden.json is invalid, or the interpreter fails.
    """
    golden = read_golden(captioner.bundle)
    return tuple(GoldenProof(one, captioner.caption(one.photo, beam=one.beam)) for one in golden)
