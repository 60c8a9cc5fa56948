"""The browser beside torch: dense and sparse bundles, and the families that append to their state, on many scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe import require_packages
from browser import Tab, opened

from capprune.data.scenes import draw_scenes
from capprune.trained import BATCH, TrainedCaptioner
from capprune.training.run import load_run
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.photo import read_photo
from cli.conftest import TINY, capprune
from serving.static_site import StaticSite, captions, static_site

pytestmark = pytest.mark.slow

RUNS = Path(__file__).parents[2] / "ready_model" / "runs"
KEPT = {"sparse": RUNS / "rounded", "wide": RUNS / "wide"}
APPENDING = ("relation_transformer", "retention")
SCENES = 100


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    draw_scenes(folder, count={"train": 60, "val": 20, "test": SCENES}, seed=3, size=224)
    return folder


@pytest.fixture(scope="module")
def runs(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The kept runs, a small dense one, and a small one of each family that appends."""
    folder = tmp_path_factory.mktemp("runs")
    made = {**KEPT, "dense": folder / "dense"}
    config = folder / "dense.yaml"
    config.write_text(TINY.replace("FOLDER", str(scenes)).split("pruning:")[0])
    done = capprune("train", config, "--out", made["dense"], "--cache", folder / "cache")
    assert done.code == 0, done.err
    for family in APPENDING:
        config = folder / f"{family}.yaml"
        config.write_text(TINY.replace("FOLDER", str(scenes)).split("decoder:")[0])
        sizes = ("decoder.width=64", "decoder.heads=4", "decoder.feed_forward=128")
        training = ("training.epochs=12", "training.photos_per_batch=10", "training.validation_photos=10")
        made[family] = folder / family
        done = capprune(
            *("train", config, f"decoder.family={family}", *sizes, *training, "training.learning_rate=0.002"),
            *("--out", made[family], "--cache", folder / "cache"),
        )
        assert done.code == 0, done.err
    return made


@pytest.fixture(scope="module")
def site(
    runs: dict[str, Path], when_absent: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StaticSite]:
    require_packages(when_absent)
    folder = tmp_path_factory.mktemp("bundles")
    for name, run in runs.items():
        done = capprune("export", run, "--weights", "float32", "--out", folder / name)
        assert done.code == 0, done.err
    with static_site([folder / name for name in runs], tmp_path_factory.mktemp("site") / "page") as site:
        yield site


@pytest.fixture(scope="module")
def tab(chromium: str, site: StaticSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened(chromium, site.address, tmp_path_factory.mktemp("browser")) as tab:
        tab.listen(0.5)
        yield tab


@pytest.mark.parametrize("name", [*KEPT, "dense", *APPENDING])
@pytest.mark.parametrize("beam", [1, 3])
def test_the_browser_says_what_torch_says(
    tab: Tab, site: StaticSite, runs: dict[str, Path], scenes: Path, name: str, beam: int
) -> None:
    photos = sorted((scenes / "photos").iterdir())[-SCENES:]
    size = verify_bundle(site.folder / "bundles" / f"{name}.capz").manifest.photo_size
    said = captions(tab, name, site.add_photos(photos), beam)
    trained, squares = TrainedCaptioner(load_run(runs[name])), [read_photo(photo, size) for photo in photos]
    batches = [squares[start : start + BATCH] for start in range(0, SCENES, BATCH)]
    expected = [tuple(one.tokens) for batch in batches for one in trained.caption(batch, beam)]
    assert len(set(expected)) > 1
    assert [tuple(one["tokens"]) for one in said] == expected
    assert tab.complaints == ()
