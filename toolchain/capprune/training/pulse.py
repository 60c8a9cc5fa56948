"""How the processes of a training notice that one of them has died or hangs, whatever they are waiting for.

Each process counts up a number in a store of rank 0 every second, from a thread. A number that stands still for `SILENT`
seconds belongs to a process that is gone. A process that ends with an error leaves its reason in the store first.
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
SILENT = 20.0  # seconds; longer than any pause of a process that is alive
GRACE = 15.0  # seconds that the main thread has to end with a message after a process was lost
STORE_TIMEOUT = 10.0  # seconds


class Pulse(threading.Thread):
    """The pulse of this process, and an eye on the others'.

    Args:
        store: Of all processes; used by this thread alone.
        rank: Of this process.
        names: Of all processes, for people.

    Attributes:
        lost: The process that has ended and why; None while all are alive.
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
            except (RuntimeError, OSError):  # the store has gone with rank 0
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
        """End the pulse, and leave the reason for the others: an empty one if this process ends well."""
        self._farewell = reason or "."
        self._over.set()
        self.join(STORE_TIMEOUT)

    def wait_for_loss(self) -> str | None:
        """Wait until the process is known whose end has broken a connection."""
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
        """End the process where its main thread hangs in a call that nobody will answer."""
        if not self._over.wait(GRACE):
            print(f"error: {lost_error(self.lost)}", file=sys.stderr, flush=True)
            os._exit(1)


def lost_error(lost: str | None) -> CapPruneError:
    """The message about a process that is gone."""
    return CapPruneError("a process of this training is gone", found=lost or "a connection broke", hint=LOST_HINT)


def open_store(rank: int, world: int, host: str, port: int) -> TCPStore:
    """Return the store of all processes; rank 0 serves it.

    Args:
        rank: Of this process.
        world: Processes in all.
        host: Of rank 0.
        port: 0 lets rank 0 choose; the others need its choice.
    """
    return TCPStore(
        host, port, world, is_master=rank == 0, timeout=timedelta(seconds=STORE_TIMEOUT), wait_for_workers=False
    )


def name_of(rank: int, world: int, device: str) -> str:
    """A process's name, for people."""
    return f"rank {rank} of {world} ({socket.gethostname()}, process {os.getpid()}, {device})"
