"""The part of the reference code's config.json that determines the content of an Up-Down checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from capprune.importing.sentencepiece_words import SpecialIds
from capprune_runtime import strict_json
from capprune_runtime.errors import BundleError

MAX_CONFIG_BYTES: Final = 1 << 20
FAMILIES: Final = ("up_down_lstm", "up_down_lstm_prune")  # dense, and with masks

_UNITS: Final = (1, 16_384)  # units of a layer
_SIZES: Final[Mapping[str, tuple[int, int]]] = {
    "vocab_size": (5, 1 << 18),
    "input_encoding_size": _UNITS,
    "rnn_size": _UNITS,
    "att_hid_size": _UNITS,
    "att_feat_size": _UNITS,
    "fc_feat_size": _UNITS,
    "max_seq_length": (2, 100),
}
_BEAM: Final = (1, 100)
_BEAM_OF_TESTS: Final = 2  # if the config has no value


@dataclass(frozen=True)
class ReferenceConfig:
    """The settings of a checkpoint.

    Attributes:
        vocabulary: V, number of tokens.
        embedding: E, size of a word vector.
        hidden: H, units of each LSTM; also the size of an embedded region.
        attention: A, units of the attention.
        features: F, channels of a region.
        max_tokens: T, tokens after which generation ends.
        beam: K, hypotheses in the authors' test.
        dropout: Share of values dropped in training.
        special: Ids of the tokens that are not words.
        name: The authors' name of the run; may be empty.
    """

    vocabulary: int
    embedding: int
    hidden: int
    attention: int
    features: int
    max_tokens: int
    beam: int
    dropout: float
    special: SpecialIds
    name: str


def read_config(data: bytes, where: str) -> ReferenceConfig:
    """Read a config.

    Args:
        data: The file config.json.
        where: Its name, for messages.

    Raises:
        BundleError: It is not JSON, a key is missing or invalid, or it describes a model that cannot be imported.
    """
    try:
        tree = strict_json.parse(data)
    except BundleError as error:
        error.where = where if error.where is None else f"{where}, {error.where}"
        raise
    if not isinstance(tree, dict):
        raise BundleError("the config is not a JSON object", where=where, found=type(tree).__name__)
    _check_family(tree, where)
    sizes = {key: _number(tree, key, limits, where) for key, limits in _SIZES.items()}
    if sizes["fc_feat_size"] != sizes["att_feat_size"]:
        raise BundleError(
            "the photo's vector is not the mean of its regions",
            where=f"{where}, fc_feat_size",
            expected=f"att_feat_size, {sizes['att_feat_size']}",
            found=sizes["fc_feat_size"],
        )
    ids = (0, sizes["vocab_size"] - 1)
    special = SpecialIds(**{name: _number(tree, f"{name}_token_id", ids, where) for name in _SPECIAL})
    return ReferenceConfig(
        vocabulary=sizes["vocab_size"],
        embedding=sizes["input_encoding_size"],
        hidden=sizes["rnn_size"],
        attention=sizes["att_hid_size"],
        features=sizes["att_feat_size"],
        max_tokens=sizes["max_seq_length"],
        beam=_number(tree, "beam_size_test", _BEAM, where, default=_BEAM_OF_TESTS),
        dropout=_share(tree, "drop_prob_lm", where),
        special=special,
        name=tree["id"][:200] if isinstance(tree.get("id"), str) else "",
    )


_SPECIAL: Final = ("pad", "unk", "bos", "eos")
_ONLY: Final = {"logit_layers": 1, "use_bn": 0}  # if the key exists


def _check_family(tree: Mapping[str, Any], where: str) -> None:
    """Raise an error for models that differ in more than their sizes."""
    family = _text(tree, "caption_model", where)
    if family not in FAMILIES:
        raise BundleError(
            "checkpoints of this model cannot be imported",
            where=f"{where}, caption_model",
            expected=" or ".join(FAMILIES),
            found=ascii(family[:80]),
        )
    tokenizer = _text(tree, "tokenizer", where)
    if tokenizer != "word":
        raise BundleError(
            "checkpoints with this tokenizer cannot be imported",
            where=f"{where}, tokenizer",
            expected="word",
            found=ascii(tokenizer[:80]),
        )
    for key, value in _ONLY.items():
        if key in tree and (type(tree[key]) is not int or tree[key] != value):
            raise BundleError(
                "the model has a layer that is not read",
                where=f"{where}, {key}",
                expected=value,
                found=ascii(tree[key])[:80],
            )


def _text(tree: Mapping[str, Any], key: str, where: str) -> str:
    value = _needed(tree, key, where)
    if not isinstance(value, str):
        raise _impossible(key, "text", value, where)
    return value


def _number(
    tree: Mapping[str, Any], key: str, limits: tuple[int, int], where: str, *, default: int | None = None
) -> int:
    low, high = limits
    value = tree.get(key, default) if default is not None else _needed(tree, key, where)
    if type(value) is not int or not low <= value <= high:  # type(), because true is an int
        raise _impossible(key, f"a whole number from {low:,} to {high:,}", value, where)
    return value


def _share(tree: Mapping[str, Any], key: str, where: str) -> float:
    value = _needed(tree, key, where)
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise _impossible(key, "a number from 0 to below 1", value, where)
    return float(value)


def _needed(tree: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in tree:
        raise BundleError("the config lacks a key", where=where, expected=key, hint="take the config.json of this run")
    return tree[key]


def _impossible(key: str, expected: str, value: Any, where: str) -> BundleError:
    return BundleError(
        "the config has an invalid value", where=f"{where}, {key}", expected=expected, found=ascii(value)[:80]
    )
