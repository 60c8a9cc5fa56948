"""How the weights of a bundle's two models can be quantised: the names that commands, plans and manifests use."""

from __future__ import annotations

from enum import StrEnum


class Weights(StrEnum):
    """Of the decoder."""

    FLOAT32 = "float32"  # as trained
    INT8 = "int8"  # 8 bits, one scale a tensor
    CODEBOOK4 = "codebook4"  # 16 values a tensor, found by k-means


class EncoderWeights(StrEnum):
    """Of the encoder."""

    FLOAT32 = "float32"
    WEIGHT_ONLY_INT8 = "weight_only_int8"  # stored in 8 bits, computed in float32
    STATIC_INT8 = "static_int8"  # computed in int8, with ranges calibrated on photos
