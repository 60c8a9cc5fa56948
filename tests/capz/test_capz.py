"""The packed bundle: expands to the same bytes, is refused when it is not what was written, and runs as it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import capz_edit
import pytest
import spec_reader
import tflite_edit
from capz_edit import Member, Section, changed, container, members_of
from packed_bundle import Packed, quantise_every_matrix

from capprune_exporters.pack import capz
from capprune_exporters.pack.capz import pack, unpack
from capprune_runtime.bundle.capz import MAX_CAPZ_BYTES, open_capz
from capprune_runtime.bundle.verify import verify_bundle, verify_members
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.errors import (
    BundleError,
    CapPruneError,
    HashMismatch,
    MissingFile,
    NewerFormat,
    UsageError,
)
from capprune_runtime.photo import read_photo


def expanded(place: Path) -> dict[str, bytes]:
    members = open_capz(place)
    return {name: members.read(name, 1 << 29) for name in members.names(256)}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "edit",
    [
        quantise_every_matrix("float32"),
        quantise_every_matrix("int8"),
        quantise_every_matrix("codebook4"),
        tflite_edit.make_int8_blocks,
        lambda model: None,
    ],
    ids=["csr float32", "csr int8", "csr codebook4", "int8 blocks", "dense"],
)
def test_every_form_of_a_bundle_expands_to_the_same_bytes(
    edit: tflite_edit.Edit, make_packed: Callable[[tflite_edit.Edit], Packed]
) -> None:
    packed = make_packed(edit)
    assert expanded(packed.place) == files_of(packed.folder) == spec_reader.expand(packed.data)
    assert verify_bundle(packed.place).files == packed.bundle.files


def test_report_accounts_for_every_byte(packed: Packed) -> None:
    report = packed.report
    assert {f.name: f.size_bytes for f in report.files} == {n: len(d) for n, d in packed.bundle.files.items()}
    header = capz_edit.header_of(members_of(packed.data))
    assert report.packed_bytes == len(packed.data) == 20 + len(header) + sum(f.packed_bytes for f in report.files) + 32
    assert report.bundle_bytes == sum(f.size_bytes for f in report.files)
    decoder = next(f for f in report.files if f.name == "decoder.tflite")
    assert decoder.coding == "pieces" and decoder.packed_bytes < 0.6 * decoder.size_bytes
    assert sum(t.coded_bytes for t in report.tensors if t.file == "decoder.tflite") < decoder.packed_bytes


def test_words_in_the_metadata_of_a_model_are_not_stored_again(packed: Packed) -> None:
    words = packed.bundle.files["vocabulary.txt"]
    (decoder,) = (member for member in members_of(packed.data) if member.name == b"decoder.tflite")
    assert words in packed.bundle.files["decoder.tflite"] and words not in Section.of(decoder.section).literals


def test_the_same_bundle_gives_the_same_bytes(packed: Packed, tmp_path: Path) -> None:
    pack(packed.folder, tmp_path / "again.capz")
    assert (tmp_path / "again.capz").read_bytes() == packed.data
    pack(packed.place, tmp_path / "from-packed.capz")
    assert (tmp_path / "from-packed.capz").read_bytes() == packed.data


def test_unpacked_folder_is_the_bundle(packed: Packed, tmp_path: Path) -> None:
    bundle = unpack(packed.place, tmp_path / "bundle")
    assert bundle.place == tmp_path / "bundle"
    assert files_of(tmp_path / "bundle") == files_of(packed.folder)
    assert verify_bundle(tmp_path / "bundle").files == packed.bundle.files


def test_packed_bundle_says_what_the_folder_says(packed: Packed) -> None:
    photo = read_photo(packed.folder / "golden" / "scene-0.png", 16)
    said = [Captioner(verify_bundle(place)).caption(photo).tokens for place in (packed.folder, packed.place)]
    assert said[0] == said[1]


def test_a_link_to_a_packed_bundle_is_followed(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "link.capz").symlink_to(packed.place)
    assert verify_bundle(tmp_path / "link.capz").files == packed.bundle.files


def test_pack_replaces_a_packed_bundle_and_leaves_nothing_beside_it(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "old.capz").write_bytes(b"old")
    pack(packed.folder, tmp_path / "old.capz")
    assert (tmp_path / "old.capz").read_bytes() == packed.data
    assert [path.name for path in tmp_path.iterdir()] == ["old.capz"]


@pytest.mark.parametrize("name", ["bundle.zip", "bundle", "photo.jpg"])
def test_pack_writes_only_files_of_its_own_ending(packed: Packed, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(UsageError, match="ending"):
        pack(packed.folder, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"precious"


def test_pack_refuses_a_bundle_that_is_not_sound(packed: Packed, tmp_path: Path) -> None:
    shutil.copytree(packed.folder, tmp_path / "bundle")
    (tmp_path / "bundle" / "vocabulary.txt").write_bytes(b"")
    with pytest.raises(HashMismatch):
        pack(tmp_path / "bundle", tmp_path / "out.capz")
    assert not (tmp_path / "out.capz").exists()


def test_pack_writes_nothing_that_does_not_expand_to_the_same_bytes(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capz, "pack_file", lambda name, data, words: (1, zlib.compress(data[:-1] + b"!"), ()))
    with pytest.raises(CapPruneError):
        pack(packed.folder, tmp_path / "out.capz")
    assert not list(tmp_path.iterdir())


def test_unpack_leaves_a_folder_that_holds_something_alone(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        unpack(packed.place, tmp_path / "bundle")
    assert files_of(tmp_path / "bundle") == {"notes.txt": b"mine"}


def test_unpack_writes_nothing_of_a_bundle_that_breaks_a_rule(packed: Packed, tmp_path: Path) -> None:
    card = packed.bundle.files["MODEL_CARD.md"] + b"more\n"
    other = changed(
        packed.data,
        "MODEL_CARD.md",
        coding=1,
        size=len(card),
        section=zlib.compress(card),
        digest=hashlib.sha256(card).digest(),
    )
    (tmp_path / "other.capz").write_bytes(other)
    with pytest.raises(HashMismatch, match="another size"):
        unpack(tmp_path / "other.capz", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["other.capz"]


@pytest.mark.parametrize("what", ["none", "folder"])
def test_unpack_of_what_is_no_file_is_a_usage_error(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError):
        unpack(tmp_path / what, tmp_path / "bundle")


def with_words(data: bytes, name: str) -> bytes:
    """The file with one member that is nothing but the vocabulary, by reference."""
    (vocabulary,) = (member for member in members_of(data) if member.name == b"vocabulary.txt")
    size = vocabulary.size
    plan = bytes([1, 4, 0, *([size] if size < 128 else [size % 128 + 128, size // 128])])
    section = Section(plan, b"", b"", (1 << 16,), ()).packed()
    return changed(data, name, coding=2, size=size, section=section, digest=vocabulary.digest)


def test_a_file_may_refer_to_the_vocabulary(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "words.capz").write_bytes(with_words(packed.data, "decoder.tflite"))
    content = open_capz(tmp_path / "words.capz").read("decoder.tflite", 1000)
    assert content == packed.bundle.files["vocabulary.txt"]
    assert spec_reader.expand((tmp_path / "words.capz").read_bytes())["decoder.tflite"] == content


def test_a_vocabulary_that_is_not_there_is_refused(packed: Packed, tmp_path: Path) -> None:
    members = members_of(with_words(packed.data, "decoder.tflite"))
    (tmp_path / "words.capz").write_bytes(container([m for m in members if m.name != b"vocabulary.txt"]))
    with pytest.raises(MissingFile):
        open_capz(tmp_path / "words.capz").read("decoder.tflite", 1000)


# What a packed bundle must not be: made from a sound one, hashes fitting unless they are what is wrong.


def renamed(data: bytes, new: bytes) -> bytes:
    members = members_of(data)
    return container(sorted([replace(members[0], name=new), *members[1:]], key=lambda m: m.name))


def with_member(data: bytes, *more: Member) -> bytes:
    return container(sorted([*members_of(data), *more], key=lambda member: member.name))


def bomb(name: bytes, size: int, section: bytes = zlib.compress(bytes(1 << 20), 9)) -> Member:
    return Member(name, 1, size, section, bytes(32))


def swapped(data: bytes) -> bytes:
    first, second, *rest = members_of(data)
    return container([second, first, *rest])


def rest_of_header(data: bytes, header: Callable[[bytes], bytes]) -> bytes:
    members = members_of(data)
    return container(members, header=header(capz_edit.header_of(members)))


def zlib_member(data: bytes, section: Callable[[bytes], bytes]) -> bytes:
    (vocabulary,) = (member for member in members_of(data) if member.name == b"vocabulary.txt")
    return changed(data, "vocabulary.txt", section=section(vocabulary.section))


def zlib_as_pieces(data: bytes, name: str) -> bytes:
    return changed(data, name, coding=2, section=zlib.compress(b"x" * 1000))


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, tuple[Damage, type[BundleError], str]] = {
    "empty": (lambda d: b"", BundleError, "no packed bundle"),
    "only the magic": (lambda d: d[:4], BundleError, "no packed bundle"),
    "another magic": (lambda d: b"PK\3\4" + d[4:], BundleError, "no packed bundle"),
    "a later version": (lambda d: container(members_of(d), version=2), NewerFormat, "later"),
    "a later version and nonsense": (lambda d: d[:4] + struct.pack("<I", 9) + bytes(80), NewerFormat, "later"),
    "version 0": (lambda d: container(members_of(d), version=0), BundleError, "impossible version"),
    "cut off in the middle": (lambda d: d[: len(d) // 2], BundleError, "cut off"),
    "cut off by a byte": (lambda d: d[:-1], BundleError, "cut off"),
    "a byte more": (lambda d: d + b"\0", BundleError, "followed"),
    "another file behind it": (lambda d: d + d, BundleError, "followed"),
    "a flipped bit": (lambda d: d[:500] + bytes([d[500] ^ 1]) + d[501:], HashMismatch, "not the one"),
    "a flipped bit of the hash": (lambda d: d[:-1] + bytes([d[-1] ^ 1]), HashMismatch, "not the one"),
    "size that overflows": (lambda d: container(members_of(d), size=1 << 63), BundleError, "cut off"),
    "no header": (lambda d: container([], header=b""), BundleError, "size of the header"),
    "header larger than its cap": (lambda d: container([], header=bytes(1 << 17)), BundleError, "size of the header"),
    "header larger than the file": (
        lambda d: capz_edit.sealed(d[:16] + struct.pack("<I", len(d)) + d[20:-32]),
        BundleError,
        "size of the header",
    ),
    "header cut off in a member": (lambda d: rest_of_header(d, lambda h: h[:-1]), BundleError, "cut off"),
    "header cut off in a name": (
        lambda d: rest_of_header(d, lambda h: h + b"\x20enc"),
        BundleError,
        "not of the format",
    ),
    "a hole between sections": (lambda d: container(members_of(d), behind=b"\0"), BundleError, "no file"),
    "a section past the end": (
        lambda d: rest_of_header(d, lambda h: h[:-36] + struct.pack("<I", 1 << 20) + h[-32:]),
        BundleError,
        "behind the end",
    ),
    "members out of order": (swapped, BundleError, "must rise"),
    "a member twice": (lambda d: with_member(d, members_of(d)[0]), BundleError, "must rise"),
    "an unknown coding": (lambda d: changed(d, "vocabulary.txt", coding=3), BundleError, "unknown coding"),
    "coding 0": (lambda d: changed(d, "vocabulary.txt", coding=0), BundleError, "unknown coding"),
    "a name with ..": (lambda d: renamed(d, b"../MODEL_CARD.md"), BundleError, "not of the format"),
    "an absolute name": (lambda d: renamed(d, b"/etc/passwd"), BundleError, "not of the format"),
    "a name with a backslash": (lambda d: renamed(d, b"golden\\a.png"), BundleError, "not of the format"),
    "a name with a zero byte": (lambda d: renamed(d, b"vocabulary.txt\0"), BundleError, "not of the format"),
    "a name with a line feed": (lambda d: renamed(d, b"golden/a.png\n"), BundleError, "not of the format"),
    "a name that is not ASCII": (lambda d: renamed(d, "golden/ä.png".encode()), BundleError, "not of the format"),
    "a name of another case": (lambda d: renamed(d, b"Vocabulary.txt"), BundleError, "not of the format"),
    "an empty name": (lambda d: renamed(d, b""), BundleError, "not of the format"),
    "code beside the model": (lambda d: with_member(d, bomb(b"model.pickle", 10)), BundleError, "not of the format"),
    "a file that the manifest does not list": (
        lambda d: with_member(d, bomb(b"quality.json", 1 << 20)),
        MissingFile,
        "not listed",
    ),
    "a file missing": (lambda d: container(members_of(d)[1:]), MissingFile, "missing"),
    "no manifest": (
        lambda d: container([m for m in members_of(d) if m.name != b"manifest.json"]),
        MissingFile,
        "missing",
    ),
    "too many files": (
        lambda d: with_member(d, *(bomb(b"golden/x%03d.png" % n, 1, b"") for n in range(300))),
        BundleError,
        "too much",
    ),
    "a bomb by one size": (lambda d: changed(d, "encoder.tflite", size=(1 << 32) - 1), BundleError, "too much"),
    "a bomb by the sum of sizes": (
        lambda d: with_member(d, *(bomb(b"golden/x%d.png" % n, 1 << 28) for n in range(5))),
        BundleError,
        "too much",
    ),
    "a file above its own cap": (lambda d: changed(d, "vocabulary.txt", size=17 << 20), BundleError, "too large"),
    "a zlib bomb": (
        lambda d: zlib_member(d, lambda s: zlib.compress(bytes(1 << 26), 9)),
        BundleError,
        "another length",
    ),
    "a zlib stream cut off": (lambda d: zlib_member(d, lambda s: s[:-1]), BundleError, "ends early"),
    "bytes behind a zlib stream": (lambda d: zlib_member(d, lambda s: s + b"\0"), BundleError, "bytes follow"),
    "no zlib stream": (lambda d: zlib_member(d, lambda s: b"\0" * 40), BundleError, "no zlib stream"),
    "an empty section": (lambda d: zlib_member(d, lambda s: b""), BundleError, "another length"),
    "a size too small": (lambda d: changed(d, "vocabulary.txt", size=100), BundleError, "another length"),
    "a size too large": (lambda d: changed(d, "vocabulary.txt", size=1000), BundleError, "another length"),
    "pieces taken for zlib": (lambda d: changed(d, "decoder.tflite", coding=1), BundleError, "no zlib stream"),
    "zlib taken for pieces": (lambda d: zlib_as_pieces(d, "encoder.tflite"), BundleError, "section"),
    "a card in pieces": (lambda d: zlib_as_pieces(d, "MODEL_CARD.md"), BundleError, "only model files"),
    "a vocabulary that refers to itself": (
        lambda d: with_words(d, "vocabulary.txt"),
        BundleError,
        "only model files",
    ),
    "another hash of a file": (
        lambda d: changed(d, "vocabulary.txt", digest=bytes(32)),
        HashMismatch,
        "does not expand",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_packed_bundle_is_refused(packed: Packed, tmp_path: Path, damage: str) -> None:
    make, error, message = DAMAGES[damage]
    place = tmp_path / "damaged.capz"
    place.write_bytes(make(packed.data))
    with pytest.raises(error, match=message) as caught:
        verify_members(open_capz(place))
    assert caught.value.exit_code == 5 and "damaged.capz" in str(caught.value)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if "bomb" in name or "size" in name])
def test_bombs_are_refused_before_memory_is_taken(packed: Packed, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "damaged.capz"
    place.write_bytes(DAMAGES[damage][0](packed.data))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            verify_members(open_capz(place))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_any_packed_bundle_is_not_read(tmp_path: Path) -> None:
    place = tmp_path / "large.capz"
    with place.open("wb") as file:
        file.truncate(MAX_CAPZ_BYTES + 1)  # a hole: it takes no place on the disk
    with pytest.raises(BundleError, match="too large"):
        open_capz(place)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.capz")
    with pytest.raises(CapPruneError):
        verify_bundle(tmp_path / "pipe.capz")
    with pytest.raises(BundleError, match="plain files"):
        open_capz(tmp_path / "pipe.capz")


def test_a_bundle_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        verify_bundle(tmp_path / "none.capz")
