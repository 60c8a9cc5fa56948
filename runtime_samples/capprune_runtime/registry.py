"""Named parts that are loaded when they are used: the product's own, and those that other packages declare.

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
        own: The product's own parts: each as it is, or as "module:attribute".
        what: What a part is, for messages.
        kind: The class that a part of another package must be an instance or a subclass of; anything if left out.
        error: What is raised where a part is wrong.
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
        """Return the parts of other packages as "module:attribute", by name; none can replace one of `own`."""
        from importlib.metadata import entry_points  # it loads modules of email, which most commands do without

        found = {point.name: point.value for point in entry_points(group=self.group)}
        return {name: place for name, place in sorted(found.items()) if name not in self.own}

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts, those of `own` first."""
        return (*self.own, *self.added())

    def load(self, name: str, where: str) -> Part:
        """Return a part; its module is imported now.

        Args:
            name: Of the part.
            where: The key or option that named it, for messages.

        Raises:
            UsageError: There is no such part, its module cannot be imported, or it is no part of this kind. The class is the
                one that the registry was made with.
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
    """Return what "module:attribute" names.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: The module has no such attribute.
    """
    module, _, attribute = place.partition(":")
    found: object = getattr(import_module(module), attribute)
    return found


def _is(part: object, kind: type[object]) -> bool:
    return issubclass(part, kind) if isinstance(part, type) else isinstance(part, kind)
