"""`capprune data`: look at a folder of photos and captions before training on it, or draw one."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.cli.console import bar, emit, json_option, out_option, table


@click.group()
def command() -> None:
    """Check a folder of photos and captions, or draw scenes."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Read the captions, find every photo, count.

    FOLDER holds a Karpathy JSON (Flickr8k, Flickr30k, COCO) or a COCO captions JSON, and the photos in a folder or in
    tar files.

    \b
    Example:
      capprune data check flickr8k
    """
    from capprune.data.captions import load_caption_set, words
    from capprune.data.photos import open_photos

    captions = load_caption_set(folder)
    with open_photos(folder) as store:
        store.require([photo.name for photo in captions.photos])
    splits = []
    for name in captions.splits:
        photos = captions.split(name)
        texts = [words(text) for photo in photos for text in photo.captions]
        splits.append(
            {
                "split": name,
                "photos": len(photos),
                "captions": len(texts),
                "words": len({word for text in texts for word in text}),
                "mean_length": sum(map(len, texts)) / len(texts),
            }
        )

    def show() -> None:
        rows = [
            [str(s["split"]), f"{s['photos']:,}", f"{s['captions']:,}", f"{s['words']:,}", f"{s['mean_length']:.1f}"]
            for s in splits
        ]
        table(
            f"{captions.name}: every photo is there", ["split", "photos", "captions", "words", "words a caption"], rows
        )

    emit({"folder": str(folder), "name": captions.name, "splits": splits}, as_json, show)


@command.command()
@out_option("data set", new=True)
@click.option("--train", type=click.IntRange(1), default=2000, show_default=True, help="Scenes to learn from.")
@click.option(
    "--val", type=click.IntRange(1), default=200, show_default=True, help="Scenes that choose the best epoch."
)
@click.option("--test", type=click.IntRange(1), default=250, show_default=True, help="Scenes to validate on.")
@click.option("--size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Side of a photo, pixels.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed draws the same bytes.")
@json_option
def scenes(out: Path, train: int, val: int, test: int, size: int, seed: int, as_json: bool) -> None:
    """Draw scenes of one to three shapes with five captions each.

    \b
    Example:
      capprune data scenes --out scenes --train 500
    """
    from capprune.data.scenes import draw_scenes

    count = {"train": train, "val": val, "test": test}
    with bar("scenes") as tell:
        drawn = draw_scenes(out, count=count, seed=seed, size=size, progress=tell)
    emit(
        {"folder": str(out), "splits": drawn.splits},
        as_json,
        lambda: click.echo(f"drew {len(drawn.photos)} scenes: {out}"),
    )
