"""The state of an unfinished run: all that a second start needs to go on as if there had been no interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from capprune.pruning.state import load_plain_state, plain_state
from capprune.training.run import read_checkpoint, save_checkpoint
from capprune_runtime.errors import BundleError

MODEL, OPTIMISER, RANDOM = "model.", "optimiser.", "random"


def save_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, facts: Mapping[str, object]) -> None:
    """Write weights, gates, the optimiser's moments and the random state, whole or not at all.

    Args:
        path: A safetensors file.
        model: Being trained.
        optimiser: Of its parameters; learning rates are not saved, they follow from the step.
        facts: Whatever else the loop counts.

    Raises:
        CapPruneError: If the disk is full; the state before this one is then still there.
    """
    tensors = {MODEL + name: value for name, value in plain_state(model).items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    tensors[RANDOM] = torch.get_rng_state()
    save_checkpoint(path, tensors, facts)


def restore_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Mapping[str, str]:
    """The way back from `save_state`, into a model and an optimiser made from the same config.

    Returns:
        The facts.

    Raises:
        BundleError: If the state is broken or belongs to another config.
    """
    saved = read_checkpoint(path)
    slots: dict[int, dict[str, Tensor]] = {}
    try:
        load_plain_state(model, _under(MODEL, saved.tensors))
        for name, value in _under(OPTIMISER, saved.tensors).items():
            index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
        torch.set_rng_state(saved.tensors[RANDOM])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BundleError(
            "the saved state does not fit this run",
            where=path,
            found=" ".join(str(error).split()),
            hint=f"remove {path.parent} to start the run again",
        ) from error
    return saved.facts


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
