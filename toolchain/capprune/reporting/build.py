"""Builds the page from its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from capprune import __version__
from capprune.data.captions import load_caption_set
from capprune.metrics.intervals import Change, bootstrap_change
from capprune.metrics.scores import score
from capprune.metrics.speed import SpeedRow, compare
from capprune.reporting.contents import Page, Section
from capprune.reporting.headline import Figures, comparable, headline, warnings
from capprune.reporting.latency import speed_section
from capprune.reporting.page import render
from capprune.reporting.photos import golden_photos, photo_rows, photos_of_split
from capprune.reporting.repeat import commands_section
from capprune.reporting.sections import (
    environment_section,
    health_section,
    layer_section,
    ledger_section,
    photo_section,
    training_section,
)
from capprune.reporting.sources import Sources, Validated
from capprune_exporters.ledger import read_ledger

MISSING = {
    "layers": "sparsity of layers and curves of training (give the run)",
    "ledger": "the ledger of bytes (give the bundle)",
    "quality": "quality and parity (give the output of `capprune validate --json`)",
    "speed": "speed compared with its baselines (give the output of `capprune bench --baselines --json`)",
    "photos": "photos (give --data)",
}


def build_report(
    sources: Sources, *, data: Path | None, split: str, photos: int, command: Sequence[str], title: str | None = None
) -> str:
    """Return the page as HTML.

    Args:
        sources: Runs, bundle and results documents.
        data: Photos with captions; by default the page shows the bundle's own photos.
        split: Split of the data.
        photos: Number of photos to show.
        command: The command that makes this page, for the last section.
        title: Title of the page; the name of the run or the bundle by default.

    Raises:
        DataError: The data cannot be read.
    """
    figures = Figures(
        change=_change(sources, data, split),
        ledger=None if sources.bundle is None else read_ledger(sources.bundle),
        speed=_speed(sources),
    )
    sections = _sections(sources, figures, data, split, photos, command)
    name = title or _name(sources)
    page = Page(
        title=name,
        lead=_lead(sources),
        tiles=headline(sources, figures),
        warnings=warnings(sources),
        sections=sections,
        missing=tuple(what for key, what in MISSING.items() if key not in {section.key for section in sections}),
        made_by=f"capprune {__version__}",
    )
    return render(page)


def _sections(
    sources: Sources, figures: Figures, data: Path | None, split: str, photos: int, command: Sequence[str]
) -> tuple[Section, ...]:
    shown = photos_of_split(data, split, photos) if data is not None else golden_photos(sources, photos)
    chosen = (
        f"{len(shown)} photos of {split}, evenly spread and chosen before captioning."
        if data is not None
        else "The photos of the bundle."
    )
    rows = photo_rows(sources, shown, _beam(sources)) if shown else ()
    found = (
        photo_section(rows, chosen),
        speed_section(sources, figures.speed),
        health_section(sources),
        layer_section(sources.run),
        training_section(sources),
        ledger_section(figures),
        environment_section(sources),
        commands_section(sources, command),
    )
    return tuple(section for section in found if section is not None)


def _beam(sources: Sources) -> int:
    if sources.validated:
        return sources.validated[0].measurement.settings.beam
    return sources.bundle.manifest.decoding.beam if sources.bundle is not None else 1


def _speed(sources: Sources) -> tuple[SpeedRow, ...]:
    return () if sources.bench is None else compare(sources.bench.measurements, sources.bench.names)


def _change(sources: Sources, data: Path | None, split: str) -> Change | None:
    """Return the change of CIDEr-D from the dense bundle to this one, by photo, if there are human captions."""
    if data is None or sources.dense_validated is None or not sources.validated:
        return None
    own, dense = sources.validated[0], sources.dense_validated
    captions = load_caption_set(data)
    if not comparable(own, dense) or (captions.name, split) != (own.scored.data.name, own.scored.data.split):
        return None
    said = _said(own)
    people = {photo.name: photo.captions for photo in captions.split(split) if photo.name in said}
    if said.keys() != people.keys() or said.keys() != _said(dense).keys():
        return None
    tokenizer = own.scored.quality.scores.tokenizer
    before, after = (
        score(people, one, tokenizer="ptb" if tokenizer == "ptb" else "plain", meteor=False).per_photo_cider
        for one in (_said(dense), said)
    )
    return bootstrap_change(np.asarray(before).tolist(), np.asarray(after).tolist())


def _said(validated: Validated) -> Mapping[str, str]:
    return {one.photo: one.caption for one in validated.measurement.captions}


def _name(sources: Sources) -> str:
    if sources.run is not None:
        return sources.run.config.name
    if sources.bundle is not None:
        return sources.bundle.place.name
    if sources.validated:
        return sources.validated[0].measurement.bundle.name
    return sources.bench.names[0] if sources.bench is not None else "report"


def _lead(sources: Sources) -> str:
    """Return one sentence about the model."""
    if sources.run is not None:
        config, prunable, kept = sources.run.config, sources.run.prunable, sources.run.kept
        return (
            f"A captioner of the family {config.decoder.family} over {config.encoder.title}; pruning: {config.pruning.method}; "
            f"{kept:,} of {prunable:,} prunable weights kept ({1 - kept / prunable:.2%} sparse)."
            f" Data: {config.data.label}; {config.data.licence}."
        )
    if sources.bundle is not None:
        manifest = sources.bundle.manifest
        return (
            f"{manifest.model.description}; {manifest.pruning.sparsity:.2%} of its prunable weights removed. "
            f"Data: {manifest.data.name}; {manifest.data.licence}."
        )
    return "Measurements."
