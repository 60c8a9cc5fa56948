"""Greedy and beam search over a decoder's step, in NumPy.

This is the reference that torch's search equals token by token. Log-probabilities are the log-softmax, in float64, of
the step's float32 scores, with suppressed tokens at minus infinity. There is no length penalty. Where the bundle forbids
repetition, a token that would complete a sequence which the caption already has is skipped; log-probabilities do not
change.

Only tokens that can win get a log-probability. They are found by the largest float32 scores, in buffers that all steps
share. For a small decoder, sorting and copying 2,500 scores costs as much as the step itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.errors import BundleError

# Scores that differ by less than this share of their magnitudes may tie once they are summed in float64: 100 roundings.
_TIE = 100 * float(np.finfo(np.float64).eps)

_FEW = 12  # up to this number, candidates are found one by one

S = TypeVar("S")  # the state of a hypothesis, which the search does not inspect
Watch = Callable[
    [tuple[int, ...]], None
]  # takes the tokens of the best hypothesis so far; an exception from it ends the search


@dataclass(frozen=True)
class StepResult(Generic[S]):
    """The result of one step of the decoder.

    Attributes:
        scores: (V,) float32.
        state: The next state.
        attention: (R,) float32; None if the decoder has no attention.
    """

    scores: NDArray[np.float32]
    state: S
    attention: NDArray[np.float32] | None


class Step(Protocol[S]):
    """One call of a decoder."""

    def __call__(self, token: int, state: S, position: int) -> StepResult[S]:
        """Return the result for a token at a position; `state` is not changed."""
        ...


@dataclass(frozen=True)
class Hypothesis(Generic[S]):
    """A partial or finished caption of the search.

    Args:
        tokens: Token ids of the words, without `<start>` and `<end>`.
        log_probability: Sum over the words, and `<end>` if finished.
        attention: One (R,) for every word, from the step that chose it; None without attention.
        finished: Whether `<end>` was chosen.
        state: Input state of the next step.
    """

    tokens: tuple[int, ...]
    log_probability: float
    attention: tuple[NDArray[np.float32] | None, ...]
    finished: bool
    state: S


def search(
    step: Step[S], start_state: S, decoding: DecodingSection, width: int, watch: Watch | None = None
) -> Hypothesis[S]:
    """Search with a beam of the given width; 1 is greedy search. See `beam`."""
    if width == 1:
        return greedy(step, start_state, decoding, watch)
    return beam(step, start_state, decoding, width, watch)


def greedy(step: Step[S], start_state: S, decoding: DecodingSection, watch: Watch | None = None) -> Hypothesis[S]:
    """Take the best word at every step, the lower id on a tie, until `<end>` or `max_tokens` words.

    Args:
        step: Maps (token, state, position) to scores, next state and attention.
        start_state: The state from the encoder.
        decoding: Token ids and limits; its `beam` is not used.
        watch: Called after every step.

    Raises:
        BundleError: The scores are not finite numbers.
    """
    ranking = _Ranking(decoding)
    hypothesis = _start(start_state)
    while not hypothesis.finished and len(hypothesis.tokens) < decoding.max_tokens:
        result = _step(step, hypothesis, decoding)
        repeated = repeating(hypothesis.tokens, decoding.no_repeat_ngram)
        log_probability, token = max(ranking.best(result.scores, 1, 0.0, repeated), key=_likelier)
        hypothesis = _continued(hypothesis, token, log_probability, result, decoding)
        if watch is not None:
            watch(hypothesis.tokens)
    return hypothesis


def beam(
    step: Step[S], start_state: S, decoding: DecodingSection, width: int, watch: Watch | None = None
) -> Hypothesis[S]:
    """Keep the `width` best hypotheses at every step; the scores of finished ones are frozen.

    Ties go to the lower hypothesis, then to the lower token id. The search ends when all kept hypotheses are finished
    or have `max_tokens` words. A `width` of 1 gives the result of `greedy`.

    Args:
        step: Maps (token, state, position) to scores, next state and attention; called once for each unfinished
            hypothesis.
        start_state: The state from the encoder.
        decoding: Token ids and limits; its `beam` is not used.
        width: K, at least 1.
        watch: Called after every word.

    Returns:
        The best finished hypothesis by summed log-probability, or the best of all if none is finished.

    Raises:
        BundleError: The scores are not finite numbers.
    """
    ranking = _Ranking(decoding)
    hypotheses = [_start(start_state)]
    for _ in range(decoding.max_tokens):
        if all(hypothesis.finished for hypothesis in hypotheses):
            break
        hypotheses = _advance(step, hypotheses, decoding, width, ranking)
        if watch is not None:
            watch(hypotheses[0].tokens)
    finished = [hypothesis for hypothesis in hypotheses if hypothesis.finished]
    return max(finished or hypotheses, key=lambda hypothesis: hypothesis.log_probability)


def repeating(tokens: tuple[int, ...], length: int) -> frozenset[int]:
    """Return the tokens that would complete a sequence of `length` tokens that `tokens` already has; none for 0."""
    if not 0 < length <= len(tokens):
        return frozenset()
    last = tokens[len(tokens) - length + 1 :]
    starts = range(len(tokens) - length + 1)
    return frozenset(tokens[start + length - 1] for start in starts if tokens[start : start + length - 1] == last)


class _Ranking:
    """Ranks the most likely tokens after a step, in buffers that every step of a search shares."""

    def __init__(self, decoding: DecodingSection) -> None:
        self._suppress = np.array(decoding.suppress, np.intp)
        self._make_room(0)

    def _make_room(self, tokens: int) -> None:
        self._allowed = np.empty(tokens, np.float32)  # the scores, with suppressed tokens at minus infinity
        self._wide = np.empty(tokens)

    def best(
        self, scores: NDArray[np.float32], count: int, total: float, repeated: frozenset[int]
    ) -> list[tuple[float, int]]:
        """Return the log-probabilities and ids of the `count` most likely tokens, and of all that tie with the last.

        Tokens in `repeated` are skipped, unless no other token is left.

        Args:
            scores: (V,), not changed.
            count: Number of tokens, at least 1.
            total: Log-probability of the words before, which sets how close scores must be to tie.
            repeated: Tokens that would repeat a sequence.

        Raises:
            BundleError: The scores are not finite numbers.
        """
        if scores.size != self._allowed.size:
            self._make_room(scores.size)
        allowed, wide = self._allowed, self._wide
        allowed[:] = scores
        allowed[self._suppress] = -np.inf
        first = int(allowed.argmax())
        largest = allowed.item(first)
        if not math.isfinite(largest):
            raise BundleError("the decoder gave scores that are not finite numbers", found=largest)
        np.subtract(allowed, largest, out=wide, dtype=np.float64)
        np.exp(wide, out=wide)
        log_sum = math.log(np.add.reduce(wide))
        magnitude = largest + log_sum + abs(total)
        count += len(repeated)
        tokens = self._few(first, count, magnitude) or self._many(scores, count, magnitude)
        if repeated:
            tokens = [token for token in tokens if token not in repeated] or tokens
        return [(scores.item(token) - largest - log_sum, token) for token in tokens]

    def _few(self, token: int, count: int, magnitude: float) -> list[int]:
        """Return ids that may be among the `count` most likely, found one by one; none if there are many."""
        allowed, edge = self._allowed, -math.inf
        tokens: list[int] = []
        for number in range(1, _FEW):
            score = allowed.item(token)
            if score < edge or score == -math.inf:
                return tokens
            tokens.append(token)
            allowed[token] = -math.inf
            if number == count:
                edge = _may_tie(score, magnitude)
            token = int(allowed.argmax())  # ten times as fast as a partition of 2,500 scores
        return []

    def _many(self, scores: NDArray[np.float32], count: int, magnitude: float) -> list[int]:
        """Return the result of `_few`, by a partition."""
        wide = self._wide
        np.copyto(wide, scores)
        wide[self._suppress] = -np.inf
        edge = -math.inf
        if count < wide.size:
            edge = _may_tie(float(np.partition(wide, -count)[-count]), magnitude)
        tokens: list[int] = np.flatnonzero((wide >= edge) & (wide > -np.inf)).tolist()
        return tokens


def _may_tie(score: float, magnitude: float) -> float:
    """Return the lowest score that may tie with another after conversion to log-probabilities and summing."""
    return score - _TIE * (magnitude - score)


def _likelier(candidate: tuple[float, int]) -> tuple[float, int]:
    """Return a sort key of (log-probability, token); on a tie the lower id is better."""
    return candidate[0], -candidate[1]


def _advance(
    step: Step[S], hypotheses: list[Hypothesis[S]], decoding: DecodingSection, width: int, ranking: _Ranking
) -> list[Hypothesis[S]]:
    """Return the `width` best of all continuations, best first."""
    # (-summed log-probability, hypothesis, token, log-probability of the token): this order breaks ties
    candidates: list[tuple[float, int, int, float]] = []
    results: dict[int, StepResult[S]] = {}
    for index, hypothesis in enumerate(hypotheses):
        total = hypothesis.log_probability
        if hypothesis.finished:
            candidates.append((-total, index, decoding.end, 0.0))
            continue
        results[index] = _step(step, hypothesis, decoding)
        repeated = repeating(hypothesis.tokens, decoding.no_repeat_ngram)
        found = ranking.best(results[index].scores, width, total, repeated)
        candidates += [(-(own + total), index, token, own) for own, token in found]
    kept = []
    for _, index, token, own in sorted(candidates)[:width]:
        hypothesis = hypotheses[index]
        if not hypothesis.finished:
            hypothesis = _continued(hypothesis, token, own, results[index], decoding)
        kept.append(hypothesis)
    return kept


def _start(state: S) -> Hypothesis[S]:
    return Hypothesis(tokens=(), log_probability=0.0, attention=(), finished=False, state=state)


def _step(step: Step[S], hypothesis: Hypothesis[S], decoding: DecodingSection) -> StepResult[S]:
    token = hypothesis.tokens[-1] if hypothesis.tokens else decoding.start
    return step(token, hypothesis.state, len(hypothesis.tokens))


def _continued(
    hypothesis: Hypothesis[S], token: int, log_probability: float, result: StepResult[S], decoding: DecodingSection
) -> Hypothesis[S]:
    total = hypothesis.log_probability + log_probability
    if token == decoding.end:
        return Hypothesis(hypothesis.tokens, total, hypothesis.attention, True, result.state)
    attention = (*hypothesis.attention, result.attention)
    return Hypothesis((*hypothesis.tokens, token), total, attention, False, result.state)
