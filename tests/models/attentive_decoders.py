"""Small decoders of the families with multi-head attention, and a batch for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capprune.models.family import Decoder
from capprune.models.relation_transformer import (
    RelationTransformer,
    RelationTransformerConfig,
)
from capprune.models.retention import Retention, RetentionConfig
from capprune.models.transformer import TransformerDropout
from capprune_runtime.bundle.vocabulary import END, START

PHOTOS, CAPTIONS, REGIONS, FEATURES, VOCABULARY, MAX_TOKENS = 3, 2, 4, 10, 13, 6
FAMILIES = ("relation_transformer", "retention")


def small(family: str, *, dropout: float = 0.1) -> Decoder:
    """A decoder with random weights, in evaluation mode."""
    torch.manual_seed(1)
    sizes = {"features": FEATURES, "vocabulary": VOCABULARY, "regions": REGIONS, "max_tokens": MAX_TOKENS}
    decoder: Decoder
    if family == "retention":
        shape = RetentionConfig(
            width=32,
            feed_forward=24,
            heads=4,
            key=3,
            layers=2,
            dropout=TransformerDropout(layer=dropout, source=dropout),
        )
        decoder = Retention(shape, **sizes)
    else:
        relation = RelationTransformerConfig(
            width=32,
            feed_forward=24,
            heads=4,
            encoder_layers=2,
            decoder_layers=2,
            dropout=TransformerDropout(layer=dropout, source=dropout),
        )
        decoder = RelationTransformer(relation, **sizes)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 1:  # zeros would hide a bias that is left out
                nn.init.normal_(parameter, 0.5, 0.5)
    return decoder.eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Features, inputs and targets of captions of unequal lengths, the longest as long as they may be."""
    torch.manual_seed(2)
    features = torch.rand(PHOTOS, REGIONS, FEATURES)
    words = torch.randint(4, VOCABULARY, (PHOTOS * CAPTIONS, MAX_TOKENS))
    inputs = torch.cat([torch.full((len(words), 1), START), words], 1)
    targets = torch.cat([words, torch.full((len(words), 1), END)], 1)
    for row, length in enumerate((7, 2, 5, 5, 1, 6)):
        targets[row, length:] = -1
    return features, inputs, targets
