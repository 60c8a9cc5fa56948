"""The keys under `pruning`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from capprune.config.methods import METHODS, NONE, Method
from capprune.config.tree import Tree

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")

BlockShape = Literal["none", "1x16"]
Scope = Literal["blind", "uniform", "distribution"]


class GradualConfig(Tree):
    """The cubic schedule of Zhu and Gupta (2017), in shares of the run."""

    begin: float | None = Field(default=None, ge=0, lt=1, description="first update; after the first epoch if left out")
    end: float = Field(default=0.5, gt=0, le=1, description="last update; the rest of the run trains what is left")
    updates: int = Field(default=100, ge=1, description="of the masks, evenly spaced")


class PruningConfig(Tree):
    """How weights are removed; docs/pruning.md says what to set."""

    method: str = Field(default=NONE, description="a name of `capprune.config.methods.METHODS`")
    sparsity: float = Field(default=0.975, gt=0, lt=1, description="share of the prunable weights that end as zero")
    bytes: int | None = Field(
        default=None, ge=1, description="instead of sparsity: what the kept weights may take in the bundle's files"
    )
    step_us: float | None = Field(default=None, gt=0, description="instead of sparsity: time of a word, microseconds")
    costs: str = Field(default="x86-64", description="what a kept weight costs: a table that ships, or a file")
    scope: Scope | None = Field(default=None, description="how magnitudes of different layers are compared")
    exclude: tuple[str, ...] = Field(
        default=(), description="layers, or `encoder` or `decoder`, that stay dense and do not count"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="likewise, but with the masks that the run at `start` has; these do not change"
    )
    depthwise: bool = Field(default=False, description="depthwise convolutions too; they hold few weights")
    least_kept: float = Field(default=0.0, ge=0, lt=1, description="no layer keeps less than this share of its weights")
    gradual: GradualConfig = GradualConfig()
    block: BlockShape = Field(default="none", description="weights in a row that go or stay together, in `step`")
    blocks: Mapping[str, BlockShape] = Field(
        default={}, description="`block` for single matrices of `step`, by name; the others have no kernel for blocks"
    )
    kappa: float = Field(default=6000.0, gt=0, description="strength of the pull over the whole run: when masks close")
    sparsity_weight: float | None = Field(
        default=None,
        gt=0,
        description="lambda, the price of sparsity in nats: what must be earned; derived if left out",
    )
    gate_learning_rate: float | None = Field(
        default=None, gt=0, description="derived from kappa and lambda if left out; published recipes have 100"
    )
    gate_adam_eps: float = Field(default=1e-2, gt=0)
    # beyond 15 a sigmoid in float32 is so close to 1 that its gate would hardly ever move
    initial_gate: float = Field(default=5.0, gt=0, le=15, description="keep-probability sigmoid(5) = 0.993")
    tolerance: float = Field(
        default=0.05, gt=0, description="a best checkpoint keeps within this share of the target's weights"
    )
    dropout_factor: float = Field(default=1 / 3, ge=0, le=1, description="masks regularise already")

    @property
    def how(self) -> Method:
        """The method, as the table describes it."""
        return METHODS.load(self.method, "pruning.method")

    @property
    def prunes(self) -> bool:
        """Whether the run is sparse."""
        return self.how.prunes

    @field_validator("method")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in METHODS.own and name not in METHODS.names():
            raise ValueError(f"one of {', '.join(METHODS.names())}")
        if not _NAME.fullmatch(name):
            raise ValueError("a name in a-z, 0-9 and _, as the manifest of a bundle has it")
        return name

    @field_validator("blocks", mode="before")
    @classmethod
    def _without_none(cls, value: Any) -> Any:
        """A matrix without an entry of its own follows `block`; runs of version 0.1 say so with null."""
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value
