"""Verify that a bundle matches its manifest, before anything in it is used.

    names and kinds ─▶ sizes and SHA-256 ─▶ vocabulary ─▶ model files ─▶ their signatures against the manifest

Files are read once into memory, so that the checked bytes are the bytes in use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime import strict_json
from capprune_runtime.bundle.cache import CachedMembers
from capprune_runtime.bundle.capz import open_capz
from capprune_runtime.bundle.costs import check_costs, photo_size
from capprune_runtime.bundle.familiarity import familiarity_of
from capprune_runtime.bundle.golden import check_golden_photos, parse_golden
from capprune_runtime.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MODEL_CARD,
    PLAN,
    QUALITY,
    VOCABULARY,
    FileEntry,
    Manifest,
    parse_manifest,
)
from capprune_runtime.bundle.members import FolderMembers, Members
from capprune_runtime.bundle.vocabulary import MAX_VOCABULARY_BYTES, Vocabulary, decode_vocabulary
from capprune_runtime.errors import BadModelFile, BadVocabulary, BundleError, HashMismatch, MissingFile, UsageError
from capprune_runtime.formats import FORMATS, Call
from capprune_runtime.tflite.file import MODEL_METADATA, VOCABULARY_METADATA

MAX_FILES = 256
MAX_VALUES = 1_000_000  # of quality.json; each may take 100 bytes of memory when it is read, and 3 bytes in the file
_MAX_GOLDEN_PHOTO_BYTES = 16 << 20
_MAX_BYTES = {
    **{name: one.max_bytes for one in FORMATS.values() for name in one.files},
    VOCABULARY: MAX_VOCABULARY_BYTES,
    GOLDEN: 4 << 20,
    MODEL_CARD: 4 << 20,
    PLAN: 4 << 20,
    QUALITY: 64 << 20,
}


@dataclass(frozen=True)
class Bundle:
    """A bundle that has passed every check.

    Attributes:
        place: Path of the folder or packed file.
        manifest: Its manifest.
        vocabulary: Its vocabulary.
        files: The checked bytes of every file, by name.
    """

    place: Path
    manifest: Manifest
    vocabulary: Vocabulary
    files: Mapping[str, bytes]

    @property
    def encoder(self) -> bytes:
        """The bytes of the encoder's model file."""
        return self.files[self.manifest.encoder.file]

    @property
    def decoder(self) -> bytes:
        """The bytes of the decoder's model file."""
        return self.files[self.manifest.decoder.file]

    def write_files(self, folder: Path) -> None:
        """Write every file into a folder, which is made where it is missing."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def verify_bundle(place: Path, cache: Path | None = None) -> Bundle:
    """Read and check a whole bundle.

    Args:
        place: The bundle's folder, or a packed bundle.
        cache: Folder of cached files of packed bundles, which are checked like the bundle's own files.

    Raises:
        UsageError: There is no such bundle.
        MissingFile: A listed file is missing, or a file is not listed.
        HashMismatch: A file has changed since it was written.
        NewerFormat: The bundle was written by a later capprune.
        BadVocabulary: The vocabulary breaks a rule or does not fit the model.
        BadModelFile: A model file breaks a rule or does not fit the manifest.
        BundleError: The manifest, golden.json or the familiarity breaks a rule, or the folder holds a link or a device.
        PhotoError: A golden photo cannot be read.
    """
    if place.is_file():
        packed = open_capz(place)
        return verify_members(packed if cache is None else CachedMembers(packed, cache))
    if not place.is_dir():
        raise UsageError("there is no such bundle", where=place, hint="give the folder that holds manifest.json")
    return verify_members(FolderMembers(place))


def verify_members(members: Members) -> Bundle:
    """Check the files of a bundle in a folder or an archive; raises the errors of `verify_bundle`."""
    place = members.place
    content = members.read(MANIFEST, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(content, place / MANIFEST)
    _check_names(members, manifest)
    files = {MANIFEST: content} | {name: _read_listed(members, name, entry) for name, entry in manifest.files.items()}
    vocabulary = decode_vocabulary(files[VOCABULARY], place / VOCABULARY, manifest.tokens)
    interface = manifest.interface
    if vocabulary.decoder_size != interface.vocabulary:
        raise BadVocabulary(
            "the vocabulary does not fit the model",
            where=place / VOCABULARY,
            expected=f"{interface.vocabulary} tokens",
            found=f"{vocabulary.decoder_size} of kind {manifest.tokens.kind}",
        )
    multiply_adds: list[int] = []
    for section, inputs, outputs in (
        (manifest.encoder, manifest.encode_inputs(), interface.encode_outputs()),
        (manifest.decoder, interface.step_inputs(), interface.step_outputs()),
    ):
        where = place / section.file
        call = Call(section.signature, inputs, outputs, rows=section is manifest.decoder)
        checked = manifest.format.verify(files[section.file], str(where), call)
        multiply_adds.append(checked.multiply_adds)
        _check_metadata(checked.metadata, where, manifest, files[VOCABULARY])
    familiarity_of(files, interface, place)
    golden = parse_golden(files, place, manifest, vocabulary)
    size_bytes = members.packed_bytes or sum(map(len, files.values()))
    encode, step = multiply_adds
    check_costs(manifest, golden, encode, step, size_bytes, place)
    check_golden_photos(files, place, photo_size(manifest))
    return Bundle(place, manifest, vocabulary, files)


def _check_names(members: Members, manifest: Manifest) -> None:
    found = set(members.names(MAX_FILES)) - {MANIFEST}
    if missing := sorted(manifest.files.keys() - found):
        raise MissingFile("a file of the bundle is missing", where=members.place / missing[0])
    if extra := sorted(found - manifest.files.keys()):
        raise MissingFile("a file in the bundle is not listed in its manifest", where=members.place / extra[0])


def _read_listed(members: Members, name: str, entry: FileEntry) -> bytes:
    content = members.read(name, _MAX_BYTES.get(name, _MAX_GOLDEN_PHOTO_BYTES))
    if len(content) != entry.size_bytes:
        raise HashMismatch(
            "a file of the bundle has another size",
            where=members.place / name,
            expected=f"{entry.size_bytes} bytes",
            found=f"{len(content)} bytes",
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise HashMismatch(
            "a file of the bundle is not the one that was written",
            where=members.place / name,
            expected=f"sha256 {entry.sha256}",
            found=f"sha256 {digest}",
            hint="copy the bundle again",
        )
    if name == QUALITY and (values := sum(map(content.count, (b",", b"[", b"{")))) > MAX_VALUES:
        raise BundleError("a file of the bundle holds too many values", where=members.place / name,
                          expected=f"at most {MAX_VALUES}", found=values)  # fmt: skip
    return content


def _check_metadata(metadata: Mapping[str, bytes], where: Path, manifest: Manifest, vocabulary: bytes) -> None:
    """Check that a model file's metadata, for users who have only that file, matches the bundle."""
    if metadata.get(VOCABULARY_METADATA, vocabulary) != vocabulary:
        raise BadModelFile("metadata: another vocabulary than the bundle's", where=where)
    if (described := metadata.get(MODEL_METADATA)) is not None:
        expected = json.dumps(manifest.described(), sort_keys=True)
        try:
            found = json.dumps(strict_json.parse(described), sort_keys=True)
        except BundleError as error:
            raise BadModelFile(f"metadata: {MODEL_METADATA} cannot be read", where=where, found=error.what) from None
        if found != expected:
            raise BadModelFile("metadata: another preprocessing or decoding than the manifest's", where=where,
                               expected=expected, found=found[:400])  # fmt: skip
