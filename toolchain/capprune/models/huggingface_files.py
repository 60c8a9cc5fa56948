"""Files of a Hugging Face source: its preprocessing, and errors while reading it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from capprune.config.encoder import HUB_ID
from capprune_runtime.errors import BundleError, CapPruneError, ConfigError, MissingExtra, MissingFile

SETTINGS, PREPROCESSOR = "config.json", "preprocessor_config.json"
LARGEST_FILE = 1 << 20  # bytes; a usual file has a few hundred


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Convert errors of transformers about a source to ours.

    Raises:
        MissingFile: The source, or its safetensors, do not exist.
        BundleError: A file of it is broken.
    """
    if not Path(source).is_dir() and not HUB_ID.fullmatch(source):
        raise MissingFile(
            "this source of an encoder does not exist",
            where=f"encoder.source {source}",
            expected="a folder that save_pretrained wrote, or an id OWNER/NAME on the Hugging Face Hub",
        )
    if Path(source).is_dir() and not (Path(source) / SETTINGS).is_file():
        raise MissingFile(
            "this source of an encoder cannot be read",
            where=source,
            expected=f"{SETTINGS}, as save_pretrained writes it",
        )
    try:
        yield
    except CapPruneError:
        raise
    except OSError as error:
        raise MissingFile(
            "this source of an encoder cannot be read",
            where=f"encoder.source {source}",
            expected="config.json and model.safetensors, as save_pretrained writes them",
            found=_line(error),
        ) from error
    except (
        Exception
    ) as error:  # transformers and safetensors have no common base class, and raise any type for a broken file
        raise BundleError(
            "this source of an encoder is broken", where=f"encoder.source {source}", found=_line(error)
        ) from error


def preprocessing_defaults(source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `size`, `mean` and `scale` of a source, except those that the config sets.

    Args:
        source: A folder or an id on the Hub.
        given: Keys under `encoder` in the config.

    Raises:
        ConfigError: The source does not define one of them.
    """
    wanted = [key for key in ("size", "mean", "scale") if key not in given]
    if not wanted:
        return {}
    tree = _preprocessor(source)
    found: dict[str, Any] = {}
    if "size" in wanted:
        found["size"] = _size(tree, source)
    if "mean" in wanted or "scale" in wanted:
        mean, scale = _mean_and_scale(tree, source)
        found |= {key: value for key, value in (("mean", mean), ("scale", scale)) if key in wanted}
    return found


def _preprocessor(source: str) -> Mapping[str, Any]:
    """Return the content of a source's preprocessor_config.json; empty if there is none."""
    place: Path | None = Path(source) / PREPROCESSOR
    if not Path(source).is_dir():
        place = _from_hub(source)
    if place is None or not place.is_file():
        return {}
    try:
        if place.stat().st_size > LARGEST_FILE:
            raise ValueError(f"{place.stat().st_size} bytes")
        tree = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError("this preprocessor config cannot be read", where=place, found=_line(error)) from error
    if not isinstance(tree, dict):
        raise BundleError("a preprocessor config is a tree of keys", where=place, found=type(tree).__name__)
    return tree


def _from_hub(source: str) -> Path | None:
    try:
        from transformers.utils import cached_file
    except ImportError as error:
        raise MissingExtra(
            "encoders from Hugging Face need transformers", found=error, hint="pip install 'capprune[hf]'"
        ) from error
    with reading(source):
        found = cached_file(source, PREPROCESSOR, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _size(tree: Mapping[str, Any], source: str) -> int:
    """Return the side of the photo: the size of the crop, or else of the resized photo."""
    for key in ("crop_size", "size"):
        if key == "crop_size" and tree.get("do_center_crop") is False:
            continue
        value = tree.get(key)
        if isinstance(value, dict):
            value = next((value[name] for name in ("height", "shortest_edge") if name in value), None)
        if type(value) is int:
            return value
    raise _unsaid(source, ("size",), "crop_size or size")


def _mean_and_scale(tree: Mapping[str, Any], source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and scale for values of 0 to 255: `(r x - m) / s` is `(x - m / r) / (s / r)`."""
    keys = ("mean", "scale")
    if tree.get("do_flip_channel_order") or tree.get("rescale_offset"):
        raise _unsaid(source, keys, "plain mean and scale of red, green and blue")
    factor = 1.0 if tree.get("do_rescale") is False else tree.get("rescale_factor")
    mean, deviation = tree.get("image_mean"), tree.get("image_std")
    if tree.get("do_normalize") is False:
        mean, deviation = [0.0] * 3, [1.0] * 3
    if not (_is_number(factor) and _are_three(mean) and _are_three(deviation)) or cast(float, factor) <= 0:
        raise _unsaid(source, keys, "image_mean, image_std (three numbers each) and rescale_factor")
    rescale = cast(float, factor)
    means, deviations = cast(Sequence[float], mean), cast(Sequence[float], deviation)
    return tuple(_plain(one / rescale) for one in means), tuple(_plain(one / rescale) for one in deviations)


def _plain(number: float) -> float:
    """Round off the last digits, which come from dividing by a rounded 1/255."""
    return float(f"{number:.9g}")


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _are_three(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _unsaid(source: str, keys: Sequence[str], expected: str) -> ConfigError:
    names = " and ".join(f"encoder.{key}" for key in keys)
    example = "encoder.size=224" if "size" in keys else "encoder.mean=[123.7,116.3,103.5]"
    return ConfigError(
        f"this source does not define {names}",
        where=f"{source}/{PREPROCESSOR}",
        expected=expected,
        hint=f"set {names}, such as {example}, as the network was trained",
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
