"""Tensors of a torch checkpoint, `.pth`, read without torch's unpickler: the zip format and the older one.

zip     data.pkl, a pickle that describes the tensors; data/KEY, the numbers of one storage, never compressed
older   pickles: a magic number, the protocol, the machine, the tensors, the keys; then for each key its count and
numbers

`read_tensors` checks the file's description of every tensor against its bytes. The caller checks the shape before
`StoredTensor.dense` expands the numbers, because a few bytes can describe a sparse tensor of any size.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capprune.importing.described import Coo, Storage, View
from capprune.importing.pickled import read_pickle
from capprune.importing.zips import is_zip, open_zip
from capprune_runtime.errors import BadModelFile

MAX_FILE_BYTES: Final = 1 << 30
MAX_TENSORS: Final = 4096
MAX_NUMBERS: Final = 1 << 27  # in one dense tensor: 512 MiB as float32
MAX_DIMENSIONS: Final = 4

_MAGIC: Final = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
_PROTOCOL: Final = 1001
_MAX_PICKLE_BYTES: Final = 16 << 20
_MAX_SMALL_BYTES: Final = 4096
_FLOATS: Final = ("<f2", "<f4", "<f8")
_BESIDE: Final = (  # members without information about the numbers
    "version",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
)

State: TypeAlias = Mapping[str, View | Coo]
Storages: TypeAlias = Mapping[str, memoryview]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose description fits the bytes of the file.

    Attributes:
        name: Name in the checkpoint.
        shape: Shape of the dense tensor.
        sparse: Whether only kept values are stored.
        where: The file and the name, for messages.
    """

    name: str
    shape: tuple[int, ...]
    sparse: bool
    where: str
    _stored: View | Coo
    _storages: Storages

    def dense(self) -> NDArray[np.float32]:
        """Return all its numbers, with zeros where a sparse tensor stores nothing.

        Raises:
            BadModelFile: A number is not finite, or a sparse value is outside the tensor or duplicated.
        """
        if math.prod(self.shape) > MAX_NUMBERS:
            raise BadModelFile(
                "a tensor is too large",
                where=self.where,
                expected=f"at most {MAX_NUMBERS:,} numbers",
                found="x".join(map(str, self.shape)),
            )
        if isinstance(self._stored, View):
            return self._finite(_array(self._stored, self._storages))
        values = self._finite(_array(self._stored.values, self._storages))
        places = self._places(_array(self._stored.indices, self._storages))
        dense = np.zeros(math.prod(self.shape), np.float32)
        dense[places] = values
        return dense.reshape(self.shape)

    def _places(self, indices: NDArray[Any]) -> NDArray[np.int64]:
        sizes = np.array(self.shape, np.int64)[:, None]
        outside = ((indices < 0) | (indices >= sizes)).any(0)
        if outside.any():
            first = int(outside.argmax())
            raise BadModelFile(
                "a sparse value is outside its tensor",
                where=f"{self.where}, value {first}",
                expected="indices under " + "x".join(map(str, self.shape)),
                found=tuple(indices[:, first].tolist()),
            )
        places = np.zeros(indices.shape[1], np.int64)
        for size, index in zip(self.shape, indices, strict=True):
            places = places * size + index
        if len(np.unique(places)) != len(places):
            raise BadModelFile("two sparse values have the same position", where=self.where)
        return places

    def _finite(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32, order="C")
        wrong = ~np.isfinite(narrow)
        if wrong.any():
            raise BadModelFile(
                "a tensor holds numbers that are not finite float32",
                where=self.where,
                found=f"{int(wrong.sum()):,} of {numbers.size:,}, the first {numbers[wrong][0]}",
            )
        return narrow


def read_tensors(data: bytes, where: str) -> dict[str, StoredTensor]:
    """Read a checkpoint's descriptions of its tensors, and check them against the bytes.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        The tensors by name, in the order of the file, not yet expanded.

    Raises:
        BadModelFile: The file has neither format, is truncated, holds anything but tensors by name, or describes a
            tensor that does not fit its bytes.
        BundleError: The zip archive is broken.
    """
    if len(data) > MAX_FILE_BYTES:
        raise BadModelFile("the checkpoint is too large", where=where, expected=f"at most {MAX_FILE_BYTES:,} bytes")
    if is_zip(data):
        state, storages = _read_zip(data, where)
    elif data[:1] == b"\x80":
        state, storages = _read_older(data, where)
    else:
        raise BadModelFile(
            "this is not a torch checkpoint",
            where=where,
            expected="a file that torch.save wrote",
            found=f"first bytes {data[:8].hex(' ') or 'none'}",
        )
    found = {}
    for name, stored in state.items():
        place = f"{where}, {name[:160]}"
        _check(stored, storages, place)
        found[name] = StoredTensor(name, stored.shape, isinstance(stored, Coo), place, stored, storages)
    return found


def _state(stream: io.BytesIO, where: str) -> State:
    """Interpret the pickle that describes the tensors; it may hold nothing else."""
    tree = read_pickle(stream, where)
    if not isinstance(tree, dict):
        raise _no_state(where, type(tree).__name__)
    if len(tree) > MAX_TENSORS:
        raise BadModelFile("a checkpoint holds too many tensors", where=where, expected=f"at most {MAX_TENSORS:,}")
    for name, stored in tree.items():
        if not isinstance(name, str) or not isinstance(stored, View | Coo):
            raise _no_state(f"{where}, {ascii(name)[:160]}", type(stored).__name__)
    return tree


def _no_state(where: str, found: str) -> BadModelFile:
    return BadModelFile(
        "a checkpoint holds more than tensors by name",
        where=where,
        expected="a state dict",
        found=found,
        hint="save only model.state_dict()",
    )


def _check(stored: View | Coo, storages: Storages, where: str) -> None:
    """Check that a description fits the bytes of the file."""
    if len(stored.shape) > MAX_DIMENSIONS or any(size > MAX_NUMBERS for size in stored.shape):
        raise BadModelFile(
            "a tensor has an invalid shape",
            where=where,
            expected=f"at most {MAX_DIMENSIONS} dimensions of at most {MAX_NUMBERS:,}",
            found=stored.shape,
        )
    if isinstance(stored, View):
        _check_view(stored, storages, where, _FLOATS)
        return
    _check_view(stored.indices, storages, f"{where}, indices", ("<i8",))
    _check_view(stored.values, storages, f"{where}, values", _FLOATS)
    kept = stored.values.shape[0] if len(stored.values.shape) == 1 else -1
    if not stored.shape or kept < 0 or stored.indices.shape != (len(stored.shape), kept):
        raise BadModelFile(
            "the indices of a sparse tensor do not fit its values",
            where=where,
            expected=f"({len(stored.shape)}, values) and (values,)",
            found=f"{stored.indices.shape} and {stored.values.shape}",
        )


def _check_view(view: View, storages: Storages, where: str, dtypes: tuple[str, ...]) -> None:
    storage = view.storage
    if storage.dtype not in dtypes:
        raise BadModelFile(
            "a tensor's numbers have a type that is not read",
            where=where,
            expected=" or ".join(np.dtype(one).name for one in dtypes),
            found=np.dtype(storage.dtype).name,
        )
    bytes_here = len(storages[storage.key]) if storage.key in storages else None
    if bytes_here != storage.count * np.dtype(storage.dtype).itemsize:
        raise BadModelFile(
            "the size of a storage does not fit its numbers",
            where=f"{where}, storage {storage.key[:40]!a}",
            expected=f"{storage.count:,} numbers of {np.dtype(storage.dtype).itemsize} bytes",
            found="nothing" if bytes_here is None else f"{bytes_here:,} bytes",
        )
    count = math.prod(view.shape)
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise BadModelFile(
            "a tensor reaches out of its storage",
            where=where,
            expected=f"within {storage.count:,} numbers",
            found=f"shape {view.shape}, strides {view.strides}, offset {view.offset}",
        )


def _array(view: View, storages: Storages) -> NDArray[Any]:
    """Return the numbers of a view that `_check_view` has accepted."""
    if not math.prod(view.shape):
        return np.zeros(view.shape, view.storage.dtype)
    flat = np.frombuffer(storages[view.storage.key], view.storage.dtype)
    strides = tuple(stride * flat.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)


def _read_zip(data: bytes, where: str) -> tuple[State, Storages]:
    archive = open_zip(data, where, stored=True)
    tops = {PurePosixPath(name).parts[0] for name in archive.names()}
    if len(tops) != 1 or f"{(top := next(iter(tops)))}/data.pkl" not in archive.names():
        raise BadModelFile(
            "this zip archive is not a torch checkpoint",
            where=where,
            expected="one folder with data.pkl",
            found=_few(tops),
        )
    storages: dict[str, memoryview] = {}
    for name in archive.names():
        inner = name.removeprefix(f"{top}/")
        if inner.startswith("data/") and inner.count("/") == 1:
            storages[inner.removeprefix("data/")] = memoryview(archive.read(name, MAX_FILE_BYTES))
        elif inner == "byteorder":
            _check_byte_order(archive.read(name, _MAX_SMALL_BYTES), f"{where}, {name}")
        elif inner not in (*_BESIDE, "data.pkl"):
            raise BadModelFile(
                "a torch checkpoint holds a file that is not read",
                where=where,
                expected="data.pkl and data/; no TorchScript program",
                found=ascii(inner[:80]),
            )
    pickled = archive.read(f"{top}/data.pkl", _MAX_PICKLE_BYTES)
    stream = io.BytesIO(pickled)
    state = _state(stream, f"{where}, {top}/data.pkl")
    if stream.tell() != len(pickled):
        raise BadModelFile("bytes follow the pickle", where=f"{where}, {top}/data.pkl, byte {stream.tell()}")
    return state, storages


def _check_byte_order(content: bytes, where: str) -> None:
    if content != b"little":
        raise BadModelFile(
            "numbers in this byte order are not read", where=where, expected="little", found=content[:16]
        )


def _read_older(data: bytes, where: str) -> tuple[State, Storages]:
    stream = io.BytesIO(data)
    magic, protocol, machine = (read_pickle(stream, where) for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not isinstance(machine, dict):
        raise BadModelFile(
            "this pickle is not a torch checkpoint",
            where=where,
            expected=f"{_MAGIC:#x} and protocol {_PROTOCOL} first",
            hint="plain pickles are not supported",
        )
    if machine.get("little_endian") is not True:
        raise BadModelFile("numbers in this byte order are not read", where=where, expected="little_endian")
    state = _state(stream, where)
    keys = read_pickle(stream, where)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise BadModelFile("the keys of the storages are not a list of different names", where=where)
    item_bytes = _item_bytes(state)
    view, place, storages = memoryview(data), stream.tell(), {}
    for key in keys:
        if place + 8 > len(data):
            raise BadModelFile("a checkpoint is cut off", where=f"{where}, byte {place}, storage {key[:40]!a}")
        (count,) = struct.unpack_from("<q", data, place)
        size = count * item_bytes.get(key, 1)
        if count < 0 or place + 8 + size > len(data):
            raise BadModelFile(
                "a checkpoint is cut off",
                where=f"{where}, byte {place}, storage {key[:40]!a}",
                expected=f"{size:,} bytes",
                found=f"{len(data) - place - 8:,} bytes",
            )
        storages[key] = view[place + 8 : place + 8 + size]
        place += 8 + size
    if place != len(data):
        raise BadModelFile("bytes follow the last storage", where=f"{where}, byte {place}")
    return state, storages


def _item_bytes(state: State) -> dict[str, int]:
    """Return the bytes per number of each storage by key; the older format stores only counts."""
    found: list[Storage] = []
    for one in state.values():
        if isinstance(one, View):
            found.append(one.storage)
        else:
            found += [one.indices.storage, one.values.storage]
    return {storage.key: np.dtype(storage.dtype).itemsize for storage in found}


def _few(names: set[str]) -> str:
    return ascii(sorted(names)[:3])
