"""Converts a trained run to a verified bundle: convert, plan, store, check, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capprune.data.captions import load_caption_set
from capprune.exporting.calls import calls_of
from capprune.exporting.contents import (
    DEFAULT_BEAM,
    bundle_contents,
    decoding_section,
    with_golden,
)
from capprune.exporting.quality import ValidationPhotos, costs_too_much, first_inputs, settle_plan, told
from capprune.metrics.intervals import Change, bootstrap_change
from capprune.trained import TrainedCaptioner
from capprune.training.run import LoadedRun
from capprune_exporters.balanced import Predicted, predict
from capprune_exporters.bundle import write_bundle
from capprune_exporters.cost_table import DEFAULT_COSTS, CostTable, read_cost_table
from capprune_exporters.plan import Plan
from capprune_exporters.stored import StoredTensor
from capprune_exporters.targets.target import BALANCED, SIZE, Calibration, Target, check_calibration, find_target
from capprune_exporters.weight_forms import EncoderWeights, Weights
from capprune_runtime.bundle.preprocessing import REGIONS, RegionsSection
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.captioner import Captioner, encoder_inputs
from capprune_runtime.caption.proof import prove_golden
from capprune_runtime.errors import BadModelFile, DataError, ExportError, UsageError

CALIBRATION_SPLIT, CALIBRATION_PHOTOS = "train", 64
PHOTOS_FOR_STATIC = 100  # photos of val; with fewer, the measured loss by static int8 is chance
LARGEST_STATIC_LOSS = 0.01  # of CIDEr-D, relative, by the estimate; above it static int8 is not a default
PROOF_REGIONS = 8  # sets of random regions on which an exported model is compared

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """Options of an export.

    Attributes:
        target: A name of `capprune_exporters.targets.registry.TARGETS`.
        weights: Quantisation of the decoder's weights, one of the target's.
        encoder_weights: Quantisation of the encoder's weights, one of the target's. By default float32 beside float32
            `weights`; otherwise static int8 if the target gains from it and there are enough val photos to measure its loss, else
            weight-only int8.
        plan: `balanced` (by a cost table), `size`, `auto` (by measurement), or the form of some tensors by name; by default
            the first plan of the target.
        costs: Cost table of the processor that the bundle is for: a shipped name or a JSON file.
        beam: K, the default beam width of the bundle.
        no_repeat_ngram: Length of the sequences of tokens that a caption holds at most once; None for that of the run.
        data: A data folder. The loss by quantisation is measured on its val photos, and its train photos are used for
            calibration. None for neither.
        photos: Maximum number of val photos.
    """

    target: str = "tflite"
    weights: str = "float32"
    encoder_weights: str | None = None
    plan: str | Mapping[str, str] | None = None
    costs: str | None = None
    beam: int = DEFAULT_BEAM
    no_repeat_ngram: int | None = None
    data: Path | None = None
    photos: int = 1000


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        bundle: The verified bundle at its final path.
        tensors: How each weight tensor of the decoder was stored.
        plan: The chosen forms, with reasons.
        predicted: Predicted time of the plan beside dense int8; None if the target computes everything dense.
        change: Change of CIDEr-D on val from float32 to the written model, if it was measured.
    """

    bundle: Bundle
    tensors: tuple[StoredTensor, ...]
    plan: Plan
    predicted: Predicted | None
    change: Change | None


def export(run: LoadedRun, out: Path, wanted: Wanted | None = None, say: Say = lambda message: None) -> Exported:
    """Convert, rewrite, write and verify a bundle; it appears under its name once all of that is done.

    Args:
        run: The run to export.
        out: Folder for the bundle.
        wanted: Options of the export.
        say: Receives progress messages.

    Raises:
        UsageError: The target, a form or a tensor of the plan is unknown, or `out` exists.
        MissingExtra: The converter is not installed.
        ExportError: The graph cannot be converted, or a golden photo gives other tokens.
        DataError: `wanted.data` has no photos to check on.
    """
    wanted = wanted or Wanted()
    run = run.without_repeats(wanted.no_repeat_ngram)
    kind = find_target(wanted.target)
    encoder_weights = wanted.encoder_weights or kind.encoder_weights_beside(
        wanted.weights, calibrated=_can_calibrate(run, wanted.data)
    )
    _check(kind, wanted, encoder_weights, out)
    calibration = _calibration(run, wanted.data, encoder_weights)
    target = kind(calls_of(run, wanted.beam))
    costs = _costs(kind, wanted)
    plan = target.plan(wanted.weights, wanted.plan, costs)
    photos = _photos(run, wanted) if {wanted.weights, encoder_weights} != {"float32"} else None
    target.convert(say)
    if wanted.encoder_weights is None:
        encoder_weights = _verified(target, encoder_weights, calibration, photos, say)
    plan, encoder_weights, change = _settled(target, plan, encoder_weights, photos, wanted, calibration, say)
    decoder = target.decoder(plan)
    plan = plan.as_stored({tensor.name: tensor.form for tensor in decoder.tensors})
    predicted = None if costs is None else predict(plan, target.calls.matrices, target.calls.looked_up, costs)
    facts = {"encoder": encoder_weights, "predicted": predicted, "change": change}
    contents = bundle_contents(
        run,
        target.encoder(encoder_weights, calibration),
        decoder.data,
        encoder_weights=encoder_weights,
        weights=wanted.weights,
        beam=wanted.beam,
        plan=plan.as_json() | {name: asdict(fact) if is_dataclass(fact) else fact for name, fact in facts.items()},
    )
    say("proving the bundle on its golden photos")
    quantised = wanted.weights != "float32" or encoder_weights != "float32"
    prove = partial(_prove_regions, run, quantised=quantised) if run.config.encoder.name == REGIONS else _prove
    bundle = write_bundle(out, with_golden(run, contents, quantised=quantised), prove=prove)
    return Exported(bundle, decoder.tensors, plan, predicted, change)


def _check(target: type[Target], wanted: Wanted, encoder_weights: str, out: Path) -> None:
    """Check the options before minutes of work."""
    for option, found, known in (
        ("--weights", wanted.weights, target.weights),
        ("--encoder-weights", encoder_weights, target.encoder_weights),
    ):
        if found not in known:
            raise UsageError("there is no such form", where=option, expected=", ".join(known), found=found)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("this folder exists already", where=out, hint="choose another --out, or remove it first")


def _costs(target: type[Target], wanted: Wanted) -> CostTable | None:
    """Return the cost table; None if the target computes everything dense."""
    if BALANCED in target.plans:
        return read_cost_table(wanted.costs or DEFAULT_COSTS, "--costs")
    if wanted.costs is not None:
        raise UsageError(
            "a cost table has no effect for this target",
            where=f"--costs {wanted.costs}",
            hint="leave the option out, or choose --target tflite",
        )
    return None


def _can_calibrate(run: LoadedRun, folder: Path | None) -> bool:
    """Return whether there are photos for the encoder's static int8. Region features come without an encoder."""
    if folder is None or run.config.encoder.name == REGIONS:
        return False
    return CALIBRATION_SPLIT in load_caption_set(folder).splits


def _calibration(run: LoadedRun, folder: Path | None, encoder_weights: str) -> Calibration | None:
    """Return the photos for calibration, if there is a data folder."""
    calibration = None if folder is None else partial(calibration_photos, run, folder)
    check_calibration(encoder_weights, calibration)
    if (
        folder
        and encoder_weights == EncoderWeights.STATIC_INT8
        and not load_caption_set(folder).split(CALIBRATION_SPLIT)
    ):
        raise DataError("there are no photos to calibrate on", where=folder, expected=f"a split {CALIBRATION_SPLIT}")
    return calibration


def _verified(
    target: Target, encoder_weights: str, calibration: Calibration | None, photos: ValidationPhotos | None, say: Say
) -> str:
    """Return a default quantisation of the encoder that a bundle may hold and whose cost can be measured."""
    if encoder_weights != EncoderWeights.STATIC_INT8:
        return encoder_weights
    count = 0 if photos is None else len(photos)
    if count < PHOTOS_FOR_STATIC:
        say(
            f"{count} val photos are too few to measure the loss by static_int8, so the encoder is stored as weight_only_int8"
        )
        return EncoderWeights.WEIGHT_ONLY_INT8
    try:
        target.verify_encoder(target.encoder(encoder_weights, calibration))
    except BadModelFile as error:
        say(f"this encoder cannot be computed in int8 ({error.what}), so it is stored as weight_only_int8")
        return EncoderWeights.WEIGHT_ONLY_INT8
    return encoder_weights


def _photos(run: LoadedRun, wanted: Wanted) -> ValidationPhotos | None:
    """Return the photos for measuring the loss by quantisation, if there is a data folder."""
    if wanted.data is None:
        return None
    return ValidationPhotos(
        wanted.data,
        "val",
        wanted.photos,
        preprocessing=run.preprocessing,
        decoding=decoding_section(run, wanted.beam),
        vocabulary=run.vocabulary,
        interface=run.model.decoder.interface(),
    )


def _settled(
    target: Target,
    plan: Plan,
    encoder_weights: str,
    photos: ValidationPhotos | None,
    wanted: Wanted,
    calibration: Calibration | None,
    say: Say,
) -> tuple[Plan, str, Change | None]:
    """Return the plan and the encoder's weights after measuring their loss on val, if there are photos."""
    if photos is None:
        return plan, encoder_weights, None
    plain = target.encoder(EncoderWeights.FLOAT32)
    before = photos.cider_d(plain, target.decoder(target.plan(Weights.FLOAT32, SIZE)).data)
    change = None
    if wanted.weights != Weights.FLOAT32:
        plan, change = settle_plan(
            plan, target.calls.matrices, photos, before, plain, lambda plan: target.decoder(plan).data, say
        )
    for form in _encoder_forms(encoder_weights):
        whole = bootstrap_change(before, photos.cider_d(target.encoder(form, calibration), target.decoder(plan).data))
        say(f"with the encoder in {form}: {told(whole)}")
        if wanted.encoder_weights is not None or _keeps_quality(form, whole):
            return plan, form, whole
    if encoder_weights != EncoderWeights.FLOAT32:
        say("keeping the encoder in float32")
    return plan, EncoderWeights.FLOAT32, change


def _keeps_quality(form: str, change: Change) -> bool:
    """Return whether an encoder's form may be a default.

    Few photos give a wide interval, which forgives everything. Static int8 has a nearly exact alternative of the same
    size, so its estimate counts as well.
    """
    estimate = 0.0 if change.relative is None else change.relative.estimate
    doubtful = form == EncoderWeights.STATIC_INT8 and estimate < -LARGEST_STATIC_LOSS
    return not doubtful and not costs_too_much(change)


def _encoder_forms(first: str) -> tuple[str, ...]:
    """Return the quantisations of the encoder to measure, in order, until one does not cost too much."""
    if first == EncoderWeights.STATIC_INT8:
        return (first, EncoderWeights.WEIGHT_ONLY_INT8)
    return () if first == EncoderWeights.FLOAT32 else (first,)


def calibration_photos(run: LoadedRun, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield inputs of the encoder from the first photos of the training split."""
    preprocessing = run.preprocessing
    for photo in first_inputs(folder, CALIBRATION_SPLIT, CALIBRATION_PHOTOS, preprocessing):
        yield encoder_inputs(preprocessing, photo)


def _prove(bundle: Bundle) -> None:
    """Check that the golden photos of a bundle give the same tokens as torch."""
    for proof in prove_golden(bundle):
        if not proof.same:
            raise _otherwise(f"golden photo {proof.golden.name}", proof.golden.caption, proof.said.text)


def _prove_regions(run: LoadedRun, bundle: Bundle, *, quantised: bool) -> None:
    """Compare captions of random region features with those of torch; such a model has no golden photos."""
    random = np.random.default_rng(0)
    section, captioner, trained = run.preprocessing, Captioner(bundle), TrainedCaptioner(run)
    assert isinstance(section, RegionsSection)
    same = 0
    for number in range(PROOF_REGIONS):
        count = int(random.integers(1, section.regions + 1))
        regions = np.maximum(random.normal(0, 1, (count, section.channels)), 0).astype(np.float32)
        beam = 1 + 2 * (number % 2)
        expected, found = trained.caption([regions], beam)[0], captioner.caption(regions, beam)
        same += found.tokens == expected.tokens
        if found.tokens != expected.tokens and not quantised:
            raise _otherwise(f"random regions {number}", expected.caption, found.text)
    if not same:
        raise _otherwise("random regions", "a caption of the trained model", "none")


def _otherwise(where: str, expected: str, found: str) -> ExportError:
    return ExportError(
        "the exported model generates other captions than the trained one",
        where=where,
        expected=expected,
        found=found,
        hint="this is a defect; please report it with the run's config",
    )
