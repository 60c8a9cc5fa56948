"""Which layers of a model are pruned: every matrix but those that the config leaves out by name."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from capprune.config import PruningConfig
from capprune_runtime.errors import ConfigError


def prunable_layers(model: nn.Module, config: PruningConfig) -> tuple[str, ...]:
    """The names of the modules whose `weight` is pruned, in the model's order.

    Args:
        model: Its linear layers and embeddings can be pruned.
        config: `exclude` leaves layers out.

    Raises:
        ConfigError: If a name in `exclude` is no such layer, or none is left.
    """
    matrices = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
    for name in config.exclude:
        if name not in matrices:
            raise ConfigError(
                "there is no such layer to leave out",
                where="pruning.exclude",
                expected=", ".join(matrices),
                found=name,
            )
    chosen = tuple(name for name in matrices if name not in config.exclude)
    if not chosen:
        raise ConfigError("no layer is left to prune", where="pruning.exclude", found=", ".join(config.exclude))
    return chosen


def trained_weight(module: nn.Module) -> nn.Parameter:
    """The parameter behind a module's `weight`, masked or not."""
    masked = parametrize.is_parametrized(module, "weight")
    weight = module.parametrizations.weight.original if masked else module.weight  # type: ignore[union-attr]
    assert isinstance(weight, nn.Parameter)
    return weight
