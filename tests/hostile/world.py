"""The sound files of a fuzz run, written once and read by the child process, which must not need torch."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bundle_mutations import Files
from subjects import Subject, model_subjects, operator_subjects

from capprune_exporters.quiet import quiet

CELLS = ("lstm", "gru")
# Where the sound files of other formats are made.
sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("capz", "onnx"))
GOLDEN = {"photo": "golden/scene-0.png", "beam": 1, "tokens": [4, 5, 6], "caption": "word4 word5 word6"}


@dataclass(frozen=True)
class World:
    """Sound files.

    Args:
        subjects: Model files, of bundles and of one operator each.
        bundles: For each cell, the files of a bundle of TFLite models.
        packed: A packed bundle.
        onnx: The files of a bundle of ONNX models.
        onnx_models: ONNX models that fit into it, by member and form.
    """

    subjects: tuple[Subject, ...]
    bundles: dict[str, Files]
    packed: bytes = b""
    onnx: Files = field(default_factory=dict)
    onnx_models: Files = field(default_factory=dict)


def write_world(folder: Path, *, every_format: bool = False) -> None:
    """Convert tiny models, make every file from them, and leave them in a folder for `read_world`.

    Args:
        folder: An empty folder.
        every_format: Also packed bundles and ONNX models, which fuzz runs do not need.
    """
    import tiny_bundle  # and torch

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        models = {cell: tiny_bundle.make_models(cell, folder) for cell in CELLS}
        subjects = (*model_subjects(models), *operator_subjects())
        if every_format:
            _write_onnx(folder)
    for cell, model in models.items():
        place = tiny_bundle.write_bundle(folder / cell, model)
        (place / "golden" / "golden.json").write_text(json.dumps([GOLDEN]))
        tiny_bundle.seal(place, tiny_bundle.manifest_json(cell))
    if every_format:
        from packed_bundle import make_packed_bundle, quantise_every_matrix

        made = make_packed_bundle(folder / "to-pack" / "bundle", models["lstm"], quantise_every_matrix("int8"))
        (folder / "bundle.capz").write_bytes(made.data)
    for number, subject in enumerate(subjects):
        (folder / f"{number}.tflite").write_bytes(subject.data)
    facts = [{**asdict(subject), "data": None} for subject in subjects]
    (folder / "world.json").write_text(json.dumps(facts))


def _write_onnx(folder: Path) -> None:
    """The models of tests/onnx in every form that its tables break, and a bundle around the dense ones."""
    import onnx_parts
    import tiny_bundle
    from test_onnx_check import encoder_forms, step_forms

    parts = onnx_parts.make_parts("lstm")
    for member, forms in (("decoder.onnx", step_forms(parts)), ("encoder.onnx", encoder_forms(parts))):
        for form, data in forms.items():
            (folder / "onnx-models").mkdir(exist_ok=True)
            (folder / "onnx-models" / f"{member}, {form}").write_bytes(data)
    place = folder / "onnx"
    place.mkdir()
    for member in ("decoder.onnx", "encoder.onnx"):
        (place / member).write_bytes((folder / "onnx-models" / f"{member}, dense").read_bytes())
    words = [*tiny_bundle.WORDS[:4], *(f"word{n}" for n in range(4, onnx_parts.VOCABULARY))]
    (place / "vocabulary.txt").write_text("".join(f"{word}\n" for word in words))
    manifest: dict[str, Any] = tiny_bundle.manifest_json("lstm")
    manifest["decoder"]["interface"] |= dataclasses.asdict(parts.model.decoder.interface())
    manifest["preprocessing"]["size"] = onnx_parts.ENCODER.size
    for part in ("encoder", "decoder"):
        manifest[part]["file"] = f"{part}.onnx"
    tiny_bundle.seal(place, manifest)


def read_world(folder: Path) -> World:
    facts = json.loads((folder / "world.json").read_text())
    subjects = (
        Subject(**{**fact, "data": (folder / f"{number}.tflite").read_bytes()}) for number, fact in enumerate(facts)
    )
    bundles = {cell: read_files(folder / cell) for cell in CELLS}
    if not (folder / "bundle.capz").exists():
        return World(tuple(subjects), bundles)
    packed = (folder / "bundle.capz").read_bytes()
    return World(tuple(subjects), bundles, packed, read_files(folder / "onnx"), read_files(folder / "onnx-models"))


def read_files(folder: Path) -> Files:
    """Every file under a folder, by its name with `/`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
