"""Caption photos with several runs at once, to train a smaller model on the captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, given_paths, needs
from capprune.api.datasets import LabelledData, filters_of, share_of_captions
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_folder_place
from capprune_runtime.errors import UsageError

if TYPE_CHECKING:
    from capprune.data.captions import CaptionSet
    from capprune.ensembling import Ensemble, EnsembleScores
    from capprune.labelling.label import ChosenPhotos, LabelSettings

DEFAULT_SPLIT, KEPT_SPLIT = "train", "val"  # the split that is captioned, and the one that keeps its own captions
DEFAULT_SHARES = "80,10,10"


@dataclass(frozen=True)
class EnsembleResult:
    """Captions and scores of an ensemble.

    Attributes:
        runs: Names of the members.
        made: The data set; None if none was asked for.
        scores: Scores on a split; None if none was asked for.
    """

    runs: tuple[str, ...]
    made: LabelledData | None
    scores: EnsembleScores | None

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune ensemble --json` prints."""
        return {
            "runs": list(self.runs),
            "data_set": None if self.made is None else {**self.made.as_json(), "copied": self.made.labelled.copied},
            "scores": None if self.scores is None else self.scores.as_json(),
        }


@needs("ensemble")
def ensemble(
    runs: Place | Sequence[Place],
    *,
    photos: Place | None = None,
    data: Place | None = None,
    out: Place | None = None,
    split: str | Sequence[str] = (),
    score: str | None = None,
    beam: int = 3,
    min_words: int = 3,
    max_words: int = 25,
    min_confidence: float = 0.0,
    keep: float | str = "100%",
    shares: str | None = None,
    limit: int | None = None,
    batch: int = 16,
    link: bool = False,
    licence: str | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> EnsembleResult:
    """Caption photos with several runs, whose probabilities are averaged at every word, and write a data set.

    An interrupted call is resumed.

    Args:
        runs: Runs with one vocabulary; their families, sizes, seeds and encoders may differ.
        photos: Folder of photos without captions, in folders or tar files of any depth.
        data: Data set with splits, instead of `photos`.
        out: Folder for the data set. Without it the ensemble is only scored.
        split: Splits of `data` that are captioned; `train` by default. `val` keeps its own captions.
        score: Split of `data` on which the ensemble and each run are scored.
        beam: Beam width.
        min_words: Minimum number of words of a caption.
        max_words: Maximum number of words of a caption.
        min_confidence: Minimum geometric mean probability of a token, 0 to 1.
        keep: Share of the captions to keep, the most confident first: 0.9 or "90%".
        shares: Shares of train, val and test for `photos`, by hashes of names; "80,10,10" by default.
        limit: Caption only the first `limit` photos; with `data`, of each split.
        batch: Photos per batch.
        link: Link to the photo files instead of copying them.
        licence: Terms of the captions; those of the runs' data by default.
        device: Device of the computation, `auto`, `cpu`, `cuda` or `mps`.
        progress: Receives progress reports.

    Returns:
        The data set and the scores.

    Raises:
        UsageError: The vocabularies of the runs differ, or options contradict each other.
        DataError: There are no photos, a split is empty, or no caption is kept.
        BundleError: A run is broken.
    """
    from capprune.config.training import TrainingConfig
    from capprune.data.split_shares import parse_shares
    from capprune.ensembling import load_ensemble
    from capprune.labelling.label import LabelSettings
    from capprune.training.hardware import chosen_device
    from capprune.training.launch import Place as Position

    splits = (split,) if isinstance(split, str) else tuple(split)
    _check_options(photos, data, out, splits, score, shares)
    if out is not None:
        check_folder_place(given_path(out))
    settings = LabelSettings(
        filters=filters_of(min_words, max_words, min_confidence, None),
        keep=share_of_captions(str(keep)),
        shares=parse_shares(shares or DEFAULT_SHARES),
        batch=batch,
        limit=limit if data is None else None,
        link=link,
        licence=licence,
    )
    chosen_on = chosen_device(TrainingConfig.model_validate({"device": device}), Position())
    captions = None if data is None else _captions(given_path(data), progress)
    photos_of = None if captions is None or out is None else _chosen(captions, splits or (DEFAULT_SPLIT,), limit)
    members = load_ensemble(given_paths(runs), chosen_on)
    progress.say(f"{len(members.runs)} runs with {len(members.vocabulary):,} {members.vocabulary.coding.kind}")
    scores = None
    if captions is not None and score is not None:
        scores = _scores(members, given_path(data or ""), captions, score, limit, beam, batch, progress)
    made = None
    if out is not None:
        made = _written(
            members, given_path(photos or data or ""), given_path(out), settings, beam, photos_of, captions, progress
        )
    return EnsembleResult(members.names, made, scores)


def _check_options(
    photos: Place | None,
    data: Place | None,
    out: Place | None,
    splits: Sequence[str],
    score: str | None,
    shares: str | None,
) -> None:
    if (photos is None) == (data is None):
        found = "neither" if photos is None else "both"
        raise UsageError("the photos are a folder or a data set", expected="--photos or --data", found=found)
    if out is None and score is None:
        raise UsageError("there is nothing to do", expected="--out FOLDER for captions, --score SPLIT, or both")
    for option, given in (("--split", bool(splits)), ("--score", score is not None)):
        if given and data is None:
            raise UsageError("this option needs a data set with splits", where=option, hint="give it with --data")
    if shares is not None and data is not None:
        raise UsageError("a data set keeps its splits", where="--shares", hint="leave it out, or give --photos")


def _captions(folder: Path, progress: Progress) -> CaptionSet:
    from capprune.data.captions import load_caption_set

    captions = load_caption_set(folder)
    for note in captions.notes():
        progress.say(note)
    return captions


def _chosen(captions: CaptionSet, splits: Sequence[str], limit: int | None) -> ChosenPhotos:
    """Return the photos to caption, and those of val, which keep their captions so that scores stay comparable."""
    from capprune.labelling.label import ChosenPhotos

    labelled = [photo for split in dict.fromkeys(splits) for photo in captions.split(split)[:limit]]
    keeps = KEPT_SPLIT in captions.splits and KEPT_SPLIT not in splits
    return ChosenPhotos(labelled, captions.split(KEPT_SPLIT)[:limit] if keeps else ())


def _scores(
    members: Ensemble,
    folder: Path,
    captions: CaptionSet,
    split: str,
    limit: int | None,
    beam: int,
    batch: int,
    progress: Progress,
) -> EnsembleScores:
    from capprune.data.photos import open_photos
    from capprune.ensembling import score_ensemble

    photos = captions.split(split)[:limit]
    with open_photos(folder) as store, progress.bar(f"captions of {split}") as tell:
        return score_ensemble(members, store, photos, beam=beam, batch=batch, progress=tell)


def _written(
    members: Ensemble,
    folder: Path,
    out: Path,
    settings: LabelSettings,
    beam: int,
    chosen: ChosenPhotos | None,
    captions: CaptionSet | None,
    progress: Progress,
) -> LabelledData:
    from dataclasses import replace

    from capprune.ensembling import EnsembleTeacher
    from capprune.labelling.label import label_photos

    teacher = EnsembleTeacher(members, beam)
    facts = teacher.facts
    if captions is not None and captions.labelled_by is not None:  # captions of val, or those that the runs learned
        facts["data_labelled_by"] = captions.labelled_by
    with progress.bar("captions") as tell:
        found = label_photos(folder, out, teacher, replace(settings, facts=facts), tell, chosen=chosen)
    for entry in found.left_out:
        progress.say(f"note: {entry}")
    if found.licence == "unknown":
        progress.say("note: the runs state no licence of their data; --licence TEXT records it")
    return LabelledData(out, found)
