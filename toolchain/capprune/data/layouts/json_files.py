"""JSON files of captions: detection of their kind, and the error of a broken file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar

from capprune.data.folder import FolderContents, base_name, ending
from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

Kind = Literal["karpathy", "coco", "records", "mapping"]
_NOT_CAPTIONS: Final = ("instances_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")  # COCO's other files
_Value = TypeVar("_Value")


def json_files(contents: FolderContents) -> tuple[str, ...]:
    """Return the JSON files that may hold captions of many photos."""
    return tuple(
        name
        for name in contents.files
        if ending(name) == ".json" and not base_name(name).startswith(_NOT_CAPTIONS) and not contents.is_sidecar(name)
    )


def json_kind(contents: FolderContents, name: str) -> Kind | None:
    """Return the kind of a JSON file; None if it is not a captions file, or not JSON."""
    try:
        content = contents.parsed(name)
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(content, list):
        return "records" if _is_records(content) else None
    if not isinstance(content, dict):
        return None
    images = content.get("images")
    if isinstance(images, list):
        first = images[0] if images else None
        if isinstance(first, dict) and "sentences" in first:
            return "karpathy"
        return "coco" if _has_captions(content.get("annotations")) else None
    if _is_records(content.get("data")):  # TextCaps, and tables that were saved as one object
        return "records"
    names = list(content)[:10]
    photos = [
        key for key in names if ending(key) in ENDINGS or (_is_text(content[key]) and contents.names_one_photo(key))
    ]
    return "mapping" if names and photos == names else None


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value[:10])


def records_of(content: Any) -> list[Any]:
    """Return the entries of a JSON file of kind "records": the list, or the list under `data`."""
    return list(content["data"] if isinstance(content, dict) else content)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _has_captions(annotations: Any) -> bool:
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "caption" in first


def field(entry: Any, key: str, kind: type[_Value]) -> _Value:
    """Return a value of a JSON object.

    Raises:
        KeyError: It is missing.
        TypeError: It has another type.
    """
    value = entry[key]
    if not isinstance(value, kind):
        raise TypeError(f"'{key}' is no {kind.__name__}")
    return value


@contextmanager
def broken_is_data_error(where: object) -> Iterator[None]:
    """Convert exceptions of a broken captions file into an error for the user."""
    try:
        yield
    except OSError as error:
        raise DataError("the captions cannot be read", where=where, found=error.strerror) from error
    except KeyError as error:
        raise DataError("a captions file is incomplete", where=where, found=f"no key {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            "a captions file is broken", where=where, found=error, hint="it may have been cut off; download it again"
        ) from error
