"""Captions as JSON, and as server-sent events while they are generated."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from capprune.serving.refused import SCHEMA_VERSION
from capprune.serving.workers import Captioned
from capprune_runtime.caption.confidence import is_unsure

_DIGITS = 5  # of attention weights


def caption_document(captioned: Captioned, *, attention: bool) -> dict[str, Any]:
    """Return the JSON document of a caption.

    Args:
        captioned: The caption.
        attention: Whether to add the attention weights of each word.
    """
    caption = captioned.caption
    document = {
        "schema_version": SCHEMA_VERSION,
        "model": captioned.model.name,
        **caption.as_json(),
        "words": list(caption.shown),
        "unsure": is_unsure(caption, captioned.model.low_below),
        "warning": captioned.warning,
        "decode_us": captioned.decode_us,
    }
    return {**document, "attention": _attention(captioned)} if attention else document


def event(name: str, document: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


def _attention(captioned: Captioned) -> dict[str, Any] | None:
    """Return the weights of each word over a square grid of regions; None if the model has no attention."""
    weights = captioned.caption.attention
    if weights is None:
        return None
    side = math.isqrt(weights.shape[1])
    return {"side": side, "weights": np.round(weights[:, : side * side].astype(np.float64), _DIGITS).tolist()}
