"""Named parts that are loaded on first use: capprune's own, and those that other packages declare.

A part is written as "module:attribute". Other packages add parts through an entry point:

    [project.entry-points."capprune.decoders"]
    my_family = "my_package.my_family:MyDecoder"
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Generic, TypeVar, cast

from capprune_runtime.errors import ConfigError, UsageError

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Parts of one kind, by name.

    Args:
        group: The group of entry points that other packages declare parts in.
        own: Built-in parts, each as an object or as "module:attribute".
        what: What to call a part in messages.
        kind: The class that a part of another package must be an instance or a subclass of; None accepts anything.
        error: The error to raise for an invalid part.
    """

    def __init__(
        self,
        group: str,
        own: Mapping[str, str | Part],
        what: str,
        *,
        kind: type[object] | None = None,
        error: type[UsageError] = ConfigError,
    ) -> None:
        self.group, self.what, self.own = group, what, own
        self._kind, self._error = kind, error

    def added(self) -> dict[str, str]:
        """Return the parts of other packages as "module:attribute", by name. They cannot replace parts of `own`."""
        from importlib.metadata import entry_points  # it loads the email package, which most commands do not need

        found = {point.name: point.value for point in entry_points(group=self.group)}
        return {name: place for name, place in sorted(found.items()) if name not in self.own}

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts, built-in parts first."""
        return (*self.own, *self.added())

    def load(self, name: str, where: str) -> Part:
        """Return a part, importing its module.

        Args:
            name: Name of the part.
            where: The key or option that named it, for messages.

        Raises:
            UsageError: There is no such part, its module cannot be imported, or it is not of the required kind. The
                class is the registry's `error`.
        """
        if name in self.own:
            own = self.own[name]
            return cast(Part, imported(own)) if isinstance(own, str) else own
        if (place := self.added().get(name)) is None:
            import difflib

            near = difflib.get_close_matches(name, self.names(), n=1)
            raise self._error(
                f"there is no such {self.what}",
                where=where,
                expected=", ".join(self.names()),
                found=name,
                hint=f"did you mean {near[0]}?" if near else None,
            )
        try:
            part = imported(place)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise self._error(f"the {self.what} {name} cannot be loaded", where=place, found=error) from error
        if self._kind is not None and not _is(part, self._kind):
            expected = f"{self._kind.__module__}.{self._kind.__qualname__}, or a subclass"
            raise self._error(f"{name} is no {self.what}", where=place, expected=expected, found=type(part).__name__)
        return cast(Part, part)


def imported(place: str) -> object:
    """Return the object that "module:attribute" names.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: The module has no such attribute.
    """
    module, _, attribute = place.partition(":")
    found: object = getattr(import_module(module), attribute)
    return found


def _is(part: object, kind: type[object]) -> bool:
    return issubclass(part, kind) if isinstance(part, type) else isinstance(part, kind)
