"""Quantisations of a bundle's two models, by the names in commands, plans and manifests."""

from __future__ import annotations

from enum import StrEnum


class Weights(StrEnum):
    """Quantisation of the decoder's weights."""

    FLOAT32 = "float32"  # as trained
    INT8 = "int8"  # 8 bits, one scale per tensor
    CODEBOOK4 = "codebook4"  # 16 values per tensor, found by k-means


class EncoderWeights(StrEnum):
    """Quantisation of the encoder's weights."""

    FLOAT32 = "float32"
    WEIGHT_ONLY_INT8 = "weight_only_int8"  # stored as 8 bits, computed in float32
    STATIC_INT8 = "static_int8"  # computed in int8, with ranges calibrated on photos
