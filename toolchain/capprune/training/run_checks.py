"""Checks of a run's files before they are used: facts, sizes of the model, lines of the metrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from capprune.config.run import RunConfig
from capprune.models.caption_model import build_decoder
from capprune.models.shapes import shapes_only
from capprune.training.health import Sign
from capprune_runtime.errors import BundleError

MAX_METRICS_BYTES = 256 << 20
_WHOLE = re.compile(r"-?\d{1,15}")
_FACTS = {"epoch": _WHOLE, "step": _WHOLE, "settled": _WHOLE}
_NUMBERS = ("cider", "sparsity")
_OF_EVERY_RUN = ("step", "epoch", "cider", "sparsity")
_LONGEST = 40  # characters of a number
_LARGEST = 1e15  # of a number of the metrics
_MEASURED = (
    *("step", "epoch", "loss", "learning_rate", "seconds", "cider"),
    *("validation_loss", "sparsity", "sparsity_loss", "settled"),
)


def check_facts(facts: Mapping[str, str], path: Path) -> None:
    """Check the numbers among the facts of a checkpoint.

    Raises:
        BundleError: One is not a number, or has hundreds of digits.
    """
    for name, text in facts.items():
        whole = name not in _FACTS or _FACTS[name].fullmatch(text)
        if not whole or (name in _NUMBERS and not _is_number(text)):
            raise BundleError("a fact of this checkpoint is not a number", where=f"{path}: {name}", found=text)


def require_facts(facts: Mapping[str, str], path: Path) -> None:
    """Check that a finished checkpoint has the facts that every training writes.

    Raises:
        BundleError: One is missing.
    """
    if missing := [name for name in _OF_EVERY_RUN if name not in facts]:
        raise BundleError("a fact of this checkpoint is missing", where=path, expected=missing[0])


def check_masks(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Check that every mask has the shape of its weight, and holds only 0 and 1.

    Raises:
        KeyError: A weight is missing.
        ValueError: A mask does not fit.
    """
    for name, mask in masks.items():
        if mask.shape != weights[name].shape:
            raise ValueError(f"the mask of {name} is {tuple(mask.shape)} instead of {tuple(weights[name].shape)}")
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(f"the mask of {name} holds other numbers than 0 and 1")


def check_sizes(config: RunConfig, vocabulary: int, tensors: Mapping[str, Tensor], features: int | None = None) -> None:
    """Check that the stored tensors are exactly those of a config's decoder, before memory is allocated for it.

    Args:
        config: The run's config; a file of a kilobyte may ask for any width.
        vocabulary: V.
        tensors: The decoder's tensors, by name.
        features: F, channels of a region; None for those of the config.

    Raises:
        ValueError: A tensor is missing, or has another shape.
    """
    with shapes_only():
        shape = build_decoder(config, vocabulary, features=features)
    for name, wanted in shape.state_dict().items():
        if name not in tensors:
            raise ValueError(f"{name} is missing")
        if tensors[name].shape != wanted.shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)} instead of {tuple(wanted.shape)}")


def metrics_lines(path: Path) -> list[dict[str, object]]:
    """Return the lines of metrics.jsonl, up to the first that is truncated or invalid.

    Raises:
        BundleError: The file is too large, or is not UTF-8.
    """
    if path.stat().st_size > MAX_METRICS_BYTES:
        raise BundleError(
            "the metrics of a run are too large", where=path, expected=f"at most {MAX_METRICS_BYTES} bytes"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError("the metrics of a run are not UTF-8", where=path, found=error.reason) from None
    lines: list[dict[str, object]] = []
    for line in text.splitlines():
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(tree, dict) or not _is_line(tree):
            break
        lines.append(tree)
    return lines


def _is_line(tree: Mapping[str, object]) -> bool:
    """Return whether the values of a line that are read later have their types."""
    step, health, signs = tree.get("step", 0), tree.get("health", {}), tree.get("warnings", [])
    return (
        isinstance(step, int)
        and step >= 0
        and all(_is_measured(tree[name]) for name in _MEASURED if name in tree)
        and isinstance(health, dict)
        and _is_measured(health.get("bad_ending_share", 0.0))
        and isinstance(signs, list)
        and all(_is_sign(sign) for sign in signs)
    )


def _is_measured(value: object) -> bool:
    """Return whether a value is a number, of a usual size if it is finite; the loss of a run that diverged is not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _LARGEST
    return isinstance(value, float) and (not math.isfinite(value) or abs(value) <= _LARGEST)


def _is_sign(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {field.name for field in fields(Sign)}
        and all(isinstance(one, str) for one in value.values())
    )


def _is_number(text: str) -> bool:
    try:
        float(text)  # NaN is valid: an imported run was never scored
    except ValueError:
        return False
    return len(text) <= _LONGEST
