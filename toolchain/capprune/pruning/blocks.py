"""Which matrices share a gate among blocks of weights: those that a decoder's step multiplies by one vector a word.

Unmodified runtimes have a kernel for 1x16 blocks in just these products. The embedding is looked up, the projections of
`encode` serve all regions at once and the score of the attention runs as elementwise operators, so they stay single.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from capprune.config import BlocksConfig, BlockShape, PruningConfig
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
        model: Its direct children `rnn`, `candidate`, `query` and `output`, where it has them, can have blocks.
        config: Of the run.

    Raises:
        ConfigError: If a block is asked for in a layer that this model does not have.
    """
    layers = dict(model.named_children())
    widths: dict[str, int] = {}
    left_single: dict[str, str] = {}
    for name in BlocksConfig.model_fields:
        own: BlockShape | None = getattr(config.blocks, name)
        layer = layers.get(name)
        if not isinstance(layer, nn.Linear):
            if own is not None:
                known = ", ".join(known for known in BlocksConfig.model_fields if known in layers)
                raise ConfigError("this decoder has no such layer", where=f"pruning.blocks.{name}", expected=known)
            continue
        width = WIDTHS[own or config.block]
        if layer.in_features % width:
            left_single[name] = f"its rows of {layer.in_features} weights are no multiple of {width}"
        elif width > 1:
            widths[name] = width
    return Blocks(widths, left_single)
