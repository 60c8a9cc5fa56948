"""Pack a bundle into one file and unpack it, for `capprune pack` and `capprune unpack`.

`capprune_runtime.bundle.capz` reads packed bundles and defines their layout.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from capprune_exporters.pack.pieces import PackedTensor, cut_model
from capprune_runtime.atomic import atomic_file, atomic_folder
from capprune_runtime.bundle.capz import (
    CAPZ_SUFFIX,
    DIGEST_BYTES,
    MAGIC,
    MAX_CAPZ_BYTES,
    MEMBER,
    PIECES,
    PREAMBLE,
    VERSION,
    ZLIB,
    open_capz,
)
from capprune_runtime.bundle.manifest import VOCABULARY
from capprune_runtime.bundle.verify import Bundle, verify_bundle, verify_members
from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.formats import kind_of_name


@dataclass(frozen=True)
class PackedFile:
    """Sizes of one file of the bundle: original, and packed without its entry in the header."""

    name: str
    coding: str
    size_bytes: int
    packed_bytes: int


@dataclass(frozen=True)
class PackReport:
    """Sizes of the parts of a packed bundle.

    Attributes:
        place: The packed bundle.
        files: Files of the bundle, in the order of their names.
        tensors: Tensors of the model files that were coded as weights; the rest is zlib.
        bundle_bytes: Size of the bundle as a folder.
        packed_bytes: Size of the packed bundle.
    """

    place: Path
    files: tuple[PackedFile, ...]
    tensors: tuple[PackedTensor, ...]
    bundle_bytes: int
    packed_bytes: int


def pack(bundle_place: Path, out: Path) -> PackReport:
    """Pack a bundle; the packed file appears at its path only after it has been unpacked and compared.

    The same bundle and version of zlib give the same bytes.

    Args:
        bundle_place: A bundle, which is verified first.
        out: The packed bundle, ending in `.capz`; an existing one is replaced.

    Raises:
        UsageError: `out` has another extension, or there is no such bundle.
        BundleError: The bundle breaks a rule, or is too large to be packed.
        CapPruneError: The packed bundle does not expand to the same bytes: a defect of capprune.
    """
    if out.suffix != CAPZ_SUFFIX or out.is_dir():
        raise UsageError("a packed bundle is a file of this ending", where=out, expected=CAPZ_SUFFIX)
    bundle = verify_bundle(bundle_place)
    _require_size(bundle)
    files: list[PackedFile] = []
    tensors: list[PackedTensor] = []
    sections = []
    for name in sorted(bundle.files):
        data = bundle.files[name]
        coding, section, coded = pack_file(name, data, bundle.files[VOCABULARY])
        files.append(PackedFile(name, "zlib" if coding == ZLIB else "pieces", len(data), len(section)))
        tensors += coded
        sections.append((name, coding, data, section))
    content = _container(sections)
    with atomic_file(out, needed_bytes=len(content)) as temporary:
        temporary.write_bytes(content)
        _prove(temporary, bundle)
    total = sum(len(data) for data in bundle.files.values())
    return PackReport(out, tuple(files), tuple(tensors), total, len(content))


def pack_file(name: str, data: bytes, words: bytes = b"") -> tuple[int, bytes, tuple[PackedTensor, ...]]:
    """Code one file with the coding that needs the fewest bytes.

    Args:
        name: Name of the file in the bundle.
        data: The whole file.
        words: The bundle's vocabulary.txt.

    Returns:
        The coding, the section, and the tensors that were coded.
    """
    whole = zlib.compress(data, 9)
    if kind_of_name(name) is not None:
        cut = cut_model(data, name, words)
        if cut is not None and len(cut.section) < len(whole):
            return PIECES, cut.section, cut.tensors
    return ZLIB, whole, ()


def unpack(packed: Path, out: Path) -> Bundle:
    """Expand a packed bundle into a folder, which appears at its path only after verification.

    Args:
        packed: A packed bundle.
        out: The folder to create.

    Returns:
        The verified bundle, at its path.

    Raises:
        UsageError: There is no such file, or `out` exists already.
        BundleError: The packed bundle, or the bundle in it, breaks a rule.
    """
    if not packed.is_file():
        raise UsageError("there is no such packed bundle", where=packed, expected=f"a {CAPZ_SUFFIX} file")
    with atomic_folder(out) as temporary:
        bundle = verify_members(open_capz(packed))
        for name, data in bundle.files.items():
            path = temporary / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    return replace(bundle, place=out)


def _require_size(bundle: Bundle) -> None:
    total = sum(len(data) for data in bundle.files.values())
    if total > MAX_CAPZ_BYTES:
        expected = f"at most {MAX_CAPZ_BYTES} bytes"
        raise UsageError("the bundle is too large to be packed", where=bundle.place, expected=expected, found=total)


def _container(sections: list[tuple[str, int, bytes, bytes]]) -> bytes:
    header = b"".join(
        bytes([len(name)])
        + name.encode("ascii")
        + MEMBER.pack(coding, len(data), len(section), hashlib.sha256(data).digest())
        for name, coding, data, section in sections
    )
    packed = b"".join(section for *_, section in sections)
    size = PREAMBLE.size + len(header) + len(packed) + DIGEST_BYTES
    content = PREAMBLE.pack(MAGIC, VERSION, size, len(header)) + header + packed
    return content + hashlib.sha256(content).digest()


def _prove(packed: Path, bundle: Bundle) -> None:
    """Check that a packed bundle expands to the bundle's bytes."""
    members = open_capz(packed)
    same = members.names(len(bundle.files)) == tuple(sorted(bundle.files))
    for name, data in bundle.files.items():
        if not same or members.read(name, len(data)) != data:
            raise CapPruneError(
                "the packed bundle does not expand to the same bytes",
                where=bundle.place / name,
                hint="this is a defect; please report it with the bundle",
            )
