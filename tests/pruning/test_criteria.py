from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune.pruning.criteria import in_blocks, keep_largest, magnitudes

WEIGHTS = {"small": torch.tensor([[0.1, -0.2], [0.3, -0.4]]), "large": torch.tensor([[1.0, -2.0], [3.0, -4.0]])}


def kept(masks: dict[str, torch.Tensor]) -> dict[str, list[list[bool]]]:
    return {name: mask.tolist() for name, mask in masks.items()}


def test_blind_compares_all_layers_and_uniform_each_with_itself() -> None:
    blind = keep_largest(magnitudes(WEIGHTS, "blind"), 0.5, pooled=True)
    assert kept(blind) == {"small": [[False, False], [False, False]], "large": [[True, True], [True, True]]}
    uniform = keep_largest(magnitudes(WEIGHTS, "uniform"), 0.5, pooled=False)
    assert kept(uniform) == {name: [[False, False], [True, True]] for name in WEIGHTS}


def test_distribution_takes_mean_and_spread_out_so_that_scale_does_not_matter() -> None:
    found = magnitudes(WEIGHTS, "distribution")
    torch.testing.assert_close(found["small"], found["large"])
    values = WEIGHTS["small"]
    torch.testing.assert_close(found["small"], ((values - values.mean()) / values.std(correction=0)).abs())


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    sparsity=st.floats(0.01, 0.99),
    pooled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_exactly_as_many_go_as_the_sparsity_says(
    sizes: list[tuple[int, int]], sparsity: float, pooled: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    saliency = {str(i): torch.randn(size, generator=generator).abs() for i, size in enumerate(sizes)}
    masks = keep_largest(saliency, sparsity, pooled=pooled)
    if pooled:
        total = sum(value.numel() for value in saliency.values())
        assert sum(int((~mask).sum()) for mask in masks.values()) == int(sparsity * total + 1e-6)
        every = torch.cat([value.flatten() for value in saliency.values()])
        left = torch.cat([mask.flatten() for mask in masks.values()])
        if left.any() and not left.all():
            assert every[left].min() >= every[~left].max()
    else:
        for name, value in saliency.items():
            assert int((~masks[name]).sum()) == int(sparsity * value.numel() + 1e-6)


def test_equal_saliencies_still_give_the_exact_count() -> None:
    masks = keep_largest({"a": torch.ones(10, 10)}, 0.975, pooled=True)
    assert int(masks["a"].sum()) == 3


@pytest.mark.parametrize("pooled", [True, False])
def test_no_layer_falls_below_its_floor(pooled: bool) -> None:
    saliency = {"weak": torch.full((10, 10), 1e-3), "strong": torch.rand(10, 10) + 1}
    masks = keep_largest(saliency, 0.9, pooled=pooled, least_kept=0.03)
    assert int(masks["weak"].sum()) >= 3
    if pooled:
        assert sum(int(mask.sum()) for mask in masks.values()) == 20  # the floor is within the count, not beside it
        assert int(keep_largest(saliency, 0.9, pooled=True)["weak"].sum()) == 0


def test_blocks_are_ranked_by_their_mean_and_counted_by_their_weights() -> None:
    saliency = {
        "rows": torch.tensor([[9.0, 0.0, 1.0, 1.0], [2.0, 2.0, 0.0, 0.0]]),
        "single": torch.tensor([[1.5, 3.0]]),
    }
    blocks = in_blocks(saliency, {"rows": 2})
    assert blocks["rows"].tolist() == [[4.5, 1.0], [2.0, 0.0]]
    masks = keep_largest(blocks, 0.5, pooled=True, widths={"rows": 2})  # 5 of 10 weights: 4.5 (2), 3.0 (1), 2.0 (2)
    assert kept(masks) == {"rows": [[True, False], [True, False]], "single": [[False, True]]}


def test_of_equals_the_first_are_kept_as_a_stable_sort_would() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        value = torch.randint(0, 4, (5, 4)).float()
        order = torch.argsort(value.flatten(), descending=True, stable=True)
        for count in range(21):
            sparsity = 1 - count / 20
            kept = keep_largest({"a": value}, sparsity, pooled=True)["a"]
            expected = torch.zeros(20, dtype=torch.bool)
            expected[order[:count]] = True
            assert torch.equal(kept.flatten(), expected)
