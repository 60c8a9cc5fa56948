"""Checks of a run's files before they are used: facts, sizes of the model, lines of the metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from capprune.config.run import RunConfig
from capprune.models.caption_model import build_decoder
from capprune_runtime.errors import BundleError

MAX_METRICS_BYTES = 256 << 20
_WHOLE = re.compile(r"-?\d{1,15}")
_FACTS = {"epoch": _WHOLE, "step": _WHOLE, "settled": _WHOLE}
_NUMBERS = ("cider", "sparsity")
_LONGEST = 40  # characters of a number


def check_facts(facts: Mapping[str, str], path: Path) -> None:
    """Check the numbers among the facts of a checkpoint.

    Raises:
        BundleError: One is not a number, or has hundreds of digits.
    """
    for name, text in facts.items():
        whole = name not in _FACTS or _FACTS[name].fullmatch(text)
        if not whole or (name in _NUMBERS and not _is_number(text)):
            raise BundleError("a fact of this checkpoint is no number", where=f"{path}: {name}", found=text)


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
    with torch.device("meta"):
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
        step = tree.get("step", 0) if isinstance(tree, dict) else None
        if not isinstance(step, int) or not 0 <= step < 10**15:
            break
        lines.append(tree)
    return lines


def _is_number(text: str) -> bool:
    try:
        float(text)  # NaN is valid: an imported run was never scored
    except ValueError:
        return False
    return len(text) <= _LONGEST
