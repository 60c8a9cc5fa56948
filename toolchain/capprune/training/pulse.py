"""Detects that another process of a training run died or hangs.

A thread of each process increments a number in the store of rank 0 every second. If a number does not change for
`SILENT` seconds, its process is considered lost. A process that ends with an error first writes its reason to the
store.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from datetime import timedelta

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from capprune.training.launch import LOST_HINT, STARTED_BY
from capprune_runtime.errors import CapPruneError

BEAT = 1.0  # seconds
SILENT = 20.0  # seconds; longer than any pause of a live process
GRACE = 15.0  # seconds in which the main thread can end with a message after a process was lost
STORE_TIMEOUT = 10.0  # seconds


class Pulse(threading.Thread):
    """Heartbeat of this process, and monitor of the others.

    Args:
        store: Store of all processes; only this thread uses it.
        rank: Rank of this process.
        names: Names of all processes, for messages.

    Attributes:
        lost: Name of the process that ended, and the reason; None while all are alive.
    """

    def __init__(self, store: Store, rank: int, names: list[str]) -> None:
        super().__init__(daemon=True, name="pulse")
        self._store, self._rank, self._names = store, rank, names
        self._over = threading.Event()
        self._farewell: str | None = None
        self._parent = os.getppid() if STARTED_BY in os.environ else None
        self.lost: str | None = None

    def run(self) -> None:
        """Beat until `stop`, or until a process is lost and this one has had time to end."""
        beats, seen = 0, {rank: (b"", time.monotonic()) for rank in range(len(self._names)) if rank != self._rank}
        while not self._over.wait(BEAT):
            beats += 1
            try:
                self._beat(beats)
                self.lost = self._silent(seen)
            except (RuntimeError, OSError):  # the store ended with rank 0
                self.lost = f"{self._names[0]} has ended"
            if self._parent is not None and os.getppid() != self._parent:
                self.lost = "the process that started this one has ended"
            if self.lost is not None:
                self._end_late()
                return
        if self._farewell is not None:
            try:
                self._store.set(f"left/{self._rank}", self._farewell)
            except (RuntimeError, OSError):
                return

    def stop(self, reason: str | None) -> None:
        """Stop the heartbeat and write the reason for the other processes; an empty one if this process succeeded."""
        self._farewell = reason or "."
        self._over.set()
        self.join(STORE_TIMEOUT)

    def wait_for_loss(self) -> str | None:
        """Wait until the process that broke a connection is known."""
        deadline = time.monotonic() + SILENT + GRACE / 2
        while self.lost is None and time.monotonic() < deadline:
            time.sleep(BEAT / 4)
        return self.lost

    def _beat(self, beats: int) -> None:
        self._store.set(f"pulse/{self._rank}", str(beats))

    def _silent(self, seen: dict[int, tuple[bytes, float]]) -> str | None:
        now = time.monotonic()
        for rank, (value, since) in list(seen.items()):
            if self._store.check([f"left/{rank}"]):
                reason = self._store.get(f"left/{rank}").decode()
                if reason == ".":
                    del seen[rank]
                    continue
                return f"{self._names[rank]} has ended: {reason}"
            found = self._store.get(f"pulse/{rank}") if self._store.check([f"pulse/{rank}"]) else b""
            if found != value:
                seen[rank] = found, now
            elif now - since > SILENT:
                return f"{self._names[rank]} has not been heard of for {SILENT:.0f} s"
        return None

    def _end_late(self) -> None:
        """End the process if its main thread hangs in a call that will never return."""
        if not self._over.wait(GRACE):
            print(f"error: {lost_error(self.lost)}", file=sys.stderr, flush=True)
            os._exit(1)


def lost_error(lost: str | None) -> CapPruneError:
    """Return the error about a lost process."""
    return CapPruneError("a process of this training is gone", found=lost or "a connection broke", hint=LOST_HINT)


def open_store(rank: int, world: int, host: str, port: int) -> TCPStore:
    """Return the store of all processes; rank 0 serves it.

    Args:
        rank: Rank of this process.
        world: Number of all processes.
        host: Host of rank 0.
        port: Port of the store. With 0, rank 0 chooses one, which the others must be given.
    """
    return TCPStore(
        host, port, world, is_master=rank == 0, timeout=timedelta(seconds=STORE_TIMEOUT), wait_for_workers=False
    )


def name_of(rank: int, world: int, device: str) -> str:
    """Return the name of a process for messages."""
    return f"rank {rank} of {world} ({socket.gethostname()}, process {os.getpid()}, {device})"
