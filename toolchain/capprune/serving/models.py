"""The bundles of a page: verified, named, and described by a few facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune_runtime.bundle.capz import CAPZ_SUFFIX
from capprune_runtime.bundle.preprocessing import RegionsSection
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.confidence import confidence_of
from capprune_runtime.errors import UsageError

MAX_MODELS = 16


@dataclass(frozen=True)
class ServedModel:
    """One bundle of the page.

    Attributes:
        name: Name in requests: its file or folder, without the ending.
        bundle: The verified bundle.
        low_below: Mean log-probability below which its captions are marked as uncertain; None if it was not measured.
    """

    name: str
    bundle: Bundle
    low_below: float | None

    @property
    def size_bytes(self) -> int:
        """Size on disk in bytes: of the packed file, or of all files in the folder."""
        place = self.bundle.place
        return place.stat().st_size if place.is_file() else sum(map(len, self.bundle.files.values()))

    def facts(self) -> dict[str, Any]:
        """Return the facts for the page, as a JSON document."""
        manifest = self.bundle.manifest
        return {
            "name": self.name,
            "description": manifest.model.description,
            "sparsity": manifest.pruning.sparsity,
            "encoder": manifest.quantisation.encoder,
            "decoder": manifest.quantisation.decoder,
            "bytes": self.size_bytes,
            "beam": manifest.decoding.beam,
            "attention": manifest.interface.regions is not None,
            "low_confidence_below": self.low_below,
            "data": manifest.data.name,
            "licence": manifest.data.licence,
        }


def read_models(places: Sequence[Path]) -> tuple[ServedModel, ...]:
    """Verify the bundles of a page.

    Args:
        places: Folders or packed bundles; bundles of the same name are numbered.

    Raises:
        UsageError: A bundle does not exist, takes region features instead of photos, or there are too many.
        BundleError: A bundle does not pass the verifier.
    """
    if len(places) > MAX_MODELS:
        raise UsageError("too many bundles for one page", expected=f"at most {MAX_MODELS}", found=len(places))
    models: list[ServedModel] = []
    for place in places:
        bundle = verify_bundle(place)
        if isinstance(bundle.manifest.preprocessing, RegionsSection):
            raise UsageError(
                "a page captions photos, but this bundle takes region features",
                where=place,
                hint="capprune caption reads region features from .npy files",
            )
        name = _new_name(place, [model.name for model in models])
        models.append(ServedModel(name, bundle, confidence_of(bundle)))
    return tuple(models)


def _new_name(place: Path, taken: Sequence[str]) -> str:
    full = place.resolve().name.removesuffix(CAPZ_SUFFIX)
    stem = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in full)
    stem = stem.strip(".")[:60] or "bundle"
    names = (stem, *(f"{stem}-{number}" for number in range(2, MAX_MODELS + 2)))
    return next(name for name in names if name not in taken)
