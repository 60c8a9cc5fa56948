"""How sure a model was of a caption, and the limit below which a bundle calls that unsure."""

from __future__ import annotations

from typing import Protocol

from capprune_runtime import strict_json
from capprune_runtime.bundle.manifest import QUALITY
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import BundleError

LARGEST = 1e30  # of a limit that a file gives
NOT_SURE = "  (not sure)"  # stands behind a printed caption


class Scored(Protocol):
    """A caption with its log-probability, such as `Caption` and `SaidPhoto`."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The words' ids."""

    @property
    def log_probability(self) -> float:
        """Log-probability of the words, including `<end>` when the caption is finished."""

    @property
    def finished(self) -> bool:
        """Whether the model ended the caption itself."""


def mean_log_probability(caption: Scored) -> float:
    """Nats a word, `<end>` counted where the model said it."""
    return caption.log_probability / max(1, len(caption.tokens) + caption.finished)


def is_unsure(caption: Scored, low_below: float | None) -> bool | None:
    """Return whether a caption may well be wrong; None where the bundle has no limit for it."""
    return None if low_below is None else mean_log_probability(caption) < low_below


def confidence_of(bundle: Bundle) -> float | None:
    """The mean log-probability below which this bundle's captions are marked; None if none was measured for it.

    `capprune validate --record` measures it and writes it into quality.json.

    Raises:
        BundleError: If quality.json is broken.
    """
    quality = strict_json.parse(bundle.files.get(QUALITY, b"{}"))
    confidence = quality.get("confidence") if isinstance(quality, dict) else None
    if confidence is None:
        return None
    limit = confidence.get("low_below") if isinstance(confidence, dict) else "no tree"
    number = isinstance(limit, int | float) and not isinstance(limit, bool) and abs(limit) <= LARGEST
    if limit is not None and not number:
        raise BundleError(
            "the limit of unsure captions is no number",
            where=f"{QUALITY}: confidence.low_below",
            found=repr(limit)[:60],
        )
    return None if limit is None else float(limit)
