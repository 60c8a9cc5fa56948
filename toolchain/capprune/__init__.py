"""Train, prune, export and verify small image-captioning models, from Python.

    import capprune

    print(capprune.load().caption("photo.jpg"))

    run = capprune.train("configs/flickr8k_sparse.yaml", out="runs/sparse", overrides={"data.folder": "flickr8k"})
    bundle = run.export("bundles/sparse")
    result = bundle.validate("flickr8k", reference=run)

Names are imported when they are first used, so `import capprune` loads no heavy package. Every function has the options of
the command of the same name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capprune_runtime import __version__

if TYPE_CHECKING:
    from capprune.api.bench import BenchResult, bench
    from capprune.api.bundle import Bundle, PackedBundle, UnpackedBundle, Verification, pack, unpack, verify
    from capprune.api.captioner import PhotoCaption, PhotoCaptioner, load
    from capprune.api.captions import Captions, caption
    from capprune.api.datasets import check_data, draw_scenes, import_data, label
    from capprune.api.demo import DemoResult, demo
    from capprune.api.ensemble import EnsembleResult, ensemble
    from capprune.api.exporting import ExportedBundle, export
    from capprune.api.inspection import BundleInspection, RunInspection, inspect
    from capprune.api.length import LengthResult, length
    from capprune.api.machine import Machine, doctor
    from capprune.api.pages import Report, report
    from capprune.api.run import ImportedRun, Run, TrainedRun, finetune, import_, prune, train
    from capprune.api.server import serve
    from capprune.api.shards import Shards, compute_features, shard_data
    from capprune.api.sweep import SweepResult, sweep
    from capprune.api.validation import ValidationResult, validate
    from capprune.training.progress import Lines, Progress, Silent
    from capprune_runtime.errors import CapPruneError

_MODULES = {
    "capprune.api.bench": ("BenchResult", "bench"),
    "capprune.api.bundle": ("Bundle", "PackedBundle", "UnpackedBundle", "Verification", "pack", "unpack", "verify"),
    "capprune.api.captioner": ("PhotoCaption", "PhotoCaptioner", "load"),
    "capprune.api.captions": ("Captions", "caption"),
    "capprune.api.datasets": ("check_data", "draw_scenes", "import_data", "label"),
    "capprune.api.demo": ("DemoResult", "demo"),
    "capprune.api.ensemble": ("EnsembleResult", "ensemble"),
    "capprune.api.length": ("LengthResult", "length"),
    "capprune.api.exporting": ("ExportedBundle", "export"),
    "capprune.api.inspection": ("BundleInspection", "RunInspection", "inspect"),
    "capprune.api.machine": ("Machine", "doctor"),
    "capprune.api.pages": ("Report", "report"),
    "capprune.api.run": ("ImportedRun", "Run", "TrainedRun", "finetune", "import_", "prune", "train"),
    "capprune.api.server": ("serve",),
    "capprune.api.shards": ("Shards", "compute_features", "shard_data"),
    "capprune.api.sweep": ("SweepResult", "sweep"),
    "capprune.api.validation": ("ValidationResult", "validate"),
    "capprune.training.progress": ("Lines", "Progress", "Silent"),
    "capprune_runtime.errors": ("CapPruneError",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BenchResult",
    "Bundle",
    "BundleInspection",
    "CapPruneError",
    "Captions",
    "DemoResult",
    "EnsembleResult",
    "ExportedBundle",
    "ImportedRun",
    "LengthResult",
    "Lines",
    "Machine",
    "PackedBundle",
    "PhotoCaption",
    "PhotoCaptioner",
    "Progress",
    "Report",
    "Run",
    "RunInspection",
    "Shards",
    "Silent",
    "SweepResult",
    "TrainedRun",
    "UnpackedBundle",
    "ValidationResult",
    "Verification",
    "__version__",
    "bench",
    "caption",
    "check_data",
    "compute_features",
    "demo",
    "doctor",
    "draw_scenes",
    "ensemble",
    "export",
    "finetune",
    "import_",
    "import_data",
    "inspect",
    "label",
    "length",
    "load",
    "pack",
    "prune",
    "report",
    "serve",
    "shard_data",
    "sweep",
    "train",
    "unpack",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
