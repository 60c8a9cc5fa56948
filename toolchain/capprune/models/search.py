"""Greedy and beam search over a decoder in torch, many photos at once.

The rules are those of `capprune_runtime.caption.search`, which runs the same search one row at a time on a device. A parity
test compares both. Log-probabilities are summed in float64, without a length penalty.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from capprune.models.devices import precise
from capprune.models.family import Decoder, Tensors
from capprune_runtime.bundle.vocabulary import END, PAD, START, UNKNOWN

SUPPRESSED = (PAD, START, UNKNOWN)  # ids that never occur in a caption


class Captions(NamedTuple):
    """Results of a search for P photos."""

    tokens: list[tuple[int, ...]]  # without `<start>` and `<end>`
    log_probabilities: list[float]  # sum over the tokens and `<end>`


def log_probabilities(scores: Tensor) -> Tensor:
    """Return the log-softmax of raw scores `(B, V)` in float64 (float32 on Apple's GPUs), with suppressed ids at -inf."""
    wide = scores.to(precise(scores.device), copy=True)
    wide[:, list(SUPPRESSED)] = -torch.inf
    return torch.log_softmax(wide, -1)


class Following(Protocol):
    """What a search needs: the probabilities of the next words of many hypotheses.

    Attributes:
        photos: P, number of photos.
        vocabulary: V, number of tokens.
        device: Device of the log-probabilities.
    """

    photos: int
    vocabulary: int
    device: torch.device

    def following(self, token: Tensor, /) -> Tensor:
        """Return the log-probabilities `(B, V)` of the words after the tokens `(B,)`."""
        ...

    def choose(self, rows: Tensor, /) -> None:
        """Continue with these hypotheses `(B,)`, given by index."""
        ...


class Walk:
    """Runs a decoder word by word for many hypotheses: the only loop over `step` outside of training.

    Args:
        decoder: The decoder.
        encoded: Result of its `encode` for P photos.
        copies: Number of hypotheses per photo.
    """

    def __init__(self, decoder: Decoder, encoded: tuple[Tensors, Tensors], copies: int = 1) -> None:
        self._decoder, (self._held, first) = decoder, encoded
        self.photos, self.device, self.vocabulary = photos_of(encoded), device_of(encoded), decoder.vocabulary
        self._state = decoder.begin(first, self.photos * copies)
        self._position = 0

    def step(self, token: Tensor) -> Tensor:
        """Return the raw scores `(B, V)` of the words after the tokens `(B,)`."""
        position = self._decoder.position_at(self._position, token)
        found = self._decoder.step(token, self._state, self._held, position)
        self._state = self._decoder.advance(self._state, found, self._position)
        self._position += 1
        return found.scores

    def following(self, token: Tensor) -> Tensor:
        """Return the log-probabilities `(B, V)` of the words after the tokens `(B,)`; see `log_probabilities`."""
        return log_probabilities(self.step(token))

    def choose(self, rows: Tensor) -> None:
        """Continue with these hypotheses `(B,)`, given by index."""
        self._state = {name: part[rows] for name, part in self._state.items()}


def photos_of(encoded: tuple[Tensors, Tensors]) -> int:
    """Return P, the number of encoded photos."""
    held, first = encoded
    return len(next(iter((*held.values(), *first.values()))))


def device_of(encoded: tuple[Tensors, Tensors]) -> torch.device:
    """Return the device of the encoded photos."""
    held, first = encoded
    return next(iter((*held.values(), *first.values()))).device


@torch.inference_mode()
def greedy(
    decoder: Decoder, encoded: tuple[Tensors, Tensors], max_tokens: int, *, no_repeat_ngram: int = 0
) -> Captions:
    """Take the most likely word at every step, for every photo of `encoded`."""
    return beam(decoder, encoded, max_tokens, 1, no_repeat_ngram=no_repeat_ngram)


@torch.inference_mode()
def beam(
    decoder: Decoder,
    encoded: tuple[Tensors, Tensors],
    max_tokens: int,
    width: int = 3,
    *,
    no_repeat_ngram: int = 0,
) -> Captions:
    """Keep the `width` best hypotheses of every photo; the scores of finished ones are frozen.

    Args:
        decoder: The decoder, in evaluation mode.
        encoded: Result of its `encode` for P photos.
        max_tokens: The longest caption, in tokens.
        width: K, the beam width; 1 is greedy search.
        no_repeat_ngram: Length of the sequences of tokens that a caption holds at most once; 0 for no such limit.
    """
    return search(Walk(decoder, encoded, width), max_tokens, width, no_repeat_ngram=no_repeat_ngram)


@torch.inference_mode()
def search(walk: Following, max_tokens: int, width: int, *, no_repeat_ngram: int = 0) -> Captions:
    """Run a beam search over anything that gives the probabilities of the next words, with `width` hypotheses per photo.

    See `beam` for the other arguments.
    """
    photos, vocabulary, device = walk.photos, walk.vocabulary, walk.device
    total = torch.full((photos, width), -torch.inf, dtype=precise(device), device=device)
    total[:, 0] = 0.0  # the first step expands only one hypothesis
    finished = torch.zeros(photos, width, dtype=torch.bool, device=device)
    words = torch.full((photos, width, max_tokens), END, device=device)
    token = torch.full((photos * width,), START, device=device)
    for t in range(max_tokens):
        following = walk.following(token).view(photos, width, vocabulary)
        if no_repeat_ngram:
            following = _without_repeats(following, words[..., :t], no_repeat_ngram)
        following[finished] = -torch.inf
        following[..., END].masked_fill_(finished, 0.0)  # a finished hypothesis continues unchanged
        total, choice = _best(total.unsqueeze(-1) + following, width)
        parent, token_grid = choice // vocabulary, choice % vocabulary  # (P, K) each
        words = words.gather(1, parent.unsqueeze(-1).expand_as(words))
        words[:, :, t] = token_grid
        finished = finished.gather(1, parent) | (token_grid == END)
        if bool(finished.all()):
            break
        walk.choose((parent + torch.arange(photos, device=device).unsqueeze(1) * width).flatten())
        token = token_grid.flatten()
    ranked = torch.where(finished | ~finished.any(1, keepdim=True), total, -torch.inf)
    best = ranked.argmax(1)
    chosen = words[torch.arange(photos, device=device), best].tolist()
    tokens = [tuple(row[: row.index(END)] if END in row else row) for row in chosen]
    return Captions(tokens, ranked.gather(1, best.unsqueeze(1)).squeeze(1).tolist())


def _without_repeats(following: Tensor, words: Tensor, length: int) -> Tensor:
    """Return log-probabilities `(P, K, V)` without the tokens that would repeat a sequence of `words` `(P, K, t)`.

    A hypothesis with no other token left keeps all.
    """
    count = words.shape[-1]
    last = words[..., count - length + 1 :]
    found = following.clone()
    for start in range(count - length + 1):
        end = start + length - 1
        token = words[..., end : end + 1]
        repeats = (words[..., start:end] == last).all(-1, keepdim=True)
        found.scatter_(-1, token, found.gather(-1, token).masked_fill(repeats, -torch.inf))
    return torch.where(found.amax(-1, keepdim=True) == -torch.inf, following, found)


def _best(candidates: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return scores and flat indices `(P, width)` of the best `(P, K, V)` candidates; ties go to the lower index."""
    left = candidates.flatten(1).clone()
    scores, indices = [], []
    for _ in range(width):  # argmax returns the first of equal values, topk any
        index = left.argmax(1, keepdim=True)
        scores.append(left.gather(1, index))
        indices.append(index)
        left.scatter_(1, index, -torch.inf)
    return torch.cat(scores, 1), torch.cat(indices, 1)
