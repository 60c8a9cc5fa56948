"""Cache of converted graphs: the converter takes 20 s for an encoder, and half of all exports repeat an earlier one.

A file is named after everything that the converter reads: the graph that torch traces (2 s), its weights and constants, the
types of its inputs, and the versions of torch, of the converter and of this package. A bundle made from a cached file is
verified, and its golden photos are captioned, like one that was just converted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from capprune_exporters.quiet import quiet
from capprune_exporters.tflite.contiguous import contiguous_tensors
from capprune_exporters.tflite.convert import convert
from capprune_runtime.bundle.cache import kept_or_made, user_cache

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = "converted"  # in the cache
MOST_CACHED_BYTES = 256 << 20  # beyond this the oldest files are removed
CONVERTERS = (
    "torch",
    "litert-torch",
    "litert-converter",
    "ai-edge-litert",
)  # distributions that decide what is written


def convert_cached(module: nn.Module, signature: str, inputs: Mapping[str, Tensor]) -> bytes:
    """Convert a module, or return the file that an earlier conversion of an equal module wrote.

    Args and errors are those of `convert`.
    """
    base = user_cache()
    name = None if base is None else graph_name(module, signature, inputs)
    if base is None or name is None:
        return convert(module, signature, inputs)
    return kept_or_made(base / FOLDER / name, lambda: convert(module, signature, inputs), MOST_CACHED_BYTES)


def graph_name(module: nn.Module, signature: str, inputs: Mapping[str, Tensor]) -> str | None:
    """Return a name for a module's graph with its weights, or None if torch cannot trace it.

    Args:
        module: A module in evaluation mode, as for `convert`.
        signature: The name of the signature.
        inputs: Example tensors.
    """
    import torch

    with quiet(), contiguous_tensors(module):
        try:
            program = torch.export.export(module, (), dict(inputs))
        except Exception:  # the converter reports what it cannot trace; exceptions of torch have no common base
            return None
        digest = hashlib.sha256()
        for text in (signature, *_versions(), program.graph_module.code, program.graph_signature):
            digest.update(f"{text}\n".encode())
        for kind, tensors in (("input", inputs), ("state", program.state_dict), ("constant", program.constants)):
            for name, tensor in tensors.items():
                if not isinstance(tensor, torch.Tensor):
                    return None  # an object of a custom class
                digest.update(f"{kind} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                if kind != "input":
                    digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _versions() -> list[str]:
    """Return the versions of the packages that convert, and the content of the modules here that do."""
    found = []
    for name in CONVERTERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    sources = sorted(Path(__file__).parent.glob("con*.py"))
    return [*found, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in sources)]
