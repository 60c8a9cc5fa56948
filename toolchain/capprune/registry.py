"""Named parts that are loaded when they are used: the package's own, and those that other packages declare.

A part is written as "module:attribute". Other packages add parts through an entry point:

    [project.entry-points."capprune.decoders"]
    my_family = "my_package.my_family:MyDecoder"
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from capprune_runtime.errors import ConfigError


class Registry:
    """Parts of one kind, by name.

    Args:
        group: The group of entry points that other packages declare parts in.
        own: The package's own parts, as "module:attribute".
        what: What a part is, for messages.
    """

    def __init__(self, group: str, own: Mapping[str, str], what: str) -> None:
        self.group, self.what = group, what
        self._own = dict(own)

    def places(self) -> dict[str, str]:
        """Return where each part is, by name; the package's own come first and cannot be replaced."""
        added = {point.name: point.value for point in entry_points(group=self.group)}
        return {**self._own, **{name: place for name, place in sorted(added.items()) if name not in self._own}}

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts."""
        return tuple(self.places())

    def load(self, name: str, where: str) -> Any:
        """Import a part.

        Args:
            name: Of the part.
            where: The key or option that named it, for messages.

        Raises:
            ConfigError: There is no such part, or its module cannot be imported.
        """
        places = self.places()
        if name not in places:
            near = difflib.get_close_matches(name, places, n=1)
            raise ConfigError(
                f"there is no such {self.what}",
                where=where,
                expected=", ".join(places),
                found=name,
                hint=f"did you mean {near[0]}?" if near else None,
            )
        module, _, attribute = places[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if name in self._own:
                raise
            raise ConfigError(f"the {self.what} {name} cannot be loaded", where=places[name], found=error) from error
