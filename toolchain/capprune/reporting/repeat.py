"""The commands that reproduce the figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from capprune.exporting.contents import DEFAULT_BEAM
from capprune.reporting.contents import Section
from capprune.reporting.sources import Sources
from capprune.training.run import CONFIG
from capprune_runtime.bundle.manifest import PLAN, Manifest
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.formats import model_kind


def commands_section(sources: Sources, command: Sequence[str]) -> Section:
    """Return the commands from the config of each run to this page, for copying."""
    lines = []
    for run in (sources.dense, sources.run):
        if run is not None:
            lines.append(_line("train", run.folder / CONFIG, "--out", _again(run.folder)))
    bundle, run = sources.bundle, sources.run
    if bundle is not None and run is not None:
        lines.append(_line("export", run.folder, *_export_options(bundle), "--out", _again(bundle.place)))
    for one in sources.validated:
        if bundle is not None:
            reference = () if run is None else ("--reference", run.folder)
            split = ("--split", one.scored.data.split)
            lines.append(_line("validate", bundle.place, "--data", "FOLDER", *split, *reference, "--json"))
    if sources.bench is not None and bundle is not None:
        baselines = ("--baselines",) if len(sources.bench.measurements) > 1 else ()
        lines.append(_line("bench", bundle.place, *baselines, "--json"))
    lines.append(_line(*command))
    text = "The config contains the seed, so that training again gives the same run on the same machine and versions."
    return Section("repeat", "Commands", text, commands=tuple(lines))


def _export_options(bundle: Bundle) -> list[str]:
    manifest: Manifest = bundle.manifest
    options = ["--target", model_kind(bundle.encoder), "--weights", manifest.quantisation.decoder]
    options += ["--encoder-weights", manifest.quantisation.encoder]
    if manifest.decoding.beam != DEFAULT_BEAM:
        options += ["--beam", str(manifest.decoding.beam)]
    if PLAN in bundle.files:
        options += ["--plan", str(bundle.place / PLAN)]
    return options


def _again(place: Path) -> Path:
    """Return a folder beside an existing one, because a command would not overwrite that."""
    return place.with_name(f"{place.stem}-again")


def _line(*parts: object) -> str:
    return shlex.join(["capprune", *map(str, parts)])
