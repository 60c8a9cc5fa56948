"""Make docs/gallery.md: captions of the packaged bundle and that of Flickr8k alone for freely usable photos, with failures.

    python benchmarks/make_gallery.py

The photos are in docs/gallery already: public-domain ones of scikit-image, and a few drawn scenes. No caption is selected
or left out.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from capprune.ready import READY
from capprune_runtime.atomic import write_bytes, write_text
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Caption, Captioner
from capprune_runtime.caption.confidence import confidence_of, is_unsure
from capprune_runtime.caption.explain import explanation
from capprune_runtime.photo import read_photo

ROOT = Path(__file__).parents[1]
DOCS, ALONE = ROOT / "docs", ROOT / "ready_model" / "flickr8k.capz"

PHOTOS = {  # of docs/gallery, with author and terms; those of photographs as scikit-image states them
    "astronaut": "NASA, public domain",
    "chelsea": "Stefan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
    "camera": "Lav Varshney, CC0",
    "rocket": "SpaceX, CC0",
    "grass": "Linolafett, CC0",
    "brick": "PaulDeWeert, CC0",
    "hubble-deep-field": "NASA, public domain",
    "scene-00002": "drawn by capprune",
    "scene-00003": "drawn by capprune",
    "scene-00004": "drawn by capprune",
}

EXPLAINED = "camera"

HEAD = """\
# Gallery

Captions of `capprune caption` with the packaged bundle and with [the one of Flickr8k alone](ready_model.md#of-flickr8k-alone),
which has seen people, dogs and sports, and little else. The photos are in the public domain (they come with scikit-image) or
drawn. None is from the data that the models learned from, and no caption is chosen or left out: most captions here are wrong.
*Not sure* marks captions below a bundle's limits. *Unfamiliar* marks photos for which the command prints *this
does not look like a photo that I know* instead of the caption. `python benchmarks/make_gallery.py` generates this page.
"""


def said(captioner: Captioner, shown: Path) -> str:
    """Return the caption of a photo, with its mark."""
    caption = captioner.caption(read_photo(shown, captioner.bundle.manifest.photo_size))
    unsure = is_unsure(caption, confidence_of(captioner.bundle))
    mark = " *(unfamiliar)*" if caption.familiar is False else " *(not sure)*" if unsure else ""
    return f"`{caption.text}`{mark}"


def looked_at(captioner: Captioner, path: Path) -> tuple[Image.Image, Caption]:
    """Return the picture of `--explain` for one photo."""
    caption = captioner.caption(read_photo(path, captioner.bundle.manifest.photo_size))
    with Image.open(path) as photo:
        return explanation(photo.convert("RGB"), caption), caption


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()


def main() -> None:
    """Caption the photos and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    packaged, alone = (Captioner(verify_bundle(place)) for place in (READY, ALONE))
    photos = {DOCS / "gallery" / f"{name}.jpg": terms for name, terms in PHOTOS.items()}
    rows = [
        f"| ![{photo.stem}](gallery/{photo.name}) | {said(packaged, photo)} | {said(alone, photo)} | {terms} |"
        for photo, terms in photos.items()
    ]
    picture, caption = looked_at(packaged, DOCS / "gallery" / f"{EXPLAINED}.jpg")
    write_bytes(DOCS / "gallery" / "explained.jpg", _jpeg(picture))
    table = "\n".join(["| photo | packaged model | of Flickr8k alone | photo by |", "|---|---|---|---|", *rows])
    told = f'Where the model looked for each word of "{caption.text}" (`capprune caption --explain`):'
    page = f"{HEAD}\n{table}\n\n{told}\n\n![attention](gallery/explained.jpg)\n"
    write_text(DOCS / "gallery.md", page)


if __name__ == "__main__":
    main()
