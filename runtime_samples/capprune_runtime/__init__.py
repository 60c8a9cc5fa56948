"""Runtime for devices: read and verify a bundle, load a photo, generate a caption.

    bundle = verify_bundle(Path("my-bundle"))
    captioner = Captioner(bundle)
    print(captioner.caption(read_photo("photo.jpg", bundle.manifest.photo_size)).text)

Names are imported when they are first used. `import capprune_runtime` alone loads nothing; making a `Captioner` loads
an interpreter. This file must also load on old Pythons, for which `__main__` then prints an error.
"""

from importlib import import_module

TYPE_CHECKING = False  # not from typing, which Python 2 lacks; type checkers treat this name as true
if TYPE_CHECKING:
    from typing import Any  # noqa: F401 - for the type comment below

    from capprune_runtime.bundle.manifest import Manifest, parse_manifest
    from capprune_runtime.bundle.verify import Bundle, verify_bundle
    from capprune_runtime.bundle.vocabulary import Vocabulary, read_vocabulary
    from capprune_runtime.caption.captioner import Caption, Captioner
    from capprune_runtime.caption.interpreter import available_runtimes, open_model
    from capprune_runtime.caption.proof import GoldenPhoto, GoldenProof, prove_golden, read_golden
    from capprune_runtime.caption.search import beam, greedy
    from capprune_runtime.errors import CapPruneError
    from capprune_runtime.onnx.check import check_onnx
    from capprune_runtime.photo import decode_photo, normalise, read_photo, resize
    from capprune_runtime.tflite.check import check_tflite

__version__ = "0.2.0"

_MODULES = {
    "caption.captioner": ("Caption", "Captioner"),
    "errors": ("CapPruneError",),
    "caption.proof": ("GoldenPhoto", "GoldenProof", "prove_golden", "read_golden"),
    "caption.interpreter": ("available_runtimes", "open_model"),
    "bundle.manifest": ("Manifest", "parse_manifest"),
    "onnx.check": ("check_onnx",),
    "photo": ("decode_photo", "normalise", "read_photo", "resize"),
    "caption.search": ("beam", "greedy"),
    "tflite.check": ("check_tflite",),
    "bundle.verify": ("Bundle", "verify_bundle"),
    "bundle.vocabulary": ("Vocabulary", "read_vocabulary"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Bundle",
    "CapPruneError",
    "Caption",
    "Captioner",
    "GoldenPhoto",
    "GoldenProof",
    "Manifest",
    "Vocabulary",
    "available_runtimes",
    "beam",
    "check_onnx",
    "check_tflite",
    "decode_photo",
    "greedy",
    "normalise",
    "open_model",
    "parse_manifest",
    "prove_golden",
    "read_golden",
    "read_photo",
    "read_vocabulary",
    "resize",
    "verify_bundle",
]


def __getattr__(name):
    # type: (str) -> Any
    """Import the module of a public name on first access."""
    if name not in _HOME:
        raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))  # noqa: UP032
    return getattr(import_module(__name__ + "." + _HOME[name]), name)
