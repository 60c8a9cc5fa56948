"""An imported checkpoint as a run: our order of tokens, our names of parameters, masks beside the weights.

The reference code numbers its tokens `<pad>`, `<unk>`, `<bos>`, `<eos>`, words. A run's vocabulary starts with `<pad>`,
`<start>`, `<end>`, `<unk>`. Rows that belong to a token move with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from capprune.importing.reference import ReferenceCheckpoint
from capprune.importing.sentencepiece_words import SpecialIds
from capprune.pruning.state import MASK
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, Vocabulary
from capprune_runtime.errors import UsageError

ROW_PER_TOKEN: Final = ("embed.0.weight", "logit.weight", "logit.bias")


@dataclass(frozen=True)
class Source:
    """What a parameter of a decoder is made of.

    Attributes:
        tensors: Names in the checkpoint.
        joined: How several become one: matrices side by side, or biases added.
    """

    tensors: tuple[str, ...]
    joined: Literal["columns", "sum"] = "columns"


@dataclass(frozen=True)
class Ordered:
    """A checkpoint's tensors, masks and words in the order of a run's vocabulary; the names are still the checkpoint's."""

    vocabulary: Vocabulary
    tensors: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]


def token_order(special: SpecialIds, tokens: int) -> tuple[int, ...]:
    """Return for each id of a run's vocabulary the id that the token has in the checkpoint.

    Args:
        special: Ids of the special tokens in the checkpoint.
        tokens: V, number of tokens.
    """
    first = (special.pad, special.bos, special.eos, special.unk)
    return (*first, *(number for number in range(tokens) if number not in first))


def run_vocabulary(tokens: Sequence[str], special: SpecialIds) -> Vocabulary:
    """Return a checkpoint's tokens as a run's vocabulary.

    Raises:
        BadVocabulary: A word is not allowed there: it has a control character, or is written like a special token.
    """
    words = (tokens[number] for number in token_order(special, len(tokens))[len(SPECIAL_TOKENS) :])
    return Vocabulary((*SPECIAL_TOKENS, *words))


def in_run_order(checkpoint: ReferenceCheckpoint) -> Ordered:
    """Move the rows of tokens to where a run's vocabulary has them."""
    order = torch.tensor(token_order(checkpoint.special, len(checkpoint.tokens)))

    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value[order] if name in ROW_PER_TOKEN else value for name, value in tensors.items()}

    vocabulary = run_vocabulary(checkpoint.tokens, checkpoint.special)
    return Ordered(vocabulary, moved(checkpoint.tensors), moved(checkpoint.kept))


def as_parameters(ordered: Ordered, sources: Mapping[str, Source]) -> dict[str, Tensor]:
    """Return the state of a decoder as a run's checkpoint stores it.

    Masks stand beside the weights when a weight was pruned; a dense checkpoint has none.

    Args:
        ordered: From `in_run_order`.
        sources: What each parameter of the decoder is made of, by its name.

    Raises:
        ValueError: A tensor of the checkpoint is used twice or not at all.
    """
    used = [name for source in sources.values() for name in source.tensors]
    if sorted(used) != sorted(ordered.tensors):
        raise ValueError("the table of parameters does not use each tensor once")
    state = {name: _joined(ordered.tensors, source) for name, source in sources.items()}
    pruned = not all(bool(mask.all()) for mask in ordered.kept.values())
    if pruned:
        matrices = {name: source for name, source in sources.items() if source.tensors[0] in ordered.kept}
        state |= {name + MASK: _joined(ordered.kept, source) for name, source in matrices.items()}
    return state


def write_run(checkpoint: ReferenceCheckpoint, out: Path) -> None:
    """Write a checkpoint as a run folder.

    Args:
        checkpoint: From `read_reference`.
        out: The folder, to be made.

    Raises:
        BadVocabulary: A word cannot stand in a run's vocabulary.
        UsageError: This version cannot write such a run.
    """
    in_run_order(checkpoint)
    raise UsageError(
        "this version reads Up-Down checkpoints and cannot write them as runs yet",
        where=out,
        expected="the decoder family up_down",
        found="not in this version",
    )


def _joined(tensors: Mapping[str, Tensor], source: Source) -> Tensor:
    parts = [tensors[name] for name in source.tensors]
    if source.joined == "sum":
        return torch.stack(parts).sum(0)
    return torch.cat(parts, 1).contiguous() if len(parts) > 1 else parts[0].contiguous()
