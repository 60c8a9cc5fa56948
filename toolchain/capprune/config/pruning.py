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
    """Cubic schedule of Zhu and Gupta (2017), in shares of the run."""

    begin: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of the run at which pruning begins; by default after the first epoch",
    )
    end: float = Field(
        default=0.5, gt=0, le=1, description="share of the run at which pruning ends; the rest trains the kept weights"
    )
    updates: int = Field(default=100, ge=1, description="number of updates of the masks, evenly spaced")


class PruningConfig(Tree):
    """Settings of pruning; docs/pruning.md explains how to choose them."""

    method: str = Field(default=NONE, description="pruning method; `none` trains a dense model")
    sparsity: float = Field(default=0.975, gt=0, lt=1, description="target share of the prunable weights that are zero")
    bytes: int | None = Field(
        default=None, ge=1, description="limit of the bytes of the kept weights in the bundle, instead of `sparsity`"
    )
    step_us: float | None = Field(
        default=None, gt=0, description="limit of the time of one step in microseconds, instead of `sparsity`"
    )
    costs: str = Field(
        default="x86-64",
        description="cost table for `step_us`: the name of a shipped table, or a JSON file",
    )
    scope: Scope | None = Field(
        default=None,
        description="how magnitudes of layers are compared; default `uniform` for `gradual`, otherwise `blind`",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="layers, or `encoder` or `decoder`, that are not pruned and do not count towards the target",
    )
    keep: tuple[str, ...] = Field(
        default=(), description="layers, or `encoder` or `decoder`, that keep the masks of the run at `start`"
    )
    depthwise: bool = Field(default=False, description="prune depthwise convolutions too; they have few weights")
    least_kept: float = Field(
        default=0.0, ge=0, lt=1, description="minimum share of the weights of every layer that is kept"
    )
    gradual: GradualConfig = GradualConfig()
    block: BlockShape = Field(
        default="none", description="shape of the blocks of weights in `step` that are kept or removed together"
    )
    blocks: Mapping[str, BlockShape] = Field(default={}, description="`block` of single matrices of `step`, by name")
    kappa: float = Field(
        default=6000.0,
        gt=0,
        description="strength of the sparsity loss over the whole run: higher values close the masks earlier",
    )
    sparsity_weight: float | None = Field(
        default=None,
        gt=0,
        description="lambda, the weight of the sparsity loss in nats; derived from the target by default",
    )
    gate_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="learning rate of the gates; derived from kappa and lambda by default, 100 in published recipes",
    )
    gate_adam_eps: float = Field(default=1e-2, gt=0, description="epsilon of Adam for the gates")
    # above 15, the sigmoid is so close to 1 in float32 that a gate would hardly change
    initial_gate: float = Field(
        default=5.0,
        gt=0,
        le=15,
        description="initial value of all gates; a gate of 5 keeps its weight with probability 0.993",
    )
    tolerance: float = Field(
        default=0.05,
        gt=0,
        description="largest relative deviation of the kept weights from the target at which a checkpoint counts",
    )
    dropout_factor: float = Field(
        default=1 / 3,
        ge=0,
        le=1,
        description="factor of all dropout rates in pruned runs, because masks regularise too",
    )

    @property
    def how(self) -> Method:
        """The entry of the method in the table."""
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
            raise ValueError("a name in a-z, 0-9 and _, as in the manifest of a bundle")
        return name

    @field_validator("blocks", mode="before")
    @classmethod
    def _without_none(cls, value: Any) -> Any:
        """Remove matrices with the value null, which follow `block`; runs of version 0.1 have such entries."""
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value
