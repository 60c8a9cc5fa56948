"""Saved states of an unfinished run, from which it resumes exactly.

The last two states are kept. A new one is written to a temporary name and renamed when complete. So a kill, a full disk
or a machine failure costs at most the steps since the last state. Each state has a digest of its content. If the disk
has damaged a state, it is reported by name and the previous one is used.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from capprune.config.training import Interval
from capprune.pruning.state import load_plain_state, plain_state
from capprune.training.run import NEXT_STATE, PREVIOUS_STATE, STATE, Checkpoint, read_checkpoint, save_checkpoint
from capprune_runtime.errors import BundleError, HashMismatch

MODEL, OPTIMISER, RANDOM, SCALER = "model.", "optimiser.", "random", "scaler"
DIGEST = "digest"

Note = Callable[[str], None]  # called with a line for the user


@dataclass
class Timer:
    """Decides when to save a state within an epoch.

    Args:
        every: Steps or minutes between two states; None for no states within an epoch.
    """

    every: Interval | None

    def __post_init__(self) -> None:
        self._saved_at = time.monotonic()
        self._steps = 0

    def is_due(self) -> bool:
        """Count one step. Returns whether to save a state now."""
        self._steps += 1
        if self.every is None:
            return False
        done = self._steps if self.every.unit == "steps" else (time.monotonic() - self._saved_at) / 60
        return done >= self.every.count

    def restart(self) -> None:
        """Restart the count after a state has been saved."""
        self._saved_at, self._steps = time.monotonic(), 0


def is_unfinished(folder: Path) -> bool:
    """Return whether a run's folder holds a state to resume from."""
    return any((folder / name).is_file() for name in (NEXT_STATE, STATE, PREVIOUS_STATE))


def save_state(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, object],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write weights, gates, the optimiser's moments and the random state, atomically.

    Args:
        folder: The run's folder.
        model: The model in training.
        optimiser: Optimiser of its parameters. Learning rates are not saved because they follow from the step.
        facts: The other values that the loop counts.
        scaler: Scaler of the loss, in float16.

    Raises:
        CapPruneError: The disk is full; the earlier states still exist.
    """
    tensors = {MODEL + name: value for name, value in plain_state(model).items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    tensors[RANDOM] = torch.get_rng_state()
    if scaler is not None:
        own = scaler.state_dict()
        tensors[SCALER] = torch.tensor([own["scale"], own["_growth_tracker"]], dtype=torch.float64)
    save_checkpoint(folder / NEXT_STATE, tensors, {**facts, DIGEST: _digest(tensors)})
    _move_up(folder)


def read_state(folder: Path, note: Note | None = None) -> Checkpoint:
    """Read the newest intact state of a run.

    Args:
        folder: The run's folder.
        note: Called with a line about a damaged state if an older one is used instead.

    Raises:
        BundleError: No state is intact; names the newest.
    """
    there = [folder / name for name in (NEXT_STATE, STATE, PREVIOUS_STATE) if (folder / name).is_file()]
    first: BundleError | None = None
    for path in there:
        try:
            saved = _checked(path)
        except BundleError as error:
            first = first or error
            continue
        if first is not None and note is not None:
            step = saved.facts.get("step", "?")
            note(f"{first.where}: {first.what}; the run resumes from {path.name}, step {step}")
        if path.name == Path(NEXT_STATE).name:
            _move_up(folder)  # the process was killed between writing and renaming it
        return saved
    assert first is not None
    first.hint = first.hint or f"remove {(folder / STATE).parent} to restart the run"
    raise first


def restore_state(
    saved: Checkpoint,
    where: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> Mapping[str, str]:
    """Restore a saved state into a model and an optimiser made from the same config; the inverse of `save_state`.

    Args:
        saved: Result of `read_state`.
        where: The run's folder, for messages.
        model: Receives weights, gates and masks.
        optimiser: Receives its moments.
        scaler: Receives its scale, if the state has one.

    Returns:
        The facts.

    Raises:
        BundleError: The state belongs to another config.
    """
    slots: dict[int, dict[str, Tensor]] = {}
    try:
        load_plain_state(model, _under(MODEL, saved.tensors))
        for name, value in _under(OPTIMISER, saved.tensors).items():
            index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
        torch.set_rng_state(saved.tensors[RANDOM])
        if scaler is not None and SCALER in saved.tensors:  # `auto` may have been another precision before
            scale, tracker = saved.tensors[SCALER].tolist()
            scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BundleError(
            "the saved state does not fit this run",
            where=where / STATE,
            found=" ".join(str(error).split()),
            hint=f"remove {(where / STATE).parent} to restart the run",
        ) from error
    return saved.facts


def _checked(path: Path) -> Checkpoint:
    saved = read_checkpoint(path)
    wanted = saved.facts.get(DIGEST)  # states of version 0.1 have none
    if wanted is not None and wanted != _digest(saved.tensors):
        raise HashMismatch("this state was damaged after it was written", where=path)
    return saved


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _move_up(folder: Path) -> None:
    if (folder / STATE).is_file():
        (folder / STATE).replace(folder / PREVIOUS_STATE)
    (folder / NEXT_STATE).replace(folder / STATE)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
