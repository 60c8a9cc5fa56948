"""Confidence of captions, and the threshold below which a bundle marks a caption as unsure."""

from __future__ import annotations

from typing import Protocol

from capprune_runtime import strict_json
from capprune_runtime.bundle.familiarity import KNOWN, SURE
from capprune_runtime.bundle.manifest import QUALITY
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import BundleError

LARGEST = 1e30  # largest threshold that a file may set
NOT_SURE = "  (not sure)"  # appended to a printed caption
UNFAMILIAR = "this does not look like a photo that I know"  # printed instead of a caption


class Scored(Protocol):
    """A caption with its log-probability, such as `Caption` and `SaidPhoto`."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids of the words."""

    @property
    def log_probability(self) -> float:
        """Log-probability of the words, including `<end>` if the caption is finished."""

    @property
    def finished(self) -> bool:
        """Whether the model generated `<end>`."""

    @property
    def confidence(self) -> float | None:
        """Confidence of the photo, 0 to 1; None if the bundle has no familiarity."""


def mean_log_probability(caption: Scored) -> float:
    """Return the mean log-probability in nats per word; a generated `<end>` counts as a word."""
    return caption.log_probability / max(1, len(caption.tokens) + caption.finished)


def is_unsure(caption: Scored, low_below: float | None) -> bool | None:
    """Return whether a caption may well be wrong: unlikely words, or a photo that is hardly known.

    Args:
        caption: The caption.
        low_below: The bundle's limit of the mean log-probability; None if it has none.

    Returns:
        None if the bundle has neither this limit nor a familiarity.
    """
    if low_below is None and caption.confidence is None:
        return None
    unlikely = low_below is not None and mean_log_probability(caption) < low_below
    return unlikely or (caption.confidence is not None and caption.confidence < SURE)


def marked(text: str, *, unsure: bool | None, confidence: float | None) -> str:
    """Return a caption for people: marked if it is unsure, and a statement instead if the photo is not familiar."""
    if confidence is not None and confidence < KNOWN:
        return UNFAMILIAR
    return text + (NOT_SURE if unsure else "")


def confidence_of(bundle: Bundle) -> float | None:
    """Return the mean log-probability below which this bundle's captions are marked; None if it was never measured.

    `capprune validate --record` measures it and writes it to quality.json.

    Raises:
        BundleError: quality.json is invalid.
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
