"""The complete config of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from capprune.config.data import DataConfig
from capprune.config.decoder import DecoderConfig, decoder_config
from capprune.config.encoder import EncoderConfig
from capprune.config.pruning import PruningConfig
from capprune.config.training import TrainingConfig
from capprune.config.tree import Tree
from capprune_runtime.bundle.manifest import MAX_NO_REPEAT
from capprune_runtime.bundle.preprocessing import REGIONS

OF_THE_MACHINE = (
    "save_every",
    "device",
    "compile",
)  # keys of `training` that may change when an unfinished run is resumed


class SearchConfig(Tree):
    """How captions are searched for, in training, scoring and in every bundle of the run."""

    no_repeat_ngram: int = Field(
        default=0,
        ge=0,
        le=MAX_NO_REPEAT,
        description="length of the sequences of tokens that a caption holds at most once; 0 for no such limit",
    )


class RunConfig(Tree):
    """The complete config of a run."""

    name: str = Field(default="run", description="name of the run, used in tables and as the name of bundles")
    start: Path | None = Field(default=None, description="folder of a run whose weights this run starts from")
    data: DataConfig
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    decoder: SerializeAsAny[DecoderConfig] = Field(default_factory=lambda: decoder_config({}), validate_default=True)
    search: SearchConfig = SearchConfig()
    training: TrainingConfig = TrainingConfig()
    pruning: PruningConfig = PruningConfig()

    @model_validator(mode="after")
    def _views_need_photos(self) -> Self:
        if (self.data.flip or self.data.crops) and self.encoder.name == REGIONS:
            raise ValueError(f"data.flip and data.crops need photos, and encoder.name {REGIONS} has none")
        return self

    @field_validator("decoder", mode="before")
    @classmethod
    def _of_its_family(cls, value: Any) -> Any:
        return decoder_config(value) if isinstance(value, dict) else value

    def as_tree(self) -> dict[str, Any]:
        """Return the resolved tree in plain types, as it is saved."""
        tree: dict[str, Any] = self.model_dump(mode="json")
        return tree

    def without_places(self) -> RunConfig:
        """Return the config with only the last part of each path, so that no local path is published."""
        distillation = self.training.distillation.without_places()
        return self.model_copy(
            update={
                "start": self.start and Path(self.start.name),
                "data": self.data.without_places(),
                "encoder": self.encoder.without_places(),
                "training": self.training.model_copy(update={"distillation": distillation}),
            }
        )

    def trains_like(self, other: RunConfig) -> bool:
        """Return whether a run of this config can be resumed with the other: they differ in no key that affects results."""
        own = dict.fromkeys(OF_THE_MACHINE)
        return self._with_training(**own) == other._with_training(**own)

    def _with_training(self, **changed: Any) -> RunConfig:
        return self.model_copy(update={"training": self.training.model_copy(update=changed)})

    def as_yaml(self) -> str:
        """Return the resolved tree as YAML."""
        return yaml.safe_dump(self.as_tree(), sort_keys=False)
