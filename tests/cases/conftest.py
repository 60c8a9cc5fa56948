"""Drawn photos, and the bundle that comes with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from base_install import link_packages
from PIL import Image, ImageDraw

from capprune.ready import READY


@pytest.fixture
def drawn() -> Image.Image:
    """A scene with some texture."""
    image = Image.linear_gradient("L").resize((320, 240)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 60, 140, 200), fill=(220, 30, 40))
    draw.rectangle((180, 40, 300, 160), fill=(10, 60, 200))
    return image


@pytest.fixture
def photo(tmp_path: Path, drawn: Image.Image) -> Path:
    (tmp_path / "in").mkdir()
    drawn.save(tmp_path / "in" / "photo.jpg", quality=90)
    return tmp_path / "in" / "photo.jpg"


@pytest.fixture(scope="session")
def ready() -> Path:
    """The package's own bundle."""
    if not READY.is_file():
        pytest.skip("this installation contains no bundle")
    return READY


@pytest.fixture
def album(photo: Path) -> Path:
    """A folder of three photos."""
    for name in ("b.jpg", "c.jpg"):
        (photo.parent / name).write_bytes(photo.read_bytes())
    return photo.parent


@pytest.fixture(scope="session")
def base_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of `pip install capprune` without extras."""
    site = tmp_path_factory.mktemp("site")
    link_packages(site)
    return site
