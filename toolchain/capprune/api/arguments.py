"""Arguments of the API's functions: paths, overrides, and a check of the required extras."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

from capprune.extras import keys_of, require_extras

Place: TypeAlias = str | os.PathLike[str]  # a path; `Run` and `Bundle` are paths as well
Overrides: TypeAlias = Sequence[str] | Mapping[str, object]

P = ParamSpec("P")
T = TypeVar("T")


def needs(command: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that checks the extras of a command before the call; see `capprune.extras.COMMANDS`.

    Raises:
        MissingExtra: When the function is called and a package is not installed.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            require_extras(*keys_of(command, bound.arguments))
            return function(*args, **kwargs)

        return checked

    return wrap


def given_path(place: Place) -> Path:
    """Return a path. Expands `~` in a string, but not in a path object."""
    return Path(os.path.expanduser(place) if isinstance(place, str) else place)  # noqa: PTH111 - refuses no "~name"


def optional_path(place: Place | None) -> Path | None:
    """Return a path, or None if none is given."""
    return None if place is None else given_path(place)


def given_paths(places: Place | Sequence[Place] | None) -> tuple[Path, ...]:
    """Return the paths of one place, of several, or of none."""
    if places is None:
        return ()
    if isinstance(places, str | os.PathLike):
        return (given_path(places),)
    return tuple(given_path(place) for place in places)


def override_texts(overrides: Overrides) -> tuple[str, ...]:
    """Return overrides as `key=value`, as the command line has them."""
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    return tuple(f"{key}={_text(value)}" for key, value in overrides.items())


def _text(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    return json.dumps(value)
