"""Selects the layers to prune: every matrix with a role and every convolution, except those that the config excludes.

Depthwise convolutions are not pruned by default, because they hold only a twentieth of the encoder's weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.utils import parametrize

from capprune.config.pruning import PruningConfig
from capprune.models.family import Role
from capprune_runtime.errors import ConfigError

ENCODER, DECODER = "encoder", "decoder"  # the two parts of a model; each name selects all layers of the part


def prunable_layers(model: nn.Module, config: PruningConfig) -> tuple[str, ...]:
    """Return the names of the modules whose `weight` is pruned, in the model's order.

    Args:
        model: Model with linear layers, embeddings or convolutions.
        config: Its `exclude` and `keep` list the layers to leave out, by name or by part (`encoder`, `decoder`).

    Raises:
        ConfigError: If a name matches no prunable layer, or if no layer is left.
    """
    roles = roles_of(model)
    every = [name for name, module in model.named_modules() if _is_prunable(name, module, roles, depthwise=True)]
    for key, names in (("exclude", config.exclude), ("keep", config.keep)):
        for name in names:
            if name not in (ENCODER, DECODER) and not any(belongs(layer, name) for layer in every):
                raise ConfigError(
                    "no prunable layer has this name",
                    where=f"pruning.{key}",
                    expected=_listed(every),
                    found=name,
                )
    left_out = (*config.exclude, *config.keep)
    chosen = tuple(
        layer
        for layer in every
        if _is_prunable(layer, model.get_submodule(layer), roles, depthwise=config.depthwise)
        and not any(belongs(layer, name) for name in left_out)
    )
    if not chosen:
        raise ConfigError("no layer is left to prune", where="pruning.exclude", found=", ".join(left_out))
    return chosen


def belongs(layer: str, name: str) -> bool:
    """Return whether `name` is the layer itself or a part of the model that contains it."""
    if name == DECODER:
        return not layer.startswith(f"{ENCODER}.")
    return layer == name or layer.startswith(f"{name}.")


def roles_of(model: nn.Module) -> Mapping[str, Role]:
    """Return the roles of a model's matrices. A module that declares none gets them from its layer types."""
    declared = getattr(model, "roles", None)
    if declared is not None:
        roles: Mapping[str, Role] = declared()
        return roles
    kinds = {nn.Linear: Role.PER_WORD, nn.Embedding: Role.LOOKED_UP}
    return {
        name: kinds[type_] for name, module in model.named_modules() for type_ in kinds if isinstance(module, type_)
    }


def _is_prunable(name: str, module: nn.Module, roles: Mapping[str, Role], *, depthwise: bool) -> bool:
    if isinstance(module, nn.Conv2d):
        return depthwise or module.groups == 1
    return name in roles


def _listed(layers: list[str]) -> str:
    """List the decoder's layers and the names that stand for the encoder's layers."""
    own = [layer for layer in layers if belongs(layer, DECODER)]
    return ", ".join([*own, DECODER, *([f"{ENCODER}, {ENCODER}.blocks.0, …"] if len(own) < len(layers) else [])])


def trained_weight(module: nn.Module) -> nn.Parameter:
    """Return the parameter behind a module's `weight`, masked or not."""
    masked = parametrize.is_parametrized(module, "weight")
    weight = module.parametrizations.weight.original if masked else module.weight  # type: ignore[union-attr]
    assert isinstance(weight, nn.Parameter)
    return weight
