"""The model's input of several data sets as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune.training.encoder import InputTable


class JoinedTables:
    """Tables one after another, with their rows numbered throughout.

    Args:
        tables: At least one; all have rows of one shape.

    Attributes:
        shape: Shape of all rows together.
    """

    def __init__(self, tables: Sequence[InputTable]) -> None:
        self._tables = tuple(tables)
        sizes = [table.shape[0] for table in self._tables]
        self._starts = np.cumsum([0, *sizes])
        self.shape: tuple[int, ...] = (sum(sizes), *self._tables[0].shape[1:])

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """See `InputTable`."""
        chosen = np.asarray(photos, np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < self.shape[0]:
            raise IndexError(f"photo {chosen.min()} or {chosen.max()} of {self.shape[0]}")
        owners = np.searchsorted(self._starts, chosen, side="right") - 1
        rows: npt.NDArray[Any] | None = None
        for owner in np.unique(owners):
            here = owners == owner
            found = self._tables[owner][chosen[here] - self._starts[owner]]
            if rows is None:
                rows = np.empty((len(chosen), *found.shape[1:]), found.dtype)
            rows[here] = found
        return self._tables[0][chosen] if rows is None else rows


def joined(tables: Sequence[InputTable]) -> InputTable:
    """Return one table for several; the table itself if there is only one."""
    return tables[0] if len(tables) == 1 else JoinedTables(tables)
