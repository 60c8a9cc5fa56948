"""Convert a torch module to the bytes of a .tflite with one named signature, with litert-torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from capprune_exporters.quiet import quiet
from capprune_exporters.tflite.contiguous import contiguous_tensors
from capprune_runtime.atomic import raise_if_unwritable
from capprune_runtime.errors import ExportError, MissingExtra

if TYPE_CHECKING:
    from torch import Tensor, nn

LONGEST_REASON = 300  # characters; messages of torch and MLIR are pages long


def convert(module: nn.Module, signature: str, inputs: Mapping[str, Tensor]) -> bytes:
    """Convert a module whose `forward` takes keyword tensors and returns a dictionary of tensors.

    Args:
        module: A module in evaluation mode. The keys of its result become the names of the outputs.
        signature: The name of the signature.
        inputs: Example tensors; they define the names, shapes and types of the inputs. Tokens must be int32.

    Raises:
        MissingExtra: litert-torch is not installed (it has no build for ARM machines).
        ExportError: The converter cannot lower the module.
        CapPruneError: The disk is full.
    """
    try:
        with quiet():
            import litert_torch
            from litert_torch import progress

            progress.console.quiet = True  # in a notebook it would bypass stdout
    except ImportError as error:
        raise MissingExtra(
            "the TFLite converter is not installed",
            found=error,
            expected="litert-torch (x86-64 only; export there, run anywhere)",
            hint="pip install 'capprune[tflite]'",
        ) from error
    with tempfile.TemporaryDirectory() as folder, quiet(), contiguous_tensors(module):
        path = Path(folder) / "model.tflite"
        try:
            litert_torch.signature(signature, module, sample_kwargs=dict(inputs)).convert().export(str(path))
        except MemoryError:
            raise
        except Exception as error:  # exceptions of the converter and of MLIR have no common base
            raise_if_unwritable(error, path)
            raise ExportError(f"the TFLite converter cannot lower `{signature}`", found=_reason(error)) from error
        return path.read_bytes()


def _reason(error: Exception) -> str:
    """Return the first line of a converter's message; a listing of the graph and of its own source follows it."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= LONGEST_REASON else first[:LONGEST_REASON] + "…"
