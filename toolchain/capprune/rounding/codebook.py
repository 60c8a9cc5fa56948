"""Few values for all filters of a layer: which ones, how each filter is scaled, and how errors cancel out.

Every filter of a layer is `scale * level`, with one scale for the filter and a level for each weight. The 16 levels of a
layer are integers from -127 to 127 with -127, 0 and 127 among them. A filter uses 127 or -127, so that an int8 export,
which divides by the largest weight, finds the same integers again. Entropy coding then takes 3.6 bits instead of 7.5.

Or every filter has multiples of a step of its own, as many as there are. The numbers near zero are the most frequent, so
that the same error takes fewer bits (`stepped`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVELS = 16
LARGEST = 127  # of int8
FIXED = np.array([-1.0, 0.0, 1.0])  # the two ends, and zero for pruned weights
BINS = 2048  # of the histogram that stands for the weights of a layer
LLOYD_ROUNDS = 40
SCALE_ROUNDS = 4  # levels for the scales, scales for the levels, and so on
STEP_ROUNDS = 24  # of bisection
SHARES = np.linspace(0.4, 1.0, 13)  # of a filter's largest weight: its scale; what is above is cut off
DAMPING = 0.01  # of the mean of the diagonal, added to it


def coded(
    weights: Floats, inputs: Floats, kept: NDArray[np.bool_] | None = None, *, levels: int = LEVELS
) -> tuple[Floats, Floats]:
    """Round the filters of a layer to `levels` values and a scale for each filter.

    Weights are rounded one input after the other. What a weight loses is made up for by the weights of the inputs that
    come later, as far as the inputs are correlated (Frantar and others, *GPTQ*, 2022).

    Args:
        weights: `(O, I)`, a row for each filter.
        inputs: `(I, I)`, the mean of the products of every two inputs over calibration photos.
        kept: `(O, I)`, false where a weight is pruned and has to stay zero; by default none is.
        levels: Number of values, at least 4.

    Returns:
        The rounded weights `(O, I)`, and the levels `(L,)`, sorted integers; L is at most `levels`.

    Raises:
        ValueError: `levels` is less than 4.
    """
    if levels <= len(FIXED):
        raise ValueError(f"a codebook has at least {len(FIXED) + 1} levels, not {levels}")
    kept = np.ones(weights.shape, bool) if kept is None else kept
    scales, book = _scaled(np.where(kept, weights, 0.0), np.diag(inputs), levels)
    result = _one_by_one(weights, inputs, kept, lambda column: _nearest(column, scales, book))
    return _reaching_the_end(result, scales), book


def stepped(
    weights: Floats, inputs: Floats, kept: NDArray[np.bool_] | None = None, *, bits: float
) -> tuple[Floats, Floats]:
    """Round the filters of a layer to multiples of a step, whose numbers take about `bits` each when they are entropy-coded.

    Steps are in proportion to the spread of their filter. Equal steps without a limit of their number need fewer bits at
    the same error than levels that are fitted (Gish and Pierce, *Asymptotically efficient quantizing*, 1968). Weights are
    rounded as by `coded`.

    Args:
        weights: `(O, I)`, a row for each filter.
        inputs: `(I, I)`, the mean of the products of every two inputs over calibration photos.
        kept: `(O, I)`, false where a weight is pruned and has to stay zero; by default none is.
        bits: Entropy of the numbers of the steps in the layer, bits per weight that is kept.

    Returns:
        The rounded weights `(O, I)`, and the steps `(O,)`; the numbers are from -127 to 127.

    Raises:
        ValueError: `bits` is not above 0.
    """
    if not bits > 0:
        raise ValueError(f"steps are chosen for more than 0 bits, not {bits}")
    kept = np.ones(weights.shape, bool) if kept is None else kept
    steps = _steps(np.where(kept, weights, 0.0), kept, bits)
    return _one_by_one(
        weights, inputs, kept, lambda column: np.clip(np.rint(column / steps), -LARGEST, LARGEST) * steps
    ), steps


def _one_by_one(
    weights: Floats, inputs: Floats, kept: NDArray[np.bool_], nearest: Callable[[Floats], Floats]
) -> Floats:
    """Round the weights of one input after the other; those of later inputs make up for what each one loses."""
    power = np.diag(inputs)
    order = np.argsort(-power, kind="stable")  # the strongest inputs first: their errors weigh most
    damped = inputs[np.ix_(order, order)] + DAMPING * max(power.mean(), np.finfo(np.float64).tiny) * np.eye(len(power))
    spread = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, result = weights[:, order], np.zeros_like(weights)
    for place, column in enumerate(order):
        near = np.where(kept[:, column], nearest(left[:, place]), 0.0)
        result[:, column] = near
        left[:, place + 1 :] -= np.outer((left[:, place] - near) / spread[place, place], spread[place, place + 1 :])
    return result


def fitted(weights: Floats, inputs: Floats, crossed: Floats) -> Floats:
    """Return weights that make the outputs of the original layer from the inputs that a rounded network gives.

    Args:
        weights: `(O, I)` of the original layer.
        inputs: `(I, I)`, the mean of the products of every two inputs in the rounded network.
        crossed: `(I, I)`, the mean of the products of an input in the original and one in the rounded network.
    """
    damping = DAMPING * max(np.diag(inputs).mean(), np.finfo(np.float64).tiny) * np.eye(len(inputs))
    found: Floats = np.linalg.solve(inputs + damping, (weights @ (crossed + damping)).T).T
    return found


def int8_filters(weights: Floats) -> Floats:
    """Round each row to 255 steps between plus and minus its largest weight."""
    steps = np.maximum(np.abs(weights).max(1, keepdims=True), np.finfo(np.float32).tiny) / LARGEST
    found: Floats = np.rint(weights / steps) * steps
    return found


def _scaled(weights: Floats, power: Floats, levels: int) -> tuple[Floats, Floats]:
    """Return the scale of each filter `(O,)`, and the levels, which fit each other."""
    largest = np.maximum(np.abs(weights).max(1), np.finfo(np.float32).tiny)
    scales, book = largest / LARGEST, np.empty(0)
    for _ in range(SCALE_ROUNDS):
        book = _levels(np.clip(weights / (scales[:, None] * LARGEST), -1, 1).ravel(), levels)
        least = np.full(len(weights), np.inf)
        for share in SHARES:
            tried = largest * share / LARGEST
            error = (power * (_nearest(weights, tried[:, None], book) - weights) ** 2).sum(1)
            scales, least = np.where(error < least, tried, scales), np.minimum(error, least)
    return scales, book


def _steps(weights: Floats, kept: NDArray[np.bool_], bits: float) -> Floats:
    """Return the step of each filter `(O,)`, in proportion to its spread; see `stepped`."""
    tiny = np.finfo(np.float32).tiny
    spread = np.maximum(np.sqrt((weights**2).sum(1) / np.maximum(kept.sum(1), 1)), tiny)
    least = np.maximum(np.abs(weights).max(1) / LARGEST, tiny)
    small, large = -12.0, 4.0  # of the logarithm of the steps to the base 2, in spreads
    for _ in range(STEP_ROUNDS):
        middle = (small + large) / 2
        tried = np.maximum(spread * 2**middle, least)
        few = _entropy(np.rint(weights / tried[:, None])[kept]) <= bits
        small, large = (small, middle) if few else (middle, large)
    steps: Floats = np.maximum(spread * 2**large, least)
    return steps


def _entropy(numbers: Floats) -> float:
    """Return the entropy of numbers from -127 to 127, in bits each."""
    counts = np.bincount(numbers.astype(np.int64) + int(LARGEST))
    shares = counts[counts > 0] / max(1, len(numbers))
    return float(-(shares * np.log2(shares)).sum())


def _levels(values: Floats, levels: int) -> Floats:
    """Return up to `levels` integers near the values times 127, by k-means in one dimension (Lloyd)."""
    counts, edges = np.histogram(values, BINS, (-1.0, 1.0))
    middles = (edges[1:] + edges[:-1]) / 2
    free = np.quantile(values, (np.arange(levels - len(FIXED)) + 0.5) / (levels - len(FIXED)))
    book = np.concatenate([free, FIXED])
    moves = np.arange(len(book)) < len(free)
    for _ in range(LLOYD_ROUNDS):
        order = np.argsort(book, kind="stable")
        book, moves = book[order], moves[order]
        near = np.searchsorted((book[1:] + book[:-1]) / 2, middles)
        number = np.bincount(near, counts, len(book))
        sums = np.bincount(near, counts * middles, len(book))
        book = np.where(moves & (number > 0), sums / np.maximum(number, 1), book)
    found: Floats = np.unique(np.rint(book * LARGEST))
    return found


def _nearest(weights: Floats, scales: Floats, book: Floats) -> Floats:
    found: Floats = book[np.searchsorted((book[1:] + book[:-1]) / 2, weights / scales)] * scales
    return found


def _reaching_the_end(rounded: Floats, scales: Floats) -> Floats:
    """Return the filters with 127 or -127 in each: the largest weight is moved there where the errors left it below."""
    ends = scales * LARGEST
    below = (np.abs(rounded).max(1) < ends * (1 - 1e-9)) & rounded.any(1)
    rows = np.flatnonzero(below)
    largest = np.abs(rounded[rows]).argmax(1)
    rounded[rows, largest] = np.sign(rounded[rows, largest]) * ends[rows]
    return rounded
