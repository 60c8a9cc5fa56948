"""Karpathy's JSON (Flickr8k, Flickr30k, COCO): `dataset_<name>.json` or `dataset.json`, with splits and sentences."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from capprune.data.folder import FolderContents, base_name
from capprune.data.layouts.found import FoundPhoto, FoundSet, Layout, at_least_depth
from capprune.data.layouts.json_files import broken_is_data_error, field, json_files, json_kind
from capprune.data.layouts.splits import split_name

_NAMED: Final = re.compile(r"(?!dataset_(infos?|dict)\.)dataset(_.*)?\.json")  # excludes two names of Hugging Face


def _claims(contents: FolderContents) -> tuple[str, ...]:
    named = [name for name in json_files(contents) if _NAMED.fullmatch(base_name(name))]
    own = [name for name in named if json_kind(contents, name) not in ("coco", "records", "mapping")]
    others = [name for name in json_files(contents) if name not in named and json_kind(contents, name) == "karpathy"]
    return at_least_depth(own or others)


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    (file,) = files
    path = contents.path(file)
    with broken_is_data_error(path):
        content = contents.parsed(file)
        entries = field(content, "images", list)
        name = str(content.get("dataset") or re.sub(r"^dataset_?", "", path.stem) or contents.folder.resolve().name)
    splits = any(isinstance(entry, dict) and "split" in entry for entry in entries)
    photos = []
    for number, entry in enumerate(entries):
        where = f"{path}, image {number}"
        with broken_is_data_error(where):
            base = field(entry, "filename", str)
            split = split_name(field(entry, "split", str)) if "split" in entry or splits else None
            photo = "/".join(filter(None, (entry.get("filepath"), base)))
            captions = tuple(_caption(sentence) for sentence in field(entry, "sentences", list))
            if not contents.names_one_photo(photo):
                photo = contents.photo(photo)
            confidence, objects = _confidence(entry), _objects(entry)
        photos.append(FoundPhoto(photo, split, captions, where, confidence=confidence, objects=objects))
    with broken_is_data_error(path):
        labelled_by = _labelled_by(content)
    return FoundSet(name, tuple(photos), files, labelled_by=labelled_by)


def _confidence(entry: dict[str, Any]) -> float | None:
    """Return the confidence of a photo's captions: its own key, or the mean of its sentences."""
    sentences = [sentence for sentence in entry["sentences"] if isinstance(sentence, dict)]
    found = [entry["confidence"]] if "confidence" in entry else [one.get("confidence") for one in sentences]
    if not found or None in found:
        return None
    return math.fsum(map(_positive, found)) / len(found)


def _objects(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the names under `objects`, each alone or first in a list; what follows it, such as a share, is not used."""
    names = [one[0] if isinstance(one, list) and one else one for one in entry.get("objects") or []]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"objects are not names, or lists that begin with one: {entry['objects']!r:.80}")
    return tuple(dict.fromkeys(names))


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"confidence is not a number of at least 0: {value!r}")
    return float(value)


def _labelled_by(content: dict[str, Any]) -> str | None:
    """Return the teacher that `capprune label` recorded."""
    if content.get("labelled_by") is None:
        return None
    facts = field(content, "labelled_by", dict)
    return f"{field(facts, 'teacher', str)} ({field(facts, 'licence', str)})"


def _caption(sentence: Any) -> str:
    """Return a sentence as written; its tokens if the file has no `raw`."""
    if isinstance(sentence, str):
        return sentence
    if "raw" not in sentence and "tokens" in sentence:
        return " ".join(map(str, field(sentence, "tokens", list)))
    return field(sentence, "raw", str)


KARPATHY: Final = Layout(
    "karpathy", "Karpathy's JSON", "dataset_<name>.json with images, splits and sentences", _claims, _read
)
