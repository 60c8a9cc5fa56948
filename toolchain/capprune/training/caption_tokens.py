"""The tokens of a run's captions, chosen from its training captions or taken from another run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capprune.config.data import DataConfig
from capprune.config.reading import load_config
from capprune.config.run import RunConfig
from capprune.data.subwords import Subwords, train_subwords
from capprune.data.vocabulary import CaptionTokens, build_vocabulary
from capprune.data.words import words
from capprune.training.run import CONFIG, SUBWORDS, VOCABULARY
from capprune_runtime.bundle.vocabulary import UNKNOWN, read_vocabulary
from capprune_runtime.errors import BundleError, ConfigError, MissingFile, UsageError

LARGEST_CUT = 0.2  # share of captions that `data.maximum_tokens` may cut where tokens are parts of words


def caption_tokens(config: RunConfig, captions: Sequence[str]) -> CaptionTokens:
    """Choose the tokens of a run.

    Args:
        config: The run's config.
        captions: The training captions.

    Raises:
        ConfigError: Most captions are longer than `data.maximum_tokens`, or radix tokens cannot number the words.
        DataError: The captions hold no frequent word, or too many different characters.
        MissingFile: The run with the tokens has no sentencepiece model.
        UsageError: The run with the vocabulary does not exist.
        MissingExtra: sentencepiece is needed and not installed.
    """
    data = config.data
    if data.vocabulary is not None:
        _require_same_kind(data, data.vocabulary)
    if data.tokens == "subwords":
        subwords = _subwords(config, captions)
        tokens = CaptionTokens(subwords.vocabulary, subwords)
    elif data.vocabulary is not None:
        tokens = CaptionTokens(read_vocabulary(data.vocabulary / VOCABULARY, data.coding))
    else:
        tokens = CaptionTokens(build_vocabulary(captions, minimum_count=data.minimum_count, coding=data.coding))
    if data.tokens in ("characters", "subwords"):
        _require_room(tokens, captions, data.maximum_tokens)
    return tokens


def token_notes(tokens: CaptionTokens, captions: Sequence[str], data: DataConfig) -> tuple[str, ...]:
    """Return lines about the parts of the training captions that no model can generate: rare words and cut captions."""
    notes = []
    kind = tokens.vocabulary.coding.kind
    if kind in ("words", "radix"):
        different = {word for caption in captions for word in words(caption)}
        rare = sum(tokens.vocabulary.id(word) == UNKNOWN for word in different)
        if rare:
            why = f"occur fewer than data.minimum_count={data.minimum_count} times in the training captions"
            if data.vocabulary is not None:
                why = f"of the training captions are not in the vocabulary of {data.vocabulary}"
            notes.append(f"{rare:,} of {len(different):,} different words {why} and become <unk>")
    cut = sum(len(tokens.encode(caption, sys.maxsize)) > data.steps for caption in captions)
    if cut:
        notes.append(
            f"{cut:,} of {len(captions):,} training captions are longer than data.maximum_tokens={data.maximum_tokens} "
            "and are cut"
        )
    return tuple(notes)


def _subwords(config: RunConfig, captions: Sequence[str]) -> Subwords:
    owner = config.data.vocabulary or config.start
    if owner is None:
        return train_subwords(captions, pieces=config.data.subword_pieces, kind=config.data.subword_model)
    path = owner / SUBWORDS
    try:
        return Subwords(path.read_bytes())
    except FileNotFoundError:
        raise MissingFile(
            "this run keeps no sentencepiece model",
            where=path,
            hint="start from a run of data.tokens=subwords",
        ) from None
    except OSError as error:
        raise BundleError("a sentencepiece model cannot be read", where=path, found=error.strerror) from error


def _require_same_kind(data: DataConfig, owner: Path) -> None:
    """Check that the run with the vocabulary exists and has tokens of the same kind."""
    if not (owner / CONFIG).is_file():
        raise UsageError("there is no such run", where=f"data.vocabulary={owner}", expected=f"a folder with {CONFIG}")
    other = load_config(owner / CONFIG).data.coding
    if other != data.coding:
        raise ConfigError(
            "the run with the vocabulary has tokens of another kind",
            where=f"data.vocabulary={owner}",
            expected=data.coding.kind,
            found=other.kind,
            hint=f"data.tokens={other.kind}",
        )


def _require_room(tokens: CaptionTokens, captions: Sequence[str], longest: int) -> None:
    lengths = np.array([len(tokens.encode(caption, sys.maxsize)) for caption in captions])
    cut = float((lengths > longest).mean())
    if cut > LARGEST_CUT:
        enough = int(np.quantile(lengths, 0.99))
        raise ConfigError(
            "most captions are longer than the longest that is generated",
            where="data.maximum_tokens",
            expected=f"at most {LARGEST_CUT:.0%} of the training captions cut",
            found=f"{cut:.0%} cut after {longest} {tokens.vocabulary.coding.kind}",
            hint=f"data.maximum_tokens={enough} holds 99 % of them",
        )
