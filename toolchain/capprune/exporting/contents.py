"""The content of a bundle besides its models: manifest sections, model card, golden photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune import __version__
from capprune.data.scenes import golden_scenes
from capprune.models.caption_model import region_count
from capprune.models.search import SUPPRESSED
from capprune.trained import TrainedCaptioner
from capprune.training.encoder import of_encoder
from capprune.training.run import LoadedRun
from capprune_exporters.bundle import BundleContents, assemble
from capprune_runtime.bundle.manifest import (
    GOLDEN_FOLDER,
    DataSection,
    DecodingSection,
    ModelSection,
    PruningSection,
    QuantisationSection,
)
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.proof import GoldenPhoto

DEFAULT_BEAM = 3
GOLDEN_SCENES = 4
GOLDEN_CANDIDATES = 24  # scenes from which a quantised bundle takes those with the same captions as torch


def decoding_section(run: LoadedRun, beam: int) -> DecodingSection:
    """Return the manifest section about the search."""
    return DecodingSection(
        start=START,
        end=END,
        suppress=SUPPRESSED,
        max_tokens=run.config.data.steps,
        beam=beam,
        no_repeat_ngram=run.config.search.no_repeat_ngram,
    )


def bundle_contents(
    run: LoadedRun,
    encoder: bytes,
    decoder: bytes,
    *,
    encoder_weights: str,
    weights: str,
    beam: int,
    plan: dict[str, Any],
) -> BundleContents:
    """Return everything but the golden photos.

    Args:
        run: The run to export.
        encoder: The encoder's model file.
        decoder: The decoder's model file.
        encoder_weights: Storage of the encoder's weights.
        weights: Quantisation of the decoder's weights.
        beam: K, the default beam width of the bundle.
        plan: The document plan.json.
    """
    config = run.config
    kept, prunable = run.kept, run.prunable
    return BundleContents(
        created_by=f"capprune {__version__}",
        encoder=encoder,
        decoder=decoder,
        vocabulary=run.vocabulary,
        model=_model_section(run),
        preprocessing=run.preprocessing,
        decoding=decoding_section(run, beam),
        interface=run.model.decoder.interface(),
        pruning=PruningSection(
            method=run.method, sparsity=1 - kept / prunable, kept_weights=kept, prunable_weights=prunable
        ),
        quantisation=QuantisationSection(encoder=encoder_weights, decoder=weights),
        data=DataSection(name=config.data.label, licence=config.data.licence),
        config=config.without_places().as_tree(),
        golden=(),
        model_card=_model_card(run, encoder_weights, weights),
        plan=plan,
    )


def with_golden(run: LoadedRun, contents: BundleContents, *, quantised: bool) -> BundleContents:
    """Add drawn scenes with the trained model's captions, alternating between greedy and beam search.

    Where two words have nearly equal scores, a quantised model may choose another one than the trained model, depending
    on the processor. So its golden photos are scenes with equal captions here; others could not verify the bundle.
    """
    if run.config.encoder.name == REGIONS:
        return contents  # region features cannot be drawn; the export compares random ones instead
    scenes = golden_scenes(GOLDEN_CANDIDATES if quantised else GOLDEN_SCENES, run.config.encoder.size)
    golden = golden_captions(run, scenes)
    if quantised:
        captioner = Captioner(assemble(Path(), contents))
        golden = [one for one in golden if captioner.caption(one.photo, one.beam).tokens == one.tokens][:GOLDEN_SCENES]
    return replace(contents, golden=golden)


def golden_captions(run: LoadedRun, scenes: Sequence[tuple[npt.NDArray[np.uint8], str]]) -> list[GoldenPhoto]:
    """Return the trained model's captions of scenes, alternating between greedy and beam search."""
    captioner = TrainedCaptioner(run)
    found = []
    for number, (photo, name) in enumerate(scenes):
        beam = 1 if number % 2 == 0 else DEFAULT_BEAM
        said = captioner.caption([photo], beam)[0]
        found.append(GoldenPhoto(f"{GOLDEN_FOLDER}/{name}.png", photo, beam, said.tokens, said.caption))
    return found


def _model_section(run: LoadedRun) -> ModelSection:
    sizes = {name: size for name, size in run.config.decoder.shape().items() if type(size) is int}
    description = f"{run.model.decoder.describe()} over {region_count(run.config.encoder)} regions"
    return ModelSection(run.config.decoder.family, description, sizes)


def _model_card(run: LoadedRun, encoder_weights: str, weights: str) -> str:
    config, kept = run.config, run.kept
    pruned = "Decoder and encoder" if of_encoder(run.masks) else "Decoder"
    return (
        f"# {config.name}\n\n"
        f"{run.model.decoder.describe()} over the features of {config.encoder.title}.\n\n"
        f"- Data: {config.data.label}. Terms: {config.data.licence}.\n"
        f"- {pruned}: {kept:,} of {run.prunable:,} weights kept ({1 - kept / run.prunable:.2%} sparse), {weights}.\n"
        f"- Encoder weights: {encoder_weights}.\n"
        f"- CIDEr-D on the validation photos when trained, greedy: {float(run.facts['cider']):.3f}.\n\n"
        "Captions can be wrong. Do not rely on them where a mistake does harm.\n"
    )
