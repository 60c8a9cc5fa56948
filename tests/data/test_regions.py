from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune.data.regions import MAX_REGIONS, open_regions
from capprune_runtime.errors import DataError, UsageError


def regions(count: int = 3, channels: int = 4) -> np.ndarray:
    return np.arange(count * channels, dtype=np.float32).reshape(count, channels)


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def refused(folder: Path, content: bytes) -> DataError:
    (folder / "7.npy").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_regions(folder).regions("7")
    assert caught.value.where == str(folder / "7.npy")
    return caught.value


def test_files_are_found_by_id_with_and_without_the_ending_of_the_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "12.npy", regions())
    np.save(tmp_path / "13_att.npy", regions() + 1)
    np.save(tmp_path / "13_fc.npy", regions().mean(0))
    (tmp_path / "notes.txt").write_text("")
    with open_regions(tmp_path) as store:
        assert store.names() == ("12", "13")
        assert np.array_equal(store.regions("13"), regions() + 1)
        assert store.missing(["12", "13", "14"]) == ("14",)
        store.require(["12", "13"])
        with pytest.raises(DataError, match="without region features") as caught:
            store.require(["12", "14"])
        assert "1 missing: 14" in str(caught.value.found)


@pytest.mark.parametrize("name", ["42", "42.jpg", "COCO_val2014_000000000042.jpg", "000000000042.jpg"])
def test_a_photo_is_found_by_its_file_name(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "42.npy", regions())
    np.save(tmp_path / "142.npy", regions())
    assert open_regions(tmp_path).find(name) == "42"


@pytest.mark.parametrize("name", ["x42.jpg", "", ".", "..", "../42", "/42", "42/../43", "sub/../../outside", "\0"])
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside").mkdir()
    np.save(tmp_path / "outside.npy", regions())
    np.save(tmp_path / "inside" / "1.npy", regions())
    with pytest.raises(DataError, match="without region features"):
        open_regions(tmp_path / "inside").regions(name)


def test_a_mean_without_its_regions_is_no_silent_loss(tmp_path: Path) -> None:
    np.save(tmp_path / "5_fc.npy", regions().mean(0))
    with pytest.raises(DataError, match="invalid shape"):
        open_regions(tmp_path).regions("5_fc")


def test_two_files_for_one_photo_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "5.npy", regions())
    np.save(tmp_path / "5_att.npy", regions())
    with pytest.raises(DataError, match="two files") as caught:
        open_regions(tmp_path)
    assert caught.value.found == "5.npy, 5_att.npy"


def test_folders_that_are_not_there_or_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_regions(tmp_path / "none")
    with pytest.raises(DataError, match="no region features"):
        open_regions(tmp_path)


def test_photos_are_filled_up_to_the_same_number_of_regions(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", regions(3))
    np.save(tmp_path / "2.npy", regions(5) + 1)
    found = open_regions(tmp_path).padded(["2", "1"], regions=6)
    assert found.features.shape == (2, 6, 4) and found.features.dtype == np.float32
    assert found.present.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    assert np.array_equal(found.features[0, :5], regions(5) + 1) and not found.features[0, 5:].any()
    assert np.array_equal(found.features[1, :3], regions(3)) and not found.features[1, 3:].any()


def test_photos_with_too_many_regions_or_other_channels_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", regions(3))
    np.save(tmp_path / "2.npy", regions(3, 5))
    store = open_regions(tmp_path)
    with pytest.raises(DataError, match="do not fit") as caught:
        store.padded(["1"], regions=2)
    assert (caught.value.expected, caught.value.found) == ("at most 2 regions of 4 channels", "3 of 4")
    with pytest.raises(DataError, match="do not fit"):
        store.padded(["1", "2"])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_and_order_of_npy_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    for array in (regions(), np.asfortranarray(regions())):
        (tmp_path / "7.npy").write_bytes(npy(array, version))
        found = open_regions(tmp_path).regions("7")
        assert np.array_equal(found, regions()) and found.flags.c_contiguous


def test_pickled_arrays_are_refused_and_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'witness'}",)

    array = np.empty(1, object)
    array[0] = Evil()
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    assert refused(tmp_path, buffer.getvalue()).found == "dtype |O"
    refused(tmp_path, pickle.dumps(Evil()))
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("dtype", ["<f8", "<f2", ">f4", "<i4", "|u1", "<c8", "<U4"])
def test_other_types_are_refused(tmp_path: Path, dtype: str) -> None:
    error = refused(tmp_path, npy(np.zeros((3, 4), dtype)))
    assert (error.expected, error.found) == ("dtype <f4", f"dtype {dtype}")


@pytest.mark.parametrize("shape", [(), (4,), (0, 4), (3, 0), (MAX_REGIONS + 1, 4), (2, 3, 4), (1, 16_385)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    error = refused(tmp_path, npy(np.zeros(shape, np.float32)))
    assert error.what == "regions have an invalid shape" and error.found == str(shape)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_region(tmp_path: Path, value: float) -> None:
    array = regions()
    array[2, 1] = value
    assert refused(tmp_path, npy(array)).found == "one in region 2"


@pytest.mark.parametrize(
    "shape", ["(100, 16384)", "(3, 4, 999999999999)", "(999999999999, 999999999999)", "(3,)", "()"]
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path: Path, shape: str) -> None:
    refused(tmp_path, npy(regions()).replace(b"(3, 4)", shape.encode()))


@pytest.mark.parametrize(
    "shape", ["(-3, 4)", "(3, 4", "(3 4)", "__import__('os')", "(" * 500, "(3, " + "1" * 90 + "x)"]
)
def test_a_header_that_is_no_plain_header_is_refused(tmp_path: Path, shape: str) -> None:
    assert "header" in refused(tmp_path, header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")).what


def test_truncated_and_longer_files_are_refused(tmp_path: Path) -> None:
    whole = npy(regions())
    for length in range(len(whole)):
        refused(tmp_path, whole[:length])
    assert "too long" in refused(tmp_path, whole + b"\0").what


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "7.npy").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="too large"):
        open_regions(tmp_path).regions("7")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_data(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_bytes"
    folder.mkdir(exist_ok=True)
    refused(folder, b"\x93NUMPY" + content)


def test_a_fingerprint_changes_with_a_file_in_the_place_of_another(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", regions(3))
    before = open_regions(tmp_path).fingerprint(["1"])
    np.save(tmp_path / "1.npy", regions(4))
    assert open_regions(tmp_path).fingerprint(["1"]) != before


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\n" + regions().tobytes()
