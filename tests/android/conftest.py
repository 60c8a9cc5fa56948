"""What the tests of the app share: its classes, and the files that Python makes for their JUnit tests."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from core_cases import write_cases, write_index
from desktop_jvm import DesktopJvm, core_classes
from made_once import folder_once

TESTS = Path(__file__).parents[1]
MUTATED, FEWEST_MANIFESTS = 1500, 9000
PART = 5  # of the cases are made without --slow
sys.path.extend(str(TESTS / folder) for folder in ("runtime", "capz", "hostile"))

import tiny_bundle  # noqa: E402
from manifest_cases import write_manifests  # noqa: E402
from packed_bundle import make_packed_bundle, quantise_every_matrix  # noqa: E402
from photo_cases import write_photos  # noqa: E402
from world import write_world  # noqa: E402


@pytest.fixture(scope="session")
def classes(jdk: None) -> tuple[Path, Path]:
    """The folders of the classes of `:core` and of its tests."""
    return core_classes()


@pytest.fixture(scope="session")
def jvm(jdk: None, android_parts: Path) -> DesktopJvm:
    return DesktopJvm.build(android_parts)


@pytest.fixture(scope="session", params=["lstm", "gru"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tiny_bundle.TinyModels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        return tiny_bundle.make_models(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def junit_files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every folder that the JUnit tests read: cases, packed bundles, hostile and mutated files; with --slow all of them."""
    part = 1 if request.config.getoption("--slow") else PART
    folder = tmp_path_factory.mktemp("junit")
    write_cases(folder)
    write_manifests(folder / "manifests", every=part)
    assert len(json.loads((folder / "manifests" / "index.json").read_text())) * part > FEWEST_MANIFESTS
    write_photos(folder / "photos")
    sound = folder_once("hostile-world", lambda folder: write_world(folder, every_format=True))
    command = [sys.executable, TESTS / "android" / "hostile_files.py", "--out", folder, "--world", sound]
    command += ["--cases", str(MUTATED // part)]
    subprocess.run(command, check=True, capture_output=True)
    _write_packed(folder / "capz", tmp_path_factory)
    return folder


def _write_packed(folder: Path, factory: pytest.TempPathFactory) -> None:
    """Packed bundles of every form of weights, beside the bundles that they must expand to."""
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = tiny_bundle.make_models("lstm", factory.mktemp("to-pack"))
    index = []
    for form in ("float32", "int8", "codebook4"):
        packed = make_packed_bundle(folder / form / "bundle", models, quantise_every_matrix(form))
        (folder / f"{form}.capz").write_bytes(packed.data)
        bundle = folder / form / "bundle"
        names = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
        index.append({"file": f"{form}.capz", "folder": f"{form}/bundle", "names": names})
    write_index(folder, index)
