"""Converts an imported checkpoint to a run: our token order, our parameter names, masks beside the weights.

The reference code numbers its tokens `<pad>`, `<unk>`, `<bos>`, `<eos>`, words. A run's vocabulary starts with `<pad>`,
`<start>`, `<end>`, `<unk>`. Rows that belong to a token are moved with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.importing.reference import ReferenceCheckpoint
from capprune.importing.sentencepiece_words import SpecialIds
from capprune.pruning.state import MASK
from capprune.training.run import BEST, CONFIG, VOCABULARY, save_checkpoint
from capprune_runtime.atomic import atomic_folder
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, Vocabulary
from capprune_runtime.regions import MAX_REGIONS

# added equally to the score of every region, which does not change a softmax
UNUSED: Final = ("core.attention.alpha_net.bias",)
ROW_PER_TOKEN: Final = ("embed.0.weight", "logit.weight", "logit.bias")


@dataclass(frozen=True)
class Source:
    """The tensors of a checkpoint that make one parameter of a decoder.

    Attributes:
        tensors: Names in the checkpoint.
        joined: How several are combined: matrices concatenated by columns, or biases added.
        columns: Columns of the concatenated matrices; None for all. A column of a checkpoint belongs to one parameter.
    """

    tensors: tuple[str, ...]
    joined: Literal["columns", "sum"] = "columns"
    columns: tuple[slice, ...] | None = None


@dataclass(frozen=True)
class Ordered:
    """A checkpoint's tensors, masks and words in the order of a run's vocabulary, under the names of the checkpoint."""

    vocabulary: Vocabulary
    tensors: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]


def token_order(special: SpecialIds, tokens: int) -> tuple[int, ...]:
    """Return the checkpoint's id of each token, in the order of a run's vocabulary.

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
    """Reorder the rows of tokens to the order of a run's vocabulary."""
    order = torch.tensor(token_order(checkpoint.special, len(checkpoint.tokens)))

    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value[order] if name in ROW_PER_TOKEN else value for name, value in tensors.items()}

    vocabulary = run_vocabulary(checkpoint.tokens, checkpoint.special)
    return Ordered(vocabulary, moved(checkpoint.tensors), moved(checkpoint.kept))


def as_parameters(ordered: Ordered, sources: Mapping[str, Source]) -> dict[str, Tensor]:
    """Return the state of a decoder as a run's checkpoint stores it.

    If a weight was pruned, masks are stored beside the weights; a dense checkpoint has none.

    Args:
        ordered: Result of `in_run_order`.
        sources: The source of each parameter of the decoder, by its name.

    Raises:
        ValueError: A tensor of the checkpoint is used twice or not at all.
    """
    _check_use(ordered.tensors, sources)
    state = {name: _joined(ordered.tensors, source) for name, source in sources.items()}
    pruned = not all(bool(mask.all()) for mask in ordered.kept.values())
    if pruned:
        matrices = {name: source for name, source in sources.items() if source.tensors[0] in ordered.kept}
        state |= {name + MASK: _joined(ordered.kept, source) for name, source in matrices.items()}
    return state


def up_down_sources(word: int, hidden: int) -> dict[str, Source]:
    """Return the source of each parameter of an Up-Down decoder.

    The reference code multiplies the mean region at every word, as columns of the first LSTM's matrix. Here it has a
    separate matrix, which `encode` multiplies once.

    Args:
        word: E, size of a word vector.
        hidden: H, size of both LSTMs.
    """
    looking = ("core.att_lstm.weight_ih", "core.att_lstm.weight_hh")
    speaking = ("core.lang_lstm.weight_ih", "core.lang_lstm.weight_hh")
    pooled = slice(hidden, 2 * hidden)  # the first LSTM reads h2, the mean region and the word, then its own state
    rest = (slice(0, hidden), slice(2 * hidden, 3 * hidden + word))
    return {
        "embedding.weight": Source(("embed.0.weight",)),
        "mean.weight": Source(("fc_embed.0.weight",)),
        "mean.bias": Source(("fc_embed.0.bias",)),
        "region.weight": Source(("att_embed.0.weight",)),
        "region.bias": Source(("att_embed.0.bias",)),
        "key.weight": Source(("ctx2att.weight",)),
        "key.bias": Source(("ctx2att.bias",)),
        "seen.weight": Source(looking, columns=(pooled,)),
        "looking.weight": Source(looking, columns=rest),
        "looking.bias": Source(("core.att_lstm.bias_ih", "core.att_lstm.bias_hh"), "sum"),
        "query.weight": Source(("core.attention.h2att.weight",)),
        "query.bias": Source(("core.attention.h2att.bias",)),
        "score.weight": Source(("core.attention.alpha_net.weight",)),
        "speaking.weight": Source(speaking),
        "speaking.bias": Source(("core.lang_lstm.bias_ih", "core.lang_lstm.bias_hh"), "sum"),
        "output.weight": Source(("logit.weight",)),
        "output.bias": Source(("logit.bias",)),
    }


def run_config(checkpoint: ReferenceCheckpoint, name: str) -> RunConfig:
    """Return the config of an imported run."""
    sizes = checkpoint.config
    tree = {
        "name": name,
        "data": {
            "folder": "imported",
            "maximum_tokens": sizes.max_tokens,
            "licence": "unknown: see the checkpoint's own terms",
        },
        "encoder": {"name": REGIONS, "regions": MAX_REGIONS, "channels": sizes.features},
        "decoder": {
            "family": "up_down",
            "embedding": sizes.embedding,
            "hidden": sizes.hidden,
            "attention": sizes.attention,
        },
        "pruning": {"method": "none"},
    }
    return parse_config(tree, where=name)


def write_run(checkpoint: ReferenceCheckpoint, out: Path) -> None:
    """Write a checkpoint as a run folder, which `export` and `validate` can use.

    Args:
        checkpoint: Result of `read_reference`.
        out: The folder, to be made.

    Raises:
        BadVocabulary: A word is not allowed in a run's vocabulary.
        UsageError: `out` exists.
    """
    ordered = in_run_order(checkpoint)
    state = as_parameters(ordered, up_down_sources(checkpoint.config.embedding, checkpoint.config.hidden))
    pruned = any(name.endswith(MASK) for name in state)
    facts = {"step": 0, "epoch": 0, "cider": math.nan, "sparsity": 0.0, "method": "imported" if pruned else "none"}
    with atomic_folder(out) as folder:
        (folder / CONFIG).write_text(run_config(checkpoint, out.name).as_yaml(), encoding="utf-8")
        (folder / VOCABULARY).write_text(ordered.vocabulary.as_text(), encoding="utf-8")
        save_checkpoint(folder / BEST, state, facts)


def _check_use(tensors: Mapping[str, Tensor], sources: Mapping[str, Source]) -> None:
    """Check that a table uses every part of a checkpoint exactly once."""
    used: dict[tuple[str, ...], list[int]] = {}
    for source in sources.values():
        whole = sum(tensors[name].shape[-1] for name in source.tensors if name in tensors)
        columns = [number for part in source.columns or (slice(None),) for number in range(whole)[part]]
        used.setdefault(source.tensors, []).extend(columns)
    for names, columns in used.items():
        if sorted(columns) != list(range(len(columns))):
            raise ValueError(f"columns of {' and '.join(names)} are used twice or not at all")
    listed = [name for names in used for name in names]
    if sorted(listed) != sorted(set(tensors) - set(UNUSED)):
        raise ValueError("the table of parameters does not use each tensor once")


def _joined(tensors: Mapping[str, Tensor], source: Source) -> Tensor:
    parts = [tensors[name] for name in source.tensors]
    if source.joined == "sum":
        return torch.stack(parts).sum(0)
    joined = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    if source.columns is not None:
        joined = torch.cat([joined[:, part] for part in source.columns], 1)
    return joined.contiguous()
