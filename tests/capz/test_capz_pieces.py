"""A model file in pieces: every form of a weight comes back to the byte, takes what it should, and as the page says."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
import spec_reader
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from weight_file import random_weight, weight_file

import onnx
from capprune_exporters.pack.entropy import encode_runs, fit_table
from capprune_exporters.pack.pieces import CutFile, cut_model, find_scale
from capprune_exporters.quantise import requantised
from capprune_runtime.bundle.capz_pieces import SECTION, expand_pieces
from capprune_runtime.errors import BundleError
from capprune_runtime.tflite.file import read_tflite

NEAR_THE_FLOOR = 1.05  # of coded bytes to floor, tables and headers included
LEAST_OF_BYTES_SAVED = 0.1  # by coding float32 byte by byte


def cut(data: bytes) -> CutFile:
    """In pieces, proven by both readers."""
    found = cut_model(data, "model.tflite")
    assert found is not None
    assert expand_pieces(memoryview(found.section), len(data)) == data
    assert spec_reader.expand_section(found.section, len(data)) == data
    return found


@pytest.mark.parametrize("weights", ["int8", "codebook4"])
@pytest.mark.parametrize("kept", [0.025, 0.1])
def test_quantised_csr_is_near_its_floor(weights: str, kept: float) -> None:
    dense = requantised(random_weight((1000, 1000), kept), weights)
    data = weight_file(dense, sparse=True)
    (tensor,) = cut(data).tensors
    assert tensor.kept == np.count_nonzero(dense) and tensor.shape == dense.shape
    assert tensor.floor_bytes * 0.99 < tensor.coded_bytes < tensor.floor_bytes * NEAR_THE_FLOOR


def test_floor_counts_masks_and_values_alone() -> None:
    dense = requantised(random_weight((300, 200), 0.1), "codebook4")
    values = dense[dense != 0]
    share, counts = values.size / dense.size, np.unique(values, return_counts=True)[1]
    places = -dense.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    (tensor,) = cut(weight_file(dense, sparse=True)).tensors
    assert tensor.floor_bytes == pytest.approx((places - (counts * np.log2(counts / values.size)).sum()) / 8)


def test_int8_blocks_are_near_their_floor_in_values() -> None:
    codes = np.clip(np.rint(random_weight((512, 1024), 0.05, block=16) * 30), -127, 127).astype(np.int8)
    codes[codes.reshape(512, 64, 16).any(2).repeat(16, 1) & (codes == 0)] = 1  # so that the floor counts what is stored
    data = weight_file(codes, sparse=True, block=16)
    (tensor,) = cut(data).tensors
    assert tensor.coded_bytes < tensor.floor_bytes  # which does not know of blocks
    assert tensor.coded_bytes < 0.95 * tensor.kept


def test_dense_int8_is_near_its_floor() -> None:
    codes = np.clip(np.rint(random_weight((300, 256), 1.0) * 25), -127, 127).astype(np.int8)
    (tensor,) = cut(weight_file(codes)).tensors
    assert tensor.coded_bytes < tensor.floor_bytes * 1.01


@pytest.mark.parametrize("sparse", [True, False])
def test_float32_is_coded_byte_by_byte(sparse: bool) -> None:
    dense = random_weight((500, 300), 0.1 if sparse else 1.0)
    data = weight_file(dense, sparse=sparse)
    (tensor,) = cut(data).tensors
    assert tensor.coded_bytes < (1 - LEAST_OF_BYTES_SAVED) * tensor.file_bytes
    assert len(cut(data).section) < len(zlib.compress(data, 9))


@pytest.mark.parametrize("indices", ["uint8", "uint16", "int32"])
@pytest.mark.parametrize("pointers", ["uint8", "uint16", "int32"])
def test_index_vectors_of_every_width_come_back(pointers: str, indices: str) -> None:
    dense = requantised(random_weight((100, 40), 0.05), "int8")
    cut(weight_file(dense, sparse=True, pointers=pointers, indices=indices))


def test_levels_in_front_of_a_convolution_come_back() -> None:
    cut(weight_file(requantised(random_weight((120, 30), 0.2), "int8").reshape(8, 5, 3, 30), sparse=True))


@pytest.mark.parametrize(
    ("shape", "kept"),
    [((200, 50), 1.0), ((5000, 1), 0.03), ((3, 65537), 0.02), ((1, 4000), 0.1), ((64, 128), 1 / 4096)],
    ids=["full", "one column", "65537 columns", "one row", "long gaps"],
)
def test_matrices_at_the_edges_come_back(shape: tuple[int, int], kept: float) -> None:
    dense = random_weight(shape, kept, seed=4)
    dense[-1, -1] = 1
    cut(weight_file(dense, sparse=True, indices="int32", beside=(requantised(random_weight((40, 40), 0.5), "int8"),)))


def test_empty_rows_at_both_ends_and_gaps_over_many_of_them_come_back() -> None:
    dense = np.zeros((4000, 300), np.float32)
    dense[1000:1010] = requantised(random_weight((10, 300), 0.5), "int8")
    dense[3000, 7] = dense[dense > 0][0]
    cut(weight_file(dense, sparse=True))


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.floats(0, 1),
    st.sampled_from(["float32", "int8", "codebook4"]),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_any_matrix_comes_back(rows: int, columns: int, kept: float, weights: str, seed: int) -> None:
    dense = requantised(random_weight((rows, columns), kept, seed), weights)
    dense[0, 0] = dense[0, 0] or 1
    data = weight_file(dense, sparse=True)
    found = cut_model(data, "model.tflite")
    assert found is None or expand_pieces(memoryview(found.section), len(data)) == data


def test_shares_of_the_tensors_sum_to_what_is_not_literal() -> None:
    first, second = (requantised(random_weight((400, 200), 0.1, seed), "int8") for seed in range(2))
    found = cut(weight_file(first, sparse=True, beside=(second,)))
    literals = SECTION.unpack(found.section[: SECTION.size])[2]
    assert sum(tensor.coded_bytes for tensor in found.tensors) == len(found.section) - literals


def test_a_vector_that_two_tensors_share_is_cut_once() -> None:
    values = requantised(random_weight((100, 100), 0.3), "int8")
    data = bytearray(weight_file(values, beside=(values + 1,)))
    model = read_tflite(bytes(data), "m")
    one, other = (tensor.offset for tensor in model.tensors)
    # Both tables name their buffer in a field of 4 bytes; make the second name the first's.
    for place in range(other, other + 40, 4):
        if data[place : place + 4] == struct.pack("<I", 2):
            data[place : place + 4] = struct.pack("<I", 1)
            break
    assert one != other and [t.buffer for t in read_tflite(bytes(data), "m").tensors] == [1, 1]
    assert len(cut(bytes(data)).tensors) == 1


def test_a_vocabulary_inside_the_file_is_not_stored_again() -> None:
    words = "".join(f"word{n}\n" for n in range(500)).encode()
    data = weight_file(requantised(random_weight((80, 80), 0.2), "int8"), beside=(np.frombuffer(words, np.int8),))
    with_words, without = cut_model(data, "model.tflite", words), cut_model(data, "model.tflite")
    assert with_words is not None and without is not None
    assert len(with_words.section) < len(without.section) - 500
    assert expand_pieces(memoryview(with_words.section), len(data), lambda: words) == data
    assert spec_reader.expand_section(with_words.section, len(data), words) == data


def test_onnx_gaps_codes_and_floats_are_coded() -> None:
    draw = np.random.default_rng(0)
    stored = {
        "gaps": np.minimum(draw.geometric(0.03, 5000), 255).astype(np.uint8),
        "codes": np.clip(np.rint(draw.normal(0, 30, 5000)), -127, 127).astype(np.int8),
        "values": draw.standard_normal((50, 60)).astype(np.float32),
        "book": draw.choice(np.array([0.5, 0.25, -1.5], np.float32), 3000),
    }
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in stored.items()]
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other], tensors)
    data = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    found = cut_model(data, "decoder.onnx")
    assert found is not None and expand_pieces(memoryview(found.section), len(data)) == data
    assert spec_reader.expand_section(found.section, len(data)) == data
    sizes = {tensor.name: tensor.coded_bytes / tensor.file_bytes for tensor in found.tensors}
    assert sizes.keys() == stored.keys() and max(sizes["gaps"], sizes["codes"], sizes["values"]) < 0.97
    assert sizes["book"] < 0.08 and len(found.section) < 0.97 * len(zlib.compress(data, 9))


def test_a_file_without_weights_is_left_to_zlib() -> None:
    assert cut_model(weight_file(np.zeros((2, 2), np.float32)), "model.tflite") is None


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1 / 3, 7.25, 2e-38, 1e30])
def test_scale_is_found_to_the_bit(scale: float) -> None:
    multiples = np.array([-127, -100, -3, -1, 0, 1, 2, 50, 126])
    values = np.float32(scale) * multiples.astype(np.float32)
    found = find_scale(values)
    assert found is not None
    again = np.float32(found[0]) * found[1].astype(np.float32)
    assert (again.view(np.uint32) == values.view(np.uint32)).all()


@pytest.mark.parametrize(
    "values", [[0.0], [-0.0, 1.0], [1.0, np.pi], [np.inf, 1.0], [np.nan, 1.0], [1e-45, 3e-45]], ids=str
)
def test_no_scale_is_found_where_there_is_none(values: list[float]) -> None:
    assert find_scale(np.array(values, np.float32)) is None


def test_values_that_no_scale_gives_come_back_to_the_bit() -> None:
    book = np.array([0x80000000, 0, 0x7F800001, 0x7FC00000, 0x00000001, 0x3F800000], np.uint32).view(np.float32)
    cut(weight_file(book[np.random.default_rng(0).integers(0, 6, (100, 40))]))


# What a section must not be. The sound one is a file of 64 bytes, of which 16 in the middle are coded.

SIZE, COUNT = 64, 16
SOUND_PIECE = [0, 8, COUNT, 1]  # bytes, offset, count, width
ONE_SYMBOL = [1, 65, 1, 2]  # 1 bit, first symbol 65, one of them, frequency 2
POSITIONS = [3, 0, 4, 40, 2, 3, 10, 5, 2]  # 4 row pointers of 4 bytes at 0, 5 indices of 2 at 40; 3 x 10, 5 kept, m = 2
GAP_ONE = [1, 1, 1, 2]


def numbers(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        while value >= 128:
            out.append(value % 128 + 128)
            value //= 128
        out.append(value)
    return bytes(out)


def section(
    plan: bytes = numbers(1, *SOUND_PIECE, *ONE_SYMBOL),
    literals: bytes = bytes(SIZE - COUNT),
    low_bits: bytes = b"",
    states: Sequence[int] = (1 << 16,),
    words: Sequence[int] = (),
    lanes: int | None = None,
    plan_bytes: int | None = None,
) -> bytes:
    packed, rest = zlib.compress(plan), zlib.compress(literals)
    declared = len(plan) if plan_bytes is None else plan_bytes
    head = SECTION.pack(len(packed), declared, len(rest), len(low_bits), len(words), lanes or len(states))
    return (
        head
        + packed
        + rest
        + low_bits
        + struct.pack(f"<{len(states)}I", *states)
        + struct.pack(f"<{len(words)}H", *words)
    )


def positions(low_bits: bytes = b"", **changes: int) -> bytes:
    fields = dict(
        zip(("kind", "at", "bytes", "indices", "index_bytes", "rows", "columns", "kept", "m"), POSITIONS, strict=True)
    )
    return section(numbers(1, *(fields | changes).values(), *GAP_ONE), bytes(SIZE - 16 - 10), low_bits)


def wide_gaps(m: int, symbol: int, low_bits: bytes, count: int = 1) -> bytes:
    """One kept weight, whose token has low bits."""
    piece = [3, 0, 4, 40, 4, 3, 1 << 30, count, m, 1, symbol, 1, 2]
    return section(numbers(1, *piece), bytes(SIZE - 16 - 4 * count), low_bits)


def test_the_sound_sections_are_sound() -> None:
    assert expand_pieces(memoryview(section()), SIZE) == bytes(8) + b"A" * COUNT + bytes(40)
    # Every gap is 1, so that the places are 1, 3, 5, 7 and 9: all in the first of three rows.
    expected = struct.pack("<4I24x5H14x", 0, 5, 5, 5, 1, 3, 5, 7, 9)
    assert expand_pieces(memoryview(positions()), SIZE) == expected == spec_reader.expand_section(positions(), SIZE)
    assert expand_pieces(memoryview(wide_gaps(0, 5, b"\x0b")), SIZE)[40:44] == struct.pack("<I", 16 + 11)


BROKEN = {
    "cut off in its sizes": (section()[:20], "cut off"),
    "cut off by a byte": (section()[:-1], "do not fill"),
    "one byte more": (section() + b"\0", "do not fill"),
    "no lanes": (SECTION.pack(0, 0, 0, 0, 0, 0), "lanes"),
    "more lanes than are allowed": (section(states=[1 << 16] * 16385), "lanes"),
    "lanes that are not there": (section(lanes=2), "do not fill"),
    "a state too small": (section(states=[65535]), "out of range"),
    "a state that does not end where it began": (section(states=[65537]), "began"),
    "a word left over": (section(words=[1]), "left over"),
    "words that end early": (section(numbers(1, *SOUND_PIECE, 1, 65, 2, 1, 1)), "end early"),
    "plan longer than declared": (section(plan_bytes=3), "another length"),
    "plan shorter than declared": (section(plan_bytes=99), "another length"),
    "plan declared as a bomb": (section(plan_bytes=1 << 31), "too long"),
    "plan cut off": (section(numbers(1, *SOUND_PIECE)), "cut off"),
    "plan with one piece more": (section(numbers(2, *SOUND_PIECE, *ONE_SYMBOL)), "cut off"),
    "plan with trailing bytes": (section(numbers(1, *SOUND_PIECE, *ONE_SYMBOL, 0)), "follow the last"),
    "too many pieces": (section(numbers(4097)), "out of range"),
    "a number without an end": (section(b"\xff" * 40), "out of range"),
    "unknown kind": (section(numbers(1, 5, 8, COUNT, 1, *ONE_SYMBOL)), "out of range"),
    "table above 1": (section(numbers(1, *SOUND_PIECE, 1, 65, 1, 3)), "out of range"),
    "table below 1": (section(numbers(1, *SOUND_PIECE, 1, 65, 1, 1)), "not normalised"),
    "table with two parts too many": (section(numbers(1, *SOUND_PIECE, 1, 65, 2, 2, 2)), "not normalised"),
    "table of too many bits": (section(numbers(1, *SOUND_PIECE, 16, 65, 1, 1 << 16)), "out of range"),
    "table beyond 255": (section(numbers(1, *SOUND_PIECE, 1, 255, 2, 1, 1)), "out of range"),
    "no table where there must be one": (section(numbers(1, 2, 8, 4, 1) + bytes(4) + numbers(0)), "missing"),
    "symbol behind the codebook": (section(numbers(1, 2, 8, 4, 2) + bytes(8) + numbers(1, 2, 1, 2)), "out of range"),
    "words of another length": (section(numbers(1, 4, 8, COUNT)), "vocabulary has another length"),
    "piece behind the end": (section(numbers(1, 0, 60, COUNT, 1, *ONE_SYMBOL)), "behind the file"),
    "offset behind the end": (section(numbers(1, 0, 65, 1, 1, *ONE_SYMBOL)), "out of range"),
    "count behind the end": (section(numbers(1, 0, 0, 65, 1, *ONE_SYMBOL)), "out of range"),
    "no items": (section(numbers(1, 0, 8, 0, 1, *ONE_SYMBOL)), "out of range"),
    "items of 5 bytes": (section(numbers(1, 0, 8, 2, 5, *ONE_SYMBOL)), "out of range"),
    "two pieces that overlap": (
        section(numbers(2, *SOUND_PIECE, *ONE_SYMBOL, 0, 23, 4, 1, *ONE_SYMBOL)),
        "overlap",
    ),
    "two pieces at one place": (section(numbers(2, *SOUND_PIECE, *ONE_SYMBOL, *SOUND_PIECE, *ONE_SYMBOL)), "overlap"),
    "fewer literals": (section(literals=bytes(47)), "another length"),
    "more literals": (section(literals=bytes(49)), "another length"),
    "a bomb of literals": (section(literals=bytes(1 << 24)), "another length"),
    "fewer literals than planes": (section(numbers(1, *SOUND_PIECE, 0)), "another length"),
    "position past the end": (positions(columns=3), "last row"),
    "row pointers over indices": (positions(indices=12), "overlap"),
    "pointers of 3 bytes": (positions(bytes=3), "do not fit"),
    "more columns than an index can say": (positions(index_bytes=1, columns=257), "do not fit"),
    "more kept than a pointer can say": (positions(bytes=1, kept=256), "out of range|do not fit|behind"),
    "more kept than is allowed": (positions(kept=1 << 25), "out of range"),
    "more rows than is allowed": (positions(rows=1 << 25), "out of range"),
    "more places than is allowed": (positions(rows=1 << 24, columns=1 << 31, index_bytes=4), "do not fit"),
    "more rows than the file has bytes": (positions(rows=1 << 23), "behind the file"),
    "no rows": (positions(rows=0), "out of range"),
    "mantissa of 8 bits": (positions(m=8), "out of range"),
    "low bits left over": (positions(low_bits=b"\0"), "left over"),
    "low bits that end early": (wide_gaps(0, 5, b""), "end early"),
    "low bits that are not all used": (wide_gaps(0, 5, b"\x10"), "more than its bits"),
    "a token of 31 low bits": (wide_gaps(0, 32, bytes(4)), "out of range"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_section_is_refused(damage: str) -> None:
    data, message = BROKEN[damage]
    with pytest.raises(BundleError, match=message):
        expand_pieces(memoryview(data), SIZE)


def test_every_byte_of_a_section_counts() -> None:
    """A flipped bit is refused, or gives other bytes, which the hash of the file finds."""
    data = cut(weight_file(requantised(random_weight((40, 60), 0.1), "int8"), sparse=True)).section
    size = len(weight_file(requantised(random_weight((40, 60), 0.1), "int8"), sparse=True))
    whole = expand_pieces(memoryview(data), size)
    same = []
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 16
        try:
            if expand_pieces(memoryview(bytes(damaged)), size) == whole:
                same.append(place)
        except BundleError:
            pass
    # zlib's own header says how hard it tried, which changes nothing.
    assert len(same) <= 4


@pytest.mark.parametrize("damage", ["plan declared as a bomb", "a bomb of literals", "more kept than is allowed"])
def test_a_bomb_is_refused_before_memory_is_taken(damage: str) -> None:
    data, _ = BROKEN[damage]
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            expand_pieces(memoryview(data), SIZE)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_small_section_cannot_make_a_reader_work_for_long() -> None:
    size = 1 << 28
    data = section(numbers(1, 0, 0, size, 1, *ONE_SYMBOL), b"")
    with pytest.raises(BundleError, match="too many steps"):
        expand_pieces(memoryview(data), size)


def test_a_stream_with_real_symbols_is_the_same_for_both_readers() -> None:
    symbols = np.random.default_rng(0).integers(60, 70, COUNT).astype(np.uint8)
    table = fit_table(np.bincount(symbols, minlength=256), 6)
    states, words = encode_runs([(symbols, table)], 4)
    listed: NDArray[np.int64] = table.frequencies[60:70]
    plan = numbers(1, *SOUND_PIECE, 6, 60, 10, *listed.tolist())
    data = section(plan, states=states.tolist(), words=words.tolist())
    assert (
        expand_pieces(memoryview(data), SIZE)[8:24] == symbols.tobytes() == spec_reader.expand_section(data, SIZE)[8:24]
    )
