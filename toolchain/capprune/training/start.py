"""What a run takes from its parent: weights, masks or, for a lottery ticket, the initial weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from capprune.config.methods import METHODS, StartsFrom
from capprune.config.pruning import PruningConfig
from capprune.config.run import RunConfig
from capprune.models.caption_model import GridEncoder
from capprune.models.encoder import Encoder, described, encoder_class
from capprune.pruning.layers import ENCODER, belongs
from capprune.pruning.masks import Masks
from capprune.pruning.pruner import PrunedRun, Pruner
from capprune.pruning.state import MASK
from capprune.training.encoder import PREFIX, encoder_network, rounded_filters
from capprune.training.rounded_encoder import coded_encoder
from capprune.training.run import SavedRun, read_run
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import ConfigError, UsageError

CODEBOOK = "codebook4"
NETWORK = ("name", "source", "mean", "scale")  # keys of an encoder's config that determine its output


@dataclass(frozen=True)
class Parent:
    """The run that another run starts from.

    Attributes:
        folder: The parent's folder.
        config: The parent's config.
        weights: Its best checkpoint as trained: gates and masks are not applied.
        masks: Booleans for every pruned weight; empty for a dense run.
        method: Method that made the masks.
    """

    folder: Path
    config: RunConfig
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    method: str


def read_parent(config: RunConfig, vocabulary: Vocabulary) -> Parent | None:
    """Return the run under `start`, checked against the config of the new run.

    Raises:
        ConfigError: The method needs a start and has none, or one that it cannot use.
        UsageError: The run does not exist, or has another decoder or vocabulary.
        BundleError: It is broken.
    """
    name, method = config.pruning.method, config.pruning.how
    if config.start is None:
        if method.needs_start:
            raise ConfigError(
                f"pruning.method {name} starts from a trained model",
                where="start",
                expected="the folder of a run",
                hint=method.command.replace("METHOD", name),
            )
        return None
    found = read_run(config.start)
    if found.config.decoder.shape() != config.decoder.shape() or found.vocabulary != vocabulary:
        raise UsageError(
            "the run to start from has another decoder or other words",
            where=config.start,
            expected=f"{config.decoder.shape()} and {len(vocabulary)} {vocabulary.coding.kind}",
            found=f"{found.config.decoder.shape()} and {len(found.vocabulary)} {found.vocabulary.coding.kind}",
        )
    _check_encoder(config, found, "start")
    parent = Parent(config.start, found.config, found.weights, found.masks, found.method)
    _check(config, parent)
    return parent


def _check_encoder(config: RunConfig, other: SavedRun, key: str) -> None:
    """Check that the encoder of a run to start from has the same network, photo size and, for a decoder, pooling."""
    names = NETWORK if key != "start" else (*NETWORK, "pooling")
    if key == "start" and config.encoder.pooling == "capsules":
        names = (*names, "capsules", "capsule_channels")
    wanted, has = (
        {name: getattr(one, name) for name in names if getattr(one, name) is not None}
        for one in (config.encoder, other.config.encoder)
    )
    if wanted != has:
        raise UsageError(
            "the run to start from has another encoder",
            where=f"{key} {other.folder}",
            expected=wanted,
            found=has,
            hint=f"encoder.name={other.config.encoder.name}",
        )


def _check(config: RunConfig, parent: Parent) -> None:
    method = config.pruning.how
    if method.starts_from is StartsFrom.MASKED and not parent.masks:
        raise ConfigError("this run has no masks to keep", where=parent.folder, hint="pruning.method=none")
    if method.starts_from is StartsFrom.DENSE and any(not _stays(name, config) for name in parent.masks):
        raise ConfigError(
            "one-shot pruning starts from a dense model, and this run is sparse",
            where=parent.folder,
            hint="pruning.keep=[decoder] prunes the encoder beside a sparse decoder",
        )
    if method.chooses_masks and config.pruning.keep and not _held(parent, config.pruning.keep):
        raise ConfigError("this run has no masks of these layers to keep", where="pruning.keep", found=parent.folder)
    if _rewound(config) and (parent.config.start or parent.config.training.seed != config.training.seed):
        raise ConfigError(
            "a lottery ticket goes back to the start of its run, which has to be drawn from the same seed",
            where="training.seed",
            expected=parent.config.training.seed,
            found=config.training.seed,
            hint="start from a run without a start, with the same seed",
        )


def _stays(name: str, config: RunConfig) -> bool:
    """Return whether a weight keeps its masks, because the config keeps them or the weight is frozen."""
    layer = name.removesuffix(".weight")
    frozen = config.encoder.train == "frozen" and belongs(layer, ENCODER)
    return frozen or any(belongs(layer, part) for part in (*config.pruning.keep, *_frozen(config)))


def _frozen(config: RunConfig) -> tuple[str, ...]:
    """Return the encoder layers below the trained ones. They are frozen, masks included."""
    layers = (
        ()
        if config.encoder.train == "frozen"
        else described(config.encoder).frozen_layers(config.encoder.frozen_blocks)
    )
    return tuple(PREFIX + layer for layer in layers)


def _held(parent: Parent, parts: Sequence[str]) -> dict[str, Tensor]:
    """Return the masks that a run has for these parts of a model."""
    return {
        name: mask
        for name, mask in parent.masks.items()
        if any(belongs(name.removesuffix(".weight"), part) for part in parts)
    }


def carried_encoder(config: RunConfig, parent: Parent | None) -> dict[str, Tensor]:
    """Return the encoder's tensors and masks that a run with a frozen encoder copies into its checkpoints.

    Raises:
        ConfigError: The encoder is trained, but has options that only a frozen one can have.
        UsageError: The run with the encoder does not exist.
        BundleError: That run is broken.
    """
    encoder = config.encoder
    _check_options(config)
    if encoder.name == REGIONS or encoder.train != "frozen":
        return {}
    learned = parent is not None and not _rewound(config)
    tensors = _encoder_tensors(parent.weights, parent.masks) if learned and parent else {}
    if encoder.start is not None:
        other = read_run(encoder.start)
        tensors = _encoder_tensors(other.weights, other.masks)
    unpublished = not tensors and not encoder_class(encoder).published_by_package
    if encoder.rounded or unpublished:
        network = start_network(config).state_dict()
        tensors |= {PREFIX + name: value for name, value in network.items()}
    return tensors


def _check_options(config: RunConfig) -> None:
    """Check that an encoder that is trained has no options that only a frozen one can have."""
    encoder = config.encoder
    if encoder.train == "frozen" or encoder.name == REGIONS:
        return
    for key, said in (("rounded", encoder.rounded), ("start", encoder.start)):
        if said:
            raise ConfigError(
                "an encoder that learns starts from that of `start`, and is not rounded",
                where=f"encoder.{key}",
                hint="encoder.train=frozen",
            )


def check_start(config: RunConfig, vocabulary: Vocabulary) -> None:
    """Check what a run starts from, before minutes of feature computation.

    Raises:
        CapPruneError: As by `read_parent` and `carried_encoder`.
    """
    read_parent(config, vocabulary)
    _check_options(config)


def _encoder_tensors(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {**weights, **{name + MASK: mask for name, mask in masks.items()}}
    return {name: value for name, value in tensors.items() if name.startswith(PREFIX)}


def start_network(config: RunConfig) -> Encoder:
    """Return the encoder's network before training: that of `encoder.start`, of the parent, or the published one.

    Raises:
        UsageError: There is no such run.
        BundleError: It is broken.
    """
    start = config.encoder.start or (None if _rewound(config) else config.start)
    found = None if start is None else read_run(start)
    if found is not None:
        _check_encoder(config, found, "encoder.start" if config.encoder.start else "start")
    network = encoder_network(config.encoder, {}) if found is None else _network_of(found)
    rounded = config.encoder.rounded
    if rounded == CODEBOOK or not isinstance(rounded, bool):
        return coded_encoder(config, network, bits=None if isinstance(rounded, str) else rounded)
    return rounded_filters(network) if config.encoder.rounded else network


def teachers_eye(folder: Path) -> GridEncoder:
    """Return the encoder of a teacher: its network, photo size and grid.

    Raises:
        UsageError: There is no such run.
        BundleError: It is broken.
    """
    found = read_run(folder)
    return GridEncoder(found.config.encoder, _network_of(found))


def _network_of(run: SavedRun) -> Encoder:
    return encoder_network(run.config.encoder, {**run.weights, **run.pruned()})


def make_pruner(model: nn.Module, config: RunConfig, *, parent: Parent | None, steps: int, epoch: int) -> Pruner:
    """Return the pruner of a run, with its gates or masks on the model.

    Args:
        model: Decoder, and encoder if it is trained, at initialisation. If the method starts from trained weights, it
            receives the parent's.
        config: The run's config.
        parent: The run that it starts from.
        steps: T, total number of training steps.
        epoch: Steps of one epoch.

    Raises:
        UnreachableTarget: A supermask could never reach its target.
        ConfigError: The config names layers that the model does not have.
    """
    pruning, method = config.pruning, config.pruning.how
    _check_limits(pruning)
    if parent is not None and not _rewound(config):
        _load_weights(model, parent.weights)
    frozen = _frozen(config)
    if parent is not None and method.chooses_masks and (held := _held(parent, (*pruning.keep, *frozen))):
        Masks(model, [name.removesuffix(".weight") for name in held]).set(held)
    pruning = pruning.model_copy(update={"exclude": (*pruning.exclude, *frozen)})
    kind: type[Pruner] = method.load()
    start = PrunedRun(steps, epoch, parent.weights if parent else {}, parent.masks if parent else {})
    return kind.for_run(model, pruning, start)


def _rewound(config: RunConfig) -> bool:
    """Return whether a run goes back to the initial weights of its parent."""
    return config.pruning.how.starts_from is StartsFrom.REWOUND


def _check_limits(pruning: PruningConfig) -> None:
    """Check that the method supports the limits. A run that keeps masks may have its parent's limits in its config."""
    method = pruning.how
    for key in ("bytes", "step_us"):
        if getattr(pruning, key) is not None and method.chooses_masks and key not in method.limits:
            raise ConfigError(
                f"pruning.method {pruning.method} does not support this limit",
                where=f"pruning.{key}",
                hint=f"set pruning.sparsity, or pruning.method={_able(key)}",
            )


def _able(limit: str) -> str:
    """Return the names of our methods that support a limit."""
    return " or ".join(name for name in METHODS.own if limit in METHODS.load(name, "pruning.method").limits)


@torch.no_grad()
def _load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in weights or not name.startswith(PREFIX):  # a parent that left its encoder unchanged does not store it
            parameter.copy_(weights[name])
    for name, buffer in model.named_buffers():  # a rounded encoder has statistics of its own
        if name in weights:
            buffer.copy_(weights[name])
