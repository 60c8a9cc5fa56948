"""The ledger of a bundle: the size of its weights from dense float32 to the entropy floor.

dense    4 bytes per weight, zeros included, as a converter writes it
kept     4 bytes per kept weight
in file  size in the model file: values, indices, row pointers
packed   size in a .capz, with its share of tables and headers
floor    N·H(kept / N) for the positions and kept·H0(values) for the values: lower bound of zeroth-order coders
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from capprune_exporters.pack.capz import pack_file
from capprune_exporters.pack.entropy import floor_bytes
from capprune_exporters.pack.pieces import PackedTensor
from capprune_runtime.bundle.manifest import VOCABULARY
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.formats import kind_of_name
from capprune_runtime.onnx.file import read_onnx
from capprune_runtime.tflite.file import Tensor, TfliteModel, read_tflite

FLOAT_BYTES = 4
SMALLEST = 512  # weights; all smaller tensors and all biases share one line
OTHER = "biases, small tensors"
REST = "graph, names, words"
EXPANDED = "dense, expanded"
# suffixes of the tensors from which a weight is rebuilt
ONNX_PARTS = ("gaps", "values", "codes", "codebook", "scale", "scales", "shape", "size")


@dataclass(frozen=True)
class LedgerLine:
    """One weight tensor, or the rest of a file.

    Attributes:
        file: Name of the file in the bundle.
        tensor: Name of the tensor.
        shape: Dense shape of the tensor; () for a rest.
        form: Storage form.
        kernel: The kernel that runs it.
        kept: Number of weights that are not zero.
        dense_bytes: See the module.
        kept_bytes: See the module.
        file_bytes: See the module.
        packed_bytes: See the module.
        floor_bytes: See the module; None for a rest.
    """

    file: str
    tensor: str
    shape: tuple[int, ...]
    form: str
    kernel: str
    kept: int
    dense_bytes: int
    kept_bytes: int
    file_bytes: int
    packed_bytes: int
    floor_bytes: float | None

    @property
    def bits_per_kept(self) -> float | None:
        """Bits per kept weight in the packed bundle."""
        return None if not self.kept else 8 * self.packed_bytes / self.kept

    @property
    def ratio_to_floor(self) -> float | None:
        """Ratio of packed bytes to the floor."""
        return None if not self.floor_bytes else self.packed_bytes / self.floor_bytes


@dataclass(frozen=True)
class LedgerFile:
    """One model file and its lines; the lines' bytes in the file sum to its size."""

    name: str
    lines: tuple[LedgerLine, ...]
    size_bytes: int
    packed_bytes: int

    @property
    def dense_bytes(self) -> int:
        """Size of the file with every weight in float32."""
        return self.size_bytes + sum(line.dense_bytes - line.file_bytes for line in self.lines)


def read_ledger(bundle: Bundle) -> tuple[LedgerFile, LedgerFile]:
    """Return the ledgers of a verified bundle's encoder and decoder.

    Both are packed in memory, which takes 1 to 2 s.
    """
    encoder, decoder = bundle.manifest.encoder.file, bundle.manifest.decoder.file
    return _read_file(bundle, encoder), _read_file(bundle, decoder)


def _read_file(bundle: Bundle, name: str) -> LedgerFile:
    data = bundle.files[name]
    _, section, packed = pack_file(name, data, bundle.files[VOCABULARY])
    coded = {one.name: one for one in packed}
    if kind_of_name(name) == "onnx":
        lines = list(_onnx_lines(name, data, coded))
    else:
        lines = list(_tflite_lines(name, read_tflite(data, name), coded))
    weights = [line for line in lines if line.shape]
    small = _rest(name, OTHER, [line for line in lines if not line.shape])
    graph = len(data) - sum(line.file_bytes for line in lines)
    left = len(section) - sum(line.packed_bytes for line in (*weights, small))
    rest = LedgerLine(name, REST, (), "", "", 0, graph, graph, graph, left, None)
    return LedgerFile(name, (*weights, small, rest), len(data), len(section))


def _rest(name: str, what: str, lines: list[LedgerLine]) -> LedgerLine:
    return LedgerLine(
        name,
        what,
        (),
        "",
        "",
        sum(line.kept for line in lines),
        sum(line.dense_bytes for line in lines),
        sum(line.kept_bytes for line in lines),
        sum(line.file_bytes for line in lines),
        sum(line.packed_bytes for line in lines),
        None,
    )


def _tflite_lines(name: str, model: TfliteModel, packed: dict[str, PackedTensor]) -> Iterator[LedgerLine]:
    for tensor in model.tensors:
        if not model.is_constant(tensor):
            continue
        total, is_weight = prod(tensor.shape), len(tensor.shape) > 1 and prod(tensor.shape) >= SMALLEST
        kept = int(np.count_nonzero(model.stored_values(tensor)))
        size = len(model.buffers[tensor.buffer]) + _index_bytes(tensor)
        coded = packed.get(tensor.name)
        form, kernel = _form_and_kernel(model, tensor) if is_weight else ("", "")
        item = FLOAT_BYTES if tensor.dtype in ("float32", "int8") else np.dtype(tensor.dtype).itemsize
        yield LedgerLine(
            name,
            tensor.name,
            tensor.shape if is_weight else (),
            form,
            kernel,
            kept,
            item * total,
            item * kept,
            size,
            0 if coded is None else coded.coded_bytes,
            None if coded is None else coded.floor_bytes,
        )


def _form_and_kernel(model: TfliteModel, tensor: Tensor) -> tuple[str, str]:
    """Return the storage form of a weight, by the names of plans, and the kernel of the stock runtimes for it."""
    users = {operator.name for operator in model.operators if tensor.index in operator.inputs}
    if "DENSIFY" in users:
        return f"densify_{tensor.dtype}", EXPANDED
    if tensor.sparsity is None:
        if tensor.dtype != "int8":
            return f"dense_{tensor.dtype}", "dense"
        return "dense_int8", EXPANDED if users == {"DEQUANTIZE"} else "dense int8"
    if tensor.sparsity.block_map:
        size = tensor.sparsity.dimensions[-1].dense_size
        return f"block_1x{size}_{tensor.dtype}", f"sparse 1x{size} kernel"
    return f"csr_{tensor.dtype}", "sparse row kernel"


def _index_bytes(tensor: Tensor) -> int:
    levels = tensor.sparsity.dimensions if tensor.sparsity else ()
    return sum(int(level.segments.nbytes + level.indices.nbytes) for level in levels if level.compressed)


def _onnx_lines(name: str, data: bytes, packed: dict[str, PackedTensor]) -> Iterator[LedgerLine]:
    """Return one line per weight; the gaps, codes, scales and tables of a rebuilt weight are one line."""
    stored = read_onnx(data, name).initializers
    parts: dict[str, list[str]] = {}
    for tensor in stored:
        owner, _, part = tensor.rpartition(".")
        parts.setdefault(owner if part in ONNX_PARTS else tensor, []).append(tensor)
    for owner, tensors in parts.items():
        values = {tensor.rpartition(".")[2] if len(tensors) > 1 else "": stored[tensor].values for tensor in tensors}
        codes = next(values[part] for part in ("values", "codes", "") if part in values)
        shape = tuple(int(size) for size in values["shape"]) if "shape" in values else codes.shape
        is_weight = len(shape) > 1 and prod(shape) >= SMALLEST
        rebuilt = "gaps" in values
        kept = int(np.count_nonzero(codes))
        item = FLOAT_BYTES if codes.dtype.itemsize == 1 else codes.dtype.itemsize
        yield LedgerLine(
            name,
            owner,
            shape if is_weight else (),
            f"{'gap' if rebuilt else 'dense'}_{codes.dtype.name}" if is_weight else "",
            (EXPANDED if rebuilt else "dense") if is_weight else "",
            kept,
            item * prod(shape),
            item * kept,
            sum(stored[tensor].values.nbytes for tensor in tensors),
            sum(packed[tensor].coded_bytes for tensor in tensors if tensor in packed),
            floor_bytes(kept, prod(shape), codes[codes != 0]) if is_weight else None,
        )
