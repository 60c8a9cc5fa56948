"""A small flatbuffer reader that never reads outside the file.

It supports what a .tflite needs: tables, vectors, strings, scalars. Every access is checked first, and the bytes read
are counted. So a small file whose tables share one vector many times cannot cost more than a few passes over the file.

    table      int32 distance back to its vtable, then the fields
    vtable     uint16 own size, uint16 size of the table, then a uint16 offset in the table for each field (0: absent)
    reference  uint32 distance forward to a table, vector or string
    vector     uint32 count, then the items; a string is a vector of bytes followed by a zero byte
"""

from __future__ import annotations

import struct
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BadModelFile
from capprune_runtime.tflite.operators import MAX_TABLES

# A well-formed file is read about once; shared vtables and strings need more than 1.
_PASSES = 4
_SLACK_BYTES = 1 << 16

_Number = TypeVar("_Number", bound=np.generic)


class Flatbuffer:
    """The bytes of a flatbuffer file.

    Args:
        data: The whole file.
        where: The file's name, for messages.
        identifier: The file identifier, four bytes.

    Raises:
        BadModelFile: The file is too short, or of another kind.
    """

    def __init__(self, data: bytes, where: str, identifier: bytes) -> None:
        self.where = where
        self._data = memoryview(data)
        self._budget = _PASSES * len(data) + _SLACK_BYTES
        self._tables = 0
        if len(data) < 8:
            raise self.error("flatbuffer: the file is cut off", 0, "at least 8 bytes", len(data))
        if data[4:8] != identifier:
            raise self.error("flatbuffer: the file is of another kind", 4, identifier, data[4:8])

    def root(self) -> Table:
        """Return the root table of the file."""
        return Table(self, self.follow(0))

    def count_table(self, offset: int) -> None:
        """Count one table that is read: each takes a few microseconds, regardless of its size."""
        self._tables += 1
        if self._tables > MAX_TABLES:
            raise self.error("flatbuffer: too many tables", offset, f"at most {MAX_TABLES}")

    def error(self, rule: str, offset: int, expected: object = None, found: object = None) -> BadModelFile:
        """Return an error for a byte of the file."""
        return BadModelFile(rule, where=f"{self.where}, byte {offset}", expected=expected, found=found)

    def read(self, code: str, offset: int) -> int | float:
        """Read one number with a little-endian `struct` code, aligned to its size."""
        size = struct.calcsize(f"<{code}")
        value: int | float = struct.unpack(f"<{code}", self.slice(offset, size, alignment=size))[0]
        return value

    def follow(self, offset: int) -> int:
        """Return the target of the reference at `offset`."""
        distance = int(self.read("I", offset))
        if distance < 4:
            raise self.error("flatbuffer: a reference points at itself", offset, "at least 4", distance)
        return offset + distance

    def slice(self, offset: int, size: int, alignment: int = 1) -> memoryview:
        """Return the bytes from `offset`, which must be inside the file."""
        if offset < 0 or offset + size > len(self._data):
            raise self.error("flatbuffer: something lies outside the file", offset, f"{len(self._data)} bytes")
        if offset % alignment:
            raise self.error("flatbuffer: something is not aligned", offset, f"a multiple of {alignment}")
        self._budget -= size
        if self._budget < 0:
            raise self.error("flatbuffer: tables or vectors overlap", offset)
        return self._data[offset : offset + size]

    def vector(self, offset: int, item_bytes: int) -> tuple[int, int]:
        """Return (offset of the first item, count) of the vector at `offset`.

        The items' bounds are checked when they are read.
        """
        count = int(self.read("I", offset))
        if count * item_bytes > len(self._data):
            raise self.error("flatbuffer: a vector is longer than the file", offset, found=f"{count} items")
        return offset + 4, count


class Table:
    """One table; fields are numbered from 0 in the order of the schema.

    Args:
        buffer: The file.
        position: Offset of the table in the file.

    Raises:
        BadModelFile: The table or its vtable is not inside the file.
    """

    def __init__(self, buffer: Flatbuffer, position: int) -> None:
        self.position = position
        self._buffer = buffer
        buffer.count_table(position)
        vtable = position - int(buffer.read("i", position))
        vtable_size, self._size = int(buffer.read("H", vtable)), int(buffer.read("H", vtable + 2))
        if vtable_size < 4 or vtable_size % 2 or self._size < 4:
            raise buffer.error("flatbuffer: a table's layout is impossible", vtable)
        entries = buffer.slice(vtable, vtable_size, alignment=2)
        buffer.slice(position, self._size)
        self._offsets: tuple[int, ...] = struct.unpack(f"<{vtable_size // 2}H", entries)[2:]

    def error(self, rule: str, expected: object = None, found: object = None) -> BadModelFile:
        """Return an error for this table."""
        return self._buffer.error(rule, self.position, expected, found)

    def require_fields(self, count: int) -> None:
        """Refuse a table that has a field from `count` on, which only a later schema can define."""
        for field, offset in enumerate(self._offsets[count:], start=count):
            if offset:
                raise self.error("flatbuffer: a table has a field that is not known", f"below {count}", field)

    def has(self, field: int) -> bool:
        """Return whether the field is present."""
        return field < len(self._offsets) and self._offsets[field] != 0

    def integer(self, field: int, code: str, default: int = 0) -> int:
        """Return an integer or a boolean, read with a `struct` code."""
        return int(self._scalar(field, code, default))

    def real(self, field: int, default: float = 0.0) -> float:
        """Return a float32."""
        return float(self._scalar(field, "f", default))

    def table(self, field: int) -> Table | None:
        """Return the table that a field refers to."""
        place = self._reference(field)
        return None if place is None else Table(self._buffer, place)

    def tables(self, field: int) -> tuple[Table, ...]:
        """Return the tables of a vector; none if the field is absent."""
        place = self._reference(field)
        if place is None:
            return ()
        first, count = self._buffer.vector(place, 4)
        if count > MAX_TABLES:
            raise self.error("flatbuffer: a vector holds too many tables", f"at most {MAX_TABLES}", count)
        return tuple(Table(self._buffer, self._buffer.follow(first + 4 * n)) for n in range(count))

    def numbers(self, field: int, dtype: type[_Number]) -> NDArray[_Number] | None:
        """Return a vector of numbers, without a copy."""
        item_bytes = np.dtype(dtype).itemsize
        content = self._content(field, item_bytes)
        return None if content is None else np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))

    def bytes_(self, field: int) -> memoryview | None:
        """Return a vector of bytes, without a copy; it starts at a multiple of 4."""
        return self._content(field, 1)

    def text(self, field: int) -> str | None:
        """Return a string, which must be UTF-8 and end with a zero byte."""
        content = self._content(field, 1, behind=1)
        if content is None:
            return None
        if content[-1] != 0:
            raise self.error("flatbuffer: a string has no end")
        if b"\0" in bytes(content[:-1]):
            raise self.error("flatbuffer: a string ends before its end")  # C code stops at the zero byte
        try:
            return str(content[:-1], "utf-8")
        except UnicodeDecodeError as error:
            raise self.error("flatbuffer: a string is not UTF-8", found=error.reason) from None

    def _content(self, field: int, item_bytes: int, behind: int = 0) -> memoryview | None:
        place = self._reference(field)
        if place is None:
            return None
        first, count = self._buffer.vector(place, item_bytes)
        return self._buffer.slice(first, count * item_bytes + behind, alignment=item_bytes)

    def _scalar(self, field: int, code: str, default: int | float) -> int | float:
        place = self._place(field, struct.calcsize(f"<{code}"))
        return default if place is None else self._buffer.read(code, place)

    def _reference(self, field: int) -> int | None:
        place = self._place(field, 4)
        return None if place is None else self._buffer.follow(place)

    def _place(self, field: int, size: int) -> int | None:
        if not self.has(field):
            return None
        offset = self._offsets[field]
        if offset < 4 or offset + size > self._size:
            raise self.error("flatbuffer: a field lies outside its table", found=f"field {field} at {offset}")
        return self.position + offset
