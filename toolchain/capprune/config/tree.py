"""Base class of all parts of a config."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from capprune.plain_yaml import truth_as_text

MOST_UNITS = 16_384  # maximum width of a layer; larger values are probably typing errors


class Tree(BaseModel):
    """A part of a config: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, tree: Any) -> Any:
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return truth_as_text(tree, kinds) if isinstance(tree, dict) else tree
