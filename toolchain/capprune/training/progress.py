"""Progress reports of long work: one protocol for all of it, and a silent default."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from capprune.training.outcome import Progress as TrainingState

Advance = Callable[[int, int], None]  # amount done, total amount


class Progress(Protocol):
    """Interface for progress reports of long work. An error that a method raises ends the work."""

    def say(self, message: str, /) -> None:
        """Show a line about the current work or a finding."""

    def bar(self, label: str, /) -> AbstractContextManager[Advance]:
        """Show a progress bar until the context ends; the context's value is called with the amount done."""

    def training(self, run: Path, /) -> Callable[[TrainingState], None]:
        """Start to show the training of a run. The returned function is called after every step and every epoch."""


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
