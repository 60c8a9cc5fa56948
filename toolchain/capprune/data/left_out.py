"""What a command left out of a data set, counted and named."""

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
        """The count and every name."""
        return {"what": self.what, "count": len(self.names), "names": list(self.names)}


class LeftOutBook:
    """Collects what is left out while a data set is read."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, what: str, *names: str) -> None:
        """Note that `names` were left out because they are `what`."""
        if names:
            self._names.setdefault(what, []).extend(names)

    def add_all(self, entries: Iterable[LeftOut]) -> None:
        """Take over what another reader left out."""
        for entry in entries:
            self.add(entry.what, *entry.names)

    def entries(self) -> tuple[LeftOut, ...]:
        """One entry a reason, in the order in which the reasons came up."""
        return tuple(LeftOut(what, tuple(names)) for what, names in self._names.items())


def first_names(names: Sequence[str], shown: int = NAMED) -> str:
    """The first names, and an ellipsis where there are more."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
