"""Communication between the processes of a training run: sums, agreement, and work of the first process only.

Every process holds the whole model and computes its share of each batch; gradients are summed. A training run with one
process uses none of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning_fabric as lightning
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from capprune.config.training import TrainingConfig
from capprune.training.hardware import FABRIC_PRECISION, chosen_device, chosen_precision
from capprune.training.launch import PORT, Place
from capprune.training.pulse import Pulse, lost_error, name_of, open_store
from capprune_runtime.errors import CapPruneError, error_from_json

Value = TypeVar("Value")
FAILED = 1 << 16  # above all numbers of signals


class _Added(DDPStrategy):
    """DDP without gradient hooks.

    The loop sums gradients itself, because gates get theirs outside of any module's call.
    """

    def setup_module(self, module: nn.Module) -> Any:
        """Return the module unchanged."""
        return module


class Ranks:
    """The processes of one training run.

    Args:
        config: The keys under `training`: device and precision.
        place: Position of this process.

    Attributes:
        place: Position of this process.
        device: Device of this process.
        precision: Number format of matrix products, a key of `PRODUCTS`.
        scaler: Scaler of the loss, in float16.
        fabric: Moves and casts tensors and runs the backward pass.

    Raises:
        UsageError: The machine has no such device.
    """

    def __init__(self, config: TrainingConfig, place: Place) -> None:
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs its precision and its processes
        self.place, self.device = place, chosen_device(config, place)
        self.precision = chosen_precision(config, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "float16" else None
        own: dict[str, Any] = {"precision": FABRIC_PRECISION[self.precision]}
        if self.scaler is not None:
            own = {"plugins": [MixedPrecision("16-mixed", self.device.type, scaler=self.scaler)]}
        devices: int | list[int] = [place.local] if self.device.type == "cuda" else 1
        if place.world > 1:
            devices = place.local_world
            own["strategy"] = _Added()
            own["plugins"] = [*own.get("plugins", ()), LightningEnvironment()]
            _complete(place)
        self.fabric = lightning.Fabric(accelerator=self.device.type, devices=devices, num_nodes=place.nodes, **own)
        self._pulse: Pulse | None = None
        if place.world > 1:
            self.fabric.launch()
            self._start_pulse()

    @property
    def first(self) -> bool:
        """Whether this process writes the run."""
        return self.place.first

    def share(self, value: Value) -> Value:
        """Return the first process's value in all processes."""
        if self.place.world == 1:
            return value
        shared: Value = self.fabric.broadcast(value)
        return shared

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, by rank."""
        if self.place.world == 1:
            return [value]
        found: list[Any] = [None] * self.place.world
        dist.all_gather_object(found, value)
        return found

    def first_does(self, work: Callable[[], Value]) -> Value | None:
        """Run `work` in the first process only. Its error is raised in all processes; the others return None."""
        if self.place.world == 1:
            return work()
        found, error = None, None
        if self.first:
            try:
                found = work()
            except CapPruneError as raised:
                error = raised
        answer = self.share(None if error is None else error.as_json())
        if error is not None:
            raise error
        if answer is not None:
            raise error_from_json(answer)
        return found

    def highest(self, value: int) -> int:
        """Return the highest value over all processes."""
        if self.place.world == 1:
            return value
        number = torch.tensor(value, device=self.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def agree(self, value: int, error: CapPruneError | None) -> int:
        """Return the highest value over all processes. An error of any process is raised in all of them."""
        highest = self.highest(FAILED if error is not None else value)
        if highest < FAILED:
            return highest
        answer = self.gather(None if error is None else error.as_json())
        if error is not None:
            raise error
        raise error_from_json(next(one for one in answer if one is not None))

    def add(self, *tensors: Tensor) -> None:
        """Sum tensors of one type over all processes, in place."""
        if self.place.world == 1:
            return
        flat = torch.cat([one.reshape(-1) for one in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [one.numel() for one in tensors])
        for one, part in zip(tensors, parts, strict=True):
            one.copy_(part.view_as(one))

    def check_equal(self, digest: str) -> None:
        """Check that all processes have the same digest, such as one of their gates.

        Raises:
            CapPruneError: They differ.
        """
        if len(set(found := self.gather(digest))) > 1:
            raise CapPruneError("the processes of this training have come apart", found=", ".join(found))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Return a context that raises an error if another process ends, and reports this one's end to the others."""
        reason: str | None = "an error"
        try:
            yield
            reason = None
        except CapPruneError as error:
            reason = error.what
            raise
        except (KeyboardInterrupt, SystemExit):
            reason = None
            raise
        except RuntimeError as error:  # raised by torch.distributed when a connection breaks
            if self._pulse is None or not _broken(error):
                raise
            raise lost_error(self._pulse.wait_for_loss()) from error
        finally:
            if self._pulse is not None:
                self._pulse.stop(reason)

    def _start_pulse(self) -> None:
        host = os.environ["MASTER_ADDR"]
        store = open_store(0, self.place.world, host, 0) if self.first else None
        port = self.share(None if store is None else store.port)
        store = store or open_store(self.place.rank, self.place.world, host, int(port or 0))
        names = self.gather(name_of(self.place.rank, self.place.world, str(self.device)))
        self._pulse = Pulse(store, self.place.rank, names)
        self._pulse.start()


def _complete(place: Place) -> None:
    """Set the environment variables that Lightning reads from those of SLURM."""
    os.environ.update({"LOCAL_RANK": str(place.local), "NODE_RANK": str(place.node)})
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = SLURMEnvironment().main_address
    os.environ.setdefault("MASTER_PORT", str(PORT))


def own_share(items: Sequence[Value], place: Place) -> Sequence[Value]:
    """Return the share of this process in some items."""
    return items[place.rank :: place.world]


def _broken(error: RuntimeError) -> bool:
    words = ("onnection", "gloo", "NCCL", "socket", "peer", "timed out", "Timed out")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
