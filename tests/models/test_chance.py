from __future__ import annotations

import math

import pytest
import torch

from capprune.models.chance import Draws, Dropout


def test_a_seed_decides_the_bits_and_the_generators_state_what_follows() -> None:
    torch.manual_seed(3)
    first, state = Draws().uniform(torch.Size([10])), torch.get_rng_state()
    second = Draws().uniform(torch.Size([10]))
    torch.set_rng_state(state)
    assert torch.equal(Draws().uniform(torch.Size([10])), second) and not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(Draws().uniform(torch.Size([10])), first)


def test_bits_are_uniform_between_their_ends() -> None:
    torch.manual_seed(0)
    numbers = Draws().uniform(torch.Size([1000, 999])).double()  # no multiple of the four that a word holds
    assert numbers.min() == -32768 and numbers.max() == 32767
    assert abs(float(numbers.mean()) + 0.5) < 4 * 65536 / math.sqrt(12 * numbers.numel())
    neighbours = torch.corrcoef(torch.stack([numbers.flatten()[:-1], numbers.flatten()[1:]]))[0, 1]
    assert abs(float(neighbours)) < 4 / math.sqrt(numbers.numel())


@pytest.mark.parametrize("probability", [0.0, 1 / 65536, 0.25, 0.9933, 1.0])
def test_what_is_kept_is_kept_as_often_as_asked(probability: float) -> None:
    torch.manual_seed(1)
    kept = Draws().keep(torch.full((1000, 1000), probability))
    assert set(kept.unique().tolist()) <= {0, 1}
    spread = math.sqrt(probability * (1 - probability) / kept.numel())
    assert abs(float(kept.double().mean()) - probability) <= 4 * spread


def test_every_number_keeps_as_many_entries_as_its_probability_has_of_65536(monkeypatch: pytest.MonkeyPatch) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    monkeypatch.setattr(Draws, "uniform", lambda self, shape: every)
    for count in (0, 1, 32768, 65535, 65536):
        assert int(Draws().keep(torch.full((2**16,), count / 2**16)).sum()) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_mean_and_passes_the_gradient_of_what_it_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    x = torch.ones(400, 500, dtype=dtype, requires_grad=True)
    y = Dropout(0.35)(x)
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert y.dtype is dtype and float((y == 0).double().mean()) == pytest.approx(0.35, abs=0.005)
    assert float(y.detach().double().mean()) == pytest.approx(1, abs=0.01)
    assert x.grad is not None and torch.equal(x.grad, y.detach())


def test_dropout_leaves_evaluation_and_a_rate_of_zero_alone() -> None:
    x = torch.randn(5)
    assert Dropout(0.35).eval()(x) is x and Dropout(0.0)(x) is x
