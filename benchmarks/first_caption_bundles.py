"""The bundles that first_caption.py compares: exports of the ready run and its baselines, kept in a cache folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import capprune_exporters
from capprune import exporting
from capprune.api.exporting import export, packed_place
from capprune.exporting.calls import calls_of
from capprune.exporting.export import calibration_photos
from capprune.training.progress import Progress
from capprune.training.run import BEST, LoadedRun, load_run
from capprune_exporters.baselines import (
    DENSE_FLOAT32,
    DENSE_INT8,
    Baseline,
    baseline_bundle,
    tflite_baselines,
    verified,
)
from capprune_exporters.pack.capz import pack
from capprune_exporters.targets.target import Target, find_target
from capprune_exporters.weight_forms import EncoderWeights
from capprune_runtime.bundle.manifest import MANIFEST
from capprune_runtime.bundle.verify import Bundle, verify_bundle

DEFAULT, FLOAT32, INT8 = "default export", "dense float32", "dense int8, static int8 encoder"
BLOCKS = "blocks variant"
BLOCKS_FLOAT32, BLOCKS_INT8 = "blocks variant, dense float32", "blocks variant, dense int8, static int8 encoder"
DONE = "done"  # name of a marker file in a complete cache folder


@dataclass(frozen=True)
class Compared:
    """A bundle of the comparison.

    Attributes:
        place: The bundle, a folder or packed.
        against: The name of the bundle whose captions are compared with this one's; None for none.
    """

    place: Path
    against: str | None


def make_bundles(
    run: Path, blocks_run: Path, blocks: Path, data: Path, cache: Path, progress: Progress
) -> dict[str, Compared]:
    """Return the bundles by name. Exports of an earlier call with the same files and exporter are reused.

    Args:
        run: The ready run.
        blocks_run: The run of the blocks variant.
        blocks: The bundle that was made of it.
        data: Folder of the photos that the default export is measured and calibrated on.
        cache: Folder of the exports.
        progress: Receives progress reports.

    Raises:
        CapPruneError: A run cannot be exported, or a bundle is broken.
    """
    loaded, loaded_blocks, variant = load_run(run), load_run(blocks_run), verify_bundle(blocks)
    folder = cache / _key(run, blocks_run, variant, data)
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _export(loaded, loaded_blocks, variant, data, folder, progress)
        (folder / DONE).touch()
    else:
        progress.say(f"exported earlier: {folder}")
    return {
        DEFAULT: Compared(packed_place(folder / "default"), None),
        FLOAT32: Compared(folder / "float32.capz", DEFAULT),
        INT8: Compared(folder / "int8.capz", DEFAULT),
        BLOCKS: Compared(blocks, None),
        BLOCKS_FLOAT32: Compared(folder / "blocks-float32.capz", BLOCKS),
        BLOCKS_INT8: Compared(folder / "blocks-int8.capz", BLOCKS),
    }


def _export(
    run: LoadedRun, blocks_run: LoadedRun, variant: Bundle, data: Path, folder: Path, progress: Progress
) -> None:
    default = export(run.folder, out=folder / "default", data=data, pack=True, progress=progress)
    bundle = verify_bundle(default.place)
    beam = bundle.manifest.decoding.beam
    target, (float32, int8) = _encoders(run, beam, data, progress)
    _, (blocks_float32, blocks_int8) = _encoders(blocks_run, beam, data, progress)  # its projections are its own
    ready, dense = _by_name(target.baselines()), _by_name(tflite_baselines(variant.decoder))
    for name, like, baseline, encoder, form in (
        ("float32", bundle, ready[DENSE_FLOAT32], float32, EncoderWeights.FLOAT32),
        ("int8", bundle, ready[DENSE_INT8], int8, EncoderWeights.STATIC_INT8),
        ("blocks-float32", variant, dense[DENSE_FLOAT32], blocks_float32, EncoderWeights.FLOAT32),
        ("blocks-int8", variant, dense[DENSE_INT8], blocks_int8, EncoderWeights.STATIC_INT8),
    ):
        quantisation = replace(like.manifest.quantisation, encoder=form)
        manifest = replace(like.manifest, quantisation=quantisation)
        verified(baseline_bundle(replace(like, manifest=manifest), baseline, encoder)).write_files(folder / name)
        progress.say(f"packing {name}")
        pack(folder / name, packed_place(folder / name))  # baselines too, as zeros of dense weights pack well


def _encoders(run: LoadedRun, beam: int, data: Path, progress: Progress) -> tuple[Target, tuple[bytes, bytes]]:
    """Convert a run. Returns the target, and the run's encoder in float32 and in static int8."""
    target = find_target("tflite")(calls_of(run, beam))
    target.convert(progress.say)
    int8 = target.encoder(EncoderWeights.STATIC_INT8, partial(calibration_photos, run, data))
    return target, (target.encoder(EncoderWeights.FLOAT32), int8)


def _by_name(baselines: tuple[Baseline, ...]) -> Mapping[str, Baseline]:
    return {baseline.name: baseline for baseline in baselines}


def _key(run: Path, blocks_run: Path, variant: Bundle, data: Path) -> str:
    """Return a hash of what the exports are made from: runs, variant, place of the photos, and the exporter's sources."""
    digest = hashlib.sha256(variant.files[MANIFEST])
    digest.update(str(data.resolve()).encode())
    for path in (run / BEST, blocks_run / BEST, *_sources()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    yield Path(__file__)
    for package in (capprune_exporters, exporting):
        yield from sorted(Path(str(package.__file__)).parent.rglob("*.py"))
