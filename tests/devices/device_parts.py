"""A small real bundle with photos, and the state of a phone that a stand-in plays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.devices import RunJob
from capprune_runtime.bundle.verify import Bundle


@dataclass(frozen=True)
class Tiny:
    """A bundle of a few thousand random weights, and photos with names that no shell should see."""

    bundle: Bundle
    photos: dict[str, bytes]

    def job(self, **changes: Any) -> RunJob:
        return RunJob(
            **{
                "bundle": self.bundle,
                "photos": tuple(self.photos),
                "read": self.photos.__getitem__,
                "beam": 2,
                **changes,
            }
        )


@dataclass(frozen=True)
class Phone:
    """The state of the stand-in."""

    state: Path

    def break_by(self, **faults: Any) -> None:
        (self.state / "faults.json").write_text(json.dumps(faults))

    @property
    def calls(self) -> str:
        return (self.state / "calls.log").read_text()

    def left_behind(self) -> list[str]:
        return sorted(str(path.relative_to(self.state)) for path in (self.state / "phone").rglob("*") if path.is_file())


def write_data(folder: Path, photos: dict[str, bytes]) -> Path:
    """A data set of photos, with plain names and a caption each, all of its test split."""
    folder.mkdir()
    images = []
    for index, content in enumerate(photos.values()):
        (folder / f"{index}.png").write_bytes(content)
        sentence = {"raw": "word5 word6", "tokens": ["word5", "word6"]}
        images.append({"filename": f"{index}.png", "split": "test", "sentences": [sentence], "imgid": index})
    (folder / "dataset_tiny.json").write_text(json.dumps({"images": images, "dataset": "tiny"}))
    return folder
