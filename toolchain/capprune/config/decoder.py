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
    """Shares of values that are dropped in training (not kept); a family names its own."""

    def scaled(self, factor: float) -> Self:
        """Return every rate times `factor`."""
        return self.model_copy(update={name: rate * factor for name, rate in self.model_dump().items()})


class DecoderConfig(Tree):
    """The sizes of a decoder; each family has its own, beside its module."""

    family: str
    dropout: SerializeAsAny[Dropout] = Dropout()

    def with_dropout(self, factor: float) -> Self:
        """Return the config with every dropout rate times `factor`."""
        return self.model_copy(update={"dropout": self.dropout.scaled(factor)})

    def shape(self) -> dict[str, Any]:
        """Return all that decides the shapes of weights: everything but dropout."""
        return self.model_dump(exclude={"dropout"})


def decoder_config(tree: Mapping[str, Any], where: str = "config") -> DecoderConfig:
    """Return the config of the family that `decoder.family` names.

    Args:
        tree: The keys under `decoder`.
        where: The config's file, for messages.

    Raises:
        ConfigError: There is no such family, an unknown key or an impossible value.
    """
    family = tree.get("family", DEFAULT_FAMILY)
    if not isinstance(family, str):
        raise ConfigError("impossible value for decoder.family", where=where, expected="a name", found=repr(family))
    kind: type[DecoderConfig] = DECODERS.load(family, f"{where}, decoder.family").Config
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        raise config_error(error, where, kind, ("decoder",)) from error
