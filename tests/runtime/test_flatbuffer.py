"""The flatbuffer reader: reads what the flatbuffers package writes, and never outside the file."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
import tflite_edit
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune_runtime.errors import BadModelFile
from capprune_runtime.tflite.flatbuffer import Flatbuffer, Table

schema, flatbuffers = tflite_edit.schema, tflite_edit.flatbuffers


def small_file() -> bytearray:
    """A TensorMap-like table written by hand: int32 field 0 = 7, string field 1 = 'ab', vector field 2 = [5, 6]."""
    return bytearray(
        struct.pack("<I4s", 20, b"TEST")  # root at 20
        + struct.pack("<HHHHHH", 10, 16, 4, 8, 12, 0)  # vtable at 8: own size, table size, three fields; padding
        + struct.pack("<iiII", 12, 7, 8, 12)  # table at 20: vtable 12 back; string at 28+8=36; vector at 32+12=44
        + struct.pack("<I2sxx", 2, b"ab")
        + struct.pack("<IHH", 2, 5, 6)
    )


def root(data: bytes) -> Table:
    return Flatbuffer(data, "f", b"TEST").root()


def read_all(data: bytes) -> tuple[int, str | None, list[int]]:
    table = root(data)
    numbers = table.numbers(2, np.uint16)
    return table.integer(0, "i"), table.text(1), [] if numbers is None else numbers.tolist()


def test_reader_reads_a_table_written_by_hand() -> None:
    assert read_all(bytes(small_file())) == (7, "ab", [5, 6])


def test_absent_fields_have_their_defaults() -> None:
    table = root(bytes(small_file()))
    assert (table.integer(7, "i", 3), table.real(8, 0.5), table.text(9), table.table(3)) == (3, 0.5, None, None)
    assert table.tables(4) == () and table.numbers(5, np.int32) is None and not table.has(6)


def test_reader_reads_what_the_flatbuffers_package_writes() -> None:
    signature = schema.SignatureDefT()
    signature.signatureKey = "grüße".encode()
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = b"photo", 41
    signature.inputs = [entry]
    builder = flatbuffers.Builder(0)
    builder.Finish(signature.Pack(builder), b"TEST")
    table = root(bytes(builder.Output()))
    assert table.text(2) == "grüße"
    assert [(e.text(0), e.integer(1, "I")) for e in table.tables(0)] == [("photo", 41)]


@pytest.mark.parametrize(
    ("place", "code", "value", "rule"),
    [
        (0, "I", 1 << 20, "outside the file"),
        (0, "I", 0, "points at itself"),
        (0, "I", 21, "not aligned"),
        (4, "4s", b"TFL3", "another kind"),
        (20, "i", 1 << 30, "outside the file"),
        (20, "i", -(1 << 30), "outside the file"),
        (20, "i", 11, "not aligned"),
        (8, "H", 2, "layout is impossible"),
        (8, "H", 9, "layout is impossible"),
        (8, "H", 60000, "outside the file"),
        (10, "H", 2, "layout is impossible"),
        (10, "H", 60000, "outside the file"),
        (12, "H", 2, "outside its table"),
        (12, "H", 14, "outside its table"),
        (12, "H", 6, "not aligned"),
        (28, "I", 0xFFFFFFF0, "outside the file"),
        (28, "I", 9, "not aligned"),
        (28, "I", 0, "points at itself"),
        (36, "I", 3000, "longer than the file"),
        (36, "I", 14, "outside the file"),
        (36, "I", 3, "has no end|UTF-8"),
        (40, "2s", b"\xff\xfe", "not UTF-8"),
        (42, "B", 65, "has no end"),
        (44, "I", 0x7FFFFFFF, "longer than the file"),
        (44, "I", 3, "outside the file"),
    ],
)
def test_reader_refuses_what_leaves_the_file_or_the_table(place: int, code: str, value: int | bytes, rule: str) -> None:
    data = small_file()
    struct.pack_into(f"<{code}", data, place, value)
    if (place, code, value) == (36, "I", 3):
        data[43] = 1
    with pytest.raises(BadModelFile, match=rule) as caught:
        read_all(bytes(data))
    assert str(caught.value.where).startswith("f, byte ")


@pytest.mark.parametrize("length", range(52))
def test_reader_refuses_every_truncated_file(length: int) -> None:
    with pytest.raises(BadModelFile):
        read_all(bytes(small_file()[:length]))


def test_reader_refuses_a_field_it_does_not_know() -> None:
    table = root(bytes(small_file()))
    table.require_fields(3)
    with pytest.raises(BadModelFile, match="not known"):
        table.require_fields(2)


def test_reader_refuses_to_hand_out_a_small_file_many_times() -> None:
    vectors = 5000  # tables of one vector that all refer to one large buffer
    signature_map = small_file()
    table = root(bytes(signature_map))
    with pytest.raises(BadModelFile, match="overlap"):
        for _ in range(vectors):
            table.numbers(2, np.uint16), table.text(1), table.integer(0, "i")
            table._buffer.slice(0, 52)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_reader_of_damaged_bytes_raises_nothing_but_its_error(data: st.DataObject) -> None:
    content = small_file()
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModelFile):
        read_all(bytes(content))
