"""Where long work reports how far it is: one protocol for all of it, and a silent default."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from capprune.training.outcome import Progress as TrainingState

Advance = Callable[[int, int], None]  # how much is done, and of how much


class Progress(Protocol):
    """What long work calls while it runs. An error that a method raises ends the work."""

    def say(self, message: str, /) -> None:
        """Show a line about what is being done, or what was noticed."""

    def bar(self, label: str, /) -> AbstractContextManager[Advance]:
        """Show a progress bar until the context ends; it is told how much is done."""

    def training(self, run: Path, /) -> Callable[[TrainingState], None]:
        """Begin to show the training of a run; what is returned is called after every step and every epoch."""


class Silent:
    """A `Progress` that shows nothing."""

    def say(self, message: str, /) -> None:
        """Show nothing."""

    @contextmanager
    def bar(self, label: str, /) -> Iterator[Advance]:
        """Show nothing."""
        yield lambda done, total: None

    def training(self, run: Path, /) -> Callable[[TrainingState], None]:
        """Show nothing."""
        return lambda state: None


class Lines:
    """A `Progress` that prints lines on stderr, for scripts and notebooks."""

    def say(self, message: str, /) -> None:
        """Print a line."""
        print(message, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, label: str, /) -> Iterator[Advance]:
        """Print a line for every quarter of the work."""
        shown = -1

        def advance(done: int, total: int) -> None:
            nonlocal shown
            if (quarter := 4 * done // max(total, 1)) > shown:
                shown = quarter
                self.say(f"{label}: {done} of {total}")

        yield advance

    def training(self, run: Path, /) -> Callable[[TrainingState], None]:
        """Print a line for every epoch."""

        def report(state: TrainingState) -> None:
            if state.cider is not None:
                self.say(f"{run.name}: epoch {state.epoch + 1} of {state.epochs}, CIDEr-D {state.cider:.3f}")

        return report


SILENT: Progress = Silent()
