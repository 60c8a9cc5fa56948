"""Which matrices share a gate among blocks of weights: those that a decoder's step multiplies by one vector a word.

Unmodified runtimes have a kernel for 1x16 blocks in just these products. The embedding is looked up, the projections of
`encode` serve all regions at once and the score of the attention runs as elementwise operators, so they stay single.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from capprune.config.pruning import BlockShape, PruningConfig
from capprune.models.family import Role
from capprune.pruning.layers import roles_of, trained_weight
from capprune_runtime.errors import ConfigError

WIDTHS: Mapping[BlockShape, int] = {"none": 1, "1x16": 16}


@dataclass(frozen=True)
class Blocks:
    """Where gates stand for blocks.

    Attributes:
        widths: Weights a gate, for every module with block gates.
        left_single: Modules that should have had blocks but cannot, with the reason.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    left_single: Mapping[str, str] = field(default_factory=dict)


def find_blocks(model: nn.Module, config: PruningConfig) -> Blocks:
    """Which modules get block gates.

    Args:
        model: Its matrices that are multiplied once per word can have blocks.
        config: The run's config.

    Raises:
        ConfigError: If a block is asked for in a layer that this model does not have.
    """
    able = [name for name, role in roles_of(model).items() if role is Role.PER_WORD]
    for name in config.blocks:
        if name not in able:
            near = difflib.get_close_matches(name, able, n=1)
            raise ConfigError(
                "this decoder has no such matrix in its step",
                where=f"pruning.blocks.{name}",
                expected=", ".join(able),
                hint=f"did you mean {near[0]}?" if near else None,
            )
    widths: dict[str, int] = {}
    left_single: dict[str, str] = {}
    for name in able:
        width, columns = (
            WIDTHS[config.blocks.get(name, config.block)],
            trained_weight(model.get_submodule(name)).shape[1],
        )
        if columns % width:
            left_single[name] = f"its rows of {columns} weights are no multiple of {width}"
        elif width > 1:
            widths[name] = width
    return Blocks(widths, left_single)
