"""Constants in another order than that of rows come out of the converter with their own values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from capprune_exporters.tflite.contiguous import contiguous_tensors
from capprune_exporters.tflite.convert import convert
from capprune_runtime.caption.interpreter import open_model

COUNT, ROWS, COLUMNS = 6, 40, 30


class Transposed(nn.Module):
    """Tables of one shape that are views of others: buffers, parameters and plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.names = [f"table{number}" for number in range(COUNT)]
        for number, name in enumerate(self.names):
            table = torch.randn(COLUMNS, ROWS, generator=draw).t()
            if number % 3 == 0:
                self.register_buffer(name, table)
            else:
                setattr(self, name, nn.Parameter(table) if number % 3 == 1 else table)
        self.register_buffer("same", getattr(self, self.names[0]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: x + getattr(self, name) for name in [*self.names, "same"]}


def test_every_constant_keeps_its_own_values() -> None:
    module, x = Transposed().eval(), torch.randn(ROWS, COLUMNS)
    found = open_model(convert(module, "f", {"x": x}), "f").run({"x": x.numpy()})
    for name, value in module(x).items():
        assert np.array_equal(found[name], value.detach().numpy()), name


def test_a_module_gets_its_own_tensors_back() -> None:
    module = Transposed()
    before = {name: getattr(module, name) for name in [*module.names, "same"]}
    with pytest.raises(KeyError), contiguous_tensors(module):
        for name, own in before.items():
            tensor = getattr(module, name)
            assert tensor.is_contiguous() and torch.equal(tensor, own) and type(tensor) is type(own)
        assert module.same is getattr(module, module.names[0])
        raise KeyError
    assert all(getattr(module, name) is own and not own.is_contiguous() for name, own in before.items())
