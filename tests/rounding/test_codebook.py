"""Few values for the filters of a layer: 16 levels, or steps of a given entropy."""

from __future__ import annotations

import numpy as np
import pytest

from capprune.rounding.codebook import coded, fitted, int8_filters, stepped

FILTERS, INPUTS, ROWS = 24, 60, 4000


@pytest.fixture(scope="module")
def layer() -> tuple[np.ndarray, np.ndarray]:
    """Filters of different sizes, and correlated inputs."""
    random = np.random.default_rng(3)
    weights = random.normal(size=(FILTERS, INPUTS)) * np.exp(random.normal(size=(FILTERS, 1)))
    x = random.normal(size=(ROWS, INPUTS // 4)) @ random.normal(size=(INPUTS // 4, INPUTS))
    return weights, x + 0.5 * random.normal(size=(ROWS, INPUTS))


def error(weights: np.ndarray, found: np.ndarray, x: np.ndarray) -> float:
    return float(((x @ (found - weights).T) ** 2).sum() / ((x @ weights.T) ** 2).sum())


def test_each_filter_has_a_scale_and_the_layer_sixteen_levels(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    found, book = coded(weights, x.T @ x / len(x))
    assert len(book) <= 16 and {-127, 0, 127} <= {*book} and (book == np.rint(book)).all()
    steps = np.abs(found).max(1, keepdims=True) / 127
    codes = np.rint(found / steps)
    assert np.abs(found - codes * steps).max() < 1e-9 * np.abs(found).max()  # what an int8 export stores
    assert {*np.unique(codes)} <= {*book}


def test_a_filter_reaches_127_even_if_later_weights_take_over_for_its_largest() -> None:
    random = np.random.default_rng(0)
    weights, common = random.normal(size=(40, 6)), random.normal(size=(500, 1))
    x = common + 0.02 * random.normal(size=(500, 6))  # so alike that a weight can stand for any other
    found, book = coded(weights, x.T @ x / len(x))
    codes = found / (np.abs(found).max(1, keepdims=True) / 127)
    assert np.abs(codes - np.rint(codes)).max() < 1e-9 and {*np.unique(np.rint(codes))} <= {*book}


def test_errors_cancel_out_where_inputs_are_correlated(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    together = error(weights, coded(weights, x.T @ x / len(x))[0], x)
    alone = error(weights, coded(weights, np.diag((x**2).mean(0)))[0], x)
    assert together < alone / 4
    assert alone < 0.03


def test_fewer_levels_lose_more(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    products = x.T @ x / len(x)
    errors = [error(weights, coded(weights, products, levels=levels)[0], x) for levels in (4, 8, 16)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    with pytest.raises(ValueError, match="at least 4"):
        coded(weights, products, levels=3)


def test_pruned_weights_stay_zero_and_the_others_make_up_for_it(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    products = x.T @ x / len(x)
    kept = np.random.default_rng(1).random(weights.shape) < 0.5
    pruned = weights * kept
    found, _ = coded(pruned, products, kept)
    assert not found[~kept].any() and found[kept].any()
    assert error(pruned, found, x) < 0.02
    nothing, _ = coded(np.zeros_like(weights), products)
    assert not nothing.any()


def test_inputs_that_never_appear_do_no_harm(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    silent = x * (np.arange(INPUTS) % 3 > 0)
    found, _ = coded(weights, silent.T @ silent / len(x))
    assert np.isfinite(found).all()
    assert error(weights, found, silent) < 0.02


def test_fitted_weights_make_the_original_outputs_from_changed_inputs(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    changed = 0.9 * x + 0.3 * x[:, ::-1]
    found = fitted(weights, changed.T @ changed / len(x), x.T @ changed / len(x))
    wanted = x @ weights.T
    before, after = (float(((changed @ w.T - wanted) ** 2).mean()) for w in (weights, found))
    assert after < before / 5


def test_int8_filters_have_255_steps_each(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, _ = layer
    found = int8_filters(weights)
    codes = found / (np.abs(weights).max(1, keepdims=True) / 127)
    assert np.abs(codes - np.rint(codes)).max() < 1e-9
    assert np.abs(found - weights).max() <= np.abs(weights).max() / 254 * (1 + 1e-9)


def entropy(numbers: np.ndarray) -> float:
    shares = np.unique(numbers, return_counts=True)[1] / numbers.size
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("bits", [2.0, 3.0, 4.5])
def test_steps_take_the_bits_that_are_asked_for(layer: tuple[np.ndarray, np.ndarray], bits: float) -> None:
    weights, x = layer
    found, steps = stepped(weights, x.T @ x / len(x), bits=bits)
    numbers = found / steps[:, None]
    assert np.abs(numbers - np.rint(numbers)).max() < 1e-9 and np.abs(numbers).max() <= 127
    assert entropy(np.rint(numbers)) == pytest.approx(bits, abs=0.25)


def test_steps_lose_less_than_levels_of_the_same_entropy(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    products = x.T @ x / len(x)
    levels, _ = coded(weights, products)
    bits = entropy(np.rint(levels / (np.abs(levels).max(1, keepdims=True) / 127)))
    found, steps = stepped(weights, products, bits=bits)
    assert entropy(np.rint(found / steps[:, None])) < bits + 0.05
    assert error(weights, found, x) < 0.9 * error(weights, levels, x)


def test_steps_of_pruned_filters(layer: tuple[np.ndarray, np.ndarray]) -> None:
    weights, x = layer
    products = x.T @ x / len(x)
    kept = np.random.default_rng(1).random(weights.shape) < 0.5
    kept[3] = False
    found, steps = stepped(weights * kept, products, kept, bits=3)
    assert not found[~kept].any() and found[kept].any() and (steps > 0).all()
    assert not stepped(np.zeros_like(weights), products, bits=3)[0].any()
    with pytest.raises(ValueError, match="more than 0 bits"):
        stepped(weights, products, bits=0)
