"""Several decoders as one: their probabilities are averaged at every word.

The members may differ in family, size, features and seed, but have one vocabulary. Each keeps its own state. A member's
scores become probabilities before they are averaged, so that members with large scores do not outweigh the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from capprune.models.family import Decoder, Tensors
from capprune.models.search import Captions, Walk, search

Encoded = tuple[Tensors, Tensors]  # result of a decoder's `encode`


def mean_probabilities(parts: Iterable[Tensor]) -> Tensor:
    """Return the logarithm of the mean of several distributions, given as log-probabilities of one shape.

    One distribution is returned unchanged. Two tensors are in memory at a time.
    """
    total, count = None, 0
    for part in parts:
        total, count = part if total is None else torch.logaddexp(total, part), count + 1
    if total is None:
        raise ValueError("a mean needs at least one distribution")
    return total if count == 1 else total - math.log(count)


class EnsembleWalk:
    """Runs several decoders word by word for the same hypotheses.

    Args:
        decoders: At least one decoder, all with the same vocabulary.
        encoded: For each decoder the result of its `encode` for the same P photos.
        copies: Number of hypotheses per photo.
    """

    def __init__(self, decoders: Sequence[Decoder], encoded: Sequence[Encoded], copies: int = 1) -> None:
        self._walks = [Walk(decoder, own, copies) for decoder, own in zip(decoders, encoded, strict=True)]
        first = self._walks[0]
        self.photos, self.device, self.vocabulary = first.photos, first.device, first.vocabulary

    def following(self, token: Tensor) -> Tensor:
        """Return the logarithms `(B, V)` of the mean probabilities of the words after the tokens `(B,)`."""
        return mean_probabilities(walk.following(token) for walk in self._walks)

    def choose(self, rows: Tensor) -> None:
        """Continue with these hypotheses `(B,)`, given by index."""
        for walk in self._walks:
            walk.choose(rows)


@torch.inference_mode()
def ensemble_beam(
    decoders: Sequence[Decoder],
    encoded: Sequence[Encoded],
    max_tokens: int,
    width: int = 3,
    *,
    no_repeat_ngram: int = 0,
) -> Captions:
    """Search with the mean probabilities of several decoders; see `capprune.models.search.beam`.

    Args:
        decoders: The decoders, in evaluation mode.
        encoded: For each decoder the result of its `encode` for the same P photos.
        max_tokens: The longest caption, in tokens.
        width: K, the beam width; 1 is greedy search.
        no_repeat_ngram: Length of the sequences of tokens that a caption holds at most once; 0 for no such limit.
    """
    return search(EnsembleWalk(decoders, encoded, width), max_tokens, width, no_repeat_ngram=no_repeat_ngram)
