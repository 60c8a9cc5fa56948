"""The teachers of a distillation: one run, or several whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from capprune.models.caption_model import FeatureExtractor
from capprune.training.objectives import Teacher
from capprune.training.outcome import Split
from capprune.training.run import load_teacher
from capprune.training.start import teachers_eye
from capprune_runtime.bundle.vocabulary import Vocabulary


def teachers_eyes(folders: Sequence[Path], device: torch.device) -> tuple[FeatureExtractor, ...]:
    """Return the feature extractors of teachers. Those with the same encoder share one.

    Args:
        folders: The teachers' runs.
        device: Device that computes the features.

    Raises:
        UsageError: There is no such run.
        BundleError: It is broken.
    """
    found: dict[str, FeatureExtractor] = {}
    eyes = []
    for folder in folders:
        eye = FeatureExtractor(teachers_eye(folder), device)
        eyes.append(found.setdefault(eye.key, eye))
    return tuple(eyes)


def load_teachers(
    folders: Sequence[Path], vocabulary: Vocabulary, train: Split, words: int, device: torch.device
) -> tuple[Teacher, ...]:
    """Return the decoders of teachers with their features of the training photos.

    Args:
        folders: The teachers' runs.
        vocabulary: Vocabulary of the student's run.
        train: The training photos.
        words: The longest caption of the student's run.
        device: Device of the decoders.

    Raises:
        UsageError: There is no such run, or its vocabulary is different.
        BundleError: It is broken.
    """
    tables = train.taught or (train.features,) * len(folders)
    return tuple(
        Teacher(load_teacher(folder, vocabulary, table.shape[-1], words).to(device), table)
        for folder, table in zip(folders, tables, strict=True)
    )
