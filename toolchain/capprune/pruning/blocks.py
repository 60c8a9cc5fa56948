"""Selects the matrices that are pruned in blocks: those that a decoder step multiplies by one vector per word.

Unmodified runtimes have a kernel for 1x16 blocks only for these products. The embedding is looked up, the projections of
`encode` process all regions at once, and the attention score runs as elementwise operators. They are pruned weight by weight.
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
    """Modules with block gates.

    Attributes:
        widths: Weights per gate, for every module with block gates.
        left_single: Modules for which blocks were requested but are impossible, with the reason.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    left_single: Mapping[str, str] = field(default_factory=dict)


def find_blocks(model: nn.Module, config: PruningConfig) -> Blocks:
    """Return the modules that get block gates.

    Args:
        model: The model; matrices that are multiplied once per word can have blocks.
        config: The run's config.

    Raises:
        ConfigError: If the config requests blocks in a layer that this model does not have.
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
            left_single[name] = f"its rows of {columns} weights are not a multiple of {width}"
        elif width > 1:
            widths[name] = width
    return Blocks(widths, left_single)
