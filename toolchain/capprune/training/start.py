"""What a run takes from another one: its weights, its masks or, for a lottery ticket, its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from capprune.config import RunConfig
from capprune.models.caption_model import region_count
from capprune.models.soft_attention import SoftAttention
from capprune.pruning.learned import SupermaskPruner
from capprune.pruning.pruner import Pruner
from capprune.pruning.unlearned import GradualPruner, HardPruner, KeptMasks, LotteryPruner, SnipPruner
from capprune.training.run import read_run
from capprune_runtime.errors import ConfigError, UsageError
from capprune_runtime.vocabulary import Vocabulary

FROM_TRAINED = ("hard", "lottery", "keep")  # methods that have no meaning without a run to start from


@dataclass(frozen=True)
class Parent:
    """The run that another one starts from.

    Attributes:
        folder: Of the run.
        config: Of the run.
        weights: Its best checkpoint, as trained: closed gates and masks are not applied.
        masks: Booleans for every pruned weight; empty if it was dense.
        method: That made the masks.
    """

    folder: Path
    config: RunConfig
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    method: str


def read_parent(config: RunConfig, vocabulary: Vocabulary) -> Parent | None:
    """The run under `start`, checked against the run that is to come.

    Raises:
        ConfigError: If the method needs a start and has none, or one that it cannot use.
        UsageError: If the run is not there, or is of another decoder or vocabulary.
        BundleError: If it is broken.
    """
    method = config.pruning.method
    if config.start is None:
        if method in FROM_TRAINED:
            raise ConfigError(
                f"pruning.method {method} starts from a trained model",
                where="start",
                expected="the folder of a run",
                hint=f"capprune prune RUN --method {method}" if method != "keep" else "capprune finetune RUN",
            )
        return None
    found = read_run(config.start)
    if found.config.decoder != config.decoder or found.vocabulary != vocabulary:
        raise UsageError(
            "the run to start from has another decoder or other words",
            where=config.start,
            expected=f"{config.decoder.model_dump()} and {len(vocabulary.tokens)} words",
            found=f"{found.config.decoder.model_dump()} and {len(found.vocabulary.tokens)} words",
        )
    parent = Parent(config.start, found.config, found.weights, found.masks, found.method)
    _check(config, parent)
    return parent


def _check(config: RunConfig, parent: Parent) -> None:
    method = config.pruning.method
    if method == "keep" and not parent.masks:
        raise ConfigError("this run has no masks to keep", where=parent.folder, hint="pruning.method=none")
    if method == "hard" and parent.masks:
        raise ConfigError("one-shot pruning starts from a dense model, and this run is sparse", where=parent.folder)
    if method == "lottery" and (parent.config.start or parent.config.training.seed != config.training.seed):
        raise ConfigError(
            "a lottery ticket goes back to the start of its run, which has to be drawn from the same seed",
            where="training.seed",
            expected=parent.config.training.seed,
            found=config.training.seed,
            hint="start from a run that has no start of its own, with its seed",
        )


def make_pruner(model: SoftAttention, config: RunConfig, *, parent: Parent | None, steps: int, epoch: int) -> Pruner:
    """The pruner of a run, with its gates or masks on the model.

    Args:
        model: As drawn; gets the parent's weights where the method starts from them.
        config: Of the run.
        parent: That it starts from.
        steps: T, training steps in all.
        epoch: Steps of one epoch.

    Raises:
        UnreachableTarget: If a supermask could never reach its target.
        ConfigError: If the config names layers that the model does not have.
    """
    pruning = config.pruning
    if parent is not None and pruning.method != "lottery":
        _load_weights(model, parent.weights)
    masks = parent.masks if parent else {}
    match pruning.method:
        case "supermask":
            attended = region_count(config.encoder) * (config.decoder.attention + config.decoder.context)
            return SupermaskPruner(model, pruning, steps=steps, attended=attended)
        case "gradual":
            return GradualPruner(model, pruning, steps=steps, epoch=epoch)
        case "hard":
            return HardPruner(model, pruning)
        case "lottery":
            assert parent is not None
            return LotteryPruner(model, pruning, trained=parent.weights, masks=masks)
        case "snip":
            return SnipPruner(model, pruning)
        case "keep":
            return KeptMasks(model, pruning, masks=masks)
        case "none":
            return Pruner()


@torch.no_grad()
def _load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
