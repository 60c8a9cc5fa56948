"""Every export target in one table: what it can hold, what it needs, and what to say of it."""

from __future__ import annotations

from dataclasses import dataclass

from capprune_runtime.errors import UsageError


@dataclass(frozen=True)
class Target:
    """An export target.

    Attributes:
        name: As given to `--target`.
        extra: The optional part of capprune that it needs.
        encoder_weights: Forms the encoder's weights can take; the first is the default.
        says: What a user should know of it, in one sentence.
    """

    name: str
    extra: str
    encoder_weights: tuple[str, ...]
    says: str


TARGETS = (
    Target(
        name="tflite",
        extra="tflite",
        encoder_weights=("float32", "weight_only_int8", "static_int8"),
        says="tflite: sparse matrices run in the stock runtime's sparse kernels, which pays from about 93 % sparsity",
    ),
    Target(
        name="onnx",
        extra="onnx",
        encoder_weights=("float32", "weight_only_int8", "static_int8"),
        says="onnx: the size shrinks and the speed does not, because onnxruntime expands sparse weights when it loads them",
    ),
)


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: If there is none.
    """
    for target in TARGETS:
        if target.name == name:
            return target
    raise UsageError(
        "there is no such target", where="--target", expected=", ".join(t.name for t in TARGETS), found=name
    )
