"""Several trained runs as one captioner and teacher: their probabilities are averaged at every word of a beam search.

Encoders that several members share run once per photo. Features are computed in float32 and are not cached, so that one
run alone generates exactly its own captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from capprune.data.captions import CaptionedPhoto
from capprune.data.photos import PhotoStore
from capprune.labelling.label import Progress
from capprune.labelling.teacher import Label
from capprune.metrics.intervals import Change, Interval, bootstrap_change, bootstrap_mean
from capprune.metrics.scores import Scores, chosen_tokenizer, score
from capprune.models.caption_model import CPU, FeatureExtractor, GridEncoder
from capprune.models.ensemble import Encoded, ensemble_beam
from capprune.models.search import Captions
from capprune.training.run import LoadedRun, load_run
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import UsageError
from capprune_runtime.photo import decode_photo, resize

LONGEST_NAME: Final = 80  # characters of the names of all members in a licence, which has at most 200


class Ensemble:
    """Trained runs with one vocabulary.

    Args:
        runs: At least one run.
        device: Device of the computation.

    Raises:
        UsageError: There is no run, the vocabularies differ, or a run needs region features.
    """

    def __init__(self, runs: Sequence[LoadedRun], device: torch.device = CPU) -> None:
        if not runs:
            raise UsageError("an ensemble needs at least one run", where="RUN...")
        self.runs, self._device = tuple(runs), device
        for run in self.runs:
            _check_member(run, self.runs[0])
        self._decoders = [run.model.decoder.to(device) for run in self.runs]
        eyes = [_extractor(run, device) for run in self.runs]
        self._eyes = {eye.key: eye for eye in reversed(eyes)}
        self._keys = [eye.key for eye in eyes]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members' folders."""
        return tuple(run.folder.resolve().name for run in self.runs)

    @property
    def encoders(self) -> tuple[FeatureExtractor, ...]:
        """The different encoders of the members."""
        return tuple(self._eyes.values())

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of all members."""
        return self.runs[0].vocabulary

    @cached_property
    def identity(self) -> str:
        """Digest of the members' weights, encoders and limits, and of their vocabulary."""
        digest = hashlib.sha256(self.vocabulary.as_text().encode())
        digest.update(repr((self._keys, max_tokens(self.runs), no_repeat_ngram(self.runs))).encode())
        for decoder in self._decoders:
            for name, value in sorted(decoder.state_dict().items()):
                digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.inference_mode()
    def encode(self, photos: Sequence[npt.NDArray[np.uint8]]) -> list[Encoded]:
        """Return what each member keeps of the photos.

        Args:
            photos: Each `(H, W, 3)` RGB.
        """
        seen = [torch.from_numpy(one).to(self._device) for one in self.features(photos)]
        return [decoder.encode(own) for decoder, own in zip(self._decoders, seen, strict=True)]

    def features(self, photos: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """Return the features `(P, R, F)` of photos for each member; those with one encoder share an array."""
        shown = {
            size: np.stack([resize(photo, size) for photo in photos]) for size in {eye.size for eye in self.encoders}
        }
        seen = {eye.key: eye(shown[eye.size]) for eye in self.encoders}
        return [seen[key] for key in self._keys]

    def search(self, encoded: Sequence[Encoded], beam: int, members: Sequence[int] | None = None) -> Captions:
        """Generate captions of encoded photos.

        Args:
            encoded: Result of `encode`.
            beam: K, the beam width.
            members: Positions of the members that take part; all by default.
        """
        chosen = range(len(self.runs)) if members is None else members
        runs = [self.runs[member] for member in chosen]
        return ensemble_beam(
            [self._decoders[member] for member in chosen],
            [encoded[member] for member in chosen],
            max_tokens(runs),
            beam,
            no_repeat_ngram=no_repeat_ngram(runs),
        )


def max_tokens(runs: Sequence[LoadedRun]) -> int:
    """Return the length of the longest caption that every run can generate, in tokens."""
    return min(run.config.data.steps for run in runs)


def no_repeat_ngram(runs: Sequence[LoadedRun]) -> int:
    """Return the strictest limit of repetition among runs; 0 if none has one."""
    return min((n for run in runs if (n := run.config.search.no_repeat_ngram)), default=0)


def load_ensemble(folders: Sequence[Path], device: torch.device = CPU) -> Ensemble:
    """Read runs into an ensemble.

    Args:
        folders: The runs' folders.
        device: Device of the computation.

    Raises:
        UsageError: There is no such run, the vocabularies differ, or a run needs region features.
        BundleError: A run is broken.
    """
    return Ensemble([load_run(folder) for folder in folders], device)


def _check_member(run: LoadedRun, first: LoadedRun) -> None:
    if not isinstance(run.model.encoder, GridEncoder):
        raise UsageError(
            "a run on region features cannot be part of an ensemble",
            where=run.folder,
            expected="runs whose encoder reads photos",
            found=f"encoder.name {run.config.encoder.name}",
        )
    if run.vocabulary == first.vocabulary:
        return
    own, other = run.vocabulary, first.vocabulary
    same = len(set(own.tokens) & set(other.tokens))
    raise UsageError(
        "the runs of an ensemble have one vocabulary, and these differ",
        where=run.folder,
        expected=f"the {len(other):,} {other.coding.kind} of {first.folder}",
        found=f"{len(own):,} {own.coding.kind}, {same:,} of them the same",
        hint=f"train the members on the same captions, or with data.vocabulary={first.folder}",
    )


def _extractor(run: LoadedRun, device: torch.device) -> FeatureExtractor:
    assert isinstance(run.model.encoder, GridEncoder)
    return FeatureExtractor(run.model.encoder, device)


class EnsembleTeacher:
    """An ensemble as a teacher; see `capprune.labelling.teacher.Teacher`.

    Args:
        ensemble: The runs.
        beam: K, the beam width.
    """

    longest_side = None  # the encoders' own preprocessing needs the whole photo

    def __init__(self, ensemble: Ensemble, beam: int) -> None:
        self._ensemble, self._beam = ensemble, beam

    @property
    def name(self) -> str:
        """The names of all runs, or of the first ones if they are long."""
        return _named(self._ensemble.names)

    @property
    def licence(self) -> str | None:
        """The terms of the data that the runs were trained on; None if no run states any."""
        stated = dict.fromkeys(run.config.data.licence for run in self._ensemble.runs)
        known = [licence for licence in stated if licence != "unknown"]
        return "; ".join(known) or None

    @property
    def identity(self) -> str:
        """Key of the ensemble and the beam width."""
        return f"{self._ensemble.identity}-{self._beam}"

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the members for the data set."""
        runs = [
            {"name": name, "licence": run.config.data.licence, "decoder": run.model.decoder.describe()}
            for name, run in zip(self._ensemble.names, self._ensemble.runs, strict=True)
        ]
        return {"runs": runs, "beam": self._beam}

    def captions(self, photos: Sequence[Image.Image], /) -> list[list[Label]]:
        """Generate the most probable caption of each photo."""
        found = self._ensemble.search(self._ensemble.encode([np.asarray(photo) for photo in photos]), self._beam)
        return [
            [Label(self._ensemble.vocabulary.caption(tokens), total / self._words(tokens))]
            for tokens, total in zip(found.tokens, found.log_probabilities, strict=True)
        ]

    def _words(self, tokens: Sequence[int]) -> int:
        """Return the number of generated tokens; `<end>` is one of them."""
        return len(tokens) + (len(tokens) < max_tokens(self._ensemble.runs))


def _named(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > LONGEST_NAME:
        shown.pop()
    left = len(names) - len(shown)
    if left:
        return f"an ensemble of {', '.join(shown)} and {left} more"[: 2 * LONGEST_NAME]
    return f"an ensemble of {', '.join(shown[:-1])} and {shown[-1]}"


@dataclass(frozen=True)
class MemberScore:
    """CIDEr-D of a member alone.

    Attributes:
        name: Name of the run's folder.
        cider_d: Mean over the photos, with its interval.
        gain: What the ensemble adds, with an interval over the same photos.
    """

    name: str
    cider_d: Interval
    gain: Change


@dataclass(frozen=True)
class EnsembleScores:
    """Scores of an ensemble on a split, beside each member alone.

    Attributes:
        split: Name of the split.
        photos: Number of photos.
        beam: The beam width.
        tokenizer: Tokenizer of the metric.
        cider_d: CIDEr-D of the ensemble, with its interval.
        members: The members, in their order.
    """

    split: str
    photos: int
    beam: int
    tokenizer: str
    cider_d: Interval
    members: tuple[MemberScore, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the scores with their intervals."""
        members = [
            {"name": one.name, "cider_d": one.cider_d.as_json(), "gain": one.gain.as_json()} for one in self.members
        ]
        return {
            "split": self.split,
            "photos": self.photos,
            "beam": self.beam,
            "tokenizer": self.tokenizer,
            "cider_d": self.cider_d.as_json(),
            "members": members,
        }


def score_ensemble(
    ensemble: Ensemble,
    store: PhotoStore,
    photos: Sequence[CaptionedPhoto],
    *,
    beam: int,
    batch: int,
    progress: Progress | None = None,
) -> EnsembleScores:
    """Caption photos that have captions with the ensemble and with each member alone, and score both.

    Args:
        ensemble: The runs.
        store: The photos of the data set.
        photos: Photos of one split.
        beam: K, the beam width.
        batch: Photos captioned together.
        progress: Called with the number of finished photos and of all photos.

    Raises:
        DataError: A photo is missing or cannot be read.
    """
    names = [photo.name for photo in photos]
    store.require(names)
    alone = [[number] for number in range(len(ensemble.runs))]
    systems: list[list[int] | None] = [None, *alone] if len(alone) > 1 else [None]
    said: list[dict[str, str]] = [{} for _ in systems]
    for start in range(0, len(names), batch):
        some = names[start : start + batch]
        encoded = ensemble.encode([decode_photo(store.read(name), name) for name in some])
        for captions, members in zip(said, systems, strict=True):
            tokens = ensemble.search(encoded, beam, members).tokens
            captions |= {name: ensemble.vocabulary.caption(ids) for name, ids in zip(some, tokens, strict=True)}
        if progress is not None:
            progress(start + len(some), len(names))
    human = {photo.name: photo.captions for photo in photos}
    whole, *others = [_scored(human, captions) for captions in said]
    scores = others or [whole]
    rows = tuple(
        MemberScore(
            name, bootstrap_mean(one.per_photo_cider), bootstrap_change(one.per_photo_cider, whole.per_photo_cider)
        )
        for name, one in zip(ensemble.names, scores, strict=True)
    )
    interval = bootstrap_mean(whole.per_photo_cider)
    return EnsembleScores(photos[0].split, len(photos), beam, whole.tokenizer, interval, rows)


def _scored(human: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> Scores:
    tokenizer = chosen_tokenizer("auto", [caption for own in human.values() for caption in own])
    return score(human, captions, tokenizer=tokenizer, meteor=False)
