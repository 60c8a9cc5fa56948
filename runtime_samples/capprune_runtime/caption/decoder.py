"""Run a decoder's `step` through its interface: one word further, for one hypothesis.

Only this module handles held, carried and appended tensors. Search, golden test, timing and quality measurement all use
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.interface import ATTENTION, POSITION, SCORES, TOKEN, StepInterface
from capprune_runtime.caption.interpreter import Model
from capprune_runtime.caption.search import StepResult

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class DecoderState:
    """The state that a hypothesis carries from word to word.

    Attributes:
        replaced: Tensors that every step returns whole, by name, each (1, ...).
        appended: For every word so far, the slices that its step returned, by name. Hypotheses share the slices of
            common words.
    """

    replaced: Arrays
    appended: tuple[Arrays, ...] = ()


class DecoderStep:
    """The `step` of a loaded decoder.

    Args:
        model: The loaded decoder.
        interface: Inputs and outputs of its `step`.
    """

    def __init__(self, model: Model, interface: StepInterface) -> None:
        self.model, self.interface = model, interface
        self._replaced = tuple(name for name, spec in interface.state.items() if spec.carry == "replace")
        self._appended = tuple(name for name, spec in interface.state.items() if spec.carry == "append")
        self._written: list[Arrays] = []  # the slices currently in the model's caches
        if self._appended:
            model.hold({name: _zeros(interface, name) for name in self._appended})

    def look_at(self, encoded: Arrays) -> DecoderState:
        """Set the tensors that are constant for a photo, and return the state before the first word.

        Args:
            encoded: Outputs of `encode` for the photo, by name.
        """
        self.model.hold({name: encoded[name] for name in self.interface.held})
        first = {name: self._first(name, encoded) for name in self._replaced}
        return DecoderState(first)

    def __call__(self, token: int, state: DecoderState, position: int) -> StepResult[DecoderState]:
        """Run the step once, for the photo of the last `look_at`.

        Args:
            token: Id of the previous token; `<start>` for the first word.
            state: State of the hypothesis.
            position: Number of tokens before this one.
        """
        self._write(state.appended)
        words = {TOKEN: np.array([token], np.int32)}
        if self.interface.position:
            words[POSITION] = np.array([position], np.int32)
        outputs = self.model.run({**words, **state.replaced})
        replaced = {name: outputs[name] for name in self._replaced}
        appended = (*state.appended, {name: outputs[name][0] for name in self._appended}) if self._appended else ()
        attention = None if self.interface.regions is None else outputs[ATTENTION][0]
        return StepResult(outputs[SCORES][0], DecoderState(replaced, appended), attention)

    def _first(self, name: str, encoded: Arrays) -> NDArray[Any]:
        return encoded[name] if self.interface.state[name].first == "encode" else _zeros(self.interface, name)

    def _write(self, slices: tuple[Arrays, ...]) -> None:
        """Write the slices of a hypothesis to the model's caches, except those that are already there."""
        for position, one in enumerate(slices):
            if position < len(self._written) and self._written[position] is one:
                continue
            for name, array in one.items():
                self.model.write(name, position, array)
            self._written[position:] = [one]


def _zeros(interface: StepInterface, name: str) -> NDArray[np.float32]:
    return np.zeros((1, *interface.state[name].shape), np.float32)
