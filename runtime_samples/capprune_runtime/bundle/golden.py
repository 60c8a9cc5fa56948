"""Reading golden/golden.json: the golden photos of a bundle and their expected captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune_runtime import strict_json
from capprune_runtime.bundle.manifest import GOLDEN, GOLDEN_PHOTO, MAX_BEAM, Manifest
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import BundleError, PhotoError
from capprune_runtime.photo import decode_photo

MAX_ENTRIES = 1024
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class GoldenEntry:
    """The trained model's caption of one photo.

    Args:
        photo: The photo's path in the bundle.
        beam: Beam width K of the search.
        tokens: Token ids without `<start>` and `<end>`.
        caption: The caption as text.
    """

    photo: str
    beam: int
    tokens: tuple[int, ...]
    caption: str


def parse_golden(
    files: Mapping[str, bytes], place: Path, manifest: Manifest, vocabulary: Vocabulary
) -> tuple[GoldenEntry, ...]:
    """Read golden.json of a bundle whose other files are checked; return nothing if there is none.

    Args:
        files: The bytes of every file of the bundle, by name.
        place: The bundle, for messages.
        manifest: The bundle's manifest.
        vocabulary: The bundle's vocabulary.

    Raises:
        BundleError: It is not strict JSON, or does not follow docs/bundle_format.md.
    """
    if GOLDEN not in files:
        return ()
    try:
        entries = strict_json.parse(files[GOLDEN])
    except BundleError as error:
        raise BundleError(
            error.what, where=place / GOLDEN, expected=error.expected, found=error.found or error.where
        ) from None
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise BundleError("the golden captions are not as expected", where=place / GOLDEN,
                          expected=f"a list of at most {MAX_ENTRIES} entries")  # fmt: skip
    return tuple(
        _entry(entry, f"{place / GOLDEN}, entry {number}", manifest, vocabulary) for number, entry in enumerate(entries)
    )


def check_golden_photos(files: Mapping[str, bytes], place: Path, size: int | None) -> None:
    """Decode every golden photo of a bundle.

    Args:
        files: The bytes of every file of the bundle, by name.
        place: The bundle, for messages.
        size: S, the side of a photo in pixels; None if the model reads no photos.

    Raises:
        PhotoError: A photo is not a PNG, cannot be decoded or is not S x S.
        BundleError: There are photos, but the model reads none.
    """
    for name, content in files.items():
        if GOLDEN_PHOTO.fullmatch(name):
            if size is None:
                raise BundleError("a golden photo of a model that reads no photos", where=place / name)
            _check_photo(content, place / name, size)


def _check_photo(content: bytes, where: Path, size: int) -> None:
    if content[: len(_PNG)] != _PNG:
        raise PhotoError("a golden photo is not a PNG", where=where)
    sides = [int.from_bytes(content[place : place + 4], "big") for place in (16, 20)]
    if sides != [size, size]:
        raise PhotoError(
            "a golden photo has another size than the model reads",
            where=where,
            expected=f"{size} x {size} pixels",
            found=f"{sides[0]} x {sides[1]}",
        )
    decode_photo(content, where)


def _entry(entry: Any, where: str, manifest: Manifest, vocabulary: Vocabulary) -> GoldenEntry:
    if (
        isinstance(entry, dict)
        and entry.keys() == {"photo", "beam", "tokens", "caption"}
        and isinstance(entry["photo"], str)
        and GOLDEN_PHOTO.fullmatch(entry["photo"])
        and entry["photo"] in manifest.files
        and type(entry["beam"]) is int
        and 1 <= entry["beam"] <= MAX_BEAM
        and isinstance(entry["tokens"], list)
        and all(type(token) is int and 0 <= token < vocabulary.decoder_size for token in entry["tokens"])
        and len(entry["tokens"]) <= manifest.decoding.max_tokens
        and not {manifest.decoding.start, manifest.decoding.end} & set(entry["tokens"])
        and entry["caption"] == vocabulary.caption(entry["tokens"])
    ):
        return GoldenEntry(entry["photo"], entry["beam"], tuple(entry["tokens"]), entry["caption"])
    raise BundleError(
        "a golden caption is not as expected",
        where=where,
        expected="{photo of this bundle, beam, tokens without <start> and <end>, caption of these tokens}",
    )
