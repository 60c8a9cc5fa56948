"""The description of the HTTP interface, in OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capprune import __version__
from capprune.serving.limits import Limits
from capprune.serving.refused import STATUS
from capprune_runtime.bundle.manifest import MAX_BEAM

_TEXT: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "number"}
_WHOLE: Mapping[str, Any] = {"type": "integer"}

_CAPTION: Mapping[str, Any] = {
    "schema_version": _WHOLE,
    "model": {**_TEXT, "description": "Name of the bundle."},
    "caption": {**_TEXT, "description": "The text."},
    "words": {"type": "array", "items": _TEXT, "description": "One text for each token."},
    "tokens": {"type": "array", "items": _WHOLE, "description": "Token ids without <start> and <end>."},
    "log_probability": {**_NUMBER, "description": "Of the tokens, in nats."},
    "unsure": {"type": ["boolean", "null"], "description": "Null if the bundle has no threshold."},
    "confidence": {**_NUMBER, "description": "0 to 1; missing if the bundle cannot tell familiar photos from others."},
    "familiar": {
        "type": "boolean",
        "description": "False for a photo unlike those that the bundle knows; may be missing.",
    },
    "finished": {"type": "boolean", "description": "False if the caption was cut at the maximum length."},
    "warning": {"type": ["string", "null"], "description": "Damage of the photo."},
    "decode_us": {**_NUMBER, "description": "Decoding and resizing the photo, in microseconds."},
    "encode_us": {**_NUMBER, "description": "The encoder, in microseconds."},
    "step_us": {"type": "array", "items": _NUMBER, "description": "Every call of the decoder, in microseconds."},
}
_MAY_BE_MISSING = ("confidence", "familiar")
_ATTENTION: Mapping[str, Any] = {
    "type": ["object", "null"],
    "description": "With attention=1: weights over a square grid of regions, one list for each token. Null where the "
    "model shows none.",
    "properties": {"side": _WHOLE, "weights": {"type": "array", "items": {"type": "array", "items": _NUMBER}}},
    "required": ["side", "weights"],
}
_ERROR: Mapping[str, Any] = {
    "schema_version": _WHOLE,
    "error": {"type": "string", "enum": sorted(STATUS)},
    "status": _WHOLE,
    "what": {**_TEXT, "description": "What happened."},
    "where": _TEXT,
    "expected": _TEXT,
    "found": _TEXT,
    "try": {**_TEXT, "description": "What to do next."},
}
_EVENTS = (
    'With `Accept: text/event-stream`: an event `words` after every word, whose data is {"text": the best caption so '
    "far}, then one event `caption`, whose data is the JSON document below, or `error` with an error document."
)


def openapi(models: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Return the description.

    Args:
        models: Names of the bundles, the default first.
        limits: Limits of the server.
    """
    parameters = [
        _parameter("model", "The bundle.", {"type": "string", "enum": list(models), "default": models[0]}),
        _parameter(
            "beam",
            "Beam width; by default the bundle's own.",
            {"type": "integer", "minimum": 1, "maximum": MAX_BEAM},
        ),
        _parameter("attention", "1 to add the attention.", {"type": "string", "enum": ["0", "1"]}),
    ]
    photo = {"schema": {"type": "string", "format": "binary", "maxLength": limits.upload_bytes}}
    caption = {
        "summary": "Caption a photo",
        "description": f"{_EVENTS} No file is kept. At most {limits.upload_bytes:,} bytes, {limits.pixels:,} pixels "
        f"and {limits.seconds:g} seconds.",
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/octet-stream": photo, "image/*": photo}},
        "responses": {"200": _answers("Caption", "The caption.", events=True), **_errors()},
    }
    schemas = {
        "Caption": _object(
            {**_CAPTION, "attention": _ATTENTION}, required=[key for key in _CAPTION if key not in _MAY_BE_MISSING]
        ),
        "Error": _object(_ERROR, required=["schema_version", "error", "status", "what"]),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "capprune serve", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": {
            "/caption": {"post": caption},
            "/models.json": {"get": {"summary": "List the bundles", "responses": {"200": {"description": "JSON"}}}},
            "/health": {
                "get": {"summary": "Answer while the server runs", "responses": {"200": {"description": "JSON"}}}
            },
        },
        "components": {"schemas": schemas},
    }


def _parameter(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _object(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _answers(schema: str, description: str, *, events: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    if events:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": description, "content": content}


def _errors() -> dict[str, Any]:
    codes: dict[int, list[str]] = {}
    for code, status in STATUS.items():
        codes.setdefault(status, []).append(code)
    return {str(status): _answers("Error", " or ".join(names)) for status, names in sorted(codes.items())}
