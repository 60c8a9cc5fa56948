"""Checkpoints are read without running them: what is not a tensor is refused by name and place."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune.importing.tensors import read_tensors
from capprune_runtime.errors import BadModelFile, BundleError

FEW_BYTES = 4 << 20  # of memory, for files of a few kilobytes

both_formats = pytest.mark.parametrize("older", [False, True], ids=["zip", "older"])


class Runs:
    """Unpickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def refused(data: bytes) -> BundleError:
    """The error, which came without much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(BundleError) as caught:
            for tensor in read_tensors(data, "model.pth").values():
                tensor.dense()
        assert tracemalloc.get_traced_memory()[1] < FEW_BYTES
    finally:
        tracemalloc.stop()
    assert caught.value.where is not None and caught.value.where.startswith("model.pth")
    return caught.value


@both_formats
def test_tensors_of_every_kind_are_read_as_torch_reads_them(older: bool) -> None:
    tree = OrderedDict(
        plain=torch.randn(3, 4),
        half=torch.randn(5).half(),
        double=torch.randn(2, 2).double(),
        turned=torch.randn(3, 4).T,
        part=torch.randn(6, 4)[2:4, 1:],
        parameter=torch.nn.Parameter(torch.randn(2)),
        sparse=(torch.randn(5, 6) * (torch.rand(5, 6) < 0.3)).to_sparse(),
        nothing_kept=torch.zeros(4, 3).to_sparse(),
        one=torch.tensor(2.5),
    )
    found = read_tensors(checkpoints.saved(tree, older=older), "model.pth")
    assert list(found) == list(tree)
    for name, tensor in tree.items():
        dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
        assert found[name].sparse == tensor.is_sparse
        assert np.array_equal(found[name].dense(), dense.float().numpy()), name


@both_formats
def test_a_state_dict_with_its_metadata_is_read(older: bool) -> None:
    state = torch.nn.LSTMCell(3, 4).state_dict()
    assert state._metadata  # type: ignore[attr-defined]
    assert list(read_tensors(checkpoints.saved(state, older=older), "model.pth")) == list(state)


@both_formats
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "among tensors"])
def test_code_is_refused_by_name_and_never_runs(tmp_path: Path, older: bool, inside: bool) -> None:
    witness = tmp_path / "witness"
    evil = Runs(os.system, f"touch {witness}")
    tree = {"core.weight": torch.ones(2), "other.weight": evil} if inside else evil
    error = refused(checkpoints.saved(tree, older=older))
    assert error.found == "posix.system" and "byte" in str(error.where)
    assert not inside or "other.weight" in str(error.where)
    assert not witness.exists()


@pytest.mark.parametrize(
    "evil",
    [
        Runs(eval, "1"),
        Runs(getattr, "", "join"),
        Runs(torch.load, "other.pth"),
        Runs(torch.zeros, 10**9),
        Runs(np.zeros, 10**9),
        Runs(bytearray, 1 << 40),
        Path("x"),
        {1, 2},
    ],
    ids=lambda one: one.call[0].__name__ if isinstance(one, Runs) else type(one).__name__,
)
@both_formats
def test_other_globals_are_refused_by_name(evil: object, older: bool) -> None:
    error = refused(checkpoints.saved({"a.weight": evil}, older=older))
    assert "global" in error.what and error.found and "." in str(error.found)


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_is_refused_whatever_it_holds(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    for tree in (Runs(os.system, f"touch {witness}"), {"a.weight": [1.0]}, [torch.ones(1).numpy()]):
        refused(pickle.dumps(tree, protocol))
    assert not witness.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"}(X\x01\x00\x00\x00aU\x01xu.",  # SHORT_BINSTRING
        b"Vtext\n.",
        b"cposix\nsystem\n.",
        b"(S'x'\niposix\nsystem\n.",  # INST
        b"\x82\x01.",  # EXT1
        b"\x97.",  # NEXT_BUFFER
        b"00.",
        b"h\x05.",
        b"R.",
        b"((((.",
        b")}b.",
        b"]K\x01a",  # no STOP
        b"]]]]]].",
        b"}(K\x01K\x02K\x01K\x03u.",  # a key twice
        b"}()K\x03u.",
        b"}(K\x03u.",
        b"X\xff\xff\xff\x7fabc.",  # text of 2 GB
        b"r\xff\xff\xff\xff.",
        b"]r\xff\xff\xff\x7f.",  # a memo of 2 billion, then no tensors
        b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"\xff.",
        b"ctorch\nFloatStorage\n)R.",
        b"ccollections\nOrderedDict\n(K\x01tR.",
        b"ctorch\nSize\n)R.",
        b"X\x01\x00\x00\x00aQ.",
        b"}}b.",
        b"",
    ],
)
def test_malformed_pickles_are_refused(body: bytes) -> None:
    refused(archive({"data.pkl": b"\x80\x02" + body}))


def test_a_pickle_of_many_opcodes_is_refused_soon() -> None:
    assert "too long" in refused(archive({"data.pkl": b"\x80\x02]" + b"K\x01a" * 100_000 + b"."})).what


def test_a_pickle_that_doubles_at_every_step_costs_nothing() -> None:
    doubled = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(100)) + b"."
    refused(archive({"data.pkl": doubled}))
    refused(archive({"data.pkl": doubled[:-1] + b"Q."}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
@both_formats
def test_numbers_that_are_not_finite_float32_are_refused(value: float, older: bool) -> None:
    tensor = torch.ones(3, 4, dtype=torch.float64)
    tensor[1, 2] = value
    for one in (tensor, tensor.to_sparse()):
        error = refused(checkpoints.saved({"core.weight": one}, older=older))
        assert "not finite" in error.what and "core.weight" in str(error.where) and str(value) in str(error.found)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.bfloat16, torch.complex64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    assert "Storage" in str(refused(checkpoints.saved({"a.weight": torch.ones(2).to(dtype)})).found)


def test_whole_numbers_are_no_weights() -> None:
    error = refused(checkpoints.saved({"a.weight": torch.ones(2, dtype=torch.int64)}))
    assert (error.expected, error.found) == ("float16 or float32 or float64", "int64")


def test_other_sparse_layouts_are_refused() -> None:
    with pytest.warns(UserWarning, match="beta"):
        tensor = torch.eye(3).to_sparse_csr()
    assert refused(checkpoints.saved({"a.weight": tensor})).found == "torch.sparse_csr"


@pytest.mark.parametrize("places", [[[0, 3], [0, 0]], [[0, 1], [0, -1]], [[0, 1], [0, 1 << 62]]])
def test_sparse_values_outside_their_tensor_are_refused(places: list[list[int]]) -> None:
    error = refused(coo_file(places, [1.0, 2.0], (3, 4)))
    assert "outside" in error.what and error.where == "model.pth, a.weight, value 1"


def test_two_sparse_values_in_one_place_are_refused() -> None:
    assert "same position" in refused(coo_file([[1, 1], [2, 2]], [1.0, 2.0], (3, 4))).what


@pytest.mark.parametrize("shape", [(1 << 39, 1), (1 << 20, 1 << 20), (1 << 14, 1 << 14), (1 << 62, 4), (2,) * 9])
def test_absurd_sizes_in_a_few_bytes_are_refused_without_memory(shape: tuple[int, ...]) -> None:
    refused(coo_file([[0] for _ in shape], [1.0], shape))


def test_indices_that_do_not_fit_the_values_are_refused() -> None:
    assert "fit its values" in refused(coo_file([[1, 1], [2, 3]], [1.0, 2.0], (3, 4, 5))).what
    assert "fit its values" in refused(coo_file([[1, 1, 1], [2, 3, 0]], [1.0, 2.0], (3, 4))).what


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (3, 3), (3, 1)),  # 9 of 8
        (5, (2, 2), (2, 1)),
        (8, (1,), (1,)),
        (0, (1 << 20,), (0,)),  # one number, repeated
        (0, (2, 2), (1 << 38, 1)),
        (-1, (2,), (1,)),
        (7, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
    ],
)
def test_tensors_that_reach_out_of_their_storage_are_refused(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    refused(dense_file(offset, shape, strides, count=8))


@pytest.mark.parametrize("count", [7, 9, 0, 1 << 39])
def test_a_storage_of_other_length_than_it_claims_is_refused(count: int) -> None:
    assert "size of a storage" in refused(dense_file(0, (2, 4), (4, 1), count=count)).what


def test_the_same_file_with_true_numbers_is_read() -> None:
    found = read_tensors(dense_file(1, (2, 3), (3, 1), count=8), "model.pth")
    assert found["a.weight"].dense().tolist() == [[1, 2, 3], [4, 5, 6]]
    found = read_tensors(coo_file([[0, 2], [3, 1]], [1.0, 2.0], (3, 4)), "model.pth")
    assert found["a.weight"].dense().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 2, 0, 0]]


@pytest.mark.parametrize(
    "tree", [torch.ones(2), [torch.ones(2)], {"model": {"a.weight": torch.ones(2)}}, {3: torch.ones(2)}]
)
@both_formats
def test_anything_but_tensors_by_name_is_refused(tree: object, older: bool) -> None:
    assert "more than tensors by name" in refused(checkpoints.saved(tree, older=older)).what


@pytest.mark.parametrize("name", ["code/model.py", "constants.pkl", "data/a/b", "extra"])
def test_files_that_no_tensor_needs_are_refused(name: str) -> None:
    assert "a file that is not read" in refused(archive({"data.pkl": b"\x80\x02}.", name: b""})).what


def test_a_compressed_checkpoint_is_refused() -> None:
    assert (
        "compressed" in refused(archive({"data.pkl": b"\x80\x02}.", "data/0": bytes(4000)}, zipfile.ZIP_DEFLATED)).what
    )


def test_big_endian_numbers_are_refused() -> None:
    error = refused(archive({"data.pkl": b"\x80\x02}.", "byteorder": b"big"}))
    assert (error.expected, error.found) == ("little", "b'big'")


def test_bytes_behind_the_numbers_are_refused() -> None:
    assert "bytes follow" in refused(checkpoints.saved({"a.weight": torch.ones(2)}, older=True) + b"x").what
    assert "bytes follow" in refused(archive({"data.pkl": b"\x80\x02}.\x80\x02}."})).what


@both_formats
def test_every_truncation_is_refused(older: bool) -> None:
    data = checkpoints.saved({"a.weight": torch.ones(3, 2).to_sparse(), "b.bias": torch.ones(2)}, older=older)
    for length in range(0, len(data), 7):
        with pytest.raises(BundleError):
            read_tensors(data[:length], "model.pth")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(SMALL[data.draw(st.booleans())])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        for tensor in read_tensors(bytes(whole), "model.pth").values():
            assert np.isfinite(tensor.dense()).all()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 27), max_size=25))
def test_any_sequence_of_opcodes_is_read_or_refused_and_nothing_else(chosen: list[int]) -> None:
    opcodes = [bytes([one]) for one in b"(}])\x85\x86\x87tsueaRbQNq\x88"]
    opcodes += [b"q\x00", b"h\x00", b"K\x02", text("a.weight"), b"ctorch\nSize\n", b"ccollections\nOrderedDict\n"]
    opcodes += [b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._utils\n_rebuild_sparse_tensor\n"]
    opcodes += [view("FloatStorage", "0", 8, 0, (2, 4), (4, 1)), view("LongStorage", "1", 2, 0, (2, 1), (1, 1))]
    body = b"\x80\x02}" + text("a.weight") + b"".join(opcodes[one % len(opcodes)] for one in chosen) + b"s."
    with contextlib.suppress(BundleError):
        for tensor in read_tensors(archive({"data.pkl": body, "data/0": bytes(32), "data/1": bytes(16)}), "f").values():
            assert np.isfinite(tensor.dense()).all()


SMALL = [
    checkpoints.saved({"a.weight": torch.eye(3).to_sparse(), "b.bias": torch.ones(2)}, older=older)
    for older in (False, True)
]


def test_what_is_no_checkpoint_is_refused_with_its_first_bytes() -> None:
    assert "50 4b 05 06" in str(refused(b"PK\x05\x06" + bytes(18)).found)
    assert isinstance(refused(b""), BadModelFile)
    assert "not a torch checkpoint" in refused(b"\x89HDF\r\n").what


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def number(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def view(kind: str, key: str, count: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    rest = number(offset) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def dense_file(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], count: int) -> bytes:
    """One tensor over the storage 0 1 … 7, which is said to hold `count` numbers."""
    pickled = b"\x80\x02}" + text("a.weight") + view("FloatStorage", "0", count, offset, shape, strides) + b"s."
    return archive({"data.pkl": pickled, "data/0": np.arange(8, dtype="<f4").tobytes()})


def coo_file(places: list[list[int]], values: list[float], shape: tuple[int, ...]) -> bytes:
    """One sparse tensor, as torch writes it but not as it would check it."""
    kept = len(places[0])
    layout = b"ctorch.serialization\n_get_layout\n" + text("torch.sparse_coo") + b"\x85R"
    parts = view("LongStorage", "0", len(places) * kept, 0, (len(places), kept), (kept, 1))
    parts += view("FloatStorage", "1", len(values), 0, (len(values),), (1,))
    size = b"ctorch\nSize\n" + numbers(shape) + b"\x85R"
    pickled = b"ctorch._utils\n_rebuild_sparse_tensor\n" + layout + parts + size + b"\x87\x86R"
    return archive(
        {
            "data.pkl": b"\x80\x02}" + text("a.weight") + pickled + b"s.",
            "data/0": np.array(places, "<i8").tobytes(),
            "data/1": np.array(values, "<f4").tobytes(),
        }
    )
