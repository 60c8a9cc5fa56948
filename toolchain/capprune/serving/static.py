"""The page as a folder of files whose models run inside the browser."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capprune.serving.assets import page_assets
from capprune.serving.engine import ENGINES, engine_files
from capprune.serving.models import ServedModel
from capprune.serving.refused import SCHEMA_VERSION
from capprune_exporters.pack.capz import pack
from capprune_runtime.atomic import atomic_folder, check_folder_place
from capprune_runtime.bundle.capz import CAPZ_SUFFIX
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.formats import FORMATS

BUNDLES_FOLDER = "bundles"


@dataclass(frozen=True)
class WrittenPage:
    """Sizes of the written page.

    Attributes:
        total_bytes: Size of all files.
        download_bytes: Bytes that the first visit loads (page, engine and bundle), by the name of the bundle.
    """

    total_bytes: int
    download_bytes: Mapping[str, int]


def write_static(
    models: Sequence[ServedModel], folder: Path, packages: Mapping[str, Path | None], say: Callable[[str], None]
) -> WrittenPage:
    """Write the page.

    Args:
        models: The verified bundles of the page.
        folder: A new or empty folder.
        packages: The unpacked npm package of an engine by model format; without one it comes from the cache or npm.
        say: Receives progress messages.

    Raises:
        UsageError: The folder cannot be written to, or a package is not the engine's.
        HashMismatch: A file of an engine differs from the one of its version.
        MissingExtra: An engine cannot be downloaded.
    """
    check_folder_place(folder)
    formats = {model.name: _format_of(model) for model in models}
    engines = {name: ENGINES[name] for name in ENGINES if name in formats.values()}
    files = {name: engine_files(engine, packages.get(name), say) for name, engine in engines.items()}
    with atomic_folder(folder) as place:
        for name, engine in engines.items():
            (place / engine.folder).mkdir()
            for file, content in files[name].items():
                (place / engine.folder / file).write_bytes(content)
        (place / BUNDLES_FOLDER).mkdir()
        facts = [{**model.facts(), **_write_bundle(model, place)} for model in models]
        offer = {"schema_version": SCHEMA_VERSION, "engine": "browser", "models": facts}
        (place / "models.json").write_text(json.dumps(offer, indent=2) + "\n", encoding="utf-8")
        for asset in page_assets(models, in_browser=True, engines=tuple(engines.values())):
            (place / asset.name).write_bytes(asset.content)
        page = sum(path.stat().st_size for path in place.iterdir() if path.is_file())
        total = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    first = {name: sum(len(files[name][file]) for file in engine.first_visit) for name, engine in engines.items()}
    downloads = {str(one["name"]): page + int(str(one["bytes"])) + first[formats[str(one["name"])]] for one in facts}
    return WrittenPage(total, downloads)


def _format_of(model: ServedModel) -> str:
    """Return the name of the format of a bundle's model files."""
    return next(name for name, one in FORMATS.items() if model.bundle.manifest.encoder.file in one.files)


def _write_bundle(model: ServedModel, place: Path) -> dict[str, object]:
    """Write the packed bundle, verify the written file, and return the facts that the page checks."""
    name = f"{BUNDLES_FOLDER}/{model.name}{CAPZ_SUFFIX}"
    if model.bundle.place.is_file():
        shutil.copyfile(model.bundle.place, place / name)
    else:
        pack(model.bundle.place, place / name)
    verify_bundle(place / name)
    content = (place / name).read_bytes()
    return {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
