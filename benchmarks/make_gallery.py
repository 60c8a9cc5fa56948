"""Make docs/gallery.md: captions of the packaged bundle for freely usable photos, failures included.

    pip install scikit-image
    python benchmarks/make_gallery.py

The photos are the public-domain ones of scikit-image, and a few drawn scenes. No caption is selected or left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from capprune.data.scenes import draw_scenes
from capprune.ready import READY
from capprune_runtime.atomic import write_bytes, write_text
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Caption, Captioner
from capprune_runtime.caption.confidence import confidence_of, mean_log_probability
from capprune_runtime.caption.explain import explanation
from capprune_runtime.photo import read_photo

DOCS = Path(__file__).parents[1] / "docs"
SIDE = 320  # pixels, of the longer side of a picture on the page
SCENES, SEED = 3, 7


@dataclass(frozen=True)
class Public:
    """A photo of scikit-image, with author and terms from that project."""

    file: str
    terms: str


PHOTOS = (
    Public("astronaut.png", "NASA, public domain"),
    Public("chelsea.png", "Stefan van der Walt, CC0"),
    Public("coffee.png", "Rachel Michetti, CC0"),
    Public("camera.png", "Lav Varshney, CC0"),
    Public("rocket.jpg", "SpaceX, CC0"),
    Public("grass.png", "Linolafett, CC0"),
    Public("brick.png", "PaulDeWeert, CC0"),
    Public("hubble_deep_field.jpg", "NASA, public domain"),
)

HEAD = """\
# Gallery

Captions of `capprune caption` with the packaged bundle. The photos are in the public domain (they come with scikit-image) or
drawn. None is from the data that the model learned from, and no caption is chosen or left out. The model has seen people, dogs
and sports, and little else: most of these captions are wrong. *Not sure* marks captions below the bundle's limit. *Unfamiliar*
marks photos for which the command prints *this does not look like a photo that I know* instead of the caption.
`python benchmarks/make_gallery.py` generates this page.
"""


def find_photos() -> list[tuple[Path, str]]:
    """Return the public photos and their terms."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise SystemExit("scikit-image is not installed: pip install scikit-image")
    folder = Path(package.origin).parent / "data"
    return [(folder / photo.file, photo.terms) for photo in PHOTOS]


def drawn(folder: Path) -> list[tuple[Path, str]]:
    """Return a few drawn scenes."""
    draw_scenes(folder / "scenes", count={"train": 1, "val": 1, "test": SCENES}, seed=SEED, size=224)
    return [(path, "drawn by capprune") for path in sorted((folder / "scenes" / "photos").iterdir())[-SCENES:]]


def entry(captioner: Captioner, path: Path, terms: str, low_below: float | None, out: Path) -> str:
    """Return one entry of the page, after writing its picture beside the page."""
    shown = out / f"{_name(path)}.jpg"
    with Image.open(path) as photo:
        upright = photo.convert("RGB")
        upright.thumbnail((SIDE, SIDE))
    write_bytes(shown, _jpeg(upright))
    caption = captioner.caption(read_photo(shown, captioner.bundle.manifest.photo_size))  # readers can reproduce it
    unsure = low_below is not None and mean_log_probability(caption) < low_below
    mark = " *(unfamiliar)*" if caption.familiar is False else " *(not sure)*" if unsure else ""
    return f"| ![{shown.stem}](gallery/{shown.name}) | {caption.text}{mark} | {terms} |"


def looked_at(captioner: Captioner, path: Path) -> tuple[Image.Image, Caption]:
    """Return the picture of `--explain` for one photo."""
    caption = captioner.caption(read_photo(path, captioner.bundle.manifest.photo_size))
    with Image.open(path) as photo:
        return explanation(photo.convert("RGB"), caption), caption


def _name(path: Path) -> str:
    return path.stem.replace("_", "-")


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()


def main() -> None:
    """Caption the photos and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=READY)
    options = parser.parse_args()
    bundle = verify_bundle(options.bundle)
    captioner, low_below = Captioner(bundle), confidence_of(bundle)
    out = DOCS / "gallery"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        photos = [*find_photos(), *drawn(Path(folder))]
        rows = [entry(captioner, path, terms, low_below, out) for path, terms in photos]
        picture, caption = looked_at(captioner, out / f"{_name(photos[0][0])}.jpg")
        write_bytes(out / "explained.jpg", _jpeg(picture))
    table = "\n".join(["| photo | caption | photo by |", "|---|---|---|", *rows])
    told = f'Where the model looked for each word of "{caption.text}" (`capprune caption --explain`):'
    page = f"{HEAD}\n{table}\n\n{told}\n\n![attention](gallery/explained.jpg)\n"
    write_text(DOCS / "gallery.md", page)


if __name__ == "__main__":
    main()
