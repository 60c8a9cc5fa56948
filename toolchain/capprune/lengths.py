"""Chooses how long the captions of a trained run are: a constant less on the score of the end of a caption.

A beam search prefers short captions, because every further word lowers the probability of a caption, and rewards of whole
captions (SCST) shorten them more. The score of `<end>` is one number of the decoder's bias, so a change of it works in every
export and runtime, and needs no training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from capprune.data.captions import CaptionedPhoto
from capprune.data.photos import PhotoStore
from capprune.ensembling import Ensemble
from capprune.metrics.health import caption_health
from capprune.metrics.intervals import Change, bootstrap_change
from capprune.metrics.scores import chosen_tokenizer, score
from capprune.models.caption_model import GridEncoder
from capprune.models.family import Decoder
from capprune.training.run import (
    BEST,
    CONFIG,
    METRICS,
    SUBWORDS,
    VOCABULARY,
    LoadedRun,
    read_checkpoint,
    save_checkpoint,
)
from capprune_runtime.atomic import atomic_folder
from capprune_runtime.bundle.vocabulary import END
from capprune_runtime.errors import UsageError
from capprune_runtime.photo import decode_photo

PENALTIES: Final = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # nats that are subtracted from the score of <end>
OUTPUT: Final = "output"  # the module of every family of capprune that gives the scores of words
BIAS: Final = f"{OUTPUT}.bias"
FACT: Final = "end_penalty"  # of the checkpoint: the sum of all penalties
MOST_BAD_ENDINGS: Final = 0.004  # share of captions that a penalty may add; longer captions stop at "a" more often


@dataclass(frozen=True)
class Length:
    """Captions with one penalty.

    Attributes:
        penalty: What was subtracted from the score of `<end>`, in nats.
        cider_d: Mean CIDEr-D of all photos.
        words: Mean number of words of a caption.
        bad_ending_share: Share of captions that stop at a word such as *a* or *of*.
        change: Change of CIDEr-D against no penalty, paired by photo.
    """

    penalty: float
    cider_d: float
    words: float
    bad_ending_share: float
    change: Change

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return {**asdict(self), "change": self.change.as_json()}


@dataclass(frozen=True)
class Shown:
    """Photos with captions of one data set.

    Attributes:
        store: Their files.
        photos: Their names and captions.
    """

    store: PhotoStore
    photos: Sequence[CaptionedPhoto]


def compare_lengths(
    run: LoadedRun, shown: Sequence[Shown], *, beam: int, batch: int, tell: Callable[[int, int], None]
) -> list[Length]:
    """Caption photos with every penalty.

    Args:
        run: A run that reads photos.
        shown: Photos of one or more data sets, each scored with its own frequencies of words.
        beam: K, the beam width.
        batch: Photos captioned together.
        tell: Called with the number of finished photos and of all photos.

    Raises:
        UsageError: The run cannot be used.
        DataError: A photo is missing or cannot be read.
    """
    end = _end_bias(run)
    members, before = Ensemble([run]), float(end)
    said: dict[float, list[dict[str, str]]] = {penalty: [{} for _ in shown] for penalty in PENALTIES}
    total, done = sum(len(one.photos) for one in shown), 0
    for number, one in enumerate(shown):
        names = [photo.name for photo in one.photos]
        one.store.require(names)
        for start in range(0, len(names), batch):
            some = names[start : start + batch]
            encoded = members.encode([decode_photo(one.store.read(name), name) for name in some])
            for penalty, captions in said.items():
                end.fill_(before - penalty)
                tokens = members.search(encoded, beam).tokens
                captions[number] |= {
                    name: members.vocabulary.caption(ids) for name, ids in zip(some, tokens, strict=True)
                }
            done += len(some)
            tell(done, total)
    end.fill_(before)
    scores = {penalty: _scores(shown, captions) for penalty, captions in said.items()}
    return [_row(penalty, said[penalty], own, scores[0.0]) for penalty, own in scores.items()]


def best_length(rows: Sequence[Length]) -> Length:
    """Return the row with the best CIDEr-D among those that do not add more than `MOST_BAD_ENDINGS`."""
    usual = next(row.bad_ending_share for row in rows if row.penalty == 0)
    allowed = [row for row in rows if row.bad_ending_share <= usual + MOST_BAD_ENDINGS]
    return max(allowed, key=lambda row: row.cider_d)


def write_length(run: LoadedRun, penalty: float, out: Path) -> None:
    """Write a copy of a run whose captions are longer or shorter.

    Args:
        run: The run.
        penalty: What is subtracted from the score of `<end>`, in nats.
        out: Folder to create.

    Raises:
        UsageError: `out` exists.
    """
    saved = read_checkpoint(run.folder / BEST)
    tensors = dict(saved.tensors)
    bias = tensors[BIAS].clone()
    bias[END] -= penalty
    tensors[BIAS] = bias
    facts = {**saved.facts, FACT: str(float(saved.facts.get(FACT, 0)) + penalty)}
    with atomic_folder(out) as folder:
        for name in (CONFIG, VOCABULARY, METRICS, SUBWORDS):
            if (run.folder / name).is_file():
                shutil.copyfile(run.folder / name, folder / name)
        save_checkpoint(folder / BEST, tensors, facts)


def _end_bias(run: LoadedRun) -> Tensor:
    """Return the score of `<end>` in the bias of a run's decoder; writing to it changes the decoder."""
    if not isinstance(run.model.encoder, GridEncoder):
        raise UsageError(
            "the length of captions is chosen on photos, and this run reads region features",
            where=run.folder,
            expected="a run whose encoder reads photos",
        )
    bias = _output_bias(run.model.decoder)
    if bias is None:
        raise UsageError(
            "this decoder has no score of the end that could be changed",
            where=f"{run.folder}: decoder.family {run.config.decoder.family}",
            expected=f"a linear module {OUTPUT} with a bias",
        )
    return bias.detach()[END]


def _output_bias(decoder: Decoder) -> Tensor | None:
    output = getattr(decoder, OUTPUT, None)
    return output.bias if isinstance(output, nn.Linear) else None


def _scores(shown: Sequence[Shown], said: Sequence[Mapping[str, str]]) -> list[float]:
    """Return CIDEr-D of all photos."""
    found: list[float] = []
    for one, captions in zip(shown, said, strict=True):
        human = {photo.name: photo.captions for photo in one.photos}
        tokenizer = chosen_tokenizer("auto", [caption for own in human.values() for caption in own])
        found += score(human, captions, tokenizer=tokenizer, meteor=False).per_photo_cider
    return found


def _row(penalty: float, said: Sequence[Mapping[str, str]], own: Sequence[float], usual: Sequence[float]) -> Length:
    health = caption_health([caption for captions in said for caption in captions.values()])
    mean = float(torch.tensor(own, dtype=torch.float64).mean())
    return Length(penalty, mean, health.mean_words, health.bad_ending_share, bootstrap_change(usual, own))
