"""Parity: whether a bundle generates the same captions as the trained model, token for token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from capprune_runtime.errors import DataError

# Two float32 programs that add in different orders differ by about 1e-6 in a log-probability after a few
# steps. If the two best scores of torch differ by at most 1e-4, either choice is accepted.
EXCUSED_SCORE_GAP = 1e-4
EXCUSED, EXCUSED_OF = 2, 1000  # more than 2 excused differences in 1,000 photos indicate an error

# Difference of log-probabilities in the reference between its own choice and the bundle's. Arguments: photo, its
# tokens, the bundle's tokens.
ScoreGap = Callable[[str, tuple[int, ...], tuple[int, ...]], float]


@dataclass(frozen=True)
class Difference:
    """The first difference between two captions of one photo.

    Attributes:
        photo: Name of the photo.
        position: Index of the first differing token.
        reference_token: The reference's token id there, or None if its caption had ended.
        bundle_token: The bundle's token id there, or None if its caption had ended.
        score_gap: Difference of log-probabilities in the reference between its choice and the bundle's.
        excused: Whether the gap is within `EXCUSED_SCORE_GAP`.
    """

    photo: str
    position: int
    reference_token: int | None
    bundle_token: int | None
    score_gap: float
    excused: bool

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name; a gap of NaN (a broken reference) becomes null."""
        return {**asdict(self), "score_gap": self.score_gap if math.isfinite(self.score_gap) else None}


@dataclass(frozen=True)
class Parity:
    """Comparison of the captions of two implementations of one model for the same photos.

    Attributes:
        photos: Number of compared photos.
        identical: Number of equal captions, token for token.
        differences: All differences, in the order of the photo names.
    """

    photos: int
    identical: int
    differences: tuple[Difference, ...]

    @property
    def holds(self) -> bool:
        """Whether every difference is excused, and at most 2 in 1,000 photos have one."""
        return (
            all(difference.excused for difference in self.differences)
            and len(self.differences) * EXCUSED_OF <= self.photos * EXCUSED
        )

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name, and whether parity holds."""
        return {
            "photos": self.photos,
            "identical": self.identical,
            "holds": self.holds,
            "differences": [difference.as_json() for difference in self.differences],
        }


def compare_tokens(
    reference: Mapping[str, tuple[int, ...]],
    bundle: Mapping[str, tuple[int, ...]],
    score_gap: ScoreGap,
) -> Parity:
    """Compare captions token by token.

    Args:
        reference: For each photo the token ids of the trained model, without start and end.
        bundle: For each of these photos the token ids of the bundle.
        score_gap: Called with a photo, the reference's tokens and the bundle's. Returns how close the trained model was
            to the other choice (difference of log-probabilities). Greedy: the gap between its two best words at the
            first difference. Beam: the gap between its scores of the two whole captions, which the search compared.

    Returns:
        The comparison.

    Raises:
        DataError: The two do not cover the same photos.
    """
    if reference.keys() != bundle.keys():
        missing = sorted(reference.keys() ^ bundle.keys())
        raise DataError(
            "parity needs the captions of the same photos on both sides",
            where=", ".join(missing[:3]),
            expected=f"{len(reference)} photos",
            found=f"{len(bundle)}; {len(missing)} photos are on one side only",
        )
    compared = (_difference(photo, reference[photo], bundle[photo], score_gap) for photo in sorted(reference))
    differences = tuple(one for one in compared if one is not None)
    return Parity(len(reference), len(reference) - len(differences), differences)


def first_difference(before: Sequence[object], after: Sequence[object]) -> int | None:
    """Return the index of the first word that differs, or the end of the shorter caption; None if both are equal."""
    for place, (one, other) in enumerate(zip(before, after, strict=False)):
        if one != other:
            return place
    return None if len(before) == len(after) else min(len(before), len(after))


def _difference(
    photo: str,
    reference: tuple[int, ...],
    bundle: tuple[int, ...],
    score_gap: ScoreGap,
) -> Difference | None:
    shared = first_difference(reference, bundle)
    if shared is None:
        return None
    gap = float(score_gap(photo, reference, bundle))
    return Difference(
        photo=photo,
        position=shared,
        reference_token=reference[shared] if shared < len(reference) else None,
        bundle_token=bundle[shared] if shared < len(bundle) else None,
        score_gap=gap,
        excused=0 <= gap <= EXCUSED_SCORE_GAP,  # NaN is not excused
    )
