"""Alternatives to a bundle from the same run, for TFLite and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from capprune.exporting.calls import calls_of
from capprune.exporting.export import calibration_photos
from capprune.training.run import LoadedRun
from capprune_exporters.baselines import Baseline
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.targets.target import find_target
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import UsageError
from capprune_runtime.formats import model_kind

Say = Callable[[str], None]


def baselines_of_run(run: LoadedRun, bundle: Bundle, say: Say) -> list[tuple[Baseline, bytes]]:
    """Return every form of a run's decoder for each of our targets, with an encoder in the bundle's form.

    Args:
        run: The run that the bundle was made from.
        bundle: The bundle whose encoder, or whose form of it, is used.
        say: Receives progress messages.

    Raises:
        UsageError: The bundle was not made from this run.
        MissingExtra: A converter is not installed.
    """
    _check(run, bundle)
    found = []
    calls = calls_of(run, bundle.manifest.decoding.beam)
    for name in TARGETS.own:
        target = find_target(name)(calls)
        encoder = bundle.encoder
        as_it_is = model_kind(encoder) == target.kind
        target.convert(say, encoder=not as_it_is)
        if not as_it_is:
            form = bundle.manifest.quantisation.encoder
            folder = run.config.data.folder
            if form == "static_int8" and not folder.is_dir():
                say(f"{name}: the encoder stays in float32, because its calibration photos do not exist: {folder}")
                form = "float32"
            encoder = target.encoder(form, partial(calibration_photos, run, folder))
        found += [(baseline, encoder) for baseline in target.baselines()]
    return found


def _check(run: LoadedRun, bundle: Bundle) -> None:
    manifest = bundle.manifest
    mine = (run.prunable, run.kept, run.vocabulary.decoder_size)
    its = (manifest.pruning.prunable_weights, manifest.pruning.kept_weights, manifest.interface.vocabulary)
    if mine != its:
        raise UsageError(
            "the bundle was not made from this run",
            where=run.folder,
            expected="{:,} prunable weights, {:,} kept, {:,} words".format(*its),
            found="{:,}, {:,}, {:,}".format(*mine),
        )
