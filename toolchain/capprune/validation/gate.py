"""Gates: limits on the loss of quality and on the size of an export."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from capprune.metrics.intervals import Change
from capprune.validation.parity import EXCUSED, EXCUSED_OF, Parity
from capprune_runtime.errors import GateFailed, UsageError

DEFAULT_MAX_DROP = 0.02

_SIZE = re.compile(r"(?P<number>\d[\d_]*(?:\.\d+)?)\s*(?P<unit>[a-z]*)", re.IGNORECASE)
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
LARGEST_FILES = 3


def parse_max_drop(text: str) -> float:
    """Read the `--max-drop` option: "2%" or "0.02".

    Returns:
        The allowed relative loss of CIDEr-D (0 to 1, 1 excluded).

    Raises:
        UsageError: It is not a share, or not below 1.
    """
    number, percent = (text.strip()[:-1], 100.0) if text.strip().endswith("%") else (text, 1.0)
    try:
        share = float(number) / percent
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise UsageError(
            "not a limit for the loss of quality",
            where="--max-drop",
            expected="a share such as 2% or 0.02",
            found=repr(text),
        )
    return share


def parse_max_bytes(text: str) -> int:
    """Read the `--max-bytes` option: "4_000_000", "4MB" (10**6) or "4MiB" (2**20).

    Returns:
        The limit in bytes.

    Raises:
        UsageError: It is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = None if match is None else _UNITS.get(match["unit"].lower())
    if match is None or unit is None:
        raise UsageError(
            "not a size",
            where="--max-bytes",
            expected="bytes such as 4_000_000, 4MB or 4MiB",
            found=repr(text),
        )
    return int(float(match["number"].replace("_", "")) * unit)


def check_gates(
    *,
    change: Change | None = None,
    max_drop: float | None = None,
    sizes: Mapping[str, int] | None = None,
    max_bytes: int | None = None,
    parity: Mapping[str, Parity] | None = None,
) -> None:
    """Raise an error if the model exceeds a limit; it names the limit and the main causes.

    Args:
        change: CIDEr-D of the reference and of the bundle on the same photos.
        max_drop: Allowed relative loss of CIDEr-D (0 to 1); None for no limit.
        sizes: Size of each file of the bundle in bytes.
        max_bytes: Allowed sum of the sizes; None for no limit.
        parity: Parity of a float32 export by interpreter; all of them must hold.

    Raises:
        GateFailed: At least one gate failed; the message names all that failed.
        UsageError: A limit is given without the value that it limits.
    """
    if max_drop is not None and change is None:
        raise UsageError(
            "a loss can only be measured against the model the bundle was made from",
            where="--max-drop",
            hint="give the run with --reference RUN",
        )
    failures = []
    if max_drop is not None and change is not None and not change.drop <= max_drop:  # nan fails
        failures.append(_drop_sentence(change, max_drop))
    if max_bytes is not None and sizes is not None and sum(sizes.values()) > max_bytes:
        failures.append(_size_sentence(sizes, max_bytes))
    for runtime, compared in (parity or {}).items():
        if not compared.holds:
            failures.append(_parity_sentence(runtime, compared))
    if failures:
        raise GateFailed("; ".join(failures), hint="change the limit, the sparsity or the stored weights")


def _drop_sentence(change: Change, max_drop: float) -> str:
    sentence = (
        f"CIDEr-D fell from {change.before:.4f} (reference) to {change.after:.4f} (bundle), "
        f"by {change.drop:.2%} where {max_drop:.2%} is allowed"
    )
    if change.relative is None:
        return sentence
    interval = change.relative
    width = f"{interval.confidence:.0%} interval of the drop {-interval.high:.2%} to {-interval.low:.2%}"
    inside = " (the limit is inside the interval: use more photos)" if -interval.high <= max_drop else ""
    return f"{sentence}; {width}{inside}"


def _size_sentence(sizes: Mapping[str, int], max_bytes: int) -> str:
    total = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:LARGEST_FILES]
    listed = ", ".join(f"{name} {size:,}" for name, size in largest)
    return (
        f"the bundle takes {total:,} bytes where {max_bytes:,} are allowed, "
        f"{total - max_bytes:,} too many; its largest files: {listed}"
    )


def _parity_sentence(runtime: str, parity: Parity) -> str:
    inexcusable = [difference for difference in parity.differences if not difference.excused]
    first = (inexcusable or parity.differences)[0]
    return (
        f"in {runtime} {len(parity.differences)} of {parity.photos:,} captions are not those of the trained model, "
        f"{len(inexcusable)} of them without a tie to excuse it (ties may excuse {EXCUSED} in {EXCUSED_OF:,}); "
        f"the first: {first.photo}, word {first.position + 1}"
    )
