"""Parts that the tests of devices share: a small real bundle with photos, and a phone that a stand-in plays."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import stand_in_adb
import tiny_bundle

from capprune.devices import RunJob
from capprune_runtime.verify import Bundle, verify_bundle

PHOTOS = 7


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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        models = tiny_bundle.make_models("lstm", folder)
    bundle = verify_bundle(tiny_bundle.write_bundle(folder / "bundle", models))
    photos = {}
    for number in range(PHOTOS):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 20, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        photos[f"a b/$(touch x);'\"{number}.PNG"] = path.read_bytes()
    return Tiny(bundle, photos)


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


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    programs = tmp_path / "bin"
    programs.mkdir()
    source = Path(stand_in_adb.__file__).read_text()
    (programs / "adb").write_text(f"#!{sys.executable}\n{source}")
    (programs / "adb").chmod(0o755)
    (tmp_path / "phone").mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_ADB", str(tmp_path))
    yield Phone(tmp_path)
    pid = tmp_path / "app.pid"
    assert not pid.is_file() or not stand_in_adb.running(int(pid.read_text())), "the app was left running"
