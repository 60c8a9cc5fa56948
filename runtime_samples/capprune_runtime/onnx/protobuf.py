"""A small reader of the protobuf wire format that never reads outside the file.

    message   fields, one after the other, to its end
    field     varint key = number · 8 + kind, then a varint (kind 0), a varint length and its bytes (2), or 4 bytes (5)
    varint    7 bits a byte, the lowest first; the top bit says that another byte follows

Only fields that the caller lists are read. Unknown fields, and repeated fields that may occur once, are errors, because
another reader might interpret them. Fields are counted, so that a file of many tiny fields takes a second instead of
minutes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capprune_runtime.errors import BadModelFile

VARINT, BYTES, FIXED32 = 0, 2, 5

_MAX_FIELDS = 1_000_000  # in one file
_MAX_TEXT_BYTES = 512


@dataclass(frozen=True)
class Field:
    """A known field: its key on the wire, and whether it may be repeated."""

    name: str
    kind: int
    repeated: bool = False


@dataclass
class _File:
    """State that all messages of a file share."""

    data: memoryview
    where: str
    fields_left: int = _MAX_FIELDS


def read_message(data: bytes, where: str, what: str, fields: Mapping[int, Field]) -> Message:
    """Return the message that fills the whole file.

    Args:
        data: The file.
        where: Its name, for messages.
        what: What to call it in messages.
        fields: Accepted fields, by number.

    Raises:
        BadModelFile: It has an unknown field, or a field exceeds the message.
    """
    return Message(_File(memoryview(data), where), 0, len(data), what, fields)


class Message:
    """The fields of one message; unknown and wrongly repeated fields are refused.

    Args:
        file: The file that contains it.
        start: Offset of the message in the file.
        end: Its end offset.
        what: What to call it in messages.
        fields: Accepted fields, by number.
    """

    def __init__(self, file: _File, start: int, end: int, what: str, fields: Mapping[int, Field]) -> None:
        self.start = start
        self._file, self._data, self._what = file, file.data, what
        self._found: dict[str, list[Any]] = {field.name: [] for field in fields.values()}
        place = start
        while place < end:
            key, behind = self._varint(place, end)
            field, kind = fields.get(key >> 3), key & 7
            if field is None or not (kind == field.kind or (field.repeated and field.kind == VARINT and kind == BYTES)):
                known = ", ".join(one.name for one in fields.values())
                raise self.error("protobuf: a field is not known", known, f"field {key >> 3}, kind {kind}", place)
            if self._found[field.name] and not field.repeated:
                raise self.error(f"protobuf: {field.name} stands twice", place=place)
            place = self._read(field, kind, behind, end)

    def error(self, rule: str, expected: object = None, found: object = None, place: int | None = None) -> BadModelFile:
        """Return an error for this message, or for an offset in it."""
        byte = self.start if place is None else place
        return BadModelFile(
            rule, where=f"{self._file.where}, {self._what}, byte {byte}", expected=expected, found=found
        )

    def integer(self, name: str) -> int:
        """Return a required whole number."""
        (value,) = self._found[name] or [None]
        if value is None:
            raise self.error(f"protobuf: {name} is missing")
        return int(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return whole numbers; none if the field is absent."""
        return tuple(self._found[name])

    def real(self, name: str) -> float:
        """Return a required float32."""
        return float(struct.unpack("<f", struct.pack("<I", self.integer(name)))[0])

    def text(self, name: str) -> str:
        """Return a string; empty if the field is absent."""
        return "".join(self.texts(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return strings, which must be UTF-8 and short."""
        found = []
        for start, end in self._found[name]:
            if end - start > _MAX_TEXT_BYTES:
                raise self.error("protobuf: a name is too long", f"at most {_MAX_TEXT_BYTES} bytes", end - start, start)
            try:
                found.append(str(self._data[start:end], "utf-8"))
            except UnicodeDecodeError as error:
                raise self.error("protobuf: a name is not UTF-8", found=error.reason, place=start) from None
        return tuple(found)

    def bytes_(self, name: str) -> memoryview:
        """Return bytes without a copy; none if the field is absent."""
        ((start, end),) = self._found[name] or [(0, 0)]
        return self._data[start:end]

    def has(self, name: str) -> bool:
        """Return whether the field is present."""
        return bool(self._found[name])

    def message(self, name: str, fields: Mapping[int, Field]) -> Message:
        """Return the message in a required field."""
        messages = self.messages(name, fields, 1)
        if not messages:
            raise self.error(f"protobuf: {name} is missing")
        return messages[0]

    def messages(self, name: str, fields: Mapping[int, Field], cap: int) -> list[Message]:
        """Return the messages of a repeated field."""
        places = self._found[name]
        if len(places) > cap:
            raise self.error(f"protobuf: too many of {name}", f"at most {cap}", len(places))
        return [Message(self._file, start, end, name, fields) for start, end in places]

    def _read(self, field: Field, kind: int, place: int, end: int) -> int:
        """Store the value of the field at `place`; return the offset of the next field."""
        if kind == VARINT:
            number, place = self._varint(place, end)
            self._keep(field, _signed(number), place)
            return place
        size, place = (4, place) if kind == FIXED32 else self._varint(place, end)
        after = place + size
        if after > end:
            raise self.error("protobuf: something lies outside its message", f"{end - place} bytes", size, place)
        if kind == FIXED32:
            self._keep(field, int.from_bytes(self._data[place:after], "little"), place)
        elif field.kind == BYTES:
            self._keep(field, (place, after), place)
        else:
            while place < after:  # packed numbers
                number, place = self._varint(place, after)
                self._keep(field, _signed(number), place)
        return after

    def _keep(self, field: Field, value: Any, place: int) -> None:
        self._file.fields_left -= 1
        if self._file.fields_left < 0:
            raise self.error("protobuf: the file holds too many fields", f"at most {_MAX_FIELDS}", place=place)
        self._found[field.name].append(value)

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """Return (value, offset behind it) of the varint at `place`."""
        value = 0
        for shift in range(0, 64, 7):
            if place >= end:
                raise self.error("protobuf: the message is cut off", place=place)
            byte = self._data[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64 or (byte == 0 and shift):
                    raise self.error("protobuf: a number is not written in its shortest form", place=place)
                return value, place
        raise self.error("protobuf: a number has too many bytes", place=place)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
