"""The kernels for a CPU against the plain form of the same computation, which runs on every device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from family_world import FAMILIES, FEATURES, LIMIT, REGIONS, VOCABULARY, random_decoder
from torch import Tensor
from torch.fx.experimental import _config as fx_config

from capprune.models.additive import additive_scores, plain_scores
from capprune.models.chance import Dropout
from capprune.models.recurrence import Weights, plain_recur, recur
from capprune.models.search import Walk, log_probabilities
from capprune.pruning.masking import kept_count, masked_weight, plain_kept_count, plain_masked_weight
from capprune.pruning.supermask import Supermask
from capprune.training.word_loss import plain_word_loss, word_loss

P, N, R, A, C, E, H, T, V = 3, 2, 5, 6, 7, 4, 8, 4, 11


def drawn(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=random, dtype=dtype).to(device).requires_grad_()


def difference(fast: Callable[..., Tensor], plain: Callable[..., Tensor], arguments: Sequence[Tensor]) -> float:
    """The largest difference of results and gradients, relative to the largest value of each."""
    found = []
    for form in (fast, plain):
        result = form(*arguments)
        weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
        own = [one for one in arguments if one.is_floating_point() and one.requires_grad]
        found.append([result.detach(), *torch.autograd.grad((result * weight).sum(), own)])
    pairs = zip(*found, strict=True)
    return max(float((one - other).abs().max() / other.abs().max().clamp_min(1e-9)) for one, other in pairs)


def recurrence(cell: str, device: str = "cpu", dtype: torch.dtype = torch.float64) -> list[Tensor]:
    def own(*shape: int) -> Tensor:
        return drawn(*shape, device=device, dtype=dtype)

    rows = 4 * H if cell == "lstm" else 2 * H
    first = [own(T, P * N, E), own(P, R, A), own(P, R, C), own(P * N, H)]
    weights = [own(A, H), own(1, A), own(rows, E + C + H), own(rows)]
    return first + weights + ([] if cell == "lstm" else [own(H, E + C + H), own(H)])


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrence_equals_its_plain_form(cell: str, dropped: bool) -> None:
    factor = (torch.rand(T, P, N, R, dtype=torch.float64) > 0.3).double() if dropped else None

    def of(form: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *own: form(*own[:4], factor, Weights(*own[4:]))

    assert difference(of(recur), of(plain_recur), recurrence(cell)) < 1e-12


def test_attention_scores_equal_their_plain_form() -> None:
    assert difference(additive_scores, plain_scores, [drawn(P, R, A), drawn(P, N, A), drawn(1, A)]) < 1e-12


def test_word_loss_equals_its_plain_form() -> None:
    targets = torch.arange(9) % V
    assert difference(word_loss, plain_word_loss, [drawn(9, V), targets]) < 1e-12


@pytest.mark.parametrize("width", [1, 4])
def test_masked_weight_equals_its_plain_form(width: int) -> None:
    def value(masked: Tensor, kept: Tensor) -> Tensor:
        return torch.cat([masked.flatten(), 0.1 * kept.reshape(1)])

    weight, gate = drawn(6, 8), drawn(6, 8 // width)
    torch.manual_seed(3)
    mask = (masked_weight(weight, gate)[0] != 0).view(6, -1, width)[..., 0].double()

    def fast(weight: Tensor, gate: Tensor) -> Tensor:
        torch.manual_seed(3)
        return value(*masked_weight(weight, gate))

    def plain(weight: Tensor, gate: Tensor) -> Tensor:
        return value(*plain_masked_weight(weight, gate, mask))

    assert difference(fast, plain, [weight, gate]) < 1e-12
    assert difference(lambda one: kept_count(one, width), lambda one: plain_kept_count(one, width), [gate]) < 1e-12


def test_other_devices_take_the_plain_forms() -> None:
    for cell in ("lstm", "gru"):
        own = recurrence(cell, "meta", torch.float32)
        hidden = recur(*own[:4], None, Weights(*own[4:]))
        hidden.sum().backward()  # type: ignore[no-untyped-call]
        assert (hidden.device.type, hidden.shape) == ("meta", (T, P * N, H))
        assert all(one.grad is not None and one.grad.shape == one.shape for one in own)
    weight, gate = drawn(6, 8, device="meta"), drawn(6, 2, device="meta")
    masked, kept = masked_weight(weight, gate, torch.bfloat16)
    (masked.float().sum() + kept).backward()
    assert (masked.shape, masked.dtype, gate.grad is not None) == (weight.shape, torch.bfloat16, True)
    assert word_loss(drawn(9, V, device="meta"), torch.zeros(9, dtype=torch.int64, device="meta")).device.type == "meta"
    assert Dropout(0.5)(drawn(3, 4, device="meta")).device.type == "meta"


@pytest.mark.parametrize("family", FAMILIES)
def test_family_keeps_to_the_device_of_its_features(family: str) -> None:
    """On tensors without content: an operator that mixes devices is refused there as on a GPU."""
    decoder = random_decoder(family).train()
    supermask = Supermask(decoder, modules=list(decoder.roles()))
    decoder.to("meta")
    features = torch.empty(P, REGIONS, FEATURES, device="meta")
    inputs = torch.empty(P * N, LIMIT, dtype=torch.int64, device="meta")
    every_target_is_a_word = fx_config.patch(meta_nonzero_assume_all_nonzero=True)  # type: ignore[attr-defined]
    with every_target_is_a_word, Supermask.one_sample():
        scores = decoder.scores(features, inputs, inputs)
        kept = torch.stack(list(supermask.counts().values())).sum()
        (word_loss(scores, inputs.flatten()) + kept).backward()  # type: ignore[no-untyped-call]
    assert (scores.shape, scores.device.type) == ((P * N * LIMIT, VOCABULARY), "meta")
    assert all(one.grad is not None for one in supermask.gates.values())
    decoder.eval()
    walk = Walk(decoder, decoder.encode(features), N)
    for _ in range(2):
        found = log_probabilities(walk.step(inputs[:, 0]))
        walk.choose(torch.arange(P * N, device="meta"))
    assert (found.shape, found.device.type) == ((P * N, VOCABULARY), "meta")
