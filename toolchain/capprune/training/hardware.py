"""Device and precision of a training run: checks what is requested against what this machine has."""

from __future__ import annotations

import os
import shutil
import sys

import torch

from capprune.config.training import TrainingConfig
from capprune.training.launch import Place
from capprune_runtime.errors import UsageError

INSTALL = "https://pytorch.org/get-started/locally has torch for GPUs"
FABRIC_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
PRODUCTS = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}  # type of matrix products under autocast


def found_devices() -> dict[str, int]:
    """Return the number of devices of each kind that torch can use here."""
    mps = torch.backends.mps.is_available()
    return {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}


def chosen_device(config: TrainingConfig, place: Place) -> torch.device:
    """Return the device of this process.

    Raises:
        UsageError: The device does not exist, there are fewer than processes, or it does not support the precision.
    """
    there = found_devices()
    best = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    kind = best if config.device == "auto" else config.device
    if not there[kind]:
        raise UsageError(
            "this machine has no such device that torch can use",
            where="training.device",
            expected=kind,
            found=f"{_listed(there)}; torch {torch.__version__}",
            hint=f"training.device=cpu, or another torch: {INSTALL}",
        )
    most = (os.cpu_count() or 1) if kind == "cpu" else there[kind]
    if place.local_world > most:
        raise UsageError(
            "there are fewer devices than processes on this machine",
            where="--devices",
            expected=f"at most {most}" + (" (processor cores)" if kind == "cpu" else f" ({kind})"),
            found=place.local_world,
        )
    _check_precision(config.precision, kind)
    if config.compile:
        _check_compiler()
    return torch.device(kind, place.local) if kind == "cuda" else torch.device(kind)


def chosen_precision(config: TrainingConfig, device: torch.device) -> str:
    """Return the precision of a run on a device; for `auto` the fastest that trains as well as float32.

    On a CPU this is bfloat16 with AVX-512, whose products oneDNN computes at least as fast as those of float32.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if device.type == "cpu" and _has_avx512() else "float32"


def slow_precision(precision: str, device: torch.device) -> str | None:
    """Return a note if a device computes a precision much slower than float32."""
    if precision == "bfloat16" and device.type == "cpu" and not _has_avx512():
        capability = torch.backends.cpu.get_cpu_capability()
        return (
            f"bfloat16 is several times slower than float32 on this processor ({capability}, no AVX-512): "
            "training.precision=auto or float32 is faster here"
        )
    return None


def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _check_precision(precision: str, kind: str) -> None:
    refused = {("float16", "cpu"): "bfloat16", ("float16", "mps"): "float32", ("bfloat16", "mps"): "float32"}
    instead = refused.get((precision, kind))
    if kind == "cuda" and precision == "bfloat16" and not torch.cuda.is_bf16_supported():
        instead = "float16"
    if instead is not None:
        raise UsageError(
            "this device does not train in this precision",
            where="training.precision",
            expected=f"{instead} on {kind}",
            found=precision,
            hint=f"training.precision={instead}",
        )


def _check_compiler() -> None:
    """Check that the C++ compiler exists that `torch.compile` calls."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise UsageError(
            "torch.compile needs a C++ compiler",
            where="training.compile",
            expected=f"{name} on PATH, or the variable CXX",
            found="none",
            hint="install one (Debian: apt install g++), or training.compile=false",
        )


def _listed(there: dict[str, int]) -> str:
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in there.items() if count)
