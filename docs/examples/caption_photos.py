"""Caption photos with a bundle, and write a picture of where the model looked. Needs the base install only.

python docs/examples/caption_photos.py photo.jpg another.jpg
"""

from __future__ import annotations

import sys

import capprune


def main(photos: list[str]) -> None:
    """Print a caption for each photo, and write `looked-N.png` beside the current folder's files."""
    model = capprune.load()  # the package's own bundle; or capprune.load("bundles/sparse")
    for number, photo in enumerate(photos):
        caption = model.caption(photo)  # a path, the bytes of a file, a PIL image, or an array
        mark = " (an unfamiliar photo)" if caption.familiar is False else " (not sure)" if caption.unsure else ""
        print(f"{photo}: {caption}{mark}")
        caption.explanation().save(f"looked-{number}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
