"""Convert a torch module to the bytes of an .onnx file, with torch's own exporter."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from capprune_exporters.onnx import graph
from capprune_exporters.quiet import quiet
from capprune_runtime.errors import ExportError, MissingExtra
from capprune_runtime.formats import NEXT
from capprune_runtime.onnx.file import OPSET

if TYPE_CHECKING:
    from torch import Tensor, nn

LONGEST_REASON = 300  # characters; torch's own messages are pages long
MOST_ROWS = 1 << 16
ROWS = "batch"  # the name of the free dimension


def convert_onnx(module: nn.Module, inputs: Mapping[str, Tensor], *, rows: bool = False) -> bytes:
    """Convert a module whose `forward` takes keyword tensors and returns a dictionary of tensors.

    Inputs and outputs of an ONNX graph share one namespace, so an output with the name of an input gets the prefix
    `next_`.

    Args:
        module: A module in evaluation mode. The keys of its result become the names of the outputs.
        inputs: Example tensors of one row; they define the names, shapes and types of the inputs. Tokens must be int32.
        rows: Whether the first dimension of every input is free, so that a beam can run as rows of one call.

    Returns:
        A file that passes the checker: float32, dense, standard operators only, without external data.

    Raises:
        MissingExtra: A package that torch's exporter needs is not installed.
        ExportError: The exporter cannot lower the module.
    """
    import torch

    with torch.inference_mode():
        outputs = [NEXT + name if name in inputs else name for name in module(**inputs)]
    example, free = dict(inputs), None
    if rows:
        # More than one row, because torch treats a size of 1 as fixed.
        example = {name: torch.cat([value] * 2) for name, value in inputs.items()}
        size = torch.export.Dim(ROWS, min=1, max=MOST_ROWS)
        free = (tuple({0: size} for _ in inputs),)
    with quiet():
        try:
            program = torch.onnx.export(
                _by_position(module, list(example)),
                tuple(example.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(example),
                output_names=outputs,
                dynamic_shapes=free,
                verbose=False,
            )
            assert program is not None  # it is None only without dynamo
            data = graph.save(program.model_proto)
        except MemoryError:
            raise
        except ImportError as error:
            raise MissingExtra(
                "the ONNX exporter is not installed", found=error, hint="pip install 'capprune[onnx]'"
            ) from error
        except Exception as error:  # exceptions of torch, onnxscript and the checker have no common base
            raise ExportError("torch cannot lower this model to ONNX", found=_reason(error)) from error
    return data


def _by_position(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """Return the module with positional tensors: torch cannot assign free dimensions to the names in `**tensors`.

    The result is a copy with another class, not a wrapper module, so that parameters keep their names in the file.
    """
    own: type[nn.Module] = type(module)

    def forward(self: nn.Module, *tensors: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = own.forward(self, **dict(zip(names, tensors, strict=True)))
        return found

    positional = copy.copy(module)
    positional.__class__ = type(own.__name__, (own,), {"forward": forward})
    return positional


def _reason(error: BaseException) -> str:
    """Return the first line of the original error, without the advice that torch adds."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= LONGEST_REASON else first[:LONGEST_REASON] + "…"
