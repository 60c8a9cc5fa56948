"""Greedy and beam search over a decoder's step, in NumPy.

The definition that torch's search equals token by token: log-probabilities are the log-softmax, in float64,
of the step's float32 scores with the suppressed tokens at minus infinity. No length penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.errors import BundleError

S = TypeVar("S")  # the state of a hypothesis, which the search hands on without a look
Watch = Callable[
    [tuple[int, ...]], None
]  # takes the tokens of the best hypothesis so far; what it raises ends the search


@dataclass(frozen=True)
class StepResult(Generic[S]):
    """What one step of the decoder returns.

    Attributes:
        scores: (V,) float32.
        state: The next state.
        attention: (R,) float32; None where the decoder has no attention to show.
    """

    scores: NDArray[np.float32]
    state: S
    attention: NDArray[np.float32] | None


class Step(Protocol[S]):
    """One call of a decoder."""

    def __call__(self, token: int, state: S, position: int) -> StepResult[S]:
        """Return what follows a token at a position; `state` is left as it is."""
        ...


@dataclass(frozen=True)
class Hypothesis(Generic[S]):
    """A caption in the making.

    Args:
        tokens: Ids of the words, without `<start>` and `<end>`.
        log_probability: Sum over the words, and over `<end>` once finished.
        attention: One (R,) for every word, at the step that chose it; None without attention.
        finished: Whether `<end>` was chosen.
        state: What the next step starts from.
    """

    tokens: tuple[int, ...]
    log_probability: float
    attention: tuple[NDArray[np.float32] | None, ...]
    finished: bool
    state: S


def search(
    step: Step[S], start_state: S, decoding: DecodingSection, width: int, watch: Watch | None = None
) -> Hypothesis[S]:
    """Search with a beam of that width; 1 is greedy search. See `beam`."""
    if width == 1:
        return greedy(step, start_state, decoding, watch)
    return beam(step, start_state, decoding, width, watch)


def greedy(step: Step[S], start_state: S, decoding: DecodingSection, watch: Watch | None = None) -> Hypothesis[S]:
    """Take the best word at every step, the lower id on a tie, until `<end>` or `max_tokens` words.

    Args:
        step: (token, state, position) to scores, next state, attention.
        start_state: The state the encoder gave.
        decoding: Token ids and limits; its `beam` is not used.
        watch: Called after every step.

    Raises:
        BundleError: The scores are not finite numbers.
    """
    hypothesis = _start(start_state)
    while not hypothesis.finished and len(hypothesis.tokens) < decoding.max_tokens:
        result, log_probabilities = _continuations(step, hypothesis, decoding)
        token = int(log_probabilities.argmax())
        hypothesis = _continued(hypothesis, token, float(log_probabilities[token]), result, decoding)
        if watch is not None:
            watch(hypothesis.tokens)
    return hypothesis


def beam(
    step: Step[S], start_state: S, decoding: DecodingSection, width: int, watch: Watch | None = None
) -> Hypothesis[S]:
    """Keep the `width` best hypotheses at every step; finished ones stay with their score frozen.

    Ties go to the lower hypothesis, then to the lower token id. Ends when all that are kept are finished or
    `max_tokens` words were chosen. `width` 1 gives what `greedy` gives.

    Args:
        step: (token, state, position) to scores, next state, attention; called once for each unfinished hypothesis.
        start_state: The state the encoder gave.
        decoding: Token ids and limits; its `beam` is not used.
        width: K, at least 1.
        watch: Called after every word.

    Returns:
        The best finished hypothesis by summed log-probability, or the best of all when none is finished.

    Raises:
        BundleError: The scores are not finite numbers.
    """
    hypotheses = [_start(start_state)]
    for _ in range(decoding.max_tokens):
        if all(hypothesis.finished for hypothesis in hypotheses):
            break
        hypotheses = _advance(step, hypotheses, decoding, width)
        if watch is not None:
            watch(hypotheses[0].tokens)
    finished = [hypothesis for hypothesis in hypotheses if hypothesis.finished]
    return max(finished or hypotheses, key=lambda hypothesis: hypothesis.log_probability)


def _advance(
    step: Step[S], hypotheses: list[Hypothesis[S]], decoding: DecodingSection, width: int
) -> list[Hypothesis[S]]:
    """The `width` best of all continuations, best first."""
    candidates: list[tuple[float, int, int]] = []  # (-log-probability, hypothesis, token): sorts as ties demand
    results: dict[int, tuple[StepResult[S], NDArray[np.float64]]] = {}
    for index, hypothesis in enumerate(hypotheses):
        if hypothesis.finished:
            candidates.append((-hypothesis.log_probability, index, decoding.end))
            continue
        results[index] = _continuations(step, hypothesis, decoding)
        sums = results[index][1] + hypothesis.log_probability
        candidates += [(-float(sums[token]), index, int(token)) for token in _best(sums, width)]
    kept = []
    for _, index, token in sorted(candidates)[:width]:
        hypothesis = hypotheses[index]
        if not hypothesis.finished:
            result, log_probabilities = results[index]
            hypothesis = _continued(hypothesis, token, float(log_probabilities[token]), result, decoding)
        kept.append(hypothesis)
    return kept


def _best(sums: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The tokens of at least the `count` largest sums, all that tie with the last included; none at -inf."""
    threshold = np.partition(sums, -count)[-count] if count < sums.size else -np.inf
    return np.flatnonzero((sums >= threshold) & (sums > -np.inf))


def _start(state: S) -> Hypothesis[S]:
    return Hypothesis(tokens=(), log_probability=0.0, attention=(), finished=False, state=state)


def _continuations(
    step: Step[S], hypothesis: Hypothesis[S], decoding: DecodingSection
) -> tuple[StepResult[S], NDArray[np.float64]]:
    """One step, and the log-probability (V,) of every next token."""
    token = hypothesis.tokens[-1] if hypothesis.tokens else decoding.start
    result = step(token, hypothesis.state, len(hypothesis.tokens))
    scores = result.scores.astype(np.float64)
    scores[list(decoding.suppress)] = -np.inf
    largest = scores.max()
    if not np.isfinite(largest):
        raise BundleError("the decoder gave scores that are not finite numbers", found=largest)
    shifted = scores - largest
    return result, shifted - np.log(np.exp(shifted).sum())


def _continued(
    hypothesis: Hypothesis[S], token: int, log_probability: float, result: StepResult[S], decoding: DecodingSection
) -> Hypothesis[S]:
    total = hypothesis.log_probability + log_probability
    if token == decoding.end:
        return Hypothesis(hypothesis.tokens, total, hypothesis.attention, True, result.state)
    attention = (*hypothesis.attention, result.attention)
    return Hypothesis((*hypothesis.tokens, token), total, attention, False, result.state)
