"""The keys under `decoder`, and the registry of decoder families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import SerializeAsAny, ValidationError

from capprune.config.faults import config_error
from capprune.config.tree import Tree
from capprune_runtime.errors import ConfigError
from capprune_runtime.registry import Registry

DEFAULT_FAMILY = "soft_attention"
DECODERS = Registry[Any](
    "capprune.decoders",
    {
        DEFAULT_FAMILY: "capprune.models.soft_attention:SoftAttention",
        "show_tell": "capprune.models.show_tell:ShowTell",
        "up_down": "capprune.models.up_down:UpDown",
        "relation_transformer": "capprune.models.relation_transformer:RelationTransformer",
        "retention": "capprune.models.retention:Retention",
    },
    "decoder family",
)


class Dropout(Tree):
    """Dropout rates (shares of dropped values); each family defines its own."""

    def scaled(self, factor: float) -> Self:
        """Return every rate times `factor`."""
        return self.model_copy(update={name: rate * factor for name, rate in self.model_dump().items()})


class DecoderConfig(Tree):
    """Base class of the families' decoder configs, which are defined beside the families' modules."""

    family: str
    dropout: SerializeAsAny[Dropout] = Dropout()

    def with_dropout(self, factor: float) -> Self:
        """Return the config with every dropout rate times `factor`."""
        return self.model_copy(update={"dropout": self.dropout.scaled(factor)})

    def shape(self) -> dict[str, Any]:
        """Return the keys that determine the shapes of weights: all except dropout."""
        return self.model_dump(exclude={"dropout"})


def decoder_config(tree: Mapping[str, Any], where: str = "config") -> DecoderConfig:
    """Return the config of `decoder.family`.

    Args:
        tree: The keys under `decoder`.
        where: The config's file, for messages.

    Raises:
        ConfigError: The family or a key is unknown, or a value is invalid.
    """
    family = tree.get("family", DEFAULT_FAMILY)
    if not isinstance(family, str):
        raise ConfigError("invalid value for decoder.family", where=where, expected="a name", found=repr(family))
    kind: type[DecoderConfig] = DECODERS.load(family, f"{where}, decoder.family").Config
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        raise config_error(error, where, kind, ("decoder",)) from error
