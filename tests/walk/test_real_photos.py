"""The same road on a few hundred real photos: train, export, validate, caption; better than any constant caption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.metrics.health import best_constant_caption
from capprune_runtime import Captioner, verify_bundle
from capprune_runtime.photo import decode_photo, read_photo, resize

sys.path.append(str(Path(__file__).parents[1] / "android"))

pytestmark = pytest.mark.slow

PHOTOS = 600
TEST_PHOTOS = 200
CONFIG = Path(__file__).parents[2] / "configs" / "flickr8k_sparse.yaml"
SMALLER = (
    f"data.limit={PHOTOS}",
    "data.minimum_count=3",
    "decoder.embedding=128",
    "decoder.hidden=256",
    "decoder.attention=256",
    "decoder.context=256",
    "training.epochs=12",
    "training.learning_rate=0.002",
    "training.validation_photos=100",
    "pruning.sparsity=0.9",
)


def capprune(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "capprune", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def results(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, flickr8k = tmp_path_factory.mktemp("real"), data_folder / "flickr8k"
    run, bundle = folder / "run", folder / "bundle"
    trained = capprune("train", CONFIG, f"data.folder={flickr8k}", *SMALLER, "--out", run, "--cache", folder / "cache")
    capprune("export", run, "--weights", "float32", "--out", bundle)
    found = capprune("validate", bundle, "--data", flickr8k, "--limit", TEST_PHOTOS, "--reference", run)
    return {**found, "trained": trained, "folder": str(bundle)}


def test_sparse_model_beats_the_best_constant_caption(results: dict[str, Any], data_folder: Path) -> None:
    captions = load_caption_set(data_folder / "flickr8k")
    training = [text for photo in captions.split("train")[:PHOTOS] for text in photo.captions]
    references = {photo.name: photo.captions for photo in captions.split("test")[:TEST_PHOTOS]}
    _, constant = best_constant_caption(training, references, tokenizer=results["quality"]["scores"]["tokenizer"])
    assert results["trained"]["sparsity"] == pytest.approx(0.9, abs=0.005)
    assert results["quality"]["cider_d_interval"]["low"] > constant.cider_d


def test_bundle_says_of_real_photos_what_torch_says(results: dict[str, Any]) -> None:
    parity = results["parity"]["ai-edge-litert"]
    assert parity["photos"] == TEST_PHOTOS and parity["identical"] >= TEST_PHOTOS - 1


def test_the_app_says_of_real_photos_what_python_says(
    results: dict[str, Any], data_folder: Path, android_parts: Path, tmp_path: Path
) -> None:
    from desktop_jvm import DesktopJvm

    captioner = Captioner(verify_bundle(Path(results["folder"])))
    size = captioner.bundle.manifest.photo_size
    names = [photo.name for photo in load_caption_set(data_folder / "flickr8k").split("test")[:TEST_PHOTOS]]
    with open_photos(data_folder / "flickr8k") as store:
        photos = [(name, decode_photo(store.read(name), name), 1 + 2 * (n % 2)) for n, name in enumerate(names)]
    expected = [captioner.caption(resize(rgb, size), beam).tokens for _, rgb, beam in photos]
    (tmp_path / "photos").mkdir()
    jvm = DesktopJvm.build(android_parts)
    said = jvm.captions(Path(results["folder"]), photos, tmp_path / "photos")
    assert len(said) == TEST_PHOTOS
    assert [tuple(row["tokens"]) for row in said] == expected


def test_a_photo_of_twelve_megapixels_that_lies_on_its_side_is_captioned(
    results: dict[str, Any], data_folder: Path, tmp_path: Path
) -> None:
    import io

    from PIL import Image

    with open_photos(data_folder / "flickr8k") as store:
        name = store.names()[0]
        small = Image.open(io.BytesIO(store.read(name))).convert("RGB")
    large = small.resize((4000, 3000), Image.Resampling.BICUBIC)
    camera, upright, turned = (tmp_path / name for name in ("camera.jpg", "upright.png", "turned.png"))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated a quarter clockwise
    sideways = large.transpose(Image.Transpose.ROTATE_90)
    sideways.save(camera, quality=95, exif=exif)
    large.save(upright, compress_level=1)  # lossless: JPEG rounds a photo and its quarter turn differently
    sideways.save(turned, compress_level=1, exif=exif)
    said = capprune("caption", camera, upright, turned, "--bundle", results["folder"])["captions"]
    assert all(one["caption"] for one in said)
    assert said[1]["tokens"] == said[2]["tokens"]
    seen = [read_photo(path, 224).astype(int) for path in (camera, upright, turned)]
    assert (seen[1] == seen[2]).all()
    assert abs(seen[0] - seen[1]).max() <= 8  # of 255: what JPEG at quality 95 loses
