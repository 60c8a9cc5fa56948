from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from capprune.config import DecoderConfig
from capprune.models.repeated import Repeated
from capprune.models.soft_attention import SoftAttention


@pytest.mark.parametrize("bias", [True, False])
def test_a_chain_of_products_has_the_gradients_of_autograd(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 6, bias=bias).double()
    start = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)

    def chain(apply: object) -> Tensor:
        x = start
        for _ in range(4):
            x = torch.tanh(apply(x)) + x  # type: ignore[operator]
        return x.square().sum()

    leaves = [start, *layer.parameters()]
    expected = torch.autograd.grad(chain(layer), leaves)
    found = torch.autograd.grad(chain(Repeated(layer)), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)  # weights come back as float32


def test_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    decoder = SoftAttention(
        DecoderConfig(embedding=16, hidden=64, attention=32, context=32), features=24, vocabulary=40
    ).eval()
    features, ids = torch.randn(3, 4, 24), torch.randint(4, 40, (6, 7))
    loss = decoder(features, ids, ids)
    loss.backward()
    exact = {name: parameter.grad.clone() for name, parameter in decoder.named_parameters()}
    decoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = decoder(features, ids, ids)
    narrow.backward()
    assert float(narrow.detach()) == pytest.approx(float(loss.detach()), rel=2e-2)
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.dtype == torch.float32
        cosine = torch.cosine_similarity(parameter.grad.flatten(), exact[name].flatten(), dim=0)
        assert float(cosine) > 0.99, name


def test_what_a_batch_kept_is_freed_without_the_collector() -> None:
    layer = nn.Linear(4, 4)
    gc.disable()
    try:
        repeated = Repeated(layer)
        y = repeated(repeated(torch.randn(2, 4)))
        kept = weakref.ref(repeated._kept)
        y.sum().backward()
        del y, repeated
        assert kept() is None
        unused = Repeated(layer)  # a loss that nobody differentiates
        y = unused(torch.randn(2, 4))
        kept = weakref.ref(unused._kept)
        del y, unused
        assert kept() is None
    finally:
        gc.enable()
