"""rANS: what goes in comes out, in few bytes, and a stream that is not whole is refused."""

from __future__ import annotations

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spec_reader import Rans, Table

from capprune_exporters.pack.entropy import choose_lanes, coded_bits, count_symbols, encode_runs, fit_table, floor_bytes
from capprune_runtime.bundle.rans import LOW, MOST_LANES, MOST_STEPS, FrequencyTable, Run, Symbols, decode_runs
from capprune_runtime.errors import BundleError

CODER_TOLERANCE = 0.01  # of size, to an independent coder with the same tables


def drawn(kind: str, count: int, seed: int = 0) -> Symbols:
    draw = np.random.default_rng(seed)
    if kind == "bell":
        return np.clip(np.rint(draw.normal(128, 28, count)), 0, 255).astype(np.uint8)
    if kind == "geometric":
        return np.minimum(draw.geometric(0.05, count) - 1, 255).astype(np.uint8)
    if kind == "uniform":
        return draw.integers(0, 256, count, np.uint8)
    return np.full(count, 7, np.uint8)


def coded(
    symbols: Symbols, bits: int = 12, lanes: int = 16
) -> tuple[FrequencyTable, NDArray[np.int64], NDArray[np.uint16]]:
    table = fit_table(count_symbols(symbols), bits)
    return (table, *encode_runs([(symbols, table)], lanes))


@pytest.mark.parametrize("kind", ["bell", "geometric", "uniform", "constant"])
@pytest.mark.parametrize("bits", [8, 12, 15])
@pytest.mark.parametrize(("count", "lanes"), [(1, 1), (1, 16), (15, 16), (16, 16), (17, 16), (5000, 1), (5000, 64)])
def test_symbols_come_back(kind: str, bits: int, count: int, lanes: int) -> None:
    symbols = drawn(kind, count)
    table, states, words = coded(symbols, bits, lanes)
    assert (decode_runs([Run(count, table)], states, words)[0] == symbols).all()


@given(
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=200), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(8, 15),
)
@settings(max_examples=150, deadline=None)
def test_runs_of_any_symbols_come_back_and_the_plain_reader_agrees(
    lists: list[list[int]], lanes: int, bits: int
) -> None:
    runs = [np.array(one, np.uint8) for one in lists]
    tables = [fit_table(count_symbols(run), bits) for run in runs]
    states, words = encode_runs(list(zip(runs, tables, strict=True)), lanes)
    found = decode_runs([Run(len(r), t) for r, t in zip(runs, tables, strict=True)], states, words)
    plain = Rans(states.tolist(), words.tolist())
    for run, table, symbols in zip(runs, tables, found, strict=True):
        named = {int(s): int(table.frequencies[s]) for s in np.flatnonzero(table.frequencies)}
        assert symbols.tolist() == run.tolist() == plain.run(len(run), Table(table.bits, named))
    plain.end()


@pytest.mark.parametrize("kind", ["bell", "geometric", "uniform"])
@pytest.mark.parametrize("count", [3000, 100_000])
def test_size_is_that_of_an_independent_coder(kind: str, count: int) -> None:
    symbols = drawn(kind, count)
    table, states, words = coded(symbols, lanes=choose_lanes(count))
    ours = 4 * len(states) + 2 * len(words)
    coder = constriction.stream.stack.AnsCoder()
    model = constriction.stream.model.Categorical(table.frequencies / (1 << table.bits), perfect=False)
    coder.encode_reverse(symbols.astype(np.int32), model)
    theirs = 4 * len(coder.get_compressed())
    own_lanes = 4 * len(states)  # an independent coder has one state; ours cost at most this
    assert (
        theirs * (1 - CODER_TOLERANCE) <= ours <= theirs * (1 + CODER_TOLERANCE) + (own_lanes if count < 10_000 else 0)
    )
    assert ours == pytest.approx(coded_bits(count_symbols(symbols), table) / 8, rel=CODER_TOLERANCE, abs=own_lanes)


def test_table_is_normalised_and_no_table_is_better_by_one_part() -> None:
    counts = count_symbols(drawn("bell", 4000))
    table = fit_table(counts, 10)
    assert table.frequencies.sum() == 1 << 10 and ((table.frequencies > 0) == (counts > 0)).all()
    best = coded_bits(counts, table)
    used = np.flatnonzero(table.frequencies > 1)
    for take, give in zip(used, np.roll(used, 1), strict=True):
        other = table.frequencies.copy()
        other[take], other[give] = other[take] - 1, other[give] + 1
        assert coded_bits(counts, FrequencyTable(10, other)) >= best - 1e-6 * best


@pytest.mark.parametrize("bits", [8, 9])
def test_every_symbol_that_comes_has_a_part_of_the_table(bits: int) -> None:
    counts = np.ones(256, np.int64)
    counts[3] = 1_000_000
    frequencies = fit_table(counts, bits).frequencies
    assert frequencies.min() == 1 and frequencies.sum() == 1 << bits


def test_floor_is_the_entropy_of_places_and_values() -> None:
    values = np.repeat(np.array([1.0, 2.0, 3.0, 4.0], np.float32), 25)
    places = 400 * (0.25 * 2 + 0.75 * np.log2(4 / 3))
    assert floor_bytes(100, 400, values) == pytest.approx((places + 200) / 8)
    assert floor_bytes(0, 400, values[:0]) == 0
    assert floor_bytes(100, 100, values) == pytest.approx(25)


def test_floor_of_a_dense_tensor_is_that_of_its_values_zero_among_them() -> None:
    values = drawn("geometric", 5000)
    dense = floor_bytes(5000, 5000, values)
    assert floor_bytes(int((values > 0).sum()), 5000, values[values > 0]) == pytest.approx(dense)


def test_lanes_cost_little_and_are_as_many_as_a_reader_takes() -> None:
    for count in (1, 10_000, 300_000, 1 << 29):
        lanes = choose_lanes(count)
        assert lanes <= MOST_LANES and -(-count // lanes) < MOST_STEPS + count // MOST_LANES
        assert lanes == 16 or 4 * lanes <= 0.005 * count


@pytest.mark.parametrize("damage", ["state", "fewer words", "more words", "word", "other table"])
def test_a_stream_that_is_not_whole_is_refused(damage: str) -> None:
    symbols = drawn("bell", 3000)
    table, states, words = coded(symbols)
    if damage == "state":
        states[3] ^= 1
    elif damage == "fewer words":
        words = words[:-1]
    elif damage == "more words":
        words = np.append(words, np.uint16(0))
    elif damage == "word":
        words[len(words) // 2] ^= 1
    else:
        table = fit_table(count_symbols(drawn("bell", 3000, seed=1)), 12)
    with pytest.raises(BundleError, match=r"words|began"):
        decode_runs([Run(3000, table)], states, words)


def test_more_steps_than_lanes_can_take_are_refused_at_once() -> None:
    table = fit_table(count_symbols(drawn("constant", 1)), 8)
    with pytest.raises(BundleError, match="too many steps"):
        decode_runs([Run(1 << 29, table)], np.full(16, LOW), np.empty(0, np.uint16))
