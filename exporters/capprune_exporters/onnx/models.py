"""Make the encoder of an ONNX bundle in every form; the decoder is `make_gapped` of the result of `convert_onnx`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune_exporters.onnx.quantise import static_int8, weight_only_int8
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.weight_forms import EncoderWeights
from capprune_runtime.errors import ExportError


def encoder_onnx(
    converted: bytes,
    form: str,
    calibration: Iterable[Mapping[str, npt.NDArray[Any]]] | None = None,
    names: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> bytes:
    """Return the encoder in one of `EncoderWeights`; sparse projections are stored as gaps in each.

    Args:
        converted: The result of `convert_onnx` for `encode`.
        form: One of `EncoderWeights`.
        calibration: `photo` arrays by name, for `static_int8` only.
        names: Parameters by name, see `make_gapped`.

    Raises:
        ExportError: The form is unknown, or there is nothing to calibrate on.
    """
    if form not in tuple(EncoderWeights):
        raise ExportError("there is no such form", where="encoder", expected=", ".join(EncoderWeights), found=form)
    if form == EncoderWeights.WEIGHT_ONLY_INT8:
        converted = weight_only_int8(converted)
    elif form == EncoderWeights.STATIC_INT8:
        converted = static_int8(converted, calibration or ())
    return make_gapped(converted, names=names).data
