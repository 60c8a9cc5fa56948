"""Check, import, draw and label data sets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_folder_place, write_text
from capprune_runtime.errors import UsageError

if TYPE_CHECKING:
    from capprune.data.captions import CaptionSet
    from capprune.data.checking import DataCheck
    from capprune.data.left_out import LeftOut
    from capprune.labelling.filters import Filters
    from capprune.labelling.label import LabelledSet

SCENES = {"train": 2000, "val": 200, "test": 250}  # default numbers of scenes
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ImportedData:
    """A converted data set.

    Attributes:
        folder: Folder of the new data set.
        captions: The original data set without the photos that were left out.
        left_out: What was left out or renamed, by reason.
    """

    folder: Path
    captions: CaptionSet
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune data import --json` prints."""
        return {
            "folder": str(self.folder),
            "layout": self.captions.layout,
            "splits": self.captions.splits,
            "notes": [entry.as_json() for entry in self.left_out],
            "splits_made": self.captions.splits_made,
        }


@dataclass(frozen=True)
class DrawnScenes:
    """Drawn scenes.

    Attributes:
        folder: Folder of the data set.
        splits: Number of scenes in each split.
    """

    folder: Path
    splits: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune data scenes --json` prints."""
        return {"folder": str(self.folder), "splits": self.splits}


@dataclass(frozen=True)
class LabelledData:
    """A data set with generated captions.

    Attributes:
        folder: Folder of the data set.
        labelled: Facts about its captions.
    """

    folder: Path
    labelled: LabelledSet

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune label --json` prints."""
        found = self.labelled
        return {
            "folder": str(self.folder),
            "teacher": found.teacher,
            "licence": found.licence,
            "captions": found.captions,
            "splits": dict(found.splits),
            "generated": found.generated,
            "left_out": [entry.as_json() for entry in found.left_out],
        }


@needs("data")
def check_data(
    folder: Place,
    *,
    layout: str | None = None,
    report: Place | None = None,
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> DataCheck:
    """Read the captions, decode every photo, and find photos that are in two splits.

    Args:
        folder: Captions and photos in any usual layout.
        layout: Layout to read if the folder holds several.
        report: A `.json` file for the full report.
        cache: Folder of earlier results; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Returns:
        The findings; `ready` is whether training can run.

    Raises:
        UsageError: The folder does not exist, or `report` is another existing file.
        DataError: There are no readable captions.
    """
    from capprune.data import checking
    from capprune.data.cache_folder import default_cache

    place = optional_path(report)
    if place is not None:
        _refuse_other_files(place)
    with progress.bar("photos") as tell:
        found = checking.check_data(
            given_path(folder), layout=layout, cache=optional_path(cache) or default_cache(), progress=tell
        )
    if place is not None:
        write_text(place, json.dumps({"schema_version": SCHEMA_VERSION, **found.as_json()}, indent=2) + "\n")
    return found


def _refuse_other_files(report: Path) -> None:
    """Check that `report` is a new file or an earlier report."""
    from capprune.data.checking import KIND

    if report.suffix.lower() != ".json":
        raise UsageError("a report is a .json file", where="--report", found=str(report))
    if not report.exists():
        return
    try:
        earlier = json.loads(report.read_bytes())
    except (OSError, ValueError, RecursionError):
        earlier = None
    if not isinstance(earlier, dict) or earlier.get("kind") != KIND:
        raise UsageError("this file exists and is not a report", where=report, hint="choose another name for --report")


@needs("data")
def import_data(
    folder: Place,
    *,
    out: Place,
    layout: str | None = None,
    shares: str | None = None,
    val: str | None = None,
    drop_broken: bool = False,
    link: bool = False,
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> ImportedData:
    """Convert a data set of any layout to Karpathy's JSON and a folder of photos.

    Args:
        folder: The data set.
        out: Folder for the new data set.
        layout: Layout to read if the folder holds several.
        shares: Shares of train, val and test, such as "80,10,10"; makes splits by hashes of the photos' names.
        val: Percentage of train to use as val, such as "10".
        drop_broken: Leave out photos that are missing or cannot be decoded.
        link: Link to the photo files instead of copying them.
        cache: Folder of earlier results; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: The folder does not exist, or shares are invalid.
        DataError: There are no readable captions, or photos are broken and `drop_broken` is False.
    """
    from capprune.data import importing
    from capprune.data.cache_folder import default_cache
    from capprune.data.split_shares import parse_share, parse_shares

    check_folder_place(given_path(out), new=False)
    if shares is not None and val is not None:
        raise UsageError("two ways to make splits", expected="--shares or --val", found="both")
    of_all, of_train = None if shares is None else parse_shares(shares), None if val is None else parse_share(val)
    settings = importing.ImportSettings(layout, of_all, drop_broken, link, of_train)
    with progress.bar("photos") as tell:
        imported = importing.import_data(
            given_path(folder), given_path(out), settings, cache=optional_path(cache) or default_cache(), progress=tell
        )
    for line in imported.captions.notes():
        progress.say(line)
    return ImportedData(given_path(out), imported.captions, imported.left_out)


@needs("data")
def draw_scenes(
    *,
    out: Place,
    train: int = SCENES["train"],
    val: int = SCENES["val"],
    test: int = SCENES["test"],
    size: int = 224,
    seed: int = 1,
    progress: Progress = SILENT,
) -> DrawnScenes:
    """Draw scenes of one to three shapes with five captions each.

    Args:
        out: Folder for the data set.
        train: Number of training scenes.
        val: Number of validation scenes.
        test: Number of test scenes.
        size: Side of a photo in pixels.
        seed: Random seed; the same seed draws the same bytes.
        progress: Receives progress reports.

    Raises:
        UsageError: `out` is not empty or cannot be written to.
    """
    from capprune.data import scenes

    folder, count = given_path(out), {"train": train, "val": val, "test": test}
    check_folder_place(folder, new=True)
    with progress.bar("scenes") as tell:
        drawn = scenes.draw_scenes(folder, count=count, seed=seed, size=size, progress=tell)
    return DrawnScenes(folder, drawn.splits)


@needs("label")
def label(
    photos: Place,
    *,
    teacher: str,
    out: Place,
    prompt: str | None = None,
    captions: int = 1,
    beam: int = 4,
    min_words: int = 3,
    max_words: int = 25,
    min_confidence: float = 0.0,
    keep: float | str = "100%",
    language: str | None = None,
    shares: str = "80,10,10",
    limit: int | None = None,
    batch: int = 4,
    link: bool = False,
    licence: str | None = None,
    progress: Progress = SILENT,
) -> LabelledData:
    """Caption photos with a large model and write a data set that `train` reads. An interrupted call is resumed.

    Args:
        photos: Folder of photos, in folders or tar files of any depth.
        teacher: `hf:` and the folder or the Hub id of a captioning or vision-language model of transformers.
        out: Folder for the data set.
        prompt: Prompt for the model; the model's own by default.
        captions: Captions per photo.
        beam: Beam width.
        min_words: Minimum number of words of a caption.
        max_words: Maximum number of words of a caption.
        min_confidence: Minimum geometric mean probability of a token, 0 to 1.
        keep: Share of the captions to keep, the most confident first: 0.9 or "90%".
        language: Language of the captions, such as `en`; captions in others are left out.
        shares: Shares of train, val and test, such as "80,10,10"; splits are made by hashes of names.
        limit: Caption only the first `limit` photos.
        batch: Photos per batch.
        link: Link to the photo files instead of copying them.
        licence: Terms of the captions; the model's, if its README states them, by default.
        progress: Receives progress reports.

    Raises:
        UsageError: A limit or the language is invalid, or `out` cannot be written to.
        DataError: There are no photos, or no caption is kept.
    """
    from capprune.data.split_shares import parse_shares
    from capprune.labelling.label import LabelSettings, label_photos
    from capprune.labelling.teacher import Generation, open_teacher

    folder = given_path(out)
    check_folder_place(folder)
    settings = LabelSettings(
        filters=filters_of(min_words, max_words, min_confidence, language),
        keep=share_of_captions(str(keep)),
        shares=parse_shares(shares),
        batch=batch,
        limit=limit,
        link=link,
        licence=licence,
    )
    progress.say(f"opening {teacher}")
    opened = open_teacher(teacher, Generation(prompt, captions, beam))
    with progress.bar("captions") as tell:
        found = label_photos(given_path(photos), folder, opened, settings, tell)
    for entry in found.left_out:
        progress.say(f"note: {entry}")
    if found.licence == "unknown":
        progress.say("note: the model states no licence of its captions; --licence TEXT records it")
    return LabelledData(folder, found)


def filters_of(least: int, most: int, min_confidence: float, language: str | None) -> Filters:
    """Return the filters of captions, after a check of the options of `label` and `ensemble`.

    Raises:
        UsageError: A limit or the language is invalid.
    """
    from capprune.labelling.filters import Filters, languages

    if least > most:
        raise UsageError(
            "the minimum exceeds the maximum", where="--min-words", expected=f"at most --max-words {most}", found=least
        )
    if language is not None and language not in languages():
        raise UsageError(
            "this language is not known", where="--language", expected=", ".join(languages()), found=language
        )
    return Filters(least, most, min_confidence, language)


def share_of_captions(text: str) -> float:
    """Return a share such as 0.9 or "90%" as a number.

    Raises:
        UsageError: It is not above 0 and at most 100 %.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageError(
            "this is not a share of captions", where="--keep", expected="above 0 and at most 100%", found=text
        )
    return share
