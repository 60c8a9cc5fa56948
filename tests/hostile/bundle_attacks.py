"""Bundles whose manifest, names, vocabulary, golden captions or photos break a rule; hashes fit unless they are the attack."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from attacks import Attack, HostileFiles, Link
from bundle_mutations import Files, sealed
from PIL import Image
from world import GOLDEN, World

from capprune_runtime.errors import (
    BadModelFile,
    BadVocabulary,
    BundleError,
    HashMismatch,
    MissingFile,
    NewerFormat,
    PhotoError,
)

PHOTO = "golden/scene-0.png"
# Would make a file if anything unpickled it.
PICKLE = b"cposix\nsystem\n(S'touch /tmp/capprune-was-here'\ntR."
Make = Callable[[World], HostileFiles]


CARRIED = {"shape": [16], "first": "encode", "carry": "replace"}
GROWING = {"shape": [8, 16], "first": "zeros", "carry": "append"}


def sound(world: World) -> Files:
    return dict(world.bundles["lstm"])


def with_files(**files: bytes) -> Make:
    """Other content of files, sealed; `__` stands for a dot and `___` for a slash."""
    named = {name.replace("___", "/").replace("__", "."): content for name, content in files.items()}
    return lambda world: sealed(sound(world) | named)


def familiarity(weights: bytes) -> Make:
    return with_files(
        quality__json=b'{"familiarity": {"weights": ' + weights + b', "log_probability": 1, "offset": 0}}'
    )


def with_file(name: str, change: Callable[[bytes], bytes]) -> Make:
    return lambda world: sealed(sound(world) | {name: change(sound(world)[name])})


def with_manifest(change: Callable[[dict[str, Any]], object]) -> Make:
    return lambda world: sealed(sound(world), change)


def with_manifest_text(change: Callable[[bytes], bytes]) -> Make:
    return lambda world: sound(world) | {"manifest.json": change(sound(world)["manifest.json"])}


def with_unsealed(change: Callable[[Files], object]) -> Make:
    def make(world: World) -> HostileFiles:
        files = sound(world)
        change(files)
        return files

    return make


def listed(name: str) -> Make:
    """A manifest that lists a file of this name, which is not there."""
    return with_manifest(lambda tree: tree["files"].update({name: {"sha256": "0" * 64, "size_bytes": 1}}))


def section(name: str, **values: object) -> Make:
    return with_manifest(lambda tree: tree[name].update(values))


def interface(**values: object) -> Make:
    return with_manifest(lambda tree: tree["decoder"]["interface"].update(values))


def with_links(**links: str) -> Make:
    def make(world: World) -> HostileFiles:
        named = {name.replace("__", "."): target for name, target in links.items()}
        kept = {
            n: c for n, c in sound(world).items() if not any(n == name or n.startswith(f"{name}/") for name in named)
        }
        return kept | {name: Link(target) for name, target in named.items()}

    return make


def words(change: Callable[[list[bytes]], object]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        change(lines)
        return b"".join(lines)

    return apply


def golden(**fields: object) -> bytes:
    return json.dumps([{**GOLDEN, **fields}]).encode()


def png(width: int, height: int, *chunks: tuple[bytes, bytes], data: bytes = zlib.compress(bytes(4))) -> bytes:
    """A grey PNG that says it is so large, whatever its data is."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = (header, *chunks, (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def in_format(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    return file.getvalue()


Entry = tuple[str, Make, type[Exception], str]

CODE: list[Entry] = [
    ("pickle beside the models", with_files(weights__pkl=PICKLE), BundleError, "file name of the bundle format"),
    ("pickle for a model", with_files(decoder__tflite=PICKLE), BadModelFile, "another kind"),
    ("pickle for the vocabulary", with_files(vocabulary__txt=PICKLE), BadVocabulary, "line feed"),
    ("pickle for golden captions", with_files(golden___golden__json=PICKLE), BundleError, "not JSON"),
    ("pickle for the manifest", lambda w: sound(w) | {"manifest.json": PICKLE}, BundleError, "not JSON"),
    ("pickle for a photo", with_files(golden___more__png=PICKLE), PhotoError, "no.* PNG|not a PNG"),
    ("torch file beside the models", with_files(model__pt=b"PK\x03\x04" + PICKLE), BundleError, "file name of the bundle"),
    ("script beside the models", with_files(setup__py=b"import os\n"), BundleError, "file name of the bundle format"),
]  # fmt: skip
NAMES: list[Entry] = [
    ("name that leads up", listed("../secret.txt"), BundleError, r"\.\./secret"),
    ("name that leads up within", listed("golden/../vocabulary.txt"), BundleError, "file name of the bundle format"),
    ("absolute name", listed("/etc/passwd"), BundleError, "/etc/passwd"),
    ("name with a drive letter", listed("C:\\x.png"), BundleError, "file name of the bundle format"),
    ("name with a backslash", listed("golden\\a.png"), BundleError, "file name of the bundle format"),
    ("name with a NUL", listed("golden/a.png\0"), BundleError, "file name of the bundle format"),
    ("name with a line feed", listed("golden/a.png\n"), BundleError, "file name of the bundle format"),
    ("empty name", listed(""), BundleError, "file name of the bundle format"),
    ("name of another case", listed("Vocabulary.txt"), BundleError, "file name of the bundle format"),
    ("two files whose names differ in case", with_files(Vocabulary__txt=b"x\n"), BundleError, "file name of the bundle"),
    ("name that stands twice", with_manifest_text(
        lambda text: text.replace(b'"files": {', b'"files": {"vocabulary.txt": {}, ')), BundleError, "stands twice"),
    ("link for a file", with_links(vocabulary__txt="/etc/hostname"), BundleError, "symbolic link"),
    ("link for a folder", with_links(golden="/etc"), BundleError, "symbolic link"),
    ("link for the manifest", with_links(manifest__json="/etc/hostname"), BundleError, "symbolic link"),
]  # fmt: skip
BOMBS: list[Entry] = [
    ("too many files", with_unsealed(lambda files: files.update({f"golden/x{n}.png": b"" for n in range(256)})),
     BundleError, "too many files"),
    ("photo over its cap", with_files(golden___more__png=bytes((16 << 20) + 1)), BundleError, "too large"),
    ("card over its cap", with_files(MODEL_CARD__md=bytes((4 << 20) + 1)), BundleError, "too large"),
    ("golden captions over their cap", with_files(golden___golden__json=b" " * ((4 << 20) + 1)), BundleError, "too large"),
    ("vocabulary over its cap", with_files(vocabulary__txt=b"word\n" * (17 << 18)), BundleError, "too large"),
    ("too many golden captions", with_files(golden___golden__json=json.dumps([GOLDEN] * 1025).encode()), BundleError,
     "not as expected"),
    ("results of many values", with_files(quality__json=b'{"x":[' + b"[]," * 1_000_000 + b"[]]}"), BundleError,
     "too many values"),
    ("familiarity of more weights than channels", familiarity(b"[" + b"0, " * 5000 + b"0]"), BundleError, "weights"),
]  # fmt: skip
DOCUMENTS: list[Entry] = [
    ("familiarity that is a list", with_files(quality__json=b'{"familiarity": []}'), BundleError, "familiarity"),
    ("familiarity without an offset", with_files(quality__json=b'{"familiarity": {"weights": [1], "log_probability": 1}}'),
     BundleError, "offset"),
    ("familiarity without weights", familiarity(b"[]"), BundleError, "weights"),
    ("familiarity with a weight that is huge", familiarity(b"[1e300]"), BundleError, "weights"),
    ("familiarity with a weight that is a text", familiarity(b'["1"]'), BundleError, "weights"),
    ("familiarity with a weight that is true", familiarity(b"[true]"), BundleError, "weights"),
    ("familiarity with a weight that is infinite", familiarity(b"[1e999]"), BundleError, "JSON"),
    ("familiarity with a weight that is no number", familiarity(b"[NaN]"), BundleError, "JSON"),
    ("manifest over its cap", with_manifest_text(lambda text: text + b" " * 1_000_000), BundleError, "too large"),
    ("manifest not UTF-8", with_manifest_text(lambda text: text.replace(b"capprune 0", b"\xff")), BundleError, "UTF-8"),
    ("manifest with a byte order mark", with_manifest_text(lambda text: b"\xef\xbb\xbf" + text), BundleError, "not JSON"),
    ("manifest that is a list", with_manifest_text(lambda text: b"[" + text + b"]"), BundleError, "not the manifest"),
    ("manifest cut off", with_manifest_text(lambda text: text[:-2]), BundleError, "not JSON"),
    ("manifest with more behind it", with_manifest_text(lambda text: text + b"{}"), BundleError, "not JSON"),
    ("manifest nested deeply", with_manifest_text(lambda text: b"[" * 100_000), BundleError, "nested too deeply"),
    ("config nested deeply", with_manifest_text(
        lambda text: text.replace(b'"config": {', b'"config": {"x": ' + b"[" * 300 + b"]" * 300 + b", ", 1)), BundleError,
     "nested too deeply"),
    ("key twice", with_manifest_text(lambda text: text.replace(b"{", b'{"format": "x", ', 1)), BundleError, "stands twice"),
    ("key twice far inside", with_manifest_text(
        lambda text: text.replace(b'"config": {', b'"config": {"x": {"a": 1, "a": 2}, ', 1)), BundleError, "stands twice"),
    ("unknown key", with_manifest(lambda tree: tree.update(more=1)), BundleError, "more"),
    ("unknown key inside", section("decoding", length_penalty=1), BundleError, "length_penalty"),
    ("missing key", with_manifest(lambda tree: tree.pop("decoding")), BundleError, "decoding"),
    ("NaN", with_manifest_text(lambda text: text.replace(b"0.75", b"NaN")), BundleError, "JSON does not have"),
    ("infinite number", with_manifest_text(lambda text: text.replace(b"0.75", b"1e999")), BundleError, "too large"),
    ("number of thousands of digits", with_manifest_text(lambda text: text.replace(b"0.75", b"9" * 5000)), BundleError,
     "cannot be read"),
    ("truth for a number", section("decoding", beam=True), BundleError, "beam"),
    ("truth for a fraction", section("pruning", sparsity=True, kept_weights=0), BundleError, "sparsity"),
    ("fraction for a whole number", section("decoding", beam=3.0), BundleError, "beam"),
    ("text for a number", with_manifest(lambda tree: tree["model"]["sizes"].update(hidden="16")), BundleError, "hidden"),
    ("state of gigabytes", interface(state={"h": {**CARRIED, "shape": [65_536, 65_536]}}), BundleError, "state"),
    ("state whose bytes overflow", interface(state={"h": {**CARRIED, "shape": [65_536] * 3}}), BundleError, "state"),
    ("held tensors of gigabytes", interface(held={"keys": {"shape": [65_536, 65_536], "dtype": "float32"}}), BundleError,
     "held"),
    ("hundred states", interface(state={f"s{n}": CARRIED for n in range(100)}), BundleError, "at most 64"),
    ("held tensor that the model lacks", interface(held={"more": {"shape": [4], "dtype": "float32"}}), BadModelFile,
     "not those of the manifest"),
    ("state that the model lacks", interface(state={"h": CARRIED}), BadModelFile, "not those of the manifest"),
    ("cache that the step never returns", interface(state={"cache": GROWING}, position=True), BadModelFile,
     "not those of the manifest"),
    ("cache without a position", interface(state={"cache": GROWING}), BundleError, "position"),
    ("cache too short for a caption", interface(state={"cache": {**GROWING, "shape": [3, 16]}}, position=True), BundleError,
     "slices"),
    ("state that takes the place of the token", interface(state={"token": CARRIED}), BundleError, "token"),
    ("held tensor of objects", interface(held={"keys": {"shape": [4, 16], "dtype": "object"}}), BundleError, "float32"),
    ("attention over regions that are not there", interface(regions=1 << 40), BundleError, "regions"),
    ("means of another length", section("preprocessing", mean=[127.0]), BundleError, "mean"),
    ("division by zero", section("preprocessing", scale=[128.0, 0.0, 128.0]), BundleError, "scale"),
    ("escape sequences in text", with_manifest(lambda tree: tree.update(created_by="x\x1b[2J")), BundleError, "created_by"),
    ("endless caption", section("decoding", max_tokens=1 << 31), BundleError, "max_tokens"),
    ("beam of thousands", section("decoding", beam=5000), BundleError, "beam"),
    ("unknown kind of tokens", section("tokens", kind="bytes"), BundleError, "tokens.kind"),
    ("base of words", section("tokens", base=768), BundleError, "tokens.base"),
    ("base beyond all words", section("tokens", kind="radix", base=1 << 40, per_word=2), BundleError, "tokens.base"),
    ("radix tokens of one digit", section("tokens", kind="radix", base=768, per_word=1), BundleError, "tokens.per_word"),
    ("radix tokens over scores of words", section("tokens", kind="radix", base=768, per_word=2), BadVocabulary, "does not fit"),
    ("radix tokens too few for the words", section("tokens", kind="radix", base=2, per_word=2), BadVocabulary, "more words"),
    ("end that is never said", section("decoding", suppress=[0, 1, 2, 3]), BundleError, "suppress"),
    ("photo of thousands of pixels", section("preprocessing", size=100_000), BundleError, "size"),
    ("golden captions that are an object", with_files(golden___golden__json=b"{}"), BundleError, "not as expected"),
    ("golden captions with a key twice", with_files(golden___golden__json=b'[{"beam": 1, "beam": 2}]'), BundleError, "twice"),
    ("golden captions with an unknown key", with_files(golden___golden__json=golden(more=1)), BundleError, "not as expected"),
    ("golden caption of no photo", with_files(golden___golden__json=golden(photo="golden/x.png")), BundleError, "not as exp"),
    ("golden caption of a file that is no photo", with_files(golden___golden__json=golden(photo="vocabulary.txt")),
     BundleError, "not as expected"),
    ("golden caption of a list", with_files(golden___golden__json=golden(photo=[PHOTO])), BundleError, "not as expected"),
    ("golden token out of range", with_files(golden___golden__json=golden(tokens=[24])), BundleError, "not as expected"),
    ("golden token that is true", with_files(golden___golden__json=golden(tokens=[True])), BundleError, "not as expected"),
    ("golden caption too long", with_files(golden___golden__json=golden(tokens=[4] * 9, caption="word4 " * 9)), BundleError,
     "not as expected"),
    ("golden caption of other words", with_files(golden___golden__json=golden(caption="\x1b[2J")), BundleError, "not as exp"),
    ("golden beam", with_files(golden___golden__json=golden(beam=10**9)), BundleError, "not as expected"),
]  # fmt: skip
PROOF: list[Entry] = [
    ("changed byte", with_unsealed(lambda files: files.update({"MODEL_CARD.md": b"# A Model\n"})), HashMismatch, "not the one"),
    ("changed size", with_unsealed(lambda files: files.update({"MODEL_CARD.md": b"#"})), HashMismatch, "another size"),
    ("hash of another file", with_manifest(
        lambda tree: tree["files"]["encoder.tflite"].update(sha256=tree["files"]["decoder.tflite"]["sha256"])),
     HashMismatch, "not the one"),
    ("hash in capitals", with_manifest(
        lambda tree: tree["files"]["encoder.tflite"].update(sha256="A" * 64)), BundleError, "sha256"),
    ("hash missing", with_manifest(lambda tree: tree["files"]["encoder.tflite"].pop("sha256")), BundleError, "sha256"),
    ("negative size", with_manifest(
        lambda tree: tree["files"]["encoder.tflite"].update(size_bytes=-1)), BundleError, "size_bytes"),
    ("file missing", with_unsealed(lambda files: files.pop("decoder.tflite")), MissingFile, "decoder.tflite"),
    ("photo missing", with_unsealed(lambda files: files.pop(PHOTO)), MissingFile, PHOTO),
    ("manifest missing", with_unsealed(lambda files: files.pop("manifest.json")), MissingFile, "manifest.json"),
    ("file not listed", with_unsealed(lambda files: files.update({"golden/more.png": b"x"})), MissingFile, "not listed"),
    ("hidden file", with_unsealed(lambda files: files.update({".hidden": b"x"})), MissingFile, "not listed"),
    ("model not listed", with_manifest(lambda tree: tree["files"].pop("encoder.tflite")), BundleError, "encoder.tflite"),
    ("later format", with_manifest(lambda tree: tree.update(schema_version=3)), NewerFormat, "later"),
    ("later format with unknown keys", with_manifest(lambda tree: tree.update(schema_version=9, more=1)), NewerFormat, "later"),
    ("format 0", with_manifest(lambda tree: tree.update(schema_version=0)), BundleError, "schema_version"),
    ("another format", with_manifest(lambda tree: tree.update(format="model-bundle")), BundleError, "format"),
]  # fmt: skip
TOKENS: list[Entry] = [
    ("too many lines", with_files(vocabulary__txt=b"a\n" * 1_000_001), BadVocabulary, "too long"),
    ("token twice", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(9, lines[8]))), BadVocabulary, "twice"),
    ("token missing", with_file("vocabulary.txt", words(lambda lines: lines.pop())), BadVocabulary, "does not fit the model"),
    ("token more", with_file("vocabulary.txt", words(lambda lines: lines.append(b"more\n"))), BadVocabulary, "does not fit"),
    ("no end token", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(2, b"end\n"))), BadVocabulary, "<end>"),
    ("special tokens in another order", with_file("vocabulary.txt", words(lambda lines: lines.insert(0, lines.pop(1)))),
     BadVocabulary, "special token"),
    ("not UTF-8", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(9, b"\xff\n"))), BadVocabulary, "UTF-8"),
    ("escape sequence", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(9, b"\x1b[2J\n"))), BadVocabulary,
     "control"),
    ("text that runs backwards", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(9, "\u202ex\n".encode()))),
     BadVocabulary, "control character"),
    ("carriage return", with_file("vocabulary.txt", lambda text: text.replace(b"\n", b"\r\n")), BadVocabulary, "special token"),
    ("empty token", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(9, b"\n"))), BadVocabulary, "empty"),
    ("token too long", with_file("vocabulary.txt", words(lambda lines: lines.__setitem__(9, b"a" * 101 + b"\n"))),
     BadVocabulary, "longer than"),
    ("no last line feed", with_file("vocabulary.txt", lambda text: text[:-1]), BadVocabulary, "line feed"),
    ("no tokens", with_files(vocabulary__txt=b""), BadVocabulary, "line feed"),
]  # fmt: skip
PHOTOS: list[Entry] = [
    ("photo of four thousand megapixels", with_files(golden___more__png=png(65_535, 65_535)), PhotoError, "another size"),
    ("photo with a side of two thousand million", with_files(golden___more__png=png(1 << 31, 1)), PhotoError, "another size"),
    ("photo of no size", with_files(golden___more__png=png(0, 0)), PhotoError, "another size"),
    ("photo cut off", with_file(PHOTO, lambda photo: photo[: len(photo) // 2]), PhotoError, "cannot be decoded"),
    ("photo with less data than its size", with_files(golden___more__png=png(16, 16)), PhotoError, "cannot be decoded"),
    ("photo whose data is no stream", with_files(golden___more__png=png(16, 16, data=b"nonsense")), PhotoError,
     "cannot be decoded"),
    ("photo with a bomb of text", with_files(golden___more__png=png(
        16, 16, (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27), 9)))), PhotoError, "cannot be decoded"),
    ("empty photo", with_files(golden___more__png=b""), PhotoError, "not a PNG"),
    ("JPEG for a PNG", with_files(golden___more__png=in_format("JPEG")), PhotoError, "not a PNG"),
    ("TIFF for a PNG", with_files(golden___more__png=in_format("TIFF")), PhotoError, "not a PNG"),
    ("PostScript for a PNG", with_files(golden___more__png=b"%!PS-Adobe-3.0 EPSF-3.0\n"), PhotoError, "not a PNG"),
]  # fmt: skip

ATTACKS = tuple(
    Attack(row, name, make, error, says)  # type: ignore[arg-type]
    for row, entries in {1: CODE, 3: NAMES, 4: BOMBS, 5: DOCUMENTS, 12: PROOF, 13: TOKENS, 16: PHOTOS}.items()
    for name, make, error, says in entries
)
