"""Measure how many photos of object classes that a model has never seen it marks: train without them, then caption them.

    python benchmarks/left_out.py --data flickr8k --other coco_small --work runs/left_out --json > left_out.json

`--other` is in Karpathy's layout; its images have `kind` (see mixed_data.py) and `objects`, the largest first. Photos with
one of the classes are taken out of all its splits, and the rest is trained on beside --data. Those whose largest object is
of the classes are then captioned, beside the test photos of --data and the remaining val photos of --other, which are of the
known kind. Photos of the classes in --data stay, for it has no labels. Runs are kept in --work, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import capprune
from capprune.data.non_photos import non_photos
from capprune.tables import table
from capprune.validation.familiarity import confidences
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.familiarity import Familiarity, familiarity_of
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.confidence import confidence_of
from capprune_runtime.errors import DataError
from familiarity import SEED, Seen, auroc_interval, caption_split, look, marked, together
from mixed_data import HUMAN_WEIGHT, SHARE
from printed import print_measured

SCHEMA_VERSION = 1
CLASSES = ("bear", "toilet", "train", "pizza")
WIDTH, EPOCHS = 512, 4
OF_EACH_KIND = 50  # drawn images


def without_classes(folder: Path, work: Path, classes: Sequence[str], split: str | None) -> Path:
    """Make a data set in `work` without the photos of some classes, or of those alone; photos are linked.

    Args:
        folder: A data set in Karpathy's layout whose images have `objects`.
        work: Folder of the new one.
        classes: Names of objects.
        split: None keeps what has none of the classes; a name keeps photos whose largest object is one, all in that split.

    Raises:
        DataError: No photo is left, or there is not one JSON file.
    """
    found = [path for path in sorted(folder.glob("dataset*.json")) if path.is_file()]
    if len(found) != 1:
        raise DataError("there has to be one file", where=folder / "dataset*.json", expected=1, found=len(found))
    source = found[0]
    document = json.loads(source.read_bytes())
    named = [[name for name, *_ in image.get("objects", [])] for image in document["images"]]
    if split is None:
        images = [one for one, names in zip(document["images"], named, strict=True) if not set(names) & set(classes)]
    else:
        images = [
            {**one, "split": split}
            for one, names in zip(document["images"], named, strict=True)
            if names and names[0] in classes
        ]
    if not images:
        raise DataError("no photo is left", where=source, expected=f"photos with {', '.join(classes)} and others")
    made = work / f"{folder.name}_{'without' if split is None else 'only'}"
    made.mkdir(parents=True, exist_ok=True)
    for place in folder.iterdir():
        link = made / place.name
        if place.suffix != ".json" and not link.is_symlink():
            link.symlink_to(place.resolve())
    write_text(made / f"dataset_{made.name}.json", json.dumps({**document, "images": images}))
    return made


def config_of(data: Path, other: Path, *, size: int, width: int, epochs: int) -> dict[str, Any]:
    """Return the config of the run."""
    sources = [
        {"folder": str(other), "captions": "human", "weight": HUMAN_WEIGHT},
        {"folder": str(other), "captions": "generated", "confident_share": SHARE},
    ]
    return {
        "name": "left-out",
        "data": {"folder": str(data), "minimum_count": 5, "sources": sources},
        "encoder": {"size": size, "grid": 4 if size >= 128 else None},
        "decoder": {"embedding": width // 2, "hidden": width, "attention": width, "context": width},
        "training": {"epochs": epochs, "photos_per_batch": 20, "learning_rate": 2e-3, "validation_photos": 300},
    }


def measure(
    data: Path,
    other: Path,
    work: Path,
    cache: Path | None,
    *,
    classes: Sequence[str] = CLASSES,
    size: int = 224,
    width: int = WIDTH,
    epochs: int = EPOCHS,
    of_each_kind: int = OF_EACH_KIND,
    limit: int | None = None,
) -> dict[str, Any]:
    """Train without some classes and return the document that `--json` prints.

    Args:
        data: The first data set.
        other: The one with object labels; see the top of this file.
        work: Folder for data, the run and its bundle.
        cache: Folder of feature caches; by default the usual one.
        classes: The object classes that are left out.
        size: Side of the photos, pixels.
        width: Width of the decoder.
        epochs: Epochs of training.
        of_each_kind: Drawn images of each kind.
        limit: Caption only the first photos of each set.

    Raises:
        CapPruneError: The data cannot be read, or a command fails.
    """
    known = without_classes(other, work / "data", classes, None)
    unseen = without_classes(other, work / "data", classes, "test")
    config = config_of(data, known, size=size, width=width, epochs=epochs)
    run = capprune.train(config, out=work / "run", cache=cache, progress=capprune.Lines())
    bundle = work / "bundle"
    if not bundle.is_dir():
        run.export(bundle, weights="float32", encoder_weights="float32", progress=capprune.Lines())
    capprune.validate(bundle, data=data, split="val", known=[known], record=True, progress=capprune.Lines())
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "left_out",
        "data": data.name,
        "other": other.name,
        "classes": list(classes),
        **marks(bundle, data, known, unseen, of_each_kind, limit),
    }


def marks(place: Path, data: Path, other: Path, unseen: Path, of_each_kind: int, limit: int | None) -> dict[str, Any]:
    """Return the shares of known and of other photos that a recorded bundle marks, and the AUROC between them.

    Args:
        place: The bundle.
        data: The first data set; its test photos are known.
        other: The other data set without the classes; its val photos are known.
        unseen: The data set whose test photos are of the classes that were left out.
        of_each_kind: Drawn images of each kind.
        limit: Caption only the first photos of each set.
    """
    bundle = verify_bundle(place)
    captioner, low_below = Captioner(bundle), confidence_of(bundle)
    chosen: Familiarity | None = familiarity_of(bundle.files, bundle.manifest.interface, place)
    if chosen is None:
        raise DataError("the bundle has no familiarity", where=place, expected="100 photos of train and of val")
    known = {
        f"{folder.name} {split}": caption_split(captioner, folder, split, limit)
        for folder, split in ((data, "test"), (other, "val"))
    }
    away = caption_split(captioner, unseen, "test", limit)
    images = non_photos(of_each_kind, SEED, bundle.manifest.photo_size)
    drawn = together([Seen(look(captioner, some)[0]) for some in images.values()])
    every: Mapping[str, Seen] = {**known, "known": together(list(known.values())), "left out": away, "drawn": drawn}
    sure = {name: confidences(chosen, one.looked) for name, one in every.items()}
    return {
        "auroc": auroc_interval(sure["left out"], sure["known"]).as_json(),
        "marked": {name: marked(chosen, low_below, one) for name, one in every.items()},
    }


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the run")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--classes", nargs="+", default=CLASSES, metavar="NAME")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def measured() -> dict[str, Any]:
        return measure(
            options.data, options.other, options.work, options.cache, classes=options.classes, epochs=options.epochs
        )

    print_measured(measured, show, as_json=options.json)


def show(document: Mapping[str, Any]) -> None:
    """Print what is marked, as a table."""
    rows = [
        [name, f"{row['photos']:.0f}", f"{row['unfamiliar']:.1%}", f"{row['not_sure']:.1%}"]
        for name, row in document["marked"].items()
    ]
    area = document["auroc"]
    table(
        "marked by a model without " + ", ".join(document["classes"]),
        ["photos", "count", "unfamiliar", "not sure"],
        rows,
        f"AUROC of known photos against left-out ones: {area['estimate']:.3f} ({area['low']:.3f} to {area['high']:.3f})",
    )


if __name__ == "__main__":
    main()
