"""`capprune ensemble`: caption photos with several runs at once, as a data set for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.api.ensemble import EnsembleResult, ensemble
from capprune.cli.caption_filters import caption_filters
from capprune.cli.console import Place, echo, emit, json_option, out_option, table
from capprune.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from capprune.ensembling import EnsembleScores
    from capprune.metrics.intervals import Interval


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Place(file_okay=False), metavar="RUN...")
@click.option("--photos", type=Place(file_okay=False), help="Folder of photos without captions.")
@click.option("--data", type=Place(file_okay=False), help="Data set with captions and splits, instead of --photos.")
@out_option("data set; without it the ensemble is only scored", new=True, required=False)
@click.option(
    "--split", multiple=True, help="Split of --data to caption; can be given several times.  [default: train]"
)
@click.option("--score", metavar="SPLIT", help="Score the ensemble and each run on a split of --data.")
@click.option("--beam", type=click.IntRange(1, 100), default=3, show_default=True, help="Beam width.")
@caption_filters
@click.option(
    "--shares",
    metavar="TRAIN,VAL,TEST",
    help="Shares of the splits of --photos, which are made by hashes of names.  [default: 80,10,10]",
)
@click.option("--limit", type=click.IntRange(1), help="Caption only the first N photos; with --data, of each split.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Photos per batch.")
@click.option("--link", is_flag=True, help="Link to the photo files instead of copying them.")
@click.option("--licence", help="Terms of the captions.  [default: those of the runs' data]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Device of the computation.",
)
@json_option
def command(runs: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Caption photos with several runs at once, and write a data set that `train` reads.

    The runs' probabilities are averaged at every word of the beam search. Their families, sizes, seeds and encoders may
    differ; their vocabulary is one. The same command resumes after an interruption. With --data, the photos of val keep
    their own captions, and --score compares the ensemble with each of its runs.

    \b
    Example:
      capprune ensemble runs/a runs/b runs/c --data flickr8k --score val --out taught
      capprune train configs/flickr8k_sparse.yaml data.folder=taught --out runs/small
    """
    found = ensemble(runs, progress=TerminalProgress(), **options)
    emit(found.as_json(), as_json, lambda: _show(found))


def _show(found: EnsembleResult) -> None:
    if found.scores is not None:
        _show_scores(found.scores)
    if found.made is None:
        return
    labelled, folder = found.made.labelled, found.made.folder
    sizes = ", ".join(f"{size:,} {split}" for split, size in labelled.splits.items())
    kept = f"; {labelled.copied:,} photos keep their own" if labelled.copied else ""
    echo(f"{labelled.captions:,} captions by {labelled.teacher} ({sizes}){kept}: {folder}")
    echo(f"next: capprune train CONFIG data.folder={folder} --out RUN")


def _show_scores(scores: EnsembleScores) -> None:
    rows = [["ensemble", *_cells(scores.cider_d), ""]]
    for one in scores.members:
        gain = one.gain.difference
        rows.append([one.name, *_cells(one.cider_d), f"{gain.estimate:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"])
    title = f"{scores.split}, {scores.photos:,} photos, beam {scores.beam}, {scores.tokenizer} tokens"
    table(title, ["run", "CIDEr-D", "95 % interval", "gain of the ensemble"], rows)


def _cells(interval: Interval) -> tuple[str, str]:
    return f"{interval.estimate:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"
