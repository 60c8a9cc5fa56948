"""Interface of teachers, which are models that generate captions of photos, and the lookup of one by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

from PIL import Image

from capprune_runtime.errors import UsageError


@dataclass(frozen=True)
class Label:
    """One generated caption.

    Attributes:
        text: The caption.
        log_probability: Mean log-probability of its tokens in the teacher.
    """

    text: str
    log_probability: float

    @property
    def confidence(self) -> float:
        """Geometric mean of the tokens' probabilities, 0 to 1."""
        return math.exp(min(self.log_probability, 0.0))


@dataclass(frozen=True)
class Generation:
    """Options for generating captions.

    Attributes:
        prompt: Prompt of the model; None for its default.
        captions: N, captions per photo.
        beam: Hypotheses kept; at least N.
        max_tokens: The longest caption, in tokens.
    """

    prompt: str | None = None
    captions: int = 1
    beam: int = 4
    max_tokens: int = 40


class Teacher(Protocol):
    """A model that generates captions."""

    @property
    def name(self) -> str:
        """Name of the model, as written into the data set."""

    @property
    def licence(self) -> str | None:
        """The licence that its files state; None if they state none."""

    @property
    def identity(self) -> str:
        """Key that differs between models with different captions."""

    @property
    def longest_side(self) -> int | None:
        """Longer side in pixels of the largest photo that the model is given; larger ones are resized. None for any size."""

    def captions(self, photos: Sequence[Image.Image], /) -> list[list[Label]]:
        """Generate N captions of each RGB photo, the most probable first."""


Open = Callable[[str, Generation], Teacher]

KINDS: Final[Mapping[str, str]] = {"hf": "capprune.labelling.huggingface:open_teacher"}


def open_teacher(spec: str, generation: Generation) -> Teacher:
    """Open the teacher given as `--teacher`.

    Args:
        spec: A kind and its source: `hf:ID_OR_FOLDER`.
        generation: Options for generating captions.

    Raises:
        UsageError: There is no such kind or model.
        MissingExtra: A package is not installed.
    """
    kind, colon, source = spec.partition(":")
    if not colon or kind not in KINDS or not source:
        raise UsageError(
            "this names no teacher",
            where="--teacher",
            expected=" or ".join(f"{known}:..." for known in KINDS),
            found=spec,
            hint="--teacher hf:FOLDER for a model saved by transformers, or hf:OWNER/NAME for one of the Hugging Face Hub",
        )
    module, _, name = KINDS[kind].partition(":")
    return cast(Open, getattr(import_module(module), name))(source, generation)
