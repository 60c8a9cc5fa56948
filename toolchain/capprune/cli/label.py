"""`capprune label`: caption photos with a large model, as a data set for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.api.datasets import label
from capprune.cli.caption_filters import caption_filters
from capprune.cli.console import echo, emit, json_option, out_option
from capprune.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from capprune.labelling.label import LabelledSet


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, file_okay=False))
@click.option("--teacher", required=True, metavar="hf:ID_OR_FOLDER", help="The model that generates the captions.")
@out_option("data set", new=True)
@click.option("--prompt", help="Prompt for the model.  [default: the model's own]")
@click.option("--captions", type=click.IntRange(1, 20), default=1, show_default=True, help="Captions per photo.")
@click.option("--beam", type=click.IntRange(1, 100), default=4, show_default=True, help="Beam width.")
@caption_filters
@click.option(
    "--language", metavar="CODE", help="Language of the captions, such as en; captions in others are left out."
)
@click.option(
    "--shares",
    default="80,10,10",
    show_default=True,
    metavar="TRAIN,VAL,TEST",
    help="Shares of the splits, which are made by hashes of names.",
)
@click.option("--limit", type=click.IntRange(1), help="Caption only the first N photos.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Photos per batch.")
@click.option("--link", is_flag=True, help="Link to the photo files instead of copying them.")
@click.option("--licence", help="Terms of the captions.  [default: the model's, if its README states them]")
@json_option
def command(photos: Path, teacher: str, out: Path, **options: Any) -> None:
    """Caption a folder of photos with a large model and write a data set that `train` reads.

    PHOTOS is a folder with photos, in folders or tar files of any depth. The model is an image captioning or
    vision-language model of the transformers library: a folder that save_pretrained wrote, or an id on the Hugging Face Hub.
    Captions that are too short, too long, repetitive or in another language are left out and counted. The same command
    resumes after an interruption. The model's name and licence are written into every bundle made from these captions.

    \b
    Example:
      capprune label holiday-photos --teacher hf:Salesforce/blip-image-captioning-base --language en --out labelled
      capprune train configs/flickr8k_sparse.yaml data.folder=labelled --out runs/own
    """
    as_json = options.pop("as_json")
    made = label(photos, teacher=teacher, out=out, progress=TerminalProgress(), **options)
    emit(made.as_json(), as_json, lambda: _show(made.labelled, out))


def _show(found: LabelledSet, out: Path) -> None:
    sizes = ", ".join(f"{size:,} {split}" for split, size in found.splits.items())
    echo(f"{found.captions:,} captions of {sum(found.splits.values()):,} photos ({sizes}) by {found.teacher}: {out}")
    echo(f"next: capprune data check {out}")
