"""What every part of a config is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MOST_UNITS = 16_384  # in one layer; beyond it a typing error is more likely than a caption model


class Tree(BaseModel):
    """A part of a config: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
