"""Caption metrics: BLEU-1..4, ROUGE-L, CIDEr-D and METEOR, as in the COCO caption challenge.

The metrics are pycocoevalcap's. The tokenizer changes the third digit, so each score names its tokenizer, and scores of
different tokenizers are never compared. PTB and METEOR are made for English: "auto" uses them only for captions in
ASCII letters.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from capprune.data.words import words
from capprune.metrics.java import java_command, meteor_score, ptb_tokens, pycocoevalcap_folder
from capprune_runtime.errors import DataError, UsageError

Tokenizer = Literal["ptb", "plain"]

METEOR_WITHOUT_JAVA = "no Java runs here"
METEOR_NOT_WANTED = "switched off"
METEOR_IS_ENGLISH = "the captions are not English, which METEOR is made for"
ENGLISH_SHARE = 0.9  # of captions in ASCII; some English ones contain words such as "café"


@dataclass(frozen=True)
class Scores:
    """The scores of one set of captions.

    Attributes:
        bleu: BLEU-1, BLEU-2, BLEU-3, BLEU-4 over the whole set (0 to 1).
        rouge_l: Mean ROUGE-L F-score (0 to 1).
        cider_d: Mean CIDEr-D (n = 4, sigma = 6; 0 to 10).
        meteor: METEOR 1.5 over the whole set (0 to 1), or None if it was not computed.
        meteor_reason: Why METEOR was not computed, or None if it was.
        tokenizer: "ptb" or "plain"; only scores of the same tokenizer may be compared.
        photos: Number of scored photos.
        per_photo_cider: CIDEr-D of each photo, in the order of the sorted photo names.
    """

    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider_d: float
    meteor: float | None
    meteor_reason: str | None
    tokenizer: str
    photos: int
    per_photo_cider: tuple[float, ...]

    def as_json(self) -> dict[str, object]:
        """Return the scores without those of single photos, under stable keys."""
        return {
            **{f"bleu_{order}": value for order, value in enumerate(self.bleu, start=1)},
            "rouge_l": self.rouge_l,
            "cider_d": self.cider_d,
            "meteor": self.meteor,
            "meteor_reason": self.meteor_reason,
            "tokenizer": self.tokenizer,
            "photos": self.photos,
        }


def chosen_tokenizer(tokenizer: str, captions: Sequence[str] = ()) -> Tokenizer:
    """Resolve the name of a tokenizer; "auto" is "ptb" if Java runs and the captions may be English, else "plain".

    Args:
        tokenizer: "ptb", "plain" or "auto".
        captions: Human captions to choose for.

    Raises:
        UsageError: There is no such tokenizer.
    """
    if tokenizer == "auto":
        return "ptb" if java_command() is not None and may_be_english(captions) else "plain"
    if tokenizer == "ptb":
        return "ptb"
    if tokenizer == "plain":
        return "plain"
    raise UsageError("there is no such tokenizer", expected="ptb, plain or auto", found=repr(tokenizer))


def may_be_english(captions: Sequence[str]) -> bool:
    """Return whether nearly all captions are in ASCII letters, which is also true for other languages in Latin script."""
    own = sum(all(one.isascii() or not one.isalpha() for one in caption) for caption in captions)
    return own >= ENGLISH_SHARE * len(captions)


def tokenize(captions: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Tokenise raw captions.

    Args:
        captions: Raw captions.
        tokenizer: "ptb" for Stanford's PTBTokenizer without punctuation (needs Java), "plain" for
            lower case split on everything but letters and digits (`capprune.data.words`).

    Returns:
        For each caption its tokens, joined by single spaces.

    Raises:
        MissingExtra: "ptb" without Java.
    """
    if tokenizer == "ptb":
        return ptb_tokens(captions)
    return [" ".join(words(caption)) for caption in captions]


def score(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, str],
    *,
    tokenizer: Literal["ptb", "plain", "auto"] = "auto",
    meteor: bool | None = None,
) -> Scores:
    """Score raw captions.

    Args:
        references: For each photo its human captions.
        hypotheses: For each photo the caption to score; the same photos as in `references`.
        tokenizer: See `tokenize`; "auto" uses "ptb" if Java runs and the references may be English.
        meteor: True requires METEOR, False leaves it out, None computes it if Java runs.

    Returns:
        The scores, with the name of the tokenizer.

    Raises:
        DataError: The two do not cover the same photos, a photo has no reference, or no reference has a word.
        MissingExtra: Java or pycocoevalcap is missing.
    """
    names = _photos(references, hypotheses)
    chosen = chosen_tokenizer(tokenizer, [caption for own in references.values() for caption in own])
    tokens = iter(tokenize([caption for name in names for caption in references[name]], chosen))
    tokenised = {name: [next(tokens) for _ in references[name]] for name in names}
    captions = dict(zip(names, tokenize([hypotheses[name] for name in names], chosen), strict=True))
    return score_tokenised(tokenised, captions, tokenizer=chosen, meteor=meteor)


def score_tokenised(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, str],
    *,
    tokenizer: str,
    meteor: bool | None = None,
) -> Scores:
    """Score captions that are already tokenised (tokens joined by single spaces).

    Args:
        references: For each photo its tokenised human captions.
        hypotheses: For each photo its tokenised caption.
        tokenizer: The name of the tokenizer of both; recorded, not applied.
        meteor: See `score`.

    Returns:
        The scores.

    Raises:
        DataError: The two do not cover the same photos, a photo has no reference, or no reference has a word.
        MissingExtra: pycocoevalcap is missing, or METEOR was required without Java.
    """
    gts, res = _matched(references, hypotheses, tokenizer)
    bleu, _ = _metric("bleu.bleu", "Bleu").compute_score(gts, res, verbose=0)
    rouge_l, _ = _metric("rouge.rouge", "Rouge").compute_score(gts, res)
    cider_d, per_photo = _metric("cider.cider", "Cider").compute_score(gts, res)
    meteor_value, meteor_reason = _meteor(gts, res, meteor)
    return Scores(
        bleu=(float(bleu[0]), float(bleu[1]), float(bleu[2]), float(bleu[3])),
        rouge_l=float(rouge_l),
        cider_d=float(cider_d),
        meteor=meteor_value,
        meteor_reason=meteor_reason,
        tokenizer=tokenizer,
        photos=len(gts),
        per_photo_cider=tuple(np.asarray(per_photo, dtype=np.float64).tolist()),
    )


def cider_d(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> float:
    """Return CIDEr-D only, with the tokenizer "plain" even if Java is available, for choosing a checkpoint.

    Args:
        references: For each photo its raw human captions.
        hypotheses: For each of these photos the raw caption to score.

    Returns:
        Mean CIDEr-D (0 to 10).

    Raises:
        DataError: See `score_tokenised`.
        MissingExtra: pycocoevalcap is missing.
    """
    gts, res = _matched(
        {name: tokenize(captions, "plain") for name, captions in references.items()},
        {name: " ".join(words(caption)) for name, caption in hypotheses.items()},
        "plain",
    )
    mean, _ = _metric("cider.cider", "Cider").compute_score(gts, res)
    return float(mean)


def _metric(module: str, name: str) -> Any:
    """Return an instance of a pycocoevalcap metric; imported late, because most commands score nothing."""
    pycocoevalcap_folder()
    return getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)()


def _meteor(
    gts: Mapping[str, list[str]], res: Mapping[str, list[str]], wanted: bool | None
) -> tuple[float | None, str | None]:
    if wanted is False:
        return None, METEOR_NOT_WANTED
    if wanted is None and java_command() is None:
        return None, METEOR_WITHOUT_JAVA
    if wanted is None and not may_be_english([caption for captions in gts.values() for caption in captions]):
        return None, METEOR_IS_ENGLISH
    return meteor_score(list(gts.values()), [res[name][0] for name in gts]), None


def _matched(
    references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str], tokenizer: str
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return tokenised references and captions in the order of the sorted names, in pycocoevalcap's format."""
    names = _photos(references, hypotheses)
    if not any(caption for captions in references.values() for caption in captions):
        raise DataError(
            "no reference caption contains a word",
            expected="letters or digits",
        )
    return {name: list(references[name]) for name in names}, {name: [hypotheses[name]] for name in names}


def _photos(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> list[str]:
    """Return the sorted photo names after checking that both sides cover them."""
    if not references:
        raise DataError("there are no photos to score", expected="at least one photo with captions")
    for have, lack, missing in (
        (references, hypotheses, "no caption to score"),
        (hypotheses, references, "no reference captions"),
    ):
        gap = sorted(have.keys() - lack.keys())
        if gap:
            raise DataError(
                f"{len(gap)} of {len(have)} photos have {missing}",
                where=", ".join(gap[:3]) + (", …" if len(gap) > 3 else ""),
                expected="the same photos on both sides",
            )
    bare = sorted(name for name, captions in references.items() if not captions)
    if bare:
        raise DataError(f"{len(bare)} photos have no reference captions", where=", ".join(bare[:3]))
    return sorted(references)
