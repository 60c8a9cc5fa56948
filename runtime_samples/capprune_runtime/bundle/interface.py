"""The interface of a decoder: the tensors that `encode` returns, and those that `step` takes and returns.

A step generates one word. It takes the previous token, the *held* tensors and the *state*. Held tensors are set once
per photo; every hypothesis of a search has its own state. The step returns a score for each token and the new state.

    family                   held                                   state
    LSTM, soft attention     keys (R, A), values (R, C)             h (H), c (H)
    LSTM, no attention       -                                      h (H), c (H)
    two LSTMs (Up-Down)      keys (R, A), values (R, C), …          h1 (H), c1 (H), h2 (H), c2 (H)
    transformer              keys and values of the encoder         cached keys and values (T, …), appended

Manifest, verifier, captioner and exporters use this description, and do not depend on a family. The idea of describing
inputs, outputs and state as data follows `genai_config.json` of onnxruntime-genai.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from capprune_runtime.errors import BundleError
from capprune_runtime.formats import NEXT, Signature

TOKEN, POSITION, SCORES, ATTENTION = "token", "position", "scores", "attention"
MAX_TENSORS = 64  # held and state together
MAX_STATE_BYTES = 64 << 20  # of all tensors of one hypothesis; the same limit holds for all held tensors
MAX_RANK = 3  # the kernels support four dimensions, one of which is the batch
MAX_DIMENSION = 1 << 16
VOCABULARY_SIZES = range(5, 1_000_001)

FIRST = ("encode", "zeros")
CARRY = ("replace", "append")

_RESERVED = (TOKEN, POSITION, SCORES, ATTENTION)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ITEM_BYTES = {"float32": 4}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that is constant for all words of a photo.

    Attributes:
        shape: Shape without the leading batch dimension of 1.
        dtype: NumPy type.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class StateSpec:
    """A float32 tensor that is passed from step to step.

    Attributes:
        shape: Shape of the step's input, without the leading batch dimension of 1. With `append` the first dimension
            counts words.
        first: Source of the first value: returned by `encode`, or all `zeros`.
        carry: `replace`: the step returns the whole new tensor. `append`: it returns one new slice along the first
            dimension, which the host writes into its copy at the position of the word.
    """

    shape: tuple[int, ...]
    first: Literal["encode", "zeros"] = "encode"
    carry: Literal["replace", "append"] = "replace"

    @property
    def returned(self) -> tuple[int, ...]:
        """Return the shape of the step's output, without the leading batch dimension."""
        return self.shape[1:] if self.carry == "append" else self.shape


@dataclass(frozen=True)
class StepInterface:
    """The tensors of `encode` and `step`.

    Attributes:
        vocabulary: V, the number of scores.
        held: Set once per photo, by name; `encode` returns them.
        state: One copy per hypothesis, by name.
        regions: R if the step returns its attention over R regions of the photo; None if it returns no attention.
        position: Whether the step takes the position of the word, from 0.
    """

    vocabulary: int
    held: Mapping[str, TensorSpec] = field(default_factory=dict)
    state: Mapping[str, StateSpec] = field(default_factory=dict)
    regions: int | None = None
    position: bool = False

    @property
    def state_bytes(self) -> int:
        """Size of the state of one hypothesis, in bytes."""
        return sum(4 * prod(spec.shape) for spec in self.state.values())

    @property
    def held_bytes(self) -> int:
        """Size of the held tensors of one photo, in bytes."""
        return sum(_ITEM_BYTES.get(spec.dtype, 8) * prod(spec.shape) for spec in self.held.values())

    @property
    def attended(self) -> int:
        """Number of elements of all held tensors, which a step reads."""
        return sum(prod(spec.shape) for spec in self.held.values())

    def encode_outputs(self) -> Signature:
        """Return the required outputs of `encode`."""
        held = {name: ((1, *spec.shape), spec.dtype) for name, spec in self.held.items()}
        first = {name: ((1, *s.shape), "float32") for name, s in self.state.items() if s.first == "encode"}
        return {**held, **first}

    def step_inputs(self) -> Signature:
        """Return the required inputs of `step`."""
        words = {TOKEN: ((1,), "int32")} | ({POSITION: ((1,), "int32")} if self.position else {})
        state = {name: ((1, *spec.shape), "float32") for name, spec in self.state.items()}
        held = {name: ((1, *spec.shape), spec.dtype) for name, spec in self.held.items()}
        return {**words, **state, **held}

    def step_outputs(self) -> Signature:
        """Return the required outputs of `step`, by their TFLite names."""
        state = {name: ((1, *spec.returned), "float32") for name, spec in self.state.items()}
        seen = {} if self.regions is None else {ATTENTION: ((1, self.regions), "float32")}
        return {SCORES: ((1, self.vocabulary), "float32"), **state, **seen}

    def rules(self, max_tokens: int) -> Iterator[tuple[str, bool, str]]:
        """Yield (key, whether the rule holds, what is expected) for every rule of docs/bundle_format.md.

        Args:
            max_tokens: Longest caption, in tokens; an appended state must have room for it.
        """
        count = len(self.held) + len(self.state)
        appended = any(spec.carry == "append" for spec in self.state.values())
        sizes = VOCABULARY_SIZES
        yield "vocabulary", self.vocabulary in sizes, f"{sizes.start} to {sizes.stop - 1}"
        yield "state", count <= MAX_TENSORS, f"at most {MAX_TENSORS} tensors, `held` included"
        yield "regions", self.regions is None or 1 <= self.regions <= MAX_DIMENSION, f"1 to {MAX_DIMENSION}, or null"
        yield "position", self.position or not appended, "true, as a state is appended"
        for name, held in self.held.items():
            yield from _tensor_rules(f"held[{name[:80]!a}]", name, held.shape)
            yield f"held[{name[:80]!a}].dtype", held.dtype in _ITEM_BYTES, " or ".join(_ITEM_BYTES)
        for name, state in self.state.items():
            key = f"state[{name[:80]!a}]"
            yield key, name not in self.held, "a name that `held` does not have"
            yield from _tensor_rules(key, name, state.shape)
            yield f"{key}.first", state.first in FIRST, " or ".join(FIRST)
            yield f"{key}.carry", state.carry in CARRY, " or ".join(CARRY)
            if state.carry == "append":
                yield f"{key}.first", state.first == "zeros", "zeros, as it is appended"
                room = len(state.shape) >= 2 and state.shape[0] >= max_tokens
                yield f"{key}.shape", room, f"at least {max_tokens} slices, as decoding.max_tokens asks for"
        # last, because the sizes are bounded by the rules above
        yield "state", self.state_bytes <= MAX_STATE_BYTES, f"at most {MAX_STATE_BYTES} bytes in all"
        yield "held", self.held_bytes <= MAX_STATE_BYTES, f"at most {MAX_STATE_BYTES} bytes in all"

    def check(self, where: str, max_tokens: int) -> None:
        """Raise an error for the first rule that does not hold.

        Raises:
            BundleError: A rule is broken; `where` names the key.
        """
        for key, holds, expected in self.rules(max_tokens):
            if not holds:
                raise BundleError("a value of the manifest is not allowed", where=f"{where}.{key}", expected=expected)


def _tensor_rules(key: str, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, bool, str]]:
    named = _NAME.fullmatch(name) is not None and name not in _RESERVED and not name.startswith(NEXT)
    yield key, named, f"a name in a-z, 0-9, _, not {', '.join(_RESERVED)} and not beginning with {NEXT}"
    fits = 1 <= len(shape) <= MAX_RANK and all(1 <= size <= MAX_DIMENSION for size in shape)
    yield f"{key}.shape", fits, f"1 to {MAX_RANK} sizes of 1 to {MAX_DIMENSION}"
