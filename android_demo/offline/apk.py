"""Write an APK: the same bytes for the same content, libraries on pages of 16 KB, models as they are."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from compile_native import PAGE_BYTES

_STORED_SUFFIXES = (".so", ".capz", ".tflite", ".png", ".arsc")  # resources.arsc and models are mapped as they lie
_ALIGNMENT_ID = 0xD935  # of the extra field that Android's own zipalign writes
_WORD_BYTES = 4
_LOCAL_HEADER_BYTES = 30
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def write_apk(content: Mapping[str, bytes], out: Path) -> None:
    """Write an unsigned APK of files by their names."""
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(content, key=lambda name: (not name.startswith("AndroidManifest"), name)):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.create_system = 0
            stored = name.endswith(_STORED_SUFFIXES)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            if stored:
                alignment = PAGE_BYTES if name.endswith(".so") else _WORD_BYTES
                entry.extra = _padding(archive.fp.tell() + _LOCAL_HEADER_BYTES + len(name.encode()), alignment)  # type: ignore[union-attr]
            archive.writestr(entry, content[name], compresslevel=9)


def _padding(offset: int, alignment: int) -> bytes:
    """An extra field behind which an entry that would begin at `offset` is aligned."""
    header = struct.pack("<HHH", _ALIGNMENT_ID, 0, alignment)
    zeros = -(offset + len(header)) % alignment
    return struct.pack("<HHH", _ALIGNMENT_ID, 2 + zeros, alignment) + bytes(zeros)


def data_offset(apk: Path, entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry begins in the file."""
    with apk.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return int(entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes)
