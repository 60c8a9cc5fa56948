"""The page as a folder of files whose models run inside the browser."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capprune.serving.assets import page_assets
from capprune.serving.engine import FIRST_PAIR, engine_files
from capprune.serving.models import ServedModel
from capprune.serving.refused import SCHEMA_VERSION
from capprune_exporters.pack.capz import pack
from capprune_runtime.atomic import atomic_folder, check_folder_place
from capprune_runtime.bundle.capz import CAPZ_SUFFIX
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import UsageError
from capprune_runtime.formats import FORMATS

ENGINE_FOLDER, BUNDLES_FOLDER = "litert", "bundles"


@dataclass(frozen=True)
class WrittenPage:
    """What was written.

    Attributes:
        total_bytes: Of all files.
        download_bytes: What the first visit loads, page, engine and bundle together, by the name of the bundle.
    """

    total_bytes: int
    download_bytes: Mapping[str, int]


def write_static(
    models: Sequence[ServedModel], folder: Path, engine: Path | None, say: Callable[[str], None]
) -> WrittenPage:
    """Write the page.

    Args:
        models: The bundles of the page, verified.
        folder: New or empty.
        engine: The unpacked npm package of LiteRT.js; None to take it from the cache or by npm.
        say: Takes a line of progress.

    Raises:
        UsageError: A bundle holds ONNX models, or the folder cannot be written to.
        MissingExtra: The engine cannot be fetched.
    """
    check_folder_place(folder)
    for model in models:
        if model.bundle.manifest.encoder.file not in FORMATS["tflite"].files:
            raise UsageError(
                "a page inside the browser runs TFLite bundles, and this one holds ONNX models",
                where=model.bundle.place,
                hint="capprune export --target tflite writes one; capprune serve without --static runs both",
            )
    files = engine_files(engine, say)
    with atomic_folder(folder) as place:
        (place / ENGINE_FOLDER).mkdir()
        for name, content in files.items():
            (place / ENGINE_FOLDER / name).write_bytes(content)
        (place / BUNDLES_FOLDER).mkdir()
        facts = [{**model.facts(), **_write_bundle(model, place)} for model in models]
        offer = {"schema_version": SCHEMA_VERSION, "engine": "browser", "models": facts}
        (place / "models.json").write_text(json.dumps(offer, indent=2) + "\n", encoding="utf-8")
        for asset in page_assets(models, in_browser=True):
            (place / asset.name).write_bytes(asset.content)
        page = sum(path.stat().st_size for path in place.iterdir() if path.is_file())
        page += sum(len(files[name]) for name in FIRST_PAIR)
        total = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return WrittenPage(total, {str(one["name"]): page + int(str(one["bytes"])) for one in facts})


def _write_bundle(model: ServedModel, place: Path) -> dict[str, object]:
    """Write the packed bundle, verify what was written, and return the facts that the page checks it by."""
    name = f"{BUNDLES_FOLDER}/{model.name}{CAPZ_SUFFIX}"
    if model.bundle.place.is_file():
        shutil.copyfile(model.bundle.place, place / name)
    else:
        pack(model.bundle.place, place / name)
    verify_bundle(place / name)
    content = (place / name).read_bytes()
    return {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
