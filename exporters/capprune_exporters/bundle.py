"""Write a bundle: every file with its hash, verified before it is moved to its final path."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from capprune_runtime.atomic import atomic_folder, replaced_folder, write_bytes
from capprune_runtime.bundle.golden import GoldenEntry
from capprune_runtime.bundle.interface import StepInterface
from capprune_runtime.bundle.manifest import (
    GOLDEN,
    GOLDEN_FOLDER,
    MANIFEST,
    MODEL_CARD,
    PLAN,
    QUALITY,
    VOCABULARY,
    DataSection,
    DecoderSection,
    DecodingSection,
    EncoderSection,
    FileEntry,
    Manifest,
    ModelSection,
    PruningSection,
    QuantisationSection,
)
from capprune_runtime.bundle.preprocessing import PreprocessingSection, RegionsSection
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.caption.proof import GoldenPhoto
from capprune_runtime.errors import UsageError
from capprune_runtime.formats import FORMATS, model_kind


@dataclass(frozen=True)
class BundleContents:
    """The content of a bundle, except hashes and sizes."""

    created_by: str
    encoder: bytes
    decoder: bytes
    vocabulary: Vocabulary
    model: ModelSection
    preprocessing: PreprocessingSection | RegionsSection
    decoding: DecodingSection
    interface: StepInterface
    pruning: PruningSection
    quantisation: QuantisationSection
    data: DataSection
    config: Mapping[str, Any]
    golden: Sequence[GoldenPhoto]
    model_card: str
    plan: Mapping[str, Any]


def write_bundle(folder: Path, contents: BundleContents, prove: Callable[[Bundle], None] | None = None) -> Bundle:
    """Write a bundle and verify it; it appears at its path only after verification.

    Args:
        folder: The folder to create.
        contents: Content of the bundle.
        prove: Called with the verified bundle before it is moved to its path; an exception refuses it.

    Returns:
        The verified bundle, at its path.

    Raises:
        UsageError: The folder exists already.
        BundleError: The written files break a rule of the verifier: a defect of the exporter.
    """
    with atomic_folder(folder) as temporary:
        (temporary / GOLDEN_FOLDER).mkdir()
        for name, data in assemble(folder, contents).files.items():
            (temporary / name).write_bytes(data)
        verified = verify_bundle(temporary)
        if prove is not None:
            prove(verified)
    return replace(verified, place=folder)


def assemble(place: Path, contents: BundleContents) -> Bundle:
    """Return the bundle as it would be written to `place`, not verified."""
    encoder, decoder = FORMATS[model_kind(contents.encoder)].files
    files = {encoder: contents.encoder, decoder: contents.decoder, **_files(contents)}
    manifest = Manifest(
        created_by=contents.created_by,
        model=contents.model,
        preprocessing=contents.preprocessing,
        decoding=contents.decoding,
        tokens=contents.vocabulary.coding,
        encoder=EncoderSection(file=encoder),
        decoder=DecoderSection(interface=contents.interface, file=decoder),
        pruning=contents.pruning,
        quantisation=contents.quantisation,
        data=contents.data,
        config=contents.config,
        files={name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()},
    )
    text = json.dumps(manifest.as_json(), indent=2) + "\n"
    return Bundle(place, manifest, contents.vocabulary, {MANIFEST: text.encode(), **files})


def record_quality(bundle: Bundle, quality: Mapping[str, Any], card: str | None = None) -> None:
    """Write the results of a validation into a bundle's folder, and their hash into the manifest, atomically.

    Args:
        bundle: A verified bundle. Packing it later includes its quality.json.
        quality: The content of quality.json.
        card: The new content of MODEL_CARD.md, if it changes.

    Raises:
        UsageError: The bundle is packed, or cannot be written.
        CapPruneError: The disk is full.
    """
    if not bundle.place.is_dir():
        raise UsageError("quality is recorded in a bundle's folder, before it is packed", where=bundle.place,
                         hint="capprune unpack FILE.capz --out BUNDLE")  # fmt: skip
    data = (json.dumps(quality, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    changed = {QUALITY: data} | ({} if card is None else {MODEL_CARD: card.encode()})
    entries = {name: FileEntry(hashlib.sha256(text).hexdigest(), len(text)) for name, text in changed.items()}
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, **entries})
    changed[MANIFEST] = (json.dumps(manifest.as_json(), indent=2) + "\n").encode()
    with replaced_folder(bundle.place) as folder:
        for name, content in {**bundle.files, **changed}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_bytes(folder / name, content)
        verify_bundle(folder)


def _files(contents: BundleContents) -> dict[str, bytes]:
    files = {
        VOCABULARY: contents.vocabulary.as_text().encode(),
        MODEL_CARD: contents.model_card.encode(),
        PLAN: (json.dumps(contents.plan, indent=1) + "\n").encode(),
    }
    entries = []
    for golden in contents.golden:
        files[golden.name] = _png(golden.photo)
        entries.append(asdict(GoldenEntry(golden.name, golden.beam, golden.tokens, golden.caption)))
    files[GOLDEN] = (json.dumps(entries, indent=1) + "\n").encode()
    return files


def _png(photo: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG", optimize=True)
    return stream.getvalue()
