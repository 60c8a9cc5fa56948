"""Conversion of manifests of schema 1, written by capprune 0.1, to schema 2.

Schema 1 supported one encoder and one family: soft attention over a grid with an LSTM or a GRU. Its rules are as strict
as in capprune 0.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capprune_runtime.bundle.interface import VOCABULARY_SIZES, StateSpec, StepInterface, TensorSpec
from capprune_runtime.bundle.sections import read_section
from capprune_runtime.bundle.tokens import WORDS
from capprune_runtime.errors import BundleError

_STATES = {"lstm": ("h", "c"), "gru": ("h",)}
_SIZES = ("embedding", "hidden", "attention", "context", "regions")
_MEAN, _SCALE = 127, 128


@dataclass(frozen=True)
class _Model:
    family: str
    cell: str
    embedding: int
    hidden: int
    attention: int
    context: int
    regions: int
    vocabulary: int


@dataclass(frozen=True)
class _Preprocessing:
    size: int
    resize: str
    mean: int
    scale: int


@dataclass(frozen=True)
class _Decoder:
    state: tuple[str, ...]
    file: str
    signature: str


def lifted(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema-1 manifest converted to schema 2.

    Args:
        tree: The parsed manifest, without `format` and `schema_version`.

    Raises:
        BundleError: A converted key is missing, unknown, of another type or out of range; `where` names it.
    """
    if "tokens" in tree:
        raise BundleError("the manifest has an unknown key", where="'tokens'", expected="keys of schema 1")
    made = {**tree, "tokens": dataclasses.asdict(WORDS)}
    if "model" in tree and "decoder" in tree:  # the reader of schema 2 reports missing sections
        model = read_section(_Model, tree["model"], "model")
        decoder = read_section(_Decoder, tree["decoder"], "decoder")
        _check(model, decoder)
        cell = model.cell.upper()
        sizes = {name: getattr(model, name) for name in _SIZES}
        description = f"{cell} with soft attention over {model.regions} regions"
        made["model"] = {"family": model.family, "description": description, "sizes": sizes}
        interface = _as_json(soft_attention_interface(model))
        made["decoder"] = {"file": decoder.file, "signature": decoder.signature, "interface": interface}
    if "preprocessing" in tree:
        made["preprocessing"] = _preprocessing(tree["preprocessing"])
    return made


def _preprocessing(tree: Any) -> dict[str, Any]:
    """Return the preprocessing section converted to schema 2; raises the errors of `lifted`."""
    found = read_section(_Preprocessing, tree, "preprocessing")
    for key, value, expected in (("mean", found.mean, _MEAN), ("scale", found.scale, _SCALE)):
        if value != expected:
            raise _refused(f"preprocessing.{key}", str(expected))
    mean, scale = [float(_MEAN)] * 3, [float(_SCALE)] * 3
    return {"input": "photo", "size": found.size, "resize": found.resize, "mean": mean, "scale": scale}


def soft_attention_interface(model: _Model) -> StepInterface:
    """Return the interface of the one family that schema 1 supported."""
    return StepInterface(
        vocabulary=model.vocabulary,
        held={
            "keys": TensorSpec((model.regions, model.attention)),
            "values": TensorSpec((model.regions, model.context)),
        },
        state={name: StateSpec((model.hidden,)) for name in _STATES[model.cell]},
        regions=model.regions,
    )


def _check(model: _Model, decoder: _Decoder) -> None:
    if model.family != "soft_attention":
        raise _refused("model.family", "soft_attention")
    if model.cell not in _STATES:
        raise _refused("model.cell", " or ".join(_STATES))
    for name in _SIZES:
        if not 1 <= getattr(model, name) <= 65_536:
            raise _refused(f"model.{name}", "1 to 65536")
    if model.vocabulary not in VOCABULARY_SIZES:
        raise _refused("model.vocabulary", f"{VOCABULARY_SIZES.start} to {VOCABULARY_SIZES.stop - 1}")
    if decoder.state != _STATES[model.cell]:
        raise _refused("decoder.state", f"the state of the cell, {_STATES[model.cell]}")


def _as_json(interface: StepInterface) -> dict[str, Any]:
    """Return an interface with lists instead of tuples, as JSON has it."""
    tree = dataclasses.asdict(interface)
    for kind in ("held", "state"):
        tree[kind] = {name: {**spec, "shape": list(spec["shape"])} for name, spec in tree[kind].items()}
    return tree


def _refused(where: str, expected: str) -> BundleError:
    return BundleError("a value of the manifest is not allowed", where=where, expected=expected)
