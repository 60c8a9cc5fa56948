"""The pictures of docs/serve.md, taken in headless Chromium.

python tests/serving/docs_pictures.py
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "worlds"), str(HERE.parents[1])]

from browser import Tab, opened  # noqa: E402

from capprune.ready import READY  # noqa: E402
from capprune_runtime.atomic import write_bytes  # noqa: E402
from serving.static_site import static_site  # noqa: E402

ROOT = HERE.parents[2]
DOCS = ROOT / "docs" / "serve"
PHOTO = ROOT / "docs" / "gallery" / "grass.jpg"
BUNDLES = (READY, ROOT / "ready_model" / "flickr8k-coco-blocks.capz")
COLOURS = 128  # of a picture; keeps it below 200 KB
LONGEST_S = 60.0


@dataclass(frozen=True)
class Shot:
    """How a picture is taken."""

    width: int
    theme: str


SHOTS: Mapping[str, Shot] = {"page.png": Shot(800, "light"), "narrow.png": Shot(360, "dark")}


def take(tab: Tab, shot: Shot) -> bytes:
    """Caption a photo with every model, show where the first one's second word was looked for, and take the picture."""
    tab.prefer("color-scheme", shot.theme)
    tab.choose_file("#photo", PHOTO)
    _wait(tab, 1)
    for number in range(1, len(BUNDLES)):
        tab.evaluate(f"document.querySelectorAll('input[name=model]')[{number}].click()")
        _wait(tab, number + 1)
    tab.evaluate("document.querySelectorAll('#words button')[2].click()")
    with Image.open(io.BytesIO(tab.screenshot())) as picture:
        data = io.BytesIO()
        picture.convert("RGB").quantize(COLOURS).save(data, "PNG", optimize=True)
    return data.getvalue()


def _wait(tab: Tab, rows: int) -> None:
    end = time.monotonic() + LONGEST_S
    while tab.evaluate("document.getElementById('rows').children.length") < rows:
        assert time.monotonic() < end, "the page gives no caption"
        tab.listen(0.1)


def pictures(chromium: str, folder: Path) -> dict[str, bytes]:
    """Every picture by its name; `folder` is used for the page and the browser."""
    taken = {}
    with static_site(BUNDLES, folder / "page") as site:
        for name, shot in SHOTS.items():
            with opened(chromium, site.address, folder / name, shot.width) as tab:
                _ready(tab)
                taken[name] = take(tab, shot)
    return taken


def _ready(tab: Tab) -> None:
    end = time.monotonic() + LONGEST_S
    while tab.evaluate("document.getElementById('photo').disabled"):
        assert time.monotonic() < end, "the page does not start"
        tab.listen(0.1)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in pictures("/usr/bin/chromium", Path(folder)).items():
            write_bytes(DOCS / name, content)
            print(DOCS / name, len(content))


if __name__ == "__main__":
    main()
