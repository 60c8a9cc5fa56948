"""Decoders of every interface say on a desktop JVM what they say in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import interface_bundles
import machine
import numpy as np
import pytest
import tiny_bundle
from desktop_jvm import DesktopJvm
from numpy.typing import NDArray
from PIL import Image

from capprune_runtime import Captioner, resize, verify_bundle

pytestmark = pytest.mark.slow

PHOTOS = 8
BEAMS = (1, 3)
LOG_TOLERANCE = 1e-4  # two builds of the same runtime, with other kernels

Photos = list[tuple[str, NDArray[np.uint8], int]]


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interface_bundles.write_cached_bundle(tmp_path_factory.mktemp("cached") / "bundle")


def photos() -> Photos:
    """Every photo with every beam, one after the other, so that each search finds the cache as another one left it.

    They are of a few pixels, so that they differ from each other when they are squashed.
    """
    random = np.random.default_rng(8)
    pixels = [random.integers(0, 256, (int(random.integers(2, 5)), 3, 3), np.uint8) for _ in range(PHOTOS)]
    return [(f"{n}-{beam}", rgb, beam) for n, rgb in enumerate(pixels) for beam in BEAMS]


@pytest.mark.parametrize(
    "write", [interface_bundles.write_cached_bundle, interface_bundles.write_bundle_without_first_state]
)
def test_the_captions_are_those_of_python(jvm: DesktopJvm, write: Callable[[Path], Path], tmp_path: Path) -> None:
    place = write(tmp_path / "bundle")
    captioner = Captioner(verify_bundle(place))
    (tmp_path / "photos").mkdir()
    said = jvm.captions(place, photos(), tmp_path / "photos")
    size = captioner.bundle.manifest.photo_size
    expected = [captioner.caption(resize(rgb, size), beam) for _, rgb, beam in photos()]
    assert [row["tokens"] for row in said] == [list(caption.tokens) for caption in expected]
    found = [row["log_probability"] for row in said]
    assert found == pytest.approx([caption.log_probability for caption in expected], abs=LOG_TOLERANCE)
    assert len({caption.tokens for caption in expected}) > 2  # one caption for all would prove little
    assert max(len(caption.tokens) for caption in expected) > 3


def test_the_model_of_the_cache_needs_what_the_words_before_left_in_it(cached: Path) -> None:
    """Without this, a cache that is never written would pass the test above."""
    captioner = Captioner(verify_bundle(cached))
    step = captioner.step
    state = captioner.encode(tiny_bundle.photo_pixels())
    first = step(1, state, 0)
    with_word, other_word = step(5, first.state, 1).scores, step(5, step(9, state, 0).state, 1).scores
    assert np.abs(with_word - other_word).max() > 0.01


@pytest.mark.parametrize(("name", "shown"), [("cached", False), ("zeros", True)])
def test_attention_is_there_where_the_manifest_has_regions(
    jvm: DesktopJvm, cached: Path, name: str, shown: bool, tmp_path: Path
) -> None:
    write = interface_bundles.write_bundle_without_first_state
    place = write(tmp_path / "bundle") if name == "zeros" else cached
    (tmp_path / "photos").mkdir()
    said = jvm.captions(place, photos()[:2], tmp_path / "photos")
    for row in said:
        rows = None if row["attention"] is None else [len(row["attention"]), *map(len, row["attention"])]
        words = len(row["tokens"])
        assert rows == ([words, *[tiny_bundle.REGIONS] * words] if shown else None)


def test_a_model_of_regions_is_verified_and_then_refused_in_plain_words(jvm: DesktopJvm, tmp_path: Path) -> None:
    place = interface_bundles.write_regions_bundle(tmp_path / "bundle")
    verify_bundle(place)
    (tmp_path / "photos").mkdir()
    with pytest.raises(machine.BuildFailed) as caught:
        jvm.captions(place, photos()[:1], tmp_path / "photos")
    assert re.search(r"this model takes features of regions, not photos", str(caught.value))
    folder = tmp_path / "run"
    folder.mkdir()
    Image.fromarray(tiny_bundle.photo_pixels()).save(folder / "a.png")
    jvm.run_photos(place, folder, tmp_path / "results.json")
    failure = json.loads((tmp_path / "results.json").read_text())["failure"]
    assert (failure["error"], failure["exit_code"]) == ("UsageError", 2)
    broken = (place / "encoder.tflite").read_bytes()[:-4]
    (place / "encoder.tflite").write_bytes(broken)
    with pytest.raises(machine.BuildFailed, match="another size"):  # so it was verified before
        jvm.captions(place, photos()[:1], tmp_path / "photos")
