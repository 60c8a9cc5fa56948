"""Parts that the tests of devices share: a small real bundle with photos, and a phone that a stand-in plays."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import loopback
import stand_in_adb
import tiny_bundle
from device_parts import Phone, Tiny

from capprune_runtime.bundle.verify import verify_bundle

PHOTOS = 7


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


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    state = tmp_path / "phone-state"
    stand_in_adb.install(state, monkeypatch)
    yield Phone(state)
    pid = state / "app.pid"
    assert not pid.is_file() or not stand_in_adb.running(int(pid.read_text())), "the app was left running"


@pytest.fixture(scope="session")
def private_folder(required_parts: frozenset[str], when_absent: Callable[[str, str], None]) -> Iterator[Path]:
    """A folder for sshd, which wants every parent to be root's alone; it is removed in the end."""
    if "devices" not in required_parts:
        pytest.skip("an sshd of its own needs root and mounts: only where CAPPRUNE_REQUIRE names devices")
    if (reason := loopback.lacking()) is not None:
        when_absent("devices", reason)
    folder = Path(tempfile.mkdtemp(prefix="capprune-test-", dir="/var/lib"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
