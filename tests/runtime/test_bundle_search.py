"""Greedy and beam search against a brute force written from the definition, on random toy decoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.caption.search import Hypothesis, StepResult, beam, greedy
from capprune_runtime.errors import BundleError

REGIONS = 3
State = Mapping[str, NDArray[Any]]


def decoding(max_tokens: int = 6, suppress: tuple[int, ...] = (0, 1, 3), no_repeat: int = 0) -> DecodingSection:
    return DecodingSection(start=1, end=2, suppress=suppress, max_tokens=max_tokens, beam=3, no_repeat_ngram=no_repeat)


class ToyDecoder:
    """A small random recurrent scorer whose scores may be coarse, so that ties are common."""

    def __init__(self, seed: int, words: int, *, coarse: bool, end_bias: float = 0.0) -> None:
        generator = np.random.default_rng(seed)
        self.recurrent = generator.normal(size=(4, 4)).astype(np.float32)
        self.embedding = generator.normal(size=(words, 4)).astype(np.float32)
        self.output = (2 * generator.normal(size=(words, 4))).astype(np.float32)
        self.bias = np.zeros(words, np.float32)
        self.bias[2] = end_bias
        self.coarse = coarse

    def __call__(self, token: int, state: State, position: int) -> StepResult[State]:
        h = np.tanh(self.recurrent @ state["h"] + self.embedding[token] + position / 8).astype(np.float32)
        scores = self.output @ h + self.bias
        if self.coarse:
            scores = np.round(scores)
        attention = np.full(REGIONS, token, np.float32) + h[:REGIONS]
        return StepResult(scores.astype(np.float32), {"h": h}, attention)


START = {"h": np.zeros(4, np.float32)}


def log_probabilities(scores: NDArray[np.float32], suppress: tuple[int, ...]) -> list[float]:
    """The definition, in float64 throughout, so that sums which tie by it tie to the bit."""
    values = np.array([-np.inf if n in suppress else score for n, score in enumerate(scores.tolist())])
    shifted = values - values.max()
    return (shifted - np.log(np.exp(shifted).sum())).tolist()  # type: ignore[no-any-return]


def brute_force(
    step: Callable[[int, State, int], StepResult[State]], rules: DecodingSection, width: int
) -> tuple[tuple[int, ...], float, bool]:
    """The definition, one sentence a line, over lists of (score, tokens, finished, state)."""
    beams: list[tuple[float, tuple[int, ...], bool, State]] = [(0.0, (), False, START)]
    for _ in range(rules.max_tokens):
        if all(finished for _, _, finished, _ in beams):
            break
        candidates = []
        for index, (score, tokens, finished, state) in enumerate(beams):
            if finished:
                candidates.append((score, index, rules.end, (score, tokens, True, state)))
                continue
            result = step(tokens[-1] if tokens else rules.start, state, len(tokens))
            values = log_probabilities(result.scores, rules.suppress)
            likely = [token for token, value in enumerate(values) if value > -math.inf]
            fresh = [token for token in likely if not repeats((*tokens, token), rules.no_repeat_ngram)]
            for token in fresh or likely:
                value = values[token]
                grown = tokens if token == rules.end else (*tokens, token)
                after = (score + value, grown, token == rules.end, result.state)
                candidates.append((score + value, index, token, after))
        candidates.sort(key=lambda candidate: (-candidate[0], candidate[1], candidate[2]))
        beams = [candidate[3] for candidate in candidates[:width]]
    pool = [entry for entry in beams if entry[2]] or beams
    best = max(pool, key=lambda entry: entry[0])
    return best[1], best[0], best[2]


def repeats(tokens: tuple[int, ...], length: int) -> bool:
    """Whether the last `length` tokens stand earlier in the caption too."""
    windows = [tokens[end - length : end] for end in range(length, len(tokens) + 1)] if length else []
    return windows[-1:] != [] and windows[-1] in windows[:-1]


def check_equal(found: Hypothesis, expected: tuple[tuple[int, ...], float, bool]) -> None:
    assert (found.tokens, found.finished) == (expected[0], expected[2])
    assert found.log_probability == pytest.approx(expected[1], abs=1e-12)
    assert len(found.attention) == len(found.tokens)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    words=st.integers(5, 12),
    width=st.integers(1, 16),
    max_tokens=st.integers(1, 7),
    end_bias=st.sampled_from([-3.0, 0.0, 2.0]),
    no_repeat=st.integers(0, 3),
)
def test_beam_equals_brute_force(
    seed: int, words: int, width: int, max_tokens: int, end_bias: float, no_repeat: int
) -> None:
    toy = ToyDecoder(seed, words, coarse=False, end_bias=end_bias)
    rules = decoding(max_tokens, no_repeat=no_repeat)
    check_equal(beam(toy, START, rules, width), brute_force(toy, rules, width))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), words=st.integers(5, 12), max_tokens=st.integers(1, 7), no_repeat=st.integers(0, 2))
def test_greedy_equals_brute_force_and_a_beam_of_one(seed: int, words: int, max_tokens: int, no_repeat: int) -> None:
    toy, rules = ToyDecoder(seed, words, coarse=False), decoding(max_tokens, no_repeat=no_repeat)
    found = greedy(toy, START, rules)
    check_equal(found, brute_force(toy, rules, 1))
    narrow = beam(toy, START, rules, 1)
    assert (found.tokens, found.log_probability) == (narrow.tokens, narrow.log_probability)


def scripted(rows: dict[int, list[float]]) -> Callable[[int, State, int], StepResult[State]]:
    """A decoder whose scores depend on the token before alone."""

    def step(token: int, state: State, position: int) -> StepResult[State]:
        return StepResult(np.array(rows[token], np.float32), state, np.full(REGIONS, token, np.float32))

    return step


def test_ties_go_to_the_lower_hypothesis_then_to_the_lower_token() -> None:
    # Every word is as likely as every other, so only the tie rule decides.
    even = scripted({key: [0.0, 0.0, -50.0, 0.0, 1.0, 1.0, 1.0] for key in range(7)})
    rules = decoding(max_tokens=3)
    assert greedy(even, START, rules).tokens == (4, 4, 4)
    assert beam(even, START, rules, 2).tokens == (4, 4, 4)
    assert beam(even, START, rules, 5).tokens == (4, 4, 4)


def test_a_caption_repeats_no_sequence_and_keeps_the_models_probabilities() -> None:
    # After 4 the likeliest word is 4 again, then 5, then <end>.
    row = [0.0, 0.0, 1.0, 0.0, 9.0, 5.0]
    step = scripted(dict.fromkeys(range(6), row))
    assert greedy(step, START, decoding(6)).tokens == (4,) * 6
    single = greedy(step, START, decoding(6, no_repeat=1))
    assert single.tokens == (4, 5) and single.finished
    logs = log_probabilities(np.array(row, np.float32), (0, 1, 3))
    assert single.log_probability == pytest.approx(logs[4] + logs[5] + logs[2])
    assert greedy(step, START, decoding(6, no_repeat=2)).tokens == (4, 4, 5, 4)  # 4 4 and 5 4 stand there, 4 5 too
    for length in (1, 2, 3):
        tokens = beam(step, START, decoding(7, no_repeat=length), 3).tokens
        assert not any(repeats(tokens[:end], length) for end in range(len(tokens) + 1))


def test_the_limit_on_repetition_yields_where_no_other_token_is_left() -> None:
    only = scripted({token: [0.0, 0.0, -np.inf, 0.0, 1.0, -np.inf] for token in range(6)})
    assert greedy(only, START, decoding(3, no_repeat=1)).tokens == (4, 4, 4)


def test_ties_at_the_edge_of_the_beam_keep_the_lower_token() -> None:
    # After <start>, words 4, 5, 6 tie; only 4 and 5 may stay. 6 would lead to the best caption.
    rows = {1: [0, 0, -9, 0, 1, 1, 1], 4: [0, 0, 0, 0, 3, 3, 3], 5: [0, 0, 1, 0, 3, 3, 3], 6: [0, 0, 90, 0, 0, 0, 0]}
    found = beam(scripted({key: [float(x) for x in row] for key, row in rows.items()}), START, decoding(1), 2)
    assert found.tokens == (4,)


def test_a_finished_hypothesis_keeps_its_score_and_may_win_late() -> None:
    # "4 <end>" is finished at once with a good score; the others go on and end worse.
    rows = {
        1: [0, 0, -9, 0, 2.0, 1.9, -9],
        4: [0, 0, 5, 0, 0, 0, 0],
        5: [0, 0, -9, 0, 1, 1, 1],
        6: [0, 0, -9, 0, 1, 1, 1],
    }
    found = beam(scripted({key: [float(x) for x in row] for key, row in rows.items()}), START, decoding(6), 2)
    assert found.tokens == (4,) and found.finished


def test_search_stops_calling_the_decoder_when_all_are_finished() -> None:
    calls = []
    ending = scripted({key: [0.0, 0.0, 9.0, 0.0, -30.0, -30.0, -30.0] for key in range(7)})

    def counted(token: int, state: State, position: int) -> StepResult[State]:
        calls.append(token)
        return ending(token, state, position)

    found = greedy(counted, START, decoding(20))
    assert found.finished and found.tokens == () and calls == [1]


def test_a_caption_of_the_longest_length_is_not_finished() -> None:
    never = scripted({key: [0.0, 0.0, -99.0, 0.0, 1.0, 0.0, 0.0] for key in range(7)})
    for found in (greedy(never, START, decoding(4)), beam(never, START, decoding(4), 3)):
        assert found.tokens == (4, 4, 4, 4) and not found.finished


def test_suppressed_words_are_never_said_and_do_not_count_in_the_sum() -> None:
    loud = scripted({key: [99.0, 99.0, 0.0, 99.0, 1.0, 99.0] for key in range(6)})
    found = greedy(loud, START, decoding(1, suppress=(0, 1, 3, 5)))
    assert found.tokens == (4,)
    assert found.log_probability == pytest.approx(-math.log(1 + math.exp(-1)))


def test_a_beam_wider_than_the_words_keeps_what_there_is() -> None:
    toy, rules = ToyDecoder(1, 6, coarse=False), decoding(3)
    check_equal(beam(toy, START, rules, 100), brute_force(toy, rules, 100))


def test_attention_of_a_word_is_that_of_the_step_that_chose_it() -> None:
    line = scripted({1: [0, 0, 0, 0, 9, 0, 0], 4: [0, 0, 0, 0, 0, 9, 0], 5: [0, 0, 99, 0, 0, 0, 0]})
    for found in (greedy(line, START, decoding(5)), beam(line, START, decoding(5), 2)):
        assert found.tokens == (4, 5)
        assert [row[0] for row in found.attention] == [1, 4]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 8), max_tokens=st.integers(1, 5))
def test_coarse_scores_with_their_many_ties_give_what_brute_force_gives(seed: int, width: int, max_tokens: int) -> None:
    toy, rules = ToyDecoder(seed, 9, coarse=True), decoding(max_tokens)
    check_equal(beam(toy, START, rules, width), brute_force(toy, rules, width))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("width", [1, 3])
def test_scores_that_are_not_finite_are_an_error(value: float, width: int) -> None:
    broken = scripted({key: [0.0, 0.0, 0.0, 0.0, value, 1.0] for key in range(6)})
    with pytest.raises(BundleError, match="not finite"):
        greedy(broken, START, decoding()) if width == 1 else beam(broken, START, decoding(), width)


def test_scores_that_differ_in_float32_and_tie_as_log_probabilities_go_to_the_lower_token() -> None:
    # 2e-30 is more than 1e-30 only until the largest score is taken off. Only 6 and one of 4 and 5 may stay.
    rows = {1: [0, 0, -99, 0, 1e-30, 2e-30, 0.1], 4: [0, 0, 99, 0, 0, 0, 0], 5: [0, 0, -99, 0, 0, 0, 0]}
    step = scripted({key: [float(x) for x in row] for key, row in (rows | {6: rows[5]}).items()})
    found = beam(step, START, decoding(max_tokens=2), 2)
    assert found.tokens == (4,) and found.finished
    check_equal(found, brute_force(step, decoding(max_tokens=2), 2))


@pytest.mark.parametrize("words", [30, 400])
@pytest.mark.parametrize("width", [1, 3, 11, 12, 13, 40])
def test_few_and_many_candidates_of_many_words_are_those_of_brute_force(words: int, width: int) -> None:
    for coarse in (False, True):
        toy, rules = ToyDecoder(width, words, coarse=coarse, end_bias=3.0), decoding(4)
        check_equal(beam(toy, START, rules, width), brute_force(toy, rules, width))


def test_a_search_leaves_the_scores_of_the_decoder_as_they_are() -> None:
    kept = np.array([9.0, 0.0, 1.0, 0.0, 2.0, 3.0], np.float32)
    before = kept.copy()
    beam(lambda token, state, position: StepResult(kept, state, None), START, decoding(3), 2)
    np.testing.assert_array_equal(kept, before)
