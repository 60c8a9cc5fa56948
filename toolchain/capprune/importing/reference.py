"""Up-Down checkpoints of the reference code: weights, tokenizer and config, checked against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from capprune.importing.files import CONFIG, WORD_MODEL, Files, find_files
from capprune.importing.reference_config import MAX_CONFIG_BYTES, ReferenceConfig, read_config
from capprune.importing.sentencepiece_words import MAX_MODEL_BYTES, SpecialIds, WordModel, read_word_model
from capprune.importing.tensors import MAX_FILE_BYTES, MAX_NUMBERS, StoredTensor, read_tensors
from capprune_runtime.errors import BadModelFile, BadVocabulary, BundleError, MissingFile

GATES: Final = "_pruning_mask"  # suffix of a gate's name, in checkpoints that are not pruned yet


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """An Up-Down checkpoint with the names and the token order of the reference code.

    Attributes:
        weights_file: Location of the weights.
        config: Sizes, limits and special ids.
        tokens: In the order of their ids.
        tensors: By name, float32, dense, with zeros for pruned weights.
        kept: For each matrix, by name, which weights are not zero.
    """

    weights_file: str
    config: ReferenceConfig
    tokens: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]

    @property
    def special(self) -> SpecialIds:
        """Ids of the tokens that are not words."""
        return self.config.special

    @property
    def weights(self) -> int:
        """Number of weights in all matrices, zeros included."""
        return sum(mask.numel() for mask in self.kept.values())

    @property
    def kept_weights(self) -> int:
        """Number of weights that are not zero."""
        return sum(int(mask.sum()) for mask in self.kept.values())


def up_down_shapes(config: ReferenceConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of an Up-Down checkpoint by its name, matrices and biases."""
    V, E, H, A, F = config.vocabulary, config.embedding, config.hidden, config.attention, config.features
    matrices = {
        "embed.0": (V, E),
        "fc_embed.0": (H, F),
        "att_embed.0": (H, F),
        "ctx2att": (A, H),
        "core.attention.h2att": (A, H),
        "core.attention.alpha_net": (1, A),
        "logit": (V, H),
    }
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in matrices.items() if name != "embed.0"}
    for name, inputs in (("core.att_lstm", H + H + E), ("core.lang_lstm", H + H)):
        shapes |= {f"{name}.weight_ih": (4 * H, inputs), f"{name}.weight_hh": (4 * H, H)}
        shapes |= {f"{name}.bias_ih": (4 * H,), f"{name}.bias_hh": (4 * H,)}
    return shapes


def read_reference(path: Path) -> ReferenceCheckpoint:
    """Read a checkpoint without executing anything in it.

    Args:
        path: The `.pth`, with config.json and tokenizer/ next to it; their folder; or the `.zip` archive of them.

    Raises:
        UsageError: There is no such file, or several could be the weights.
        MissingFile: The config, the tokenizer or the weights are missing.
        BadVocabulary: The tokenizer is of another kind, or does not fit the config.
        BundleError: A file is broken or unsafe, or the tensors do not fit the config.
    """
    found = find_files(path)
    files, place = found.files, found.files.place(found.weights)
    stored = read_tensors(files.read(found.weights, MAX_FILE_BYTES), place)
    config = read_config(_beside(files, CONFIG, MAX_CONFIG_BYTES), files.place(CONFIG))
    words = read_word_model(_beside(files, WORD_MODEL, MAX_MODEL_BYTES), files.place(WORD_MODEL))
    _check_tokens(words, config, files)
    _check_shapes(stored, up_down_shapes(config), place)
    tensors = {name: torch.from_numpy(stored[name].dense()) for name in up_down_shapes(config)}
    kept = {name: tensor != 0 for name, tensor in tensors.items() if tensor.ndim == 2}
    return ReferenceCheckpoint(place, config, words.tokens, tensors, kept)


def _beside(files: Files, name: str, cap_bytes: int) -> bytes:
    try:
        return files.read(name, cap_bytes)
    except MissingFile:
        raise MissingFile(
            f"the checkpoint's {name} is missing",
            where=files.place(name),
            hint=f"put the {name} of the same run there: weights alone do not define words and sizes",
        ) from None


def _check_tokens(words: WordModel, config: ReferenceConfig, files: Files) -> None:
    if len(words.tokens) != config.vocabulary:
        raise BadVocabulary(
            "the number of the tokenizer's pieces differs from the config",
            where=files.place(WORD_MODEL),
            expected=f"{config.vocabulary:,}, vocab_size of {CONFIG}",
            found=f"{len(words.tokens):,}",
            hint="take config and tokenizer of the same run",
        )
    if words.special != config.special:
        raise BadVocabulary(
            "the tokenizer's special tokens differ from the config",
            where=files.place(WORD_MODEL),
            expected=config.special,
            found=words.special,
        )


def _check_shapes(stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise an error for missing, surplus and mis-shaped tensors, before any of them is expanded."""
    gates = [name for name in stored if name.endswith(GATES)]
    if gates:
        raise BundleError(
            "this checkpoint holds gates besides its weights",
            where=where,
            expected="pruned weights only",
            found=f"{len(gates)} gates, the first {gates[0][:80]!a}",
            hint="import model_best_pruned_sparse.pth or model_best_pruned.pth of the same run",
        )
    missing, surplus = [*shapes.keys() - stored.keys()], [*stored.keys() - shapes.keys()]
    if missing or surplus:
        raise BadModelFile(
            "the tensors are not those of an Up-Down model",
            where=where,
            expected=f"{len(shapes)} tensors" + (f"; missing: {_first(missing)}" if missing else ""),
            found=f"{len(stored)} tensors" + (f"; unknown: {_first(surplus)}" if surplus else ""),
        )
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise BadModelFile(
                "a tensor does not fit the config",
                where=stored[name].where,
                expected=f"{_times(shape)}, by {CONFIG}",
                found=_times(stored[name].shape),
            )
    numbers = sum(math.prod(shape) for shape in shapes.values())
    if numbers > MAX_NUMBERS:
        raise BadModelFile(
            "the model is too large", where=where, expected=f"at most {MAX_NUMBERS:,} numbers", found=f"{numbers:,}"
        )


def _first(names: list[str]) -> str:
    some = ", ".join(ascii(name[:80])[1:-1] for name in sorted(names)[:3])
    return f"{some}, …" if len(names) > 3 else some


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
