"""Small data sets of drawn scenes in every layout that is read."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from capprune.data.captions import CaptionedPhoto
from capprune.data.scenes import draw_scenes

COUNT = {"train": 8, "val": 3, "test": 3}


@dataclass(frozen=True)
class Drawn:
    """Attributes: the folder of drawn scenes, and what it holds."""

    folder: Path
    photos: tuple[CaptionedPhoto, ...]

    def copy(self, photo: CaptionedPhoto, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / photo.name, to)

    def of(self, split: str) -> Sequence[CaptionedPhoto]:
        return [photo for photo in self.photos if photo.split == split]


def draw(folder: Path) -> Drawn:
    return Drawn(folder, draw_scenes(folder, count=COUNT, seed=1, size=32).photos)


def base(photo: CaptionedPhoto) -> str:
    return photo.name.rpartition("/")[2]


def flickr8k_token(drawn: Drawn, out: Path) -> None:
    _token(drawn, out, out / "Flickr8k.token.txt", "Flicker8k_Dataset")
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        names = "\r\n".join(base(photo) for photo in drawn.of(split))
        (out / f"Flickr_8k.{name}Images.txt").write_text(names, encoding="utf-8")


def flickr30k_token(drawn: Drawn, out: Path) -> None:
    _token(drawn, out, out / "results_20130124.token", "flickr30k-images")


def _token(drawn: Drawn, out: Path, path: Path, photos: str) -> None:
    lines = []
    for photo in drawn.photos:
        drawn.copy(photo, out / photos / base(photo))
        lines += [f"{base(photo)}#{at}\t{caption}\n" for at, caption in enumerate(photo.captions)]
    path.write_text("".join(lines), encoding="utf-8")


def flickr8k_kaggle(drawn: Drawn, out: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["image", "caption"])
    for photo in drawn.photos:
        drawn.copy(photo, out / "Images" / base(photo))
        table.writerows([base(photo), caption] for caption in photo.captions)
    (out / "captions.txt").write_bytes(text.getvalue().encode("utf-8-sig"))


def flickr30k_kaggle(drawn: Drawn, out: Path) -> None:
    lines = ["image_name| comment_number| comment\n"]
    for photo in drawn.photos:
        drawn.copy(photo, out / "flickr30k_images" / "flickr30k_images" / base(photo))
        lines += [f"{base(photo)}| {at}| {caption}\n" for at, caption in enumerate(photo.captions)]
    lines[5] = lines[5].replace("| 4|", "| 4  ")  # as in row 19,999 of the real file
    (out / "flickr30k_images" / "results.csv").write_text("".join(lines), encoding="utf-8")


def coco(drawn: Drawn, out: Path) -> None:
    for split, year in (("train", "train2017"), ("val", "val2017")):
        for photo in drawn.of(split):
            drawn.copy(photo, out / year / base(photo))
        _annotations(drawn.of(split), out / "annotations" / f"captions_{year}.json")
        (out / "annotations" / f"instances_{year}.json").write_text("{}")
    for photo in drawn.of("test"):
        drawn.copy(photo, out / "test2017" / base(photo))


def vizwiz(drawn: Drawn, out: Path) -> None:
    for split in COUNT:
        for photo in drawn.of(split):
            drawn.copy(photo, out / split / base(photo))
        _annotations(drawn.of(split), out / "annotations" / f"{split}.json")


def _annotations(photos: Sequence[CaptionedPhoto], path: Path) -> None:
    images = [{"id": number, "file_name": base(photo)} for number, photo in enumerate(photos)]
    said = [
        {"image_id": number, "caption": caption} for number, photo in enumerate(photos) for caption in photo.captions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": said}))


def karpathy(drawn: Drawn, out: Path) -> None:
    content = json.loads((drawn.folder / "dataset_scenes.json").read_text())
    for photo in drawn.photos:
        drawn.copy(photo, out / "imgs" / base(photo))
    (out / "dataset.json").write_text(json.dumps(content))


def imagefolder_csv(drawn: Drawn, out: Path) -> None:
    for split, folder in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = ["file_name,text"]
        for photo in drawn.of(split):
            drawn.copy(photo, out / folder / base(photo))
            rows.append(f'{base(photo)},"{photo.captions[0]}"')
        (out / folder / "metadata.csv").write_bytes("\r\n".join(rows).encode())


def imagefolder_jsonl(drawn: Drawn, out: Path) -> None:
    rows = []
    for photo in drawn.photos:
        drawn.copy(photo, out / photo.split / base(photo))
        rows.append(json.dumps({"file_name": f"{photo.split}/{base(photo)}", "captions": list(photo.captions)}))
    (out / "metadata.jsonl").write_text("\n".join(rows))


def webdataset(drawn: Drawn, out: Path) -> None:
    for split in COUNT:
        with tarfile.open(out / f"{split}-000000.tar", "w") as tar:
            for photo in drawn.of(split):
                add(tar, base(photo), (drawn.folder / photo.name).read_bytes())
                stem = base(photo).removesuffix(".png")
                add(tar, f"{stem}.txt", photo.captions[0].encode())
                add(tar, f"{stem}.json", json.dumps({"caption": photo.captions[0], "key": stem}).encode())


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def sidecars(drawn: Drawn, out: Path) -> None:
    for photo in drawn.photos:
        drawn.copy(photo, out / base(photo))
        text = "\n".join(photo.captions)
        (out / base(photo)).with_suffix(".txt").write_text(text, encoding="utf-8")


LAYOUTS: dict[str, tuple[str, Callable[[Drawn, Path], None]]] = {
    "flickr8k-token": ("token", flickr8k_token),
    "flickr30k-token": ("token", flickr30k_token),
    "flickr8k-kaggle": ("table", flickr8k_kaggle),
    "flickr30k-kaggle": ("table", flickr30k_kaggle),
    "coco": ("coco", coco),
    "vizwiz": ("vizwiz", vizwiz),
    "karpathy": ("karpathy", karpathy),
    "imagefolder-csv": ("imagefolder", imagefolder_csv),
    "imagefolder-jsonl": ("imagefolder", imagefolder_jsonl),
    "webdataset": ("webdataset", webdataset),
    "sidecars": ("sidecar", sidecars),
}
