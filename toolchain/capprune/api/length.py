"""Choose how long the captions of a run are, by their scores on photos with captions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, given_paths, needs
from capprune.api.run import Run
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_folder_place

if TYPE_CHECKING:
    from capprune.lengths import Length


@dataclass(frozen=True)
class LengthResult:
    """What was measured of every length, and the run with the chosen one.

    Attributes:
        run: The new run.
        photos: Number of photos.
        rows: One row for each penalty.
        chosen: The row of the new run.
    """

    run: Run
    photos: int
    rows: tuple[Length, ...]
    chosen: Length

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune length --json` prints."""
        return {
            "run": str(self.run.folder),
            "photos": self.photos,
            "rows": [row.as_json() for row in self.rows],
            "chosen": self.chosen.as_json(),
        }


@needs("length")
def length(
    run: Place,
    *,
    data: Place | Sequence[Place],
    out: Place,
    split: str = "val",
    beam: int = 3,
    limit: int | None = None,
    batch: int = 16,
    progress: Progress = SILENT,
) -> LengthResult:
    """Choose how long the captions of a run are, and write the run with that length.

    The captions of photos are searched with several penalties on the score of `<end>`, and the penalty with the best CIDEr-D
    is subtracted from the decoder's bias. A penalty that makes more captions stop at a word such as *a* is not chosen.

    Args:
        run: The run, trained and pruned to its end.
        data: Data sets with captions; several are scored together.
        out: Folder for the new run.
        split: Split of the data sets, which should not be the one that the model is finally scored on.
        beam: Beam width.
        limit: Use only the first `limit` photos of each data set.
        batch: Photos per batch.
        progress: Receives progress reports.

    Returns:
        The new run and what was measured.

    Raises:
        UsageError: The run reads region features, its decoder has no score of the end, or `out` exists.
        DataError: A split is empty, or a photo cannot be read.
        BundleError: The run is broken.
    """
    from capprune.data.captions import load_caption_set
    from capprune.data.photos import open_photos
    from capprune.lengths import Shown, best_length, compare_lengths, write_length
    from capprune.training.run import load_run

    place = given_path(out)
    check_folder_place(place)
    loaded = load_run(given_path(run))
    folders = given_paths(data if isinstance(data, Sequence) and not isinstance(data, str) else [data])
    with ExitStack() as stack:
        shown = [
            Shown(stack.enter_context(open_photos(folder)), load_caption_set(folder).split(split)[:limit])
            for folder in folders
        ]
        with progress.bar(f"captions of {split}") as tell:
            rows = compare_lengths(loaded, shown, beam=beam, batch=batch, tell=tell)
    chosen = best_length(rows)
    write_length(loaded, chosen.penalty, place)
    return LengthResult(Run(place), sum(len(one.photos) for one in shown), tuple(rows), chosen)


def describe(result: LengthResult) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the table that `capprune length` prints."""
    columns = ["penalty", "CIDEr-D", "change", "words", "bad endings"]
    return columns, [
        [
            f"{row.penalty:g}{' (chosen)' if row == result.chosen else ''}",
            f"{row.cider_d:.3f}",
            _change(row),
            f"{row.words:.1f}",
            f"{row.bad_ending_share:.1%}",
        ]
        for row in result.rows
    ]


def _change(row: Length) -> str:
    relative = row.change.relative
    if row.penalty == 0 or relative is None:
        return ""
    return f"{relative.estimate:+.1%} [{relative.low:+.1%}, {relative.high:+.1%}]"
