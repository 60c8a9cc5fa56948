"""`capprune label`: photos without captions in, a data set with a large model's captions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import bar, echo, emit, json_option, out_option, say

if TYPE_CHECKING:
    from capprune.labelling.filters import Filters
    from capprune.labelling.label import LabelledSet


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, file_okay=False))
@click.option("--teacher", required=True, metavar="hf:ID_OR_FOLDER", help="The model that generates the captions.")
@out_option("data set", new=True)
@click.option("--prompt", help="What the model is asked.  [default: the model's own]")
@click.option("--captions", type=click.IntRange(1, 20), default=1, show_default=True, help="Captions per photo.")
@click.option("--beam", type=click.IntRange(1, 100), default=4, show_default=True, help="Hypotheses kept.")
@click.option("--min-words", type=click.IntRange(1), default=3, show_default=True, help="Of a caption.")
@click.option("--max-words", type=click.IntRange(1), default=25, show_default=True, help="Of a caption.")
@click.option(
    "--min-confidence", type=click.FloatRange(0, 1), default=0.0, help="Geometric mean probability of a token."
)
@click.option("--keep", default="100%", show_default=True, help="Share of the captions, the most confident first.")
@click.option("--language", metavar="CODE", help="Leave out captions in another language, such as en.")
@click.option(
    "--shares", default="80,10,10", show_default=True, metavar="TRAIN,VAL,TEST", help="Splits, by hashes of names."
)
@click.option("--limit", type=click.IntRange(1), help="Only the first photos.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Photos the model sees at once.")
@click.option("--link", is_flag=True, help="Link to the photo files instead of copying them.")
@click.option("--licence", help="Terms of the captions.  [default: the model's, if its README states them]")
@json_option
def command(photos: Path, teacher: str, out: Path, **options: Any) -> None:
    """Caption a folder of photos with a large model and write a data set that `train` reads.

    PHOTOS is a folder with photos, in folders or tar files of any depth. The model is an image captioning or
    vision-language model of the transformers library: a folder that save_pretrained wrote, or an id on the Hugging Face Hub.
    Captions that are too short, too long, repetitive or in another language are left out and counted. An interrupted command
    goes on where it stopped. The model's name and licence are written into every bundle made from these captions.

    \b
    Example:
      capprune label holiday-photos --teacher hf:Salesforce/blip-image-captioning-base --language en --out labelled
      capprune train configs/flickr8k_sparse.yaml data.folder=labelled --out runs/own
    """
    from capprune.data.split_shares import parse_shares
    from capprune.labelling.label import LabelSettings, label_photos
    from capprune.labelling.teacher import Generation, open_teacher
    from capprune_runtime.atomic import check_folder_place

    check_folder_place(out)
    settings = LabelSettings(
        filters=_filters(options),
        keep=_share(options["keep"]),
        shares=parse_shares(options["shares"]),
        batch=options["batch"],
        limit=options["limit"],
        link=options["link"],
        licence=options["licence"],
    )
    say(f"opening {teacher}")
    opened = open_teacher(teacher, Generation(options["prompt"], options["captions"], options["beam"]))
    with bar("captions") as tell:
        found = label_photos(photos, out, opened, settings, tell)
    for entry in found.left_out:
        say(f"note: {entry}")
    if found.licence == "unknown":
        say("note: the model states no licence of its captions; --licence TEXT records it")
    document = {"folder": str(out), "teacher": found.teacher, "licence": found.licence, "captions": found.captions}
    notes = [entry.as_json() for entry in found.left_out]
    emit(
        {**document, "splits": dict(found.splits), "generated": found.generated, "left_out": notes},
        options["as_json"],
        lambda: _show(found, out),
    )


def _show(found: LabelledSet, out: Path) -> None:
    sizes = ", ".join(f"{size:,} {split}" for split, size in found.splits.items())
    echo(f"{found.captions:,} captions of {sum(found.splits.values()):,} photos ({sizes}) by {found.teacher}: {out}")
    echo(f"next: capprune data check {out}")


def _filters(options: dict[str, Any]) -> Filters:
    from capprune.labelling.filters import Filters, languages
    from capprune_runtime.errors import UsageError

    least, most, language = options["min_words"], options["max_words"], options["language"]
    if least > most:
        raise UsageError(
            "no caption is that long", where="--min-words", expected=f"at most --max-words {most}", found=least
        )
    if language is not None and language not in languages():
        raise UsageError(
            "this language is not known", where="--language", expected=", ".join(languages()), found=language
        )
    return Filters(least, most, options["min_confidence"], language)


def _share(text: str) -> float:
    from capprune_runtime.errors import UsageError

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageError(
            "this is no share of captions", where="--keep", expected="above 0 and at most 100%", found=text
        )
    return share
