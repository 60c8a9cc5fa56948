"""Shapes of modules without their values: the same names and shapes, and none of torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import family_world as world
import pytest
import torch
from torch import nn

from capprune.models.caption_model import build_decoder
from capprune.models.shapes import shapes_only


@pytest.mark.parametrize("family", world.FAMILIES)
def test_shapes_are_those_of_the_real_decoder(family: str) -> None:
    config = world.config(family)
    torch.manual_seed(3)
    real = {name: tuple(value.shape) for name, value in build_decoder(config, world.VOCABULARY).state_dict().items()}
    state = torch.get_rng_state()
    with shapes_only():
        shapes = build_decoder(config, world.VOCABULARY)
    assert {name: tuple(value.shape) for name, value in shapes.state_dict().items()} == real
    assert all(value.is_meta for value in shapes.state_dict().values())
    assert torch.equal(torch.get_rng_state(), state)


def test_values_are_drawn_again_outside_the_block() -> None:
    with shapes_only():
        nn.Linear(3, 4)
    assert nn.Linear(3, 4).weight.std() > 0


def test_shapes_need_no_compiler() -> None:
    program = (
        "import sys\n"
        "from torch import nn\n"
        "from capprune.models.shapes import shapes_only\n"
        "with shapes_only():\n"
        "    nn.Embedding(5, 4), nn.Linear(4, 3), nn.Conv2d(3, 8, 3), nn.LSTMCell(4, 4)\n"
        "    nn.init.xavier_uniform_(nn.Linear(4, 3).weight)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"  # importing it takes longer than everything else that `capprune inspect RUN` does
