"""A bundle's manifest.json: what the model is, how to feed it, and the hash of every other file.

Reading is strict: an unknown, missing or repeated key, a wrong type or a value out of range is an error that
names the key. The one place that knows the bundle's file names. docs/bundle_format.md is the specification.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from capprune_runtime import strict_json
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.errors import BundleError, NewerFormat
from capprune_runtime.formats import FORMATS

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.txt"
MODEL_CARD = "MODEL_CARD.md"
QUALITY = "quality.json"
PLAN = "plan.json"
GOLDEN_FOLDER = "golden"
GOLDEN = "golden/golden.json"
GOLDEN_PHOTO = re.compile(r"golden/[a-z0-9][a-z0-9_-]{0,63}\.png")

# (encoder, decoder) by the kind of model file; a bundle holds the two of one kind.
MODEL_FILES = {kind: (one.encoder, one.decoder) for kind, one in FORMATS.items()}
ENCODER, DECODER = MODEL_FILES["tflite"]

OPTIONAL_FILES = (GOLDEN, MODEL_CARD, PLAN, QUALITY)

FORMAT = "capprune-bundle"
SCHEMA_VERSION = 1
RESIZE = "squash-triangle-q15"
ENCODE_SIGNATURE = "encode"
STEP_SIGNATURE = "step"
MAX_MANIFEST_BYTES = 1_000_000
MAX_BEAM = 100

_STATES = {"lstm": ("h", "c"), "gru": ("h",)}
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelSection:
    """The decoder's kind and sizes: E embedding, H hidden, A attention, C context, R regions, V vocabulary."""

    family: str
    cell: str
    embedding: int
    hidden: int
    attention: int
    context: int
    regions: int
    vocabulary: int


@dataclass(frozen=True)
class PreprocessingSection:
    """How a photo becomes the encoder's input: squashed to `size` pixels a side, then (x - mean) / scale."""

    size: int
    resize: str = RESIZE
    mean: int = 127
    scale: int = 128


@dataclass(frozen=True)
class DecodingSection:
    """How captions are searched: token ids, the most words of a caption, the beam's default width."""

    start: int
    end: int
    suppress: tuple[int, ...]
    max_tokens: int
    beam: int


@dataclass(frozen=True)
class EncoderSection:
    """The encoder's file and the name of its call, in TFLite its signature."""

    file: str = ENCODER
    signature: str = ENCODE_SIGNATURE


@dataclass(frozen=True)
class DecoderSection:
    """The decoder's file, the name of its call, and the state that goes from step to step."""

    state: tuple[str, ...]
    file: str = DECODER
    signature: str = STEP_SIGNATURE


@dataclass(frozen=True)
class PruningSection:
    """How the model was pruned: `sparsity` (0 to 1) is the share of prunable weights that are zero."""

    method: str
    sparsity: float
    kept_weights: int
    prunable_weights: int


@dataclass(frozen=True)
class QuantisationSection:
    """How the weights of each model are stored, as the exporter names it."""

    encoder: str
    decoder: str


@dataclass(frozen=True)
class DataSection:
    """What the model was trained on, and under which licence."""

    name: str
    licence: str


@dataclass(frozen=True)
class FileEntry:
    """What one file of the bundle must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json. `config` is the resolved training config, `files` every file but this one.

    Raises:
        BundleError: A value is out of range, or two values contradict each other; `where` is the key.
    """

    created_by: str
    model: ModelSection
    preprocessing: PreprocessingSection
    decoding: DecodingSection
    encoder: EncoderSection
    decoder: DecoderSection
    pruning: PruningSection
    quantisation: QuantisationSection
    data: DataSection
    config: Mapping[str, Any]
    files: Mapping[str, FileEntry]

    def __post_init__(self) -> None:
        for key, holds, expected in _rules(self):
            if not holds:
                raise BundleError("a value of the manifest is not allowed", where=key, expected=expected)

    def as_json(self) -> dict[str, Any]:
        """The content of manifest.json; `parse_manifest` reads it back."""
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}


def parse_manifest(text: str | bytes, where: object) -> Manifest:
    """Read the content of a manifest.json.

    Args:
        text: In UTF-8 where it comes as bytes.
        where: The file's name, for messages.

    Raises:
        NewerFormat: It was written by a later capprune.
        BundleError: It breaks a rule.
    """
    try:
        tree = strict_json.parse(text)
        _check_version(tree)
        return _read(Manifest, {key: tree[key] for key in tree if key not in ("format", "schema_version")}, "")
    except BundleError as error:
        error.where = str(where) if error.where is None else f"{where}, {error.where}"
        raise


def allowed(name: str) -> bool:
    """Whether a bundle may hold a file of this name, beside the manifest."""
    models = {file for files in MODEL_FILES.values() for file in files}
    return name in {*models, VOCABULARY, *OPTIONAL_FILES} or GOLDEN_PHOTO.fullmatch(name) is not None


def _check_version(tree: Any) -> None:
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise BundleError("a file is not the manifest of a bundle", expected=f'"format": "{FORMAT}"')
    version = tree.get("schema_version")
    if type(version) is not int or version < 1:
        raise BundleError(
            "a value of the manifest is not allowed", where="schema_version", expected="a whole number from 1"
        )
    if version > SCHEMA_VERSION:
        raise NewerFormat(
            "the bundle was written by a later capprune",
            where="schema_version",
            expected=f"at most {SCHEMA_VERSION}",
            found=version,
            hint="pip install --upgrade capprune",
        )


_Section = TypeVar("_Section")


def _read(section: type[_Section], tree: Any, where: str) -> _Section:
    """Build one frozen dataclass from a JSON object that has exactly its keys."""
    types = get_type_hints(section)
    if not isinstance(tree, dict):
        raise BundleError("a key of the manifest has the wrong type", where=where or None, expected="an object")
    prefix = f"{where}." if where else ""
    if unknown := sorted(tree.keys() - types.keys()):
        raise BundleError(
            "the manifest has an unknown key", where=prefix + ascii(unknown[0][:80]), expected=", ".join(types)
        )
    if missing := sorted(types.keys() - tree.keys()):
        raise BundleError("the manifest lacks a key", where=prefix + missing[0])
    return section(**{key: _value(kind, tree[key], prefix + key) for key, kind in types.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read(kind, value, where)
    if kind == Mapping[str, FileEntry]:
        _require_type(value, dict, "an object", where)
        return {name: _read(FileEntry, entry, f"{where}[{name[:80]!a}]") for name, entry in value.items()}
    if kind == Mapping[str, Any]:
        return _require_type(value, dict, "an object", where)
    if kind == tuple[int, ...] or kind == tuple[str, ...]:
        item, name = (int, "whole number") if kind == tuple[int, ...] else (str, "string")
        items = _require_type(value, list, "a list", where)
        return tuple(_require_type(each, item, f"a {name}", f"{where}[{n}]") for n, each in enumerate(items))
    if kind is float:
        whole = type(value) is int and value in (0, 1)  # and not true, which equals 1
        return float(value) if whole else _require_type(value, float, "a number", where)
    return _require_type(value, kind, "a whole number" if kind is int else "a string", where)


def _require_type(value: Any, kind: type, expected: str, where: str) -> Any:
    if type(value) is not kind:  # not isinstance: true and false are no numbers here
        raise BundleError(
            "a key of the manifest has the wrong type", where=where, expected=expected, found=type(value).__name__
        )
    return value


def _rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    """(key, whether it holds, what is expected), over the sections that name no file."""
    return [
        ("created_by", _is_text(manifest.created_by), "1 to 200 printable characters"),
        ("data.name", _is_text(manifest.data.name), "1 to 200 printable characters"),
        ("data.licence", _is_text(manifest.data.licence), "1 to 200 printable characters"),
        *_model_rules(manifest.model),
        *_preprocessing_rules(manifest.preprocessing),
        *_decoding_rules(manifest.decoding, manifest.model.vocabulary),
        *_pruning_rules(manifest.pruning),
        ("quantisation.encoder", _is_name(manifest.quantisation.encoder), "a name in a-z, 0-9, _"),
        ("quantisation.decoder", _is_name(manifest.quantisation.decoder), "a name in a-z, 0-9, _"),
        *_model_file_rules(manifest),
        ("encoder.signature", manifest.encoder.signature == ENCODE_SIGNATURE, ENCODE_SIGNATURE),
        ("decoder.signature", manifest.decoder.signature == STEP_SIGNATURE, STEP_SIGNATURE),
        *_state_rules(manifest),
        *_file_rules(manifest),
    ]


def _model_rules(model: ModelSection) -> list[tuple[str, bool, str]]:
    sizes = ("embedding", "hidden", "attention", "context", "regions")
    return [
        ("model.family", model.family == "soft_attention", "soft_attention"),
        ("model.cell", model.cell in _STATES, " or ".join(_STATES)),
        *((f"model.{name}", 1 <= getattr(model, name) <= 65_536, "1 to 65536") for name in sizes),
        ("model.vocabulary", 5 <= model.vocabulary <= 1_000_000, "5 to 1000000"),
    ]


def _preprocessing_rules(preprocessing: PreprocessingSection) -> list[tuple[str, bool, str]]:
    return [
        ("preprocessing.size", 8 <= preprocessing.size <= 2048, "8 to 2048"),
        ("preprocessing.resize", preprocessing.resize == RESIZE, RESIZE),
        ("preprocessing.mean", preprocessing.mean == 127, "127"),
        ("preprocessing.scale", preprocessing.scale == 128, "128"),
    ]


def _decoding_rules(decoding: DecodingSection, vocabulary: int) -> list[tuple[str, bool, str]]:
    ids = decoding.suppress
    fits = all(0 <= number < vocabulary for number in ids) and list(ids) == sorted(set(ids))
    return [
        ("decoding.start", decoding.start == START, str(START)),
        ("decoding.end", decoding.end == END, str(END)),
        ("decoding.suppress", fits, "token ids of the vocabulary, rising"),
        ("decoding.suppress", decoding.end not in ids, "that the end token is not suppressed"),
        ("decoding.max_tokens", 1 <= decoding.max_tokens <= 1000, "1 to 1000"),
        ("decoding.beam", 1 <= decoding.beam <= MAX_BEAM, f"1 to {MAX_BEAM}"),
    ]


def _pruning_rules(pruning: PruningSection) -> list[tuple[str, bool, str]]:
    kept, prunable = pruning.kept_weights, pruning.prunable_weights
    counted = 1 - kept / prunable if prunable > 0 else 0.0
    return [
        ("pruning.method", _is_name(pruning.method), "a name in a-z, 0-9, _"),
        ("pruning.sparsity", 0 <= pruning.sparsity <= 1, "0 to 1"),
        ("pruning.prunable_weights", 0 <= prunable <= 1 << 40, "0 to 2^40"),
        ("pruning.kept_weights", 0 <= kept <= prunable, "0 to pruning.prunable_weights"),
        # the exporter may round what it prints, not more
        ("pruning.sparsity", abs(pruning.sparsity - counted) <= 1e-3, f"{counted:.6f}, as the counts give"),
    ]


def _state_rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    state = _STATES.get(manifest.model.cell)
    return [("decoder.state", manifest.decoder.state == state, f"the state of the cell, {state}")]


def _model_file_rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    encoders = dict(MODEL_FILES.values())
    decoder = encoders.get(manifest.encoder.file)
    return [
        ("encoder.file", decoder is not None, " or ".join(encoders)),
        ("decoder.file", manifest.decoder.file == decoder, f"{decoder}, of the same kind as the encoder"),
    ]


def _file_rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    models = {manifest.encoder.file, manifest.decoder.file}
    others = {file for files in MODEL_FILES.values() for file in files} - models
    needed = [manifest.encoder.file, manifest.decoder.file, VOCABULARY]
    rules: list[tuple[str, bool, str]] = [("files", name in manifest.files, f"an entry for {name}") for name in needed]
    for name, entry in manifest.files.items():
        known = allowed(name) and name not in others
        rules.append((f"files[{name[:80]!a}]", known, "a file name of the bundle format"))
        rules.append((f"files[{name[:80]!a}].sha256", _SHA256.fullmatch(entry.sha256) is not None, "64 hex digits"))
        rules.append((f"files[{name[:80]!a}].size_bytes", 0 <= entry.size_bytes <= 1 << 31, "0 to 2^31"))
    return rules


def _is_text(value: str) -> bool:
    return 1 <= len(value) <= 200 and value.isprintable()


def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None
