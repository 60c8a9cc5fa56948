"""An Up-Down model and the reference code's search in plain NumPy, on the tensors of a checkpoint as they are named there.

Written from the description of the model, without torch and without the package's own decoder: what both compute can be compared.
Sizes: N regions, F channels, H hidden, A attention, E embedding, V vocabulary, K beam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class State(NamedTuple):
    """Of both LSTMs, each (H,)."""

    h_attention: Array
    c_attention: Array
    h_language: Array
    c_language: Array


class Photo(NamedTuple):
    """What is computed once per photo."""

    whole: Array  # (H,), from the mean of the regions
    values: Array  # (N, H)
    keys: Array  # (N, A)
    present: Array  # (N,), 1 for a region and 0 for a filler


@dataclass(frozen=True)
class Caption:
    """A finished caption: ids without `<bos>`, `<eos>` included where it was chosen."""

    tokens: tuple[int, ...]
    log_probability: float


@dataclass(frozen=True)
class NumpyUpDown:
    """The model. Every number is float32, as in the reference code."""

    tensors: Mapping[str, Array]

    @property
    def hidden(self) -> int:
        return self.tensors["core.lang_lstm.weight_hh"].shape[1]

    def first_state(self) -> State:
        return State(*(np.zeros(self.hidden, np.float32) for _ in range(4)))

    def encode(self, regions: Array, fillers: int = 0) -> Photo:
        """Regions (N, F), with as many rows of zeros behind them as fillers."""
        mean = regions.mean(0)
        whole = relu(self._linear("fc_embed.0", mean))
        values = relu(self._linear("att_embed.0", regions))
        values = np.concatenate([values, np.zeros((fillers, values.shape[1]), np.float32)])
        present = np.repeat(np.float32([1, 0]), [len(regions), fillers])
        return Photo(whole, values, self._linear("ctx2att", values), present)

    def step(self, token: int, state: State, photo: Photo) -> tuple[Array, State, Array]:
        """Scores (V,), the new state, attention (N,)."""
        word = relu(self.tensors["embed.0.weight"][token])
        read = np.concatenate([state.h_language, photo.whole, word])
        h_attention, c_attention = self._cell("core.att_lstm", read, state.h_attention, state.c_attention)
        attention = self._attend(h_attention, photo)
        read = np.concatenate([attention @ photo.values, h_attention])
        h_language, c_language = self._cell("core.lang_lstm", read, state.h_language, state.c_language)
        return self._linear("logit", h_language), State(h_attention, c_attention, h_language, c_language), attention

    def search(self, photo: Photo, *, beam: int, bos: int, eos: int, max_tokens: int) -> list[Caption]:
        """The reference code's beam search, best caption first.

        A finished hypothesis is put aside and gives its place to a live one. Nothing is suppressed, and log-probabilities are
        not divided by the length. A beam of 1 is greedy search.
        """
        scores, state, _ = self.step(bos, self.first_state(), photo)
        live = [(Caption((), 0.0), log_softmax(scores), state)]
        done: list[Caption] = []
        for place in range(max_tokens):
            candidates = [
                (hypothesis.log_probability + float(scores[token]), row, int(token))
                for row, (hypothesis, scores, _) in enumerate(live)
                for token in np.argsort(-scores, kind="stable")[: beam + 1]  # one of them may end the caption
            ]
            candidates.sort(key=lambda one: (-one[0], one[1], one[2]))
            following = []
            for total, row, token in candidates[:beam]:
                caption = Caption((*live[row][0].tokens, token), total)
                if token == eos or place == max_tokens - 1:
                    done.append(caption)
                    continue
                scores, state, _ = self.step(token, live[row][2], photo)
                following.append((caption, log_softmax(scores), state))
            live = following
            if not live:
                break
        return sorted(done, key=lambda caption: -caption.log_probability)

    def _attend(self, h: Array, photo: Photo) -> Array:
        bent = np.tanh(photo.keys + self._linear("core.attention.h2att", h))
        scores = self._linear("core.attention.alpha_net", bent)[:, 0]
        weights = np.exp(scores - scores.max())
        weights = weights / weights.sum() * photo.present
        return weights / weights.sum()

    def _cell(self, name: str, read: Array, h: Array, c: Array) -> tuple[Array, Array]:
        tensors = self.tensors
        gates = tensors[f"{name}.weight_ih"] @ read + tensors[f"{name}.bias_ih"]
        gates = gates + tensors[f"{name}.weight_hh"] @ h + tensors[f"{name}.bias_hh"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]


def relu(x: Array) -> Array:
    return np.maximum(x, np.float32(0))


def sigmoid(x: Array) -> Array:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def log_softmax(x: Array) -> Array:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
