"""The keys under `encoder`, and the registry of encoders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from capprune.config.tree import MOST_UNITS, Tree
from capprune_runtime.registry import Registry

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # an owner and a name on the Hugging Face Hub
DEFAULT_ENCODER = "efficientnet_lite0"
ENCODERS = Registry[Any](
    "capprune.encoders",
    {
        DEFAULT_ENCODER: "capprune.models.efficientnet_lite:EfficientNetLite0",
        "efficientnet_lite1": "capprune.models.efficientnet_lite:EfficientNetLite1",
        "efficientnet_lite2": "capprune.models.efficientnet_lite:EfficientNetLite2",
        "hf": "capprune.models.huggingface:HuggingFaceEncoder",
    },
    "encoder",
)


class EncoderConfig(Tree):
    """The photo encoder: network, photo size, grid, and trained parts."""

    name: str = Field(
        default=DEFAULT_ENCODER,
        description="name of an encoder, or `regions` for precomputed region features without an encoder",
    )
    source: str | None = Field(
        default=None, description="with `hf`: a folder, or an id `OWNER/NAME` on the Hugging Face Hub"
    )
    size: int = Field(
        default=224, ge=32, le=1024, description="side of the resized photo in pixels; by default the encoder's own"
    )
    mean: tuple[float, float, float] | None = Field(
        default=None, description="with `hf`: mean of red, green and blue, from 0 to 255; by default that of the source"
    )
    scale: tuple[float, float, float] | None = Field(
        default=None,
        description="with `hf`: divisor of red, green and blue after the mean is subtracted; by default that of the source",
    )
    regions: int = Field(default=100, ge=1, le=100, description="with `regions`: largest number of regions per photo")
    channels: int = Field(
        default=2048, ge=1, le=MOST_UNITS, description="with `regions`: number of channels of each region"
    )
    grid: int | None = Field(
        default=None,
        ge=1,
        le=32,
        description="pool the feature grid to this number of cells per side; by default the grid is not pooled",
    )
    pooling: Literal["average", "capsules"] = Field(
        default="average", description="how the grid becomes regions: its cells, or capsules routed from them"
    )
    capsules: int = Field(
        default=16, ge=1, le=1024, description="number of capsules, which the decoder uses as regions"
    )
    capsule_channels: int = Field(default=128, ge=1, le=4096, description="number of channels of each capsule")
    routing_iterations: int = Field(default=3, ge=1, le=10, description="rounds of routing between cells and capsules")
    train: Literal["frozen", "masks", "all"] = Field(
        default="frozen",
        description="parts of the encoder that are trained with the decoder: none (features are cached), its masks, or all",
    )
    frozen_blocks: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="number of first blocks that are frozen, with the stem; their output is cached",
    )
    rounded: bool | Literal["codebook4"] | Annotated[float, Field(ge=1, le=7)] = Field(
        default=False,
        description="round the filters of a frozen encoder before training: `true` to int8, as the export does; "
        "a number to steps that take as many bits per weight in a .capz, fitted on photos of train; "
        "`codebook4` to 16 values in each layer, fitted as well",
    )
    start: Path | None = Field(
        default=None, description="folder of a run whose encoder is used, frozen, instead of that of the run at `start`"
    )
    learning_rate: float = Field(
        default=1e-4, gt=0, description="learning rate of the encoder's weights; it falls like `training.learning_rate`"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_its_encoder_is(cls, tree: Any) -> Any:
        """Fill in the encoder's defaults, so that a saved config does not change with the encoder's source."""
        name = tree.get("name", DEFAULT_ENCODER) if isinstance(tree, dict) else None
        if not isinstance(name, str):
            return tree
        given = {key: value for key, value in tree.items() if value is not None}
        if name == "regions":  # no encoder at all
            return tree
        return {**tree, **ENCODERS.load(name, "encoder.name").defaults(given), **given}

    @property
    def title(self) -> str:
        """The encoder's name, and its source without a path."""
        source = self.without_places().source
        return self.name if source is None else f"{self.name} {source}"

    def without_places(self) -> Self:
        """Return the config with only the last part of each path; an id on the Hub is not a path."""
        source = self.source
        if source and (Path(source).is_dir() or not HUB_ID.fullmatch(source)):
            source = Path(source).name
        return self.model_copy(update={"start": self.start and Path(self.start.name), "source": source})

    @field_validator("scale")
    @classmethod
    def _divides(cls, scale: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if scale is not None and min(scale) <= 0:
            raise ValueError("numbers above 0")
        return scale
