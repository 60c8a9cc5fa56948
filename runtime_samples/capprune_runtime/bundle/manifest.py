"""A bundle's manifest.json: the model, its inputs and outputs, and the hash of every other file.

Reading is strict: an unknown, missing or repeated key, a wrong type or a value out of range is an error that
names the key. Only this module defines the bundle's file names. docs/bundle_format.md is the specification.
Manifests of schema 1, which supported one decoder family, are converted to schema 2 by
`capprune_runtime.bundle.schema1`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from capprune_runtime import strict_json
from capprune_runtime.bundle.interface import StepInterface
from capprune_runtime.bundle.preprocessing import PreprocessingSection, RegionsSection
from capprune_runtime.bundle.sections import read_section
from capprune_runtime.bundle.tokens import WORDS, TokensSection
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.errors import BundleError, NewerFormat, UsageError
from capprune_runtime.formats import FORMATS, Format, Signature, model_files

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.txt"
MODEL_CARD = "MODEL_CARD.md"
QUALITY = "quality.json"
PLAN = "plan.json"
GOLDEN_FOLDER = "golden"
GOLDEN = "golden/golden.json"
GOLDEN_PHOTO = re.compile(r"golden/[a-z0-9][a-z0-9_-]{0,63}\.png")

ENCODER, DECODER = FORMATS["tflite"].files  # a bundle holds two model files of one kind

OPTIONAL_FILES = (GOLDEN, MODEL_CARD, PLAN, QUALITY)

FORMAT = "capprune-bundle"
SCHEMA_VERSION = 2
ENCODE_SIGNATURE = "encode"
STEP_SIGNATURE = "step"
MAX_MANIFEST_BYTES = 1_000_000
MAX_BEAM = 100
MAX_NO_REPEAT = 8  # tokens
NO_REPEAT = "no_repeat_ngram"
MAX_SIZES = 64

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelSection:
    """The decoder's architecture, for people and tools; its inputs and outputs are in `decoder.interface`.

    Attributes:
        family: Name of the decoder family.
        description: The family in a few words.
        sizes: Widths, layers and heads, by name.
    """

    family: str
    description: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class DecodingSection:
    """Settings of the search: token ids, the longest caption in tokens, the default beam width.

    `no_repeat_ngram` is the length of the sequences of tokens that a caption holds at most once; 0 for no such limit.
    """

    start: int
    end: int
    suppress: tuple[int, ...]
    max_tokens: int
    beam: int
    no_repeat_ngram: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the section as it is written: without a limit on repetition if there is none."""
        tree = dataclasses.asdict(self)
        return tree if self.no_repeat_ngram else {key: tree[key] for key in tree if key != NO_REPEAT}


@dataclass(frozen=True)
class EncoderSection:
    """The encoder's file and the name of its call; in TFLite, of its signature."""

    file: str = ENCODER
    signature: str = ENCODE_SIGNATURE


@dataclass(frozen=True)
class DecoderSection:
    """The decoder's file, the name of its call, and that call's inputs and outputs."""

    interface: StepInterface
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
    """Storage format of each model's weights, as the exporter names it."""

    encoder: str
    decoder: str


@dataclass(frozen=True)
class DataSection:
    """The training data and its licence."""

    name: str
    licence: str


@dataclass(frozen=True)
class FileEntry:
    """Size and hash of one file of the bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The whole manifest.json. `config` is the resolved training config; `files` lists every other file.

    Raises:
        BundleError: A value is out of range, or two values contradict each other; `where` names the key.
    """

    created_by: str
    model: ModelSection
    preprocessing: PreprocessingSection | RegionsSection
    decoding: DecodingSection
    tokens: TokensSection
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

    @property
    def interface(self) -> StepInterface:
        """The inputs and outputs of `step`."""
        return self.decoder.interface

    @property
    def format(self) -> Format:
        """The format of the model files."""
        return next(one for one in FORMATS.values() if one.encoder == self.encoder.file)

    @property
    def photo_size(self) -> int:
        """S, the side of the squashed photo in pixels.

        Raises:
            UsageError: The model takes region features instead of photos.
        """
        if isinstance(self.preprocessing, RegionsSection):
            raise UsageError(
                "this model takes features of regions, not photos",
                expected=f"a folder of .npy files, each (regions, {self.preprocessing.channels}) float32",
            )
        return self.preprocessing.size

    def encode_inputs(self) -> Signature:
        """Return the required inputs of `encode`: shape and type of every input."""
        return self.preprocessing.encode_inputs()

    def described(self) -> dict[str, Any]:
        """Return the required content of a .tflite file's metadata about the bundle."""
        return described(self.preprocessing, self.decoding, self.tokens)

    def as_json(self) -> dict[str, Any]:
        """Return the content of manifest.json; `parse_manifest` reads it back."""
        tree = {**dataclasses.asdict(self), "decoding": self.decoding.as_json()}
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **tree}


def described(
    preprocessing: PreprocessingSection | RegionsSection, decoding: DecodingSection, tokens: TokensSection
) -> dict[str, Any]:
    """Return the metadata of a .tflite: how to feed the model and how to interpret its output.

    Plain word tokens are not mentioned.
    """
    coding = {} if tokens == WORDS else {"tokens": dataclasses.asdict(tokens)}
    return {"preprocessing": preprocessing.described(), "decoding": decoding.as_json(), **coding}


def parse_manifest(text: str | bytes, where: object) -> Manifest:
    """Parse the content of a manifest.json.

    Args:
        text: The content; bytes must be UTF-8.
        where: The file's name, for messages.

    Raises:
        NewerFormat: It was written by a later capprune.
        BundleError: It breaks a rule.
    """
    try:
        tree = strict_json.parse(text)
        version = _check_version(tree)
        body = {key: tree[key] for key in tree if key not in ("format", "schema_version")}
        if version == 1:
            from capprune_runtime.bundle.schema1 import lifted

            body = lifted(body)
        if isinstance(decoding := body.get("decoding"), dict):
            body["decoding"] = _with_repetition(decoding)
        return read_section(Manifest, body, "")
    except BundleError as error:
        error.where = str(where) if error.where is None else f"{where}, {error.where}"
        raise


def allowed(name: str) -> bool:
    """Return whether a bundle may hold a file of this name, besides the manifest."""
    return name in {*model_files(), VOCABULARY, *OPTIONAL_FILES} or GOLDEN_PHOTO.fullmatch(name) is not None


def _with_repetition(decoding: dict[str, Any]) -> dict[str, Any]:
    """Return the section with the limit on repetition, which is left out where there is none."""
    if NO_REPEAT not in decoding:
        return {**decoding, NO_REPEAT: 0}
    if decoding[NO_REPEAT] == 0:
        raise BundleError(
            "a value of the manifest is not allowed",
            where=f"decoding.{NO_REPEAT}",
            expected=f"1 to {MAX_NO_REPEAT}, or no such key",
            found=decoding[NO_REPEAT],
        )
    return decoding


def _check_version(tree: Any) -> int:
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
    return version


def _rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    """Yield (key, whether the rule holds, what is expected) for the sections that name no file."""
    return [
        ("created_by", _is_text(manifest.created_by), "1 to 200 printable characters"),
        ("data.name", _is_text(manifest.data.name), "1 to 200 printable characters"),
        ("data.licence", _is_text(manifest.data.licence), "1 to 200 printable characters"),
        *_model_rules(manifest.model),
        *((f"preprocessing.{key}", holds, expected) for key, holds, expected in manifest.preprocessing.rules()),
        *_interface_rules(manifest),
        *_decoding_rules(manifest.decoding, manifest.interface.vocabulary),
        *((f"tokens.{key}", holds, expected) for key, holds, expected in manifest.tokens.rules()),
        *_pruning_rules(manifest.pruning),
        ("quantisation.encoder", _is_name(manifest.quantisation.encoder), "a name in a-z, 0-9, _"),
        ("quantisation.decoder", _is_name(manifest.quantisation.decoder), "a name in a-z, 0-9, _"),
        *_model_file_rules(manifest),
        ("encoder.signature", manifest.encoder.signature == ENCODE_SIGNATURE, ENCODE_SIGNATURE),
        ("decoder.signature", manifest.decoder.signature == STEP_SIGNATURE, STEP_SIGNATURE),
        *_file_rules(manifest),
    ]


def _model_rules(model: ModelSection) -> list[tuple[str, bool, str]]:
    sizes = model.sizes.items()
    return [
        ("model.family", _is_name(model.family), "a name in a-z, 0-9, _"),
        ("model.description", _is_text(model.description), "1 to 200 printable characters"),
        ("model.sizes", len(sizes) <= MAX_SIZES, f"at most {MAX_SIZES} entries"),
        *((f"model.sizes[{name[:80]!a}]", _is_name(name), "a name in a-z, 0-9, _") for name, _ in sizes),
        *((f"model.sizes[{name[:80]!a}]", 0 <= size <= 1 << 31, "0 to 2^31") for name, size in sizes),
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
        (f"decoding.{NO_REPEAT}", 0 <= decoding.no_repeat_ngram <= MAX_NO_REPEAT, f"0 to {MAX_NO_REPEAT}"),
    ]


def _pruning_rules(pruning: PruningSection) -> list[tuple[str, bool, str]]:
    kept, prunable = pruning.kept_weights, pruning.prunable_weights
    counted = 1 - kept / prunable if 0 <= kept <= prunable and prunable > 0 else 0.0  # huge counts cannot be divided
    return [
        ("pruning.method", _is_name(pruning.method), "a name in a-z, 0-9, _"),
        ("pruning.sparsity", 0 <= pruning.sparsity <= 1, "0 to 1"),
        ("pruning.prunable_weights", 0 <= prunable <= 1 << 40, "0 to 2^40"),
        ("pruning.kept_weights", 0 <= kept <= prunable, "0 to pruning.prunable_weights"),
        # the exporter may round the printed value, but no more
        ("pruning.sparsity", abs(pruning.sparsity - counted) <= 1e-3, f"{counted:.6f}, as the counts give"),
    ]


def _interface_rules(manifest: Manifest) -> Iterator[tuple[str, bool, str]]:
    rules = manifest.interface.rules(manifest.decoding.max_tokens)
    yield from ((f"decoder.interface.{key}", holds, expected) for key, holds, expected in rules)


def _model_file_rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    encoders = dict(one.files for one in FORMATS.values())
    decoder = encoders.get(manifest.encoder.file)
    return [
        ("encoder.file", decoder is not None, " or ".join(encoders)),
        ("decoder.file", manifest.decoder.file == decoder, f"{decoder}, of the same kind as the encoder"),
    ]


def _file_rules(manifest: Manifest) -> list[tuple[str, bool, str]]:
    models = {manifest.encoder.file, manifest.decoder.file}
    others = {*model_files()} - models
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
