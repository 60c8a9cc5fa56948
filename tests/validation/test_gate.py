from __future__ import annotations

import numpy as np
import pytest

from capprune.metrics.intervals import Change, Interval, bootstrap_change
from capprune.validation.gate import check_gates, parse_max_bytes, parse_max_drop
from capprune.validation.parity import compare_tokens
from capprune_runtime.errors import GateFailed, UsageError

SIZES = {"encoder.tflite": 3_000_000, "decoder.tflite": 900_000, "manifest.json": 2_000, "vocabulary.txt": 30_000}


def change(kept: float) -> Change:
    before = np.random.default_rng(0).gamma(1.6, 0.5, 300)
    return bootstrap_change(before.tolist(), (before * kept).tolist())


@pytest.mark.parametrize(
    ("text", "share"), [("2%", 0.02), (" 2.5 % ", 0.025), ("0.02", 0.02), ("0", 0.0), ("0%", 0.0), ("1e-3", 0.001)]
)
def test_max_drop_is_a_share_or_a_percentage(text: str, share: float) -> None:
    assert parse_max_drop(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "two", "2", "100%", "-1%", "nan", "inf%", "0,02", "2%%"])
def test_max_drop_that_is_no_share_below_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"2% or 0\.02"):
        parse_max_drop(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4MB", 4_000_000),
        ("4_000_000", 4_000_000),
        ("4MiB", 4 * 2**20),
        ("1.5 kib", 1536),
        ("900kB", 900_000),
        ("2GB", 2 * 10**9),
        ("1GiB", 2**30),
        ("17B", 17),
        ("0", 0),
    ],
)
def test_max_bytes_takes_decimal_and_binary_units(text: str, size_bytes: int) -> None:
    assert parse_max_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MB", "4 apples", "-4MB", "4,000", "4M", "1e6", "nan"])
def test_max_bytes_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="4MiB"):
        parse_max_bytes(text)


def test_gates_pass_in_silence_within_and_at_the_limits() -> None:
    check_gates(change=change(0.99), max_drop=0.02, sizes=SIZES, max_bytes=sum(SIZES.values()))
    check_gates(change=change(1.10), max_drop=0.0, sizes=SIZES)
    check_gates()


def test_drop_over_the_limit_says_from_where_to_where() -> None:
    fallen = change(0.95)
    with pytest.raises(GateFailed) as failure:
        check_gates(change=fallen, max_drop=0.02)
    assert failure.value.exit_code == 3
    message = str(failure.value)
    assert f"from {fallen.before:.4f} (reference) to {fallen.after:.4f} (bundle)" in message
    assert "by 5.00% where 2.00% is allowed; 95% interval of the drop 5.00% to 5.00%" in message
    assert "more photos" not in message


def test_drop_whose_interval_holds_the_limit_asks_for_more_photos() -> None:
    relative = Interval(-0.03, -0.05, -0.01)
    unsure = Change(1.0, 0.97, Interval(-0.03, -0.05, -0.01), relative)
    with pytest.raises(GateFailed, match=r"interval of the drop 1\.00% to 5\.00% \(the limit is inside"):
        check_gates(change=unsure, max_drop=0.02)


def test_bundle_over_the_limit_names_its_largest_files() -> None:
    with pytest.raises(GateFailed) as failure:
        check_gates(sizes=SIZES, max_bytes=3_500_000)
    assert (
        "takes 3,932,000 bytes where 3,500,000 are allowed, 432,000 too many; its largest files: "
        "encoder.tflite 3,000,000, decoder.tflite 900,000, vocabulary.txt 30,000"
    ) in str(failure.value)


def test_both_failures_are_told_at_once() -> None:
    with pytest.raises(GateFailed, match=r"CIDEr-D fell.*the bundle takes"):
        check_gates(change=change(0.5), max_drop=0.02, sizes=SIZES, max_bytes=1)


def test_lost_parity_names_the_interpreter_and_the_first_photo() -> None:
    own = {f"{number:03}.jpg": (4, 5, 6) for number in range(600)}
    same = compare_tokens(own, own, lambda photo, reference, other: 0.0)
    tie = compare_tokens(own, {**own, "007.jpg": (4, 5)}, lambda photo, reference, other: 1e-5)
    wrong = compare_tokens(own, {**own, "007.jpg": (4, 5)}, lambda photo, reference, other: 0.3)
    check_gates(parity={"ai-edge-litert": same, "tensorflow": tie})
    with pytest.raises(GateFailed, match=r"in tensorflow 1 of 600 captions.*1 of them without.*007\.jpg, word 3"):
        check_gates(parity={"ai-edge-litert": same, "tensorflow": wrong})


def test_more_ties_than_may_be_excused_fail() -> None:
    own = {f"{number:03}.jpg": (4, 5, 6) for number in range(10)}
    tie = compare_tokens(own, {**own, "007.jpg": (4, 5)}, lambda photo, reference, other: 1e-5)
    with pytest.raises(GateFailed, match=r"0 of them without a tie to excuse it \(ties may excuse 2 in 1,000\)"):
        check_gates(parity={"ai-edge-litert": tie})


def test_a_quality_that_is_no_number_fails() -> None:
    nan = float("nan")
    with pytest.raises(GateFailed):
        check_gates(change=Change(1.0, nan, Interval(nan, nan, nan), None), max_drop=0.02)


def test_a_drop_limit_without_a_reference_is_refused() -> None:
    with pytest.raises(UsageError, match="--reference RUN"):
        check_gates(max_drop=0.02)
