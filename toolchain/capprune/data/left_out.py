"""Counts and names what a command leaves out of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

NAMED: Final = 3  # names that a line shows; reports hold all of them


@dataclass(frozen=True)
class LeftOut:
    """Files, photos or captions that were not used.

    Attributes:
        what: What they are and why, such as "photos without captions".
        names: All of them, in the order in which they were found.
    """

    what: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}: {len(self.names):,} ({first_names(self.names)})"

    def as_json(self) -> dict[str, Any]:
        """Return the count and every name."""
        return {"what": self.what, "count": len(self.names), "names": list(self.names)}


class LeftOutBook:
    """Collects what is left out while a data set is read."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, what: str, *names: str) -> None:
        """Record that `names` were left out because they are `what`."""
        if names:
            self._names.setdefault(what, []).extend(names)

    def add_all(self, entries: Iterable[LeftOut]) -> None:
        """Add the entries of another reader."""
        for entry in entries:
            self.add(entry.what, *entry.names)

    def entries(self) -> tuple[LeftOut, ...]:
        """Return one entry per reason, in the order in which the reasons were added."""
        return tuple(LeftOut(what, tuple(names)) for what, names in self._names.items())


def first_names(names: Sequence[str], shown: int = NAMED) -> str:
    """Return the first names, and an ellipsis if there are more."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
