"""A decoder's `step` behind its interface: one word further, for one hypothesis.

The only code that knows which tensors are held, carried or appended; search, proof, timing and quality all step through it.
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
    """What a hypothesis carries from word to word.

    Attributes:
        replaced: The tensors that every step returns anew, by name, each (1, ...).
        appended: For every word so far the slices that its step returned, by name. Hypotheses share the slices of the words
            that they have in common.
    """

    replaced: Arrays
    appended: tuple[Arrays, ...] = ()


class DecoderStep:
    """The `step` of a loaded decoder.

    Args:
        model: The decoder, loaded.
        interface: What its `step` takes and returns.
    """

    def __init__(self, model: Model, interface: StepInterface) -> None:
        self.model, self.interface = model, interface
        self._replaced = tuple(name for name, spec in interface.state.items() if spec.carry == "replace")
        self._appended = tuple(name for name, spec in interface.state.items() if spec.carry == "append")
        self._written: list[Arrays] = []  # the slices that lie in the model's caches now
        if self._appended:
            model.hold({name: _zeros(interface, name) for name in self._appended})

    def look_at(self, encoded: Arrays) -> DecoderState:
        """Set what stays the same for all words of a photo, and return the state before the first word.

        Args:
            encoded: What `encode` returned for the photo, by name.
        """
        self.model.hold({name: encoded[name] for name in self.interface.held})
        first = {name: self._first(name, encoded) for name in self._replaced}
        return DecoderState(first)

    def __call__(self, token: int, state: DecoderState, position: int) -> StepResult[DecoderState]:
        """Run the step once, on the photo that was looked at last.

        Args:
            token: The id of the token before; `<start>` at first.
            state: Of the hypothesis.
            position: Tokens before this one.
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
        """Bring the model's caches to the words of a hypothesis; what they have in common with the last one stays."""
        for position, one in enumerate(slices):
            if position < len(self._written) and self._written[position] is one:
                continue
            for name, array in one.items():
                self.model.write(name, position, array)
            self._written[position:] = [one]


def _zeros(interface: StepInterface, name: str) -> NDArray[np.float32]:
    return np.zeros((1, *interface.state[name].shape), np.float32)
