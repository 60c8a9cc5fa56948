"""Find the step of which all weights of a channel are whole multiples, as in an encoder that was rounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_STEPS = 127  # on each side, as int8 holds
PROBED = 32  # weights of a channel that are tried first
NEARLY = 1e-3  # steps from a whole number; two roundings of a float32 and folding a batch norm are smaller


def whole_steps(values: npt.NDArray[np.float32], most: int = MOST_STEPS) -> npt.NDArray[np.float32]:
    """Return the largest step of each channel of which all its weights are nearly whole multiples.

    Args:
        values: `(n, C)`, weights of each channel.
        most: Number of steps that a channel can have on each side.

    Returns:
        `(C,)`; 0 for channels without such a step, and for those of zeros.
    """
    largest = np.abs(values).max(axis=0)
    found = np.zeros(len(largest), np.int64)
    shown = values[np.argsort(-np.abs(values), axis=0)[:: max(1, len(values) // PROBED)], np.arange(values.shape[1])]
    for number in range(most, 0, -1):
        parts = np.divide(number, largest, out=np.zeros_like(largest), where=largest > 0)
        fits = _whole(shown * parts)
        fits[fits] = _whole(values[:, fits] * parts[fits])
        found[fits & (largest > 0)] = number  # the fewest steps come last
    return np.where(found > 0, largest / np.maximum(found, 1), 0).astype(np.float32)


def _whole(multiples: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return for each column whether all its numbers are nearly whole."""
    whole: npt.NDArray[np.bool_] = (np.abs(multiples - np.rint(multiples)) < NEARLY).all(axis=0)
    return whole
