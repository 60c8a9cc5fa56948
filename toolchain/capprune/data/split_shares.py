"""Splits for data sets that have none, by the hash of each photo's name, so that a photo always has the same split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

from capprune_runtime.errors import UsageError

SPLITS: Final = ("train", "val", "test")
DEFAULT_SHARES: Final = (0.8, 0.1, 0.1)


def parse_shares(text: str) -> tuple[float, float, float]:
    """Read the `--shares` option: "80,10,10", "0.8,0.1,0.1" or "90,10" for train, val and test.

    Raises:
        UsageError: It is not two or three numbers of which train and val are above zero.
    """
    try:
        numbers = [float(part) for part in text.replace("/", ",").split(",")]
    except ValueError:
        numbers = []
    if not (2 <= len(numbers) <= 3 and numbers[0] > 0 and numbers[1] > 0 and all(0 <= n < 1e9 for n in numbers)):
        raise UsageError(
            "these are not shares of splits",
            where="--shares",
            expected="train,val,test such as 80,10,10; train and val above zero",
            found=repr(text),
        )
    total = sum(numbers)
    train, val, test = (number / total for number in (*numbers, 0.0)[:3])
    return train, val, test


def split_by_shares(names: Sequence[str], shares: Sequence[float] = DEFAULT_SHARES) -> dict[str, str]:
    """Choose a split for each name by its hash.

    The choice does not depend on the other names, so it is unchanged when photos are added. There is one exception: if
    a split with a share would be empty in a small set, it gets the photo with the nearest hash.

    Args:
        names: Names of the photos.
        shares: Shares of `SPLITS`, with a sum of 1.
    """
    at = {name: _fraction(name) for name in names}
    bounds, low = [], 0.0
    for share in shares:
        bounds.append((low, low + share))
        low += share
    chosen = {name: _split_at(place, bounds) for name, place in at.items()}
    for split, (start, end) in zip(SPLITS, bounds, strict=True):
        sizes = [list(chosen.values()).count(one) for one in SPLITS]
        if end > start and split not in chosen.values() and max(sizes, default=0) > 1:
            crowded = {one for one, size in zip(SPLITS, sizes, strict=True) if size > 1}
            middle = (start + end) / 2
            nearest = min((name for name in at if chosen[name] in crowded), key=lambda name: abs(at[name] - middle))
            chosen[nearest] = split
    return chosen


def parse_share(text: str) -> float:
    """Read the `--val` option: a percentage such as "10" or "10%".

    Raises:
        UsageError: It is not a number above 0 and below 100.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent < 100:
        raise UsageError(
            "this is not a share of the training photos",
            where="--val",
            expected="a percentage above 0 and below 100, such as 10",
            found=repr(text),
        )
    return percent / 100


def take_val(names: Sequence[str], share: float) -> dict[str, str]:
    """Split training photos into train and val by the hashes of their names; the same names give the same split.

    Args:
        names: Names of the training photos.
        share: Share of val, above 0 and below 1.
    """
    return split_by_shares(names, (1 - share, share, 0.0))


def _fraction(name: str) -> float:
    """Return a pseudo-random number from 0 to 1 that depends only on the name."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") / (1 << 64)


def _split_at(place: float, bounds: Sequence[tuple[float, float]]) -> str:
    for split, (start, end) in zip(SPLITS, bounds, strict=True):
        if start <= place < end:
            return split
    return SPLITS[0]
